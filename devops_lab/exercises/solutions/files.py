"""Solutions that need no production: files, commits, tags; each body is what a reader would type."""

from __future__ import annotations

from devops_lab.exercises.base import Ask
from devops_lab.exercises.solutions import commit_on
from devops_lab.lab import Lab
from devops_lab.platform.git import git


# ---- Welcome
def welcome_2(lab: Lab, exercise: Ask) -> None:
    import re

    path = lab.root / "lab.toml"
    lines = [line for line in path.read_text("utf-8").splitlines() if not re.match("learner", line)]
    path.write_text("\n".join(['learner = "Ada Lovelace"', *lines]) + "\n", encoding="utf-8")


def welcome_3(lab: Lab, exercise: Ask) -> None:
    first = git(lab.world.shop, "shortlog", "-sn", "v1.0.0").splitlines()[0]
    exercise(lab, "welcome-3").answer(first.partition("\t")[2])


def welcome_4(lab: Lab, exercise: Ask) -> None:
    exercise(lab, "welcome-4").answer(git(lab.world.shop, "rev-list", "--max-parents=0", "main"))


# ---- Plan
def plan_3(lab: Lab, exercise: Ask) -> None:
    item = (
        "items:\n"
        "  - id: allergens\n"
        "    title: Allergens of each box\n"
        "    kind: feature\n"
        "    story: As somebody with an allergy I want to see what is inside, so that I eat without fear.\n"
        "    effort: 2\n"
        "    value: 7\n"
        "    depends_on: [BENTO-22]\n"
        "    status: ready\n"
    )
    lab.code.checkout("main")
    if "allergens" in [each.id for each in lab.plan.backlog()]:
        lab.plan.remove("allergens")
    text = (lab.world.shop / "backlog.yaml").read_text("utf-8")
    lab.code.write("backlog.yaml", text.replace("items:\n", item, 1))
    lab.code.commit("docs(backlog): allergens")


def plan_4(lab: Lab, exercise: Ask) -> None:
    text = git(lab.world.shop, "show", "main:platform.yaml") + "\n"
    larger = text.replace("storage_mb: 200", "storage_mb: 1000")
    commit_on(lab, "learn/platform", "feat: more room for the database", {"platform.yaml": larger})


def plan_5(lab: Lab, exercise: Ask) -> None:
    lab.plan.choose(["BENTO-41", "BENTO-49"])


# ---- Code
def code_3(lab: Lab, exercise: Ask) -> None:
    commit = git(lab.world.shop, "log", "--format=%H", "--grep=fuzzy search over the menu", "v1.0.0")
    message = "customers can search"
    git(lab.world.shop, "tag", "--force", "-a", "learn/search", "-m", message, commit.split()[-1])


def code_4(lab: Lab, exercise: Ask) -> None:
    from devops_lab.platform.git import identity, run

    exercise(lab, "code-4").start()
    shop, me = lab.world.shop, identity("me")
    git(shop, "switch", "--quiet", "learn/ours")
    run(shop, "merge", "learn/theirs", env=me)  # stops: a conflict
    (shop / "HOURS.md").write_text("Weekdays: 10 to 15\n", encoding="utf-8")
    git(shop, "commit", "--quiet", "-am", "docs: open from 10 to 15", env=me)
    git(shop, "switch", "--quiet", "main")


# ---- Build
def build_3(lab: Lab, exercise: Ask) -> None:
    text = git(lab.world.shop, "show", "main:Dockerfile") + "\n"
    label = 'LABEL org.opencontainers.image.vendor="The bento team"\n'
    commit_on(lab, "learn/image", "build: say whose image it is", {"Dockerfile": text + label})


def build_5(lab: Lab, exercise: Ask) -> None:
    from zipfile import ZipFile

    from devops_lab.model import Artifact

    artifact = lab.store.last(Artifact)
    if artifact:
        files = ZipFile(lab.root / artifact.path).infolist()
        exercise(lab, "build-5").answer(max(files, key=lambda file: file.file_size).filename)


# ---- Test
def test_4(lab: Lab, exercise: Ask) -> None:
    text = git(lab.world.shop, "show", "main:pyproject.toml") + "\n"
    section = "[tool.pytest.ini_options]\n"
    strict = text.replace(section, section + 'filterwarnings = ["error"]\n')
    commit_on(lab, "learn/strict", "test: a warning is red", {"pyproject.toml": strict})


