"""Reference solutions of the exercises by id, and for each a plausible wrong answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from urllib.request import Request, urlopen

from devops_lab.errors import BuildFailed
from devops_lab.exercises import exercise
from devops_lab.lab import Lab
from devops_lab.model import AlertRule, Item, Need, ScalingPolicy
from devops_lab.waits import until

Deed = Callable[[Lab], object]
GREETING_TEST = "from bento.greeting import HELLO\n\n\ndef test_it():\n    assert HELLO\n"
NEW_TEST = """
def test_each_line_has_its_own_price(shop):
    lines = [{"item": 62, "quantity": 1}, {"item": 1, "quantity": 3}]
    prices = {item["id"]: item["price_cents"] for item in shop.get("/api/menu").json()["items"]}
    total = shop.order(lines).json()["total_cents"]
    assert total == prices[62] + 3 * prices[1]
"""


def commit_on(lab: Lab, branch: str, message: str, **files: str) -> None:
    """Commit files on a branch; the keys have __ for / and _dot_ for a dot."""
    lab.code.checkout("main")
    lab.code.branch(branch)
    for name, text in files.items():
        lab.code.write(name.replace("__", "/").replace("_dot_", "."), text)
    if lab.code.uncommitted():
        lab.code.commit(message)
    lab.code.checkout("main")


def order(lab: Lab, key: str) -> None:
    data = json.dumps({"lines": [{"item": 1, "quantity": 1}]}).encode()
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    with urlopen(Request(f"{lab.url}/api/orders", data, headers), timeout=10):
        pass


def order_twice(lab: Lab) -> None:
    order(lab, "welcome-1")
    order(lab, "welcome-1")


def backup(lab: Lab, needs: list[Need]) -> None:
    if "nightly-backup" not in {item.id for item in lab.plan.backlog()}:
        lab.plan.add(Item("nightly-backup", "Back up the orders", "operations", 2, 5, story="s", needs=needs))


def break_the_build(lab: Lab) -> None:
    good = (lab.world.shop / "native/score.c").read_text("utf-8")
    commit_on(lab, "learn/broken-build", "fix: score", native__score_dot_c=good + "\nint broken( {\n")
    with suppress(BuildFailed):
        lab.build.run("learn/broken-build")


def mend_the_build(lab: Lab) -> None:
    lab.code.checkout("main")
    good = (lab.world.shop / "native/score.c").read_text("utf-8")
    commit_on(lab, "learn/broken-build", "fix: score again", native__score_dot_c=good)
    lab.build.run("learn/broken-build")


def break_and_mend(lab: Lab) -> None:
    break_the_build(lab)
    mend_the_build(lab)


def bill_of_materials(lab: Lab) -> int:
    return len(json.loads((lab.root / lab.release.registry()[-1].sbom).read_text("utf-8"))["components"])


def roll(lab: Lab) -> None:
    """A rolling deployment to the version that does not serve."""
    others = [r.version for r in lab.release.registry() if r.version != lab.deploy.current()]
    lab.deploy.run(others[-1], "rolling", why="an exercise")


def rolled_as_predicted(lab: Lab) -> None:
    roll(lab)
    exercise(lab, "deploy-1").predict(lab.deploy.history()[-1].seconds)
    roll(lab)


def rule(lab: Lab, resolve: float | None) -> None:
    given = AlertRule("orders-slow", "p95_ms", 200, 3, resolve, "/api/orders", "Orders are slow.")
    lab.monitor.add_rule(given)


def from_production(lab: Lab, evidence: list[str]) -> None:
    known = {item.id for item in lab.plan.backlog()}
    if "from-production" not in known:
        lab.plan.add(
            Item("from-production", "What customers said", "bug", 2, 5, story="s", evidence=evidence)
        )


def a_complaint(lab: Lab) -> str:
    found = lab.store.events(kind="complaint")
    return (
        found[-1] if found else lab.store.event("operate", "complaint", "complaint:s1@1", "Slow!")
    ).subject


def invented_evidence(lab: Lab) -> None:
    a_complaint(lab)
    from_production(lab, ["alert:invented"])


def push(lab: Lab, mode: str, name: str) -> None:
    lab.pipeline.install_hook(mode)
    lab.code.checkout("main")
    lab.code.write(name, f"{len(lab.pipeline.runs())} pushes so far\n")
    lab.code.commit(f"fix: {name}")
    lab.pipeline.push()


def pushed_as_predicted(lab: Lab) -> None:
    push(lab, "deployment", "NOTES.md")
    exercise(lab, "continuous-2").predict(lab.pipeline.runs()[-1].push_seconds)
    push(lab, "deployment", "NOTES.md")


def on_call(lab: Lab) -> None:
    """A blind drill, solved by who knows the answer: what the reader has to find out."""
    drill = lab.operate.drill()
    until(drill.detected, "a sign", seconds=60, evidence=drill.seen)
    drill.diagnose(drill._note.fault)
    drill.mend()
    until(drill.restored, "service", seconds=60, evidence=lambda: f"{drill.restored()} {drill.seen()}")
    drill.post_mortem()


def say(exercise_id: str, value: Callable[[Lab], object]) -> Deed:
    return lambda lab: exercise(lab, exercise_id).answer(value(lab))


RIGHT: dict[str, Deed] = {
    "welcome-1": order_twice,
    "plan-1": say("plan-1", lambda lab: lab.plan.forecast(remaining=20).p85),
    "plan-2": lambda lab: backup(lab, [Need("database", storage_mb=20)]),
    "code-1": lambda lab: commit_on(
        lab, "learn/greeting", "feat: a greeting",
        src__bento__greeting_dot_py='HELLO = "hello"\n',
        tests__unit__test_greeting_dot_py=GREETING_TEST,
    ),
    "code-2": say("code-2", lambda lab: newest_migration_author(lab)),
    "build-1": say("build-1", lambda lab: (s := lab.build.scorers())["python"] / s["c"]),
    "build-2": break_and_mend,
    "test-1": say("test-1", lambda lab: sum(not bug.caught for bug in lab.test.planted())),
    "test-2": lambda lab: commit_on(
        lab, "learn/better-test", "test: own price", tests__unit__test_price_dot_py=NEW_TEST
    ),
    "release-1": lambda lab: commit_on(lab, "learn/breaking", "feat!: another API", API_dot_md="new\n"),
    "release-2": say("release-2", bill_of_materials),
    "deploy-1": rolled_as_predicted,
    "deploy-2": lambda lab: lab.deploy.scale(3, why="lunch"),
    "operate-1": say("operate-1", lambda lab: lab.operate.slowest(by_release=False)[0].endpoint),
    "operate-2": lambda lab: lab.operate.autoscale(ScalingPolicy("p95_ms", 50, 2, 4)),
    "monitor-1": lambda lab: rule(lab, 100),
    "monitor-2": say(
        "monitor-2", lambda lab: max(lab.store.logs(limit=100_000), key=lambda x: x.seconds).request_id
    ),
    "monitor-3": on_call,
    "repeat-1": lambda lab: from_production(lab, [a_complaint(lab)]),
    "repeat-2": say("repeat-2", lambda lab: lab.release.find(lab.deploy.current()).commit[:8]),
    "continuous-1": lambda lab: push(lab, "delivery", "CONTRIBUTING.md"),
    "continuous-2": pushed_as_predicted,
}  # fmt: skip

# What somebody might do instead: the check must notice, and say what it saw.
WRONG: dict[str, tuple[Deed, str]] = {
    "welcome-1": (lambda lab: order(lab, "another-key"), "no order with the key"),
    "plan-1": (say("plan-1", lambda lab: 1), "need at most"),
    "plan-2": (lambda lab: backup(lab, [Need("object-store", storage_mb=900)]), "can't carry"),
    "code-1": (
        lambda lab: commit_on(lab, "learn/greeting", "feat: read me", README_dot_md="hello\n"),
        "but no test",
    ),
    "code-2": (say("code-2", lambda lab: "Linus Torvalds"), "not brought by Linus"),
    "build-1": (say("build-1", lambda lab: 1_000_000), "not within a factor"),
    "build-2": (break_the_build, "was not built yet"),
    "test-1": (say("test-1", lambda lab: 99), "escaped"),
    "test-2": (
        lambda lab: commit_on(
            lab,
            "learn/better-test",
            "test: never green",
            tests__unit__test_price_dot_py="def test_no():\n    assert False\n",
        ),
        "red on main",
    ),
    "release-1": (
        lambda lab: commit_on(lab, "learn/breaking", "feat: a small one", API_dot_md="old\n"),
        "would become 1.",
    ),
    "release-2": (say("release-2", lambda lab: 0), "does not list"),
    "deploy-1": (lambda lab: exercise(lab, "deploy-1").predict(900), "no rolling deployment since"),
    "deploy-2": (lambda lab: lab.deploy.scale(1, why="thrift"), "1 replicas are wanted"),
    "operate-1": (say("operate-1", lambda lab: "/api/nothing"), "is no endpoint"),
    "operate-2": (
        lambda lab: lab.operate.autoscale(ScalingPolicy("cpu_percent", 50, 2, 4)),
        "watches cpu_percent",
    ),
    "monitor-1": (lambda lab: rule(lab, None), "flap"),
    "monitor-2": (say("monitor-2", lambda lab: "nobody"), "has the id"),
    "monitor-3": (lambda lab: lab.operate.drill().give_up(), "is given up"),
    "repeat-1": (invented_evidence, "is no alert"),
    "repeat-2": (say("repeat-2", lambda lab: "0000000"), "does not come from"),
    "continuous-1": (lambda lab: push(lab, "integration", "CONTRIBUTING.md"), "ran in the mode integration"),
    "continuous-2": (lambda lab: exercise(lab, "continuous-2").predict(900), "since your prediction"),
}


def newest_migration_author(lab: Lab) -> str:
    from devops_lab.git import git

    folder = "src/bento/migrations/"
    newest = max(git(lab.world.shop, "ls-tree", "--name-only", "main", folder).split())
    return git(lab.world.shop, "log", "--diff-filter=A", "--format=%an", "main", "--", newest)


# What undoes the wrong deed where the right one can't stand beside it.
UNDO: dict[str, Deed] = {}


def drop_item(name: str) -> Deed:
    def drop(lab: Lab) -> None:
        from devops_lab.git import git, identity

        lab.code.checkout("main")
        git(lab.world.shop, "revert", "--no-edit", "HEAD", env=identity("learner"))
        git(lab.world.shop, "push", "--quiet", "origin", "main")
        assert name not in {item.id for item in lab.plan.backlog()}

    return drop


UNDO["plan-2"] = drop_item("nightly-backup")
UNDO["repeat-1"] = drop_item("from-production")
