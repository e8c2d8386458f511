"""More ways through exercises; see `ways`."""

from __future__ import annotations

from collections.abc import Callable

from devops_lab.exercises import exercise
from devops_lab.exercises.solutions import commit_on
from devops_lab.lab import Lab
from devops_lab.model import Item, ScalingPolicy
from devops_lab.platform.git import git, identity
from tests.exercises.ways import Deed, Wrong, nothing, on, other
from tests.exercises.ways_files import edited, settings, start


def decided(take: bool, why: str) -> Deed:
    return lambda lab: lab.plan.decide("BENTO-56", take, why)


def with_secret(lab: Lab) -> None:
    on("learn/ignore", "chore: x", _dot_gitignore="dist/\n")(lab)
    lab.code.checkout("learn/ignore")
    lab.code.write(".env", "PASSWORD=1\n")
    git(lab.world.shop, "add", "--force", ".env")
    lab.code.commit("chore: oh")
    lab.code.checkout("main")


def ignore(*lines: str) -> Deed:
    return edited(
        "learn/ignore", ".gitignore", ("# build products\n", "\n".join(["# build products", *lines, ""]))
    )


def euros(text: str) -> Deed:
    return on("learn/typed", "feat: euros", frontend__euros_dot_ts=text)


def python(version: str, message: str) -> Deed:
    def deed(lab: Lab) -> None:
        text = git(lab.world.shop, "show", "main:pyproject.toml") + "\n# newer\n"
        commit_on(lab, "learn/python", message, {"pyproject.toml": text.replace(">=3.11", version)})

    return deed


def floor(text: str) -> Deed:
    return edited("learn/floor", "pyproject.toml", ("branch = true\n", f"branch = true\n{text}\n"))


def autoscaled(*policy: object) -> Deed:
    return lambda lab: lab.operate.autoscale(ScalingPolicy(*policy))  # type: ignore[arg-type]


def metric(line: str) -> Deed:
    return edited("learn/metric", "src/bento/metrics.py", ("\n\nasync def", f"\n{line}\n\n\nasync def"))


def item(evidence: list[str], finish: bool = True) -> Deed:
    def deed(lab: Lab) -> None:
        lab.plan.add(Item("from-production", "What was said", "bug", 2, 5, evidence=evidence))
        if finish:
            lab.plan.finish("from-production")

    return deed


def item_again(lab: Lab) -> None:
    lab.plan.add(Item("from-production-more", "What was said", "bug", 2, 5, evidence=["alert:memory-growth"]))
    lab.plan.finish("from-production-more")


def reopened(then: Deed) -> Deed:
    """What is done is taken out of the file first, as nobody does outside of a test."""

    def deed(lab: Lab) -> None:
        lab.code.checkout("main")
        first = git(lab.world.shop, "show", "v1.0.0:backlog.yaml") + "\n"
        lab.code.write("backlog.yaml", first)
        lab.code.commit("docs(backlog): begin anew")
        then(lab)

    return deed


def revert(*options: str) -> Deed:
    """Undo the commit so many before the newest, as `learn/undo~1`."""

    def deed(lab: Lab) -> None:
        start("repeat-4")(lab)
        git(lab.world.shop, "switch", "--quiet", "learn/undo")
        git(lab.world.shop, "revert", "--no-edit", *options, env=identity("me"))
        git(lab.world.shop, "switch", "--quiet", "main")

    return deed


def taken_off(lab: Lab) -> None:
    start("repeat-4")(lab)
    git(lab.world.shop, "switch", "--quiet", "learn/undo")
    git(lab.world.shop, "rm", "--quiet", "docs/tuesday.md")
    lab.code.commit("fix: take the soup of Tuesday off the menu")
    lab.code.checkout("main")


def rewritten(lab: Lab) -> None:
    start("repeat-4")(lab)
    git(lab.world.shop, "branch", "--force", "learn/undo", "learn/undo~2")


def put_back(do: Callable[[Lab], object]) -> Deed:
    """The night passes, then something is done about it."""

    def deed(lab: Lab) -> None:
        exercise(lab, "deploy-4").start()
        do(lab)

    return deed


def as_before(lab: Lab) -> None:
    before = lab.store.events(kind="exercise.started", subject="exercise:night", limit=1)[-1].data["replicas"]
    lab.deploy.run(lab.deploy.current(), "blue/green", env={}, replicas=before)


GOOD = """function euros(cents: number) {
  return `${Math.floor(cents / 100)}.${String(cents % 100).padStart(2, '0')} €`
}
"""