def test_5(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import TestReport

    report = lab.store.last(TestReport)
    if report:
        exercise(lab, "test-5").answer(max(report.cases, key=lambda case: case.seconds).name)


# ---- Release
def release_3(lab: Lab, exercise: Ask) -> None:
    text = "# Changelog\n\n## [Unreleased]\n\n### Fixed\n\n- Prices are rounded up.\n"
    commit_on(lab, "learn/notes", "docs: what is coming", {"CHANGELOG.md": text})


def release_5(lab: Lab, exercise: Ask) -> None:
    commit_on(lab, "learn/patch", "docs: a note", {"NOTES.md": "one\n"})
    lab.code.checkout("learn/patch")
    for message in ("chore: another note", "fix: the note"):
        lab.code.write("NOTES.md", f"{message}\n")
        lab.code.commit(message)
    lab.code.checkout("main")


# ---- Operate, Monitor, Continuous
def operate_3(lab: Lab, exercise: Ask) -> None:
    rule = lab.monitor.rules()[0].name
    text = f"# {rule}\n\n1. Look: `lab.operate.slowest()`\n2. Mend: `lab.deploy.rollback(why='{rule}')`\n"
    commit_on(lab, "learn/runbook", "docs: a runbook", {"RUNBOOK.md": text})


def monitor_4(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import Slo

    promise = Slo("orders-fast", objective=0.99, within_seconds=0.25, endpoint="/api/orders")
    lab.monitor.slo.add(promise)


def continuous_3(lab: Lab, exercise: Ask) -> None:
    hook = (
        '#!/bin/sh\ngrep -qE \'^[a-z]+(\\([^)]*\\))?!?: .\' "$1" || { echo "say: fix: what" >&2; exit 1; }\n'
    )
    commit_on(lab, "learn/hook", "chore: a hook", {"hooks/commit-msg": hook})
    lab.code.checkout("learn/hook")
    (lab.world.shop / "hooks/commit-msg").chmod(0o755)
    lab.code.commit("chore: the hook is executable")
    lab.code.checkout("main")


# ---- more of Plan, Code, Build, Test
def plan_6(lab: Lab, exercise: Ask) -> None:
    if "gpu" in str([need for item in lab.plan.backlog() if item.id == "BENTO-56" for need in item.needs]):
        lab.plan.decide("BENTO-56", take=True, why="no graphics processors, and a button does most of it")


def code_5(lab: Lab, exercise: Ask) -> None:
    text = git(lab.world.shop, "show", "main:.gitignore") + "\n.env\n"
    commit_on(lab, "learn/ignore", "chore: secrets stay at home", {".gitignore": text})


def build_6(lab: Lab, exercise: Ask) -> None:
    text = "export function euros(cents: number): string { return (cents / 100).toFixed(2) + ' €' }\n"
    commit_on(lab, "learn/typed", "feat: cents into euros", {"frontend/euros.ts": text})


def test_6(lab: Lab, exercise: Ask) -> None:
    text = git(lab.world.shop, "show", "main:pyproject.toml")
    floor = text + "\n\n[tool.coverage.report]\nfail_under = 85\n"
    commit_on(lab, "learn/floor", "test: a floor under coverage", {"pyproject.toml": floor})


def release_6(lab: Lab, exercise: Ask) -> None:
    text = git(lab.world.shop, "show", "main:pyproject.toml") + "\n"
    newer = text.replace('requires-python = ">=3.11"', 'requires-python = ">=3.12"')
    commit_on(lab, "learn/python", "feat!: Python 3.12 or later", {"pyproject.toml": newer})


# ---- more of Deploy, Operate, Monitor, Repeat
def deploy_3(lab: Lab, exercise: Ask) -> None:
    path = lab.root / "lab.toml"
    lines = [line for line in path.read_text("utf-8").splitlines() if not line.startswith("grace_seconds")]
    path.write_text("\n".join(["grace_seconds = 20", *lines]) + "\n", encoding="utf-8")


def operate_5(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import ScalingPolicy

    policy = ScalingPolicy("requests_per_second", target=40, min_replicas=1, max_replicas=4)
    lab.operate.autoscale(policy)


def monitor_5(lab: Lab, exercise: Ask) -> None:
    text = git(lab.world.shop, "show", "main:src/bento/metrics.py") + "\n"
    counter = text + '\nTIPS = Counter("bento_tips_total", "Tips taken.")\n'
    commit_on(lab, "learn/metric", "feat: count tips", {"src/bento/metrics.py": counter})


def repeat_3(lab: Lab, exercise: Ask) -> None:
    from devops_lab.model import Item

    said = [*lab.store.events(kind="alert.*"), *lab.store.events(kind="complaint")]
    done = [item for item in lab.plan.finished() if item.id.startswith("from-production")]
    name = f"from-production-{len(done) + 1}" if done else "from-production"
    lab.plan.add(Item(name, "What production said", "bug", 2, 5, evidence=[said[-1].subject]))
    lab.plan.finish(name)
