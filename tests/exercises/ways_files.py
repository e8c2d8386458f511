"""Ways through the exercises that need no production; see `ways`."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

from devops_lab.errors import BuildFailed
from devops_lab.exercises import exercise
from devops_lab.exercises.solutions import commit_on
from devops_lab.lab import Lab
from devops_lab.model import Artifact, Item, Slo, TestReport
from devops_lab.platform.git import git, identity
from tests.exercises.ways import Deed, Wrong, nothing, on, say


def start(name: str) -> Deed:
    return lambda lab: exercise(lab, name).start()


def settings(old: str, new: str) -> Deed:
    """Another line in lab.toml."""

    def deed(lab: Lab) -> None:
        path = lab.root / "lab.toml"
        lines = path.read_text("utf-8").splitlines()
        kept = [new if line.startswith(old) else line for line in lines]
        path.write_text("\n".join(line for line in kept if line) + "\n", encoding="utf-8")

    return deed


def opened_with_a_name(lab: Lab) -> None:
    Lab.open(lab.root, learner="Grace Hopper").close()


def item(**changes: object) -> Deed:
    good = Item(
        "allergens", "Allergens", "feature", 2, 7, depends_on=["BENTO-22"],
        story="As a customer I want to filter by allergens so that I don't fall ill.",
    )  # fmt: skip

    def deed(lab: Lab) -> None:
        if "allergens" in [each.id for each in lab.plan.backlog()]:
            lab.plan.remove("allergens")
        lab.plan.add(replace(good, **changes))  # type: ignore[arg-type]

    return deed


def edited(branch: str, path: str, *pairs: tuple[str, str]) -> Deed:
    """A file as main has it, with some words replaced, on a branch."""

    def deed(lab: Lab) -> None:
        text = git(lab.world.shop, "show", f"main:{path}") + "\n"
        for old, new in pairs:
            assert old in text
            text = text.replace(old, new, 1)
        commit_on(lab, branch, f"chore: {path}", {path: text})

    return deed


def platform(*pairs: tuple[str, str]) -> Deed:
    return edited("learn/platform", "platform.yaml", *pairs)


def strict(*pairs: tuple[str, str]) -> Deed:
    return edited("learn/strict", "pyproject.toml", *pairs)


def tag(*options: str) -> Deed:
    return lambda lab: git(lab.world.shop, "tag", "--force", *options)


def search(lab: Lab) -> str:
    return git(lab.world.shop, "log", "--format=%H", "--grep=fuzzy search over", "v1.0.0").split()[-1]


def merged(text: str, as_commit: bool = True) -> Deed:
    """The conflict of code-4 is settled with this text, by a merge or by a mere commit."""

    def deed(lab: Lab) -> None:
        shop, me = lab.world.shop, identity("me")
        exercise(lab, "code-4").start()
        git(shop, "switch", "--quiet", "learn/ours")
        if as_commit:
            git(shop, "merge", "--quiet", "--strategy=ours", "--no-commit", "learn/theirs", env=me)
        (shop / "HOURS.md").write_text(text, encoding="utf-8")
        git(shop, "commit", "--quiet", "-am", "docs: hours", env=me)
        git(shop, "switch", "--quiet", "main")

    return deed


# ---- Build
def in_wheel(place: int) -> Callable[[Lab], str]:
    def name(lab: Lab) -> str:
        artifact = lab.store.last(Artifact)
        assert artifact
        files = [file for file in ZipFile(lab.root / artifact.path).infolist() if file.file_size]
        return Path(sorted(files, key=lambda file: -file.file_size)[place].filename).name

    return name


def tried(lab: Lab) -> None:
    start("build-4")(lab)
    with suppress(BuildFailed):
        lab.build.run("drill/build")


def at_main(branch: str) -> Deed:
    """All that was on the branch is thrown away."""
    return lambda lab: git(lab.world.shop, "branch", "--force", branch, "main")


def mended_by_hand(lab: Lab) -> None:
    start("build-4")(lab)
    lab.code.checkout("drill/build")
    for path in git(lab.world.shop, "diff", "--name-only", "HEAD~1").split():
        git(lab.world.shop, "checkout", "main", "--", path)
    lab.code.commit("fix: back to what built")
    lab.code.checkout("main")
    lab.build.run("drill/build")


# ---- Test
def of_bisect(place: int) -> Callable[[Lab], str]:
    """The commit so many after the first bad one."""

    def commit(lab: Lab) -> str:
        commits = git(lab.world.shop, "rev-list", "--reverse", "main..drill/test").split()
        code = [git(lab.world.shop, "show", f"{each}:src/bento/tips.py") for each in commits]
        return commits[next(n for n, text in enumerate(code) if "// 100" in text) + place]

    return commit


def by_time(place: int) -> Callable[[Lab], str]:
    def name(lab: Lab) -> str:
        report = lab.store.last(TestReport)
        assert report
        return sorted(report.cases, key=lambda case: -case.seconds)[place].name

    return name


# ---- Release
def in_mirror(changed: bool) -> Callable[[Lab], str]:
    def name(lab: Lab) -> str:
        start("release-4")(lab)
        release, place = lab.release.registry()[-1], lab.root / "work" / "mirror"
        home = (lab.root / release.path).parent
        same = {name: (place / name).read_bytes() == (home / name).read_bytes() for name in release.files}
        return str(place / next(name for name, is_same in same.items() if is_same != changed))

    return name


def three(branch: str, *messages: str) -> Deed:
    def deed(lab: Lab) -> None:
        commit_on(lab, branch, messages[0], {"NOTES.md": "one\n"})
        lab.code.checkout(branch)
        for message in messages[1:]:
            lab.code.write("NOTES.md", f"{message}\n")
            lab.code.commit(message)
        lab.code.checkout("main")

    return deed


# ---- Operate, Monitor, Continuous
def killed(of: Callable[[str, str], bool]) -> Deed:
    """Jobs of operate-4 are ended by a signal: those of which `of(name, guilty)` is true."""

    def deed(lab: Lab) -> None:
        start("operate-4")(lab)
        data = lab.store.events(kind="exercise.started", subject="exercise:jobs", limit=1)[-1].data
        for name, (pid, _) in data["jobs"].items():
            if of(name, data["guilty"]):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)

    return deed


def slo(**changes: object) -> Deed:
    good = Slo("orders-fast", 0.95, 0.5, "/api/orders")
    return lambda lab: lab.monitor.slo.add(replace(good, **changes))  # type: ignore[arg-type]


def hook(text: str, mode: int = 0o755) -> Deed:
    def deed(lab: Lab) -> None:
        commit_on(lab, "learn/hook", "chore: a hook", {"hooks/commit-msg": text})
        lab.code.checkout("learn/hook")
        (lab.world.shop / "hooks/commit-msg").chmod(mode)
        if lab.code.uncommitted():
            lab.code.commit("chore: executable")
        lab.code.checkout("main")

    return deed


def sent(lab: Lab) -> None:
    start("continuous-4")(lab)
    lab.code.checkout("drill/continuous")
    bad = git(lab.world.shop, "diff", "--name-only", "HEAD~1").split()
    git(lab.world.shop, "checkout", "main", "--", *bad) if "frontend/app.ts" in bad else git(
        lab.world.shop, "rm", "--quiet", *bad
    )
    lab.code.commit("fix: hers")
    lab.code.checkout("main")
    lab.pipeline.run("delivery", "drill/continuous")


ALERTS = "latency-p95 memory-growth error-ratio"
PYTHON_HOOK = """#!/usr/bin/env python3
import re, sys
sys.exit(not re.match(r"(feat|fix|docs|chore)(\\(.*\\))?!?: ", open(sys.argv[1]).read()))
"""
GOOD_NOTES = "## [Unreleased]\n### Added\n- A filter.\n### Changed\n* Names.\n## [1.0.0]\n"
VENDOR = 'LABEL org.opencontainers.image.vendor="Us"\n'
PYTEST = "[tool.pytest.ini_options]\n"

ALSO: dict[str, Deed] = {
    "welcome-2": opened_with_a_name,
    "welcome-3": say("welcome-3", "ada"),
    "welcome-4": say("welcome-4", lambda lab: git(lab.world.shop, "rev-list", "--max-parents=0", "main")[:7]),
    "plan-3": item(),
    "plan-4": platform(("storage_mb: 200", "storage_mb: 1_000")),
    "plan-5": lambda lab: lab.plan.choose(["BENTO-49", "BENTO-41"], capacity=6),
    "code-3": lambda lab: tag("-m", "search", "-a", "learn/search", search(lab))(lab),
    "code-4": merged("Weekdays: from 10.00 to 15.00\n"),
    "build-3": edited("learn/image", "Dockerfile", ("USER 10001\n", VENDOR + "USER 10001\n")),
    "build-4": mended_by_hand,
    "build-5": say("build-5", in_wheel(0)),
    "test-3": say("test-3", of_bisect(0)),
    "test-4": strict((PYTEST, PYTEST + 'filterwarnings = "error"\n')),
    "test-5": say("test-5", by_time(1)),
    "release-3": on("learn/notes", "docs: coming", CHANGELOG_dot_md=GOOD_NOTES),
    "release-4": say("release-4", in_mirror(True)),
    "release-5": three("learn/patch", "fix: one", "fix: two", "fix: three", "test: four"),
    "operate-3": on(
        "learn/runbook", "docs: runbook",
        RUNBOOK_dot_md="When error-ratio, memory-growth or latency-p95 fires: lab.monitor.usage()\n",
    ),
    "operate-4": killed(lambda name, guilty: name == guilty),
    "monitor-4": slo(),
    "continuous-3": hook(PYTHON_HOOK),
    "continuous-4": sent,
}  # fmt: skip

WRONG: dict[str, list[Wrong]] = {
    "welcome-2": [
        (nothing, "still calls you"),
        (settings("learner", "learner = '  '"), "that is no name"),
        (settings("learner", ""), "no line"),
    ],
    "welcome-3": [
        (say("welcome-3", "Linus"), "Nobody called"),
        (say("welcome-3", "Chen"), "the fewest"),
        (say("welcome-3", "Dario Conti"), "somebody made more"),
    ],
    "welcome-4": [
        (say("welcome-4", "the first"), "has no commit"),
        (say("welcome-4", lambda lab: lab.code.head().id), "is the newest"),
        (say("welcome-4", lambda lab: lab.code.log(2)[1].id), "commits before it"),
    ],
    "plan-3": [
        (nothing, "has no item"),
        (item(story="Show allergens."), "who wants it"),
        (item(depends_on=["BENTO-2"]), "builds upon"),
    ],
    "plan-4": [
        (nothing, "no branch"),
        (platform(("storage_mb: 200", "storage_mb: 1 GB")), "without a unit"),
        (platform(("storage_mb: 200", "storage_mb: 1000"),
                ("memory_mb: 96 ", "memory_mb: 960 ")), "memory_mb"),
    ],
    "plan-5": [
        (lambda lab: lab.plan.choose(), "the machine's choice"),
        (lambda lab: lab.plan.choose(["BENTO-42", "BENTO-49"]), "can't do more than 6"),
        (lambda lab: lab.plan.choose(["BENTO-52"]), "worth more"),
    ],
    "code-3": [
        (nothing, "has no tag"),
        (lambda lab: tag("learn/search", search(lab))(lab), "lightweight"),
        (tag("-a", "-m", "x", "learn/search", "main"), "not where the search came in"),
    ],
    "code-4": [
        (nothing, "not there yet"),
        (merged("Weekdays: 10 to 15\n", as_commit=False), "was not merged"),
        (merged("Weekdays: 10 to 14\n"), "got lost"),
        (merged("<<<<<<< ours\nWeekdays: 10 to 15\n"), "git's marks"),
    ],
    "build-3": [
        (nothing, "no branch"),
        (edited("learn/image", "Dockerfile", ("COPY packages/", VENDOR + "COPY packages/")), "thrown away"),
        (edited("learn/image", "Dockerfile", ("USER 10001\n", VENDOR.replace("Us", " "))), "names nobody"),
    ],
    "build-4": [
        (start("build-4"), "was not built yet"),
        (tried, "does not build"),
        (at_main("drill/build"), "is gone from README.md"),
    ],
    "build-5": [
        (say("build-5", "Dockerfile"), "holds no file"),
        (say("build-5", in_wheel(-1)), "among the smallest"),
        (say("build-5", in_wheel(2)), "files take more"),
    ],
    "test-3": [
        (lambda lab: (start("test-3")(lab), say("test-3", of_bisect(1))(lab)), "one commit earlier"),
        (say("test-3", of_bisect(-1)), "still right"),
        (say("test-3", lambda lab: lab.code.head().id), "none of the commits"),
    ],
    "test-4": [
        (strict(("testpaths", "xfail_strict = 1\ntestpaths")), "told nothing"),
        (strict((PYTEST, PYTEST + 'filterwarnings = ["once"]\n')), "no warning"),
        (strict((PYTEST, PYTEST + 'filterwarnings = ["error"]\n'),
                (', "--strict-markers"', "")), "got lost"),
    ],
    "test-5": [
        (say("test-5", "test_of_nothing"), "No test"),
        (say("test-5", by_time(-1)), "quicker half"),
        (say("test-5", by_time(4)), "others took longer"),
    ],
    "release-3": [
        (on("learn/notes", "docs: x", CHANGELOG_dot_md="## [1.0.0]\n### Added\n- All.\n"), "no section"),
        (on("learn/notes", "docs: x", CHANGELOG_dot_md="## [Unreleased]\n### News\n- All.\n"), "stands News"),
        (on("learn/notes", "docs: x", CHANGELOG_dot_md="## [Unreleased]\n### Added\nsoon\n"), "is empty"),
    ],
    "release-4": [
        (nothing, "not there yet"),
        (say("release-4", in_mirror(False)), "still has the digest"),
        (say("release-4", "bento.exe"), "has no file"),
    ],
    "release-5": [
        (three("learn/patch", "fix: one"), "are asked for"),
        (three("learn/patch", "docs: one", "chore: two", "test: three"), "worth a release"),
        (three("learn/patch", "fix: one", "feat: two", "docs: three"), "more than a patch"),
    ],
    "operate-3": [
        (on("learn/runbook", "docs: r", RUNBOOK_dot_md="Call somebody.\n"), "names no alert"),
        (on("learn/runbook", "docs: r", RUNBOOK_dot_md=f"{ALERTS}\n"), "could type"),
        (on("learn/runbook", "docs: r", RUNBOOK_dot_md=f"{ALERTS}: lab.deploy.undo()\n"), "does not exist"),
    ],
    "operate-4": [
        (nothing, "No jobs run"),
        (start("operate-4"), "still eats"),
        (killed(lambda name, guilty: name != guilty), "had done no harm"),
    ],
    "monitor-4": [
        (slo(endpoint=""), "is about everything"),
        (slo(within_seconds=0.0), "promises nothing"),
        (slo(objective=0.9995), "leaves no budget"),
    ],
    "continuous-3": [
        (hook(PYTHON_HOOK, 0o644), "not executable"),
        (hook("#!/bin/sh\nexit 0\n"), "takes `changed some things`"),
        (hook("#!/bin/sh\nexit 1\n"), "nobody could commit"),
    ],
    "continuous-4": [
        (nothing, "not there yet"),
        (start("continuous-4"), "stops at"),
        (at_main("drill/continuous"), "Her feature is gone"),
    ],
}  # fmt: skip