ALSO: dict[str, Deed] = {
    "plan-6": reopened(decided(True, "we have no such machines")),
    "code-5": ignore("*.db", "**/.env", "!.env.example"),
    "build-6": euros(GOOD),
    "test-6": floor('\n[tool.coverage.report]\nshow_missing = true\nfail_under = 90'),
    "release-6": python(">= 3.12", "build: newer\n\nBREAKING CHANGE: Python 3.11 is left behind"),
    "deploy-3": settings("grace_seconds", "grace_seconds = 15.5"),
    "deploy-4": put_back(as_before),
    "deploy-5": lambda lab: lab.deploy.run(
        other(lab), "blue/green", env={"BENTO_LOG_LEVEL": "INFO", "BENTO_DRAIN_SECONDS": "1.0"}
    ),
    "operate-5": autoscaled("requests_per_second", 35, 2, 4),
    "monitor-5": metric('TIPS = Counter("bento_tips", "Tips that guests gave.", registry=REGISTRY)'),
    "repeat-3": item_again,
    "repeat-4": taken_off,
}  # fmt: skip

WRONG: dict[str, list[Wrong]] = {
    "plan-6": [
        (nothing, "wait for an answer"),
        (lambda lab: lab.plan.decide("BENTO-44", True), "You answered on BENTO-44"),
        (decided(False, "they insisted on it"), "was ignored"),
    ],
    "code-5": [
        (ignore(".env*"), "which newcomers need"),
        (on("learn/ignore", "chore: x", _dot_gitignore=".env\n"), "a product of the build"),
        (ignore("/.env"), "deploy/.env"),
        (with_secret, "never forgets"),
    ],
    "build-6": [
        (euros("export function euros(cents) { return cents + ' €' }\n"), "what TypeScript is for"),
        (euros("export function euros(cents: number { return 1 }\n"), "does not take it"),
        (euros("function euros(cents: number) { return cents / 100 + ' €' }\n"), "asked for are"),
    ],
    "test-6": [
        (floor("fail_under = 85"), "where nobody reads it"),
        (floor("show_missing = true"), "how little is too little"),
        (floor("\n[tool.coverage.report]\nfail_under = 20"), "undercut"),
    ],
    "release-6": [
        (nothing, "no branch"),
        (python(">=3.12", "chore: newer"), "whose Python it does not run on"),
        (python(">=3.11", "feat!: newer"), "still be offered"),
    ],
    "deploy-3": [
        (nothing, "is cut off"),
        (settings("grace_seconds", 'grace_seconds = "20 s"'), "a bare number"),
        (settings("grace_seconds", "grace_seconds = 300"), "hold up a deployment"),
    ],
    "deploy-4": [
        (nothing, "still to come"),
        (start("deploy-4"), "still not as it was"),
        (put_back(lambda lab: lab.deploy.scale(1)), "Fewer replicas"),
        (put_back(lambda lab: lab.deploy.run(other(lab), env={})), "before the night it was"),
    ],
    "deploy-5": [
        (lambda lab: lab.deploy.run(lab.deploy.current(), env={}), "no configuration of its own"),
        (lambda lab: lab.deploy.run(lab.deploy.current(), env={"DRAIN_SECONDS": "1"}), "got DRAIN_SECONDS"),
        (lambda lab: lab.deploy.run(lab.deploy.current(), env={"BENTO_DRAIN_SECONDS": "0"}), "is 0"),
    ],
    "operate-5": [
        (autoscaled("cpu_percent", 40, 1, 4), "watches cpu_percent"),
        (autoscaled("requests_per_second", 40, 1, 3), "too few for lunch"),
        (autoscaled("requests_per_second", 40, 1, 6), "each is paid for"),
        (autoscaled("requests_per_second", 130, 1, 1), "more than the 40"),
    ],
    "monitor-5": [
        (metric('TIPS = Counter("tips_total", "Tips taken.")'), "would not show"),
        (metric('TIPS = Gauge("bento_tips_total", "Tips taken.")'), "is a gauge"),
        (metric('TIPS = Counter("bento_tips_total", "")'), "says nothing about"),
        (metric("TIPS = Counter("), "does not run"),
    ],
    "repeat-3": [
        (nothing, "There is no item"),
        (item(["alert:memory-growth"], finish=False), "still waits"),
        (item([]), "nobody knows what asked for it"),
    ],
    "repeat-4": [
        (start("repeat-4"), "still serves what hurts"),
        (rewritten, "is not rewritten"),
        (revert("learn/undo~1", "learn/undo"), "A good soup"),
    ],
}  # fmt: skip
