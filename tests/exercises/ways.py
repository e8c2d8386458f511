"""Other right ways through the exercises than the solutions, and what somebody might do instead.

Each check must let a second way pass, and notice three wrong ones, in different words.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from devops_lab.errors import BuildFailed
from devops_lab.exercises import exercise
from devops_lab.exercises.solutions import commit_on
from devops_lab.lab import Lab
from devops_lab.model import AlertRule, Item, Need, ScalingPolicy
from devops_lab.platform.git import git
from tests.patience import until

Deed = Callable[[Lab], object]
Wrong = tuple[Deed, str]  # and what the check says of it
TEST = "def test_it():\n    assert True\n"
RED = "def test_no():\n    assert False\n"


def say(name: str, value: object) -> Deed:
    return lambda lab: exercise(lab, name).answer(value(lab) if callable(value) else value)


def nothing(lab: Lab) -> None:
    """What an untouched lab is told."""


def on(branch: str, message: str, **files: str) -> Deed:
    """Commit on a new branch; the keys have __ for / and _dot_ for a dot."""
    named = {name.replace("__", "/").replace("_dot_", "."): text for name, text in files.items()}

    return lambda lab: commit_on(lab, branch, message, named)


def backup(kind: str, *needs: Need) -> Deed:
    item = Item("nightly-backup", "Back up the orders", kind, 2, 5, story="s", needs=list(needs))  # type: ignore[arg-type]
    return lambda lab: lab.plan.add(item)


def author(lab: Lab) -> str:
    newest = max(git(lab.world.shop, "ls-tree", "--name-only", "main", "src/bento/migrations/").split())
    return git(lab.world.shop, "log", "--diff-filter=A", "--format=%an", "main", "--", newest)


def version_of(lab: Lab, component: str) -> str:
    bill = json.loads((lab.root / lab.release.registry()[-1].sbom).read_text("utf-8"))
    return str(next(each["version"] for each in bill["components"] if each["name"] == component))


def large(text: str, guess: object = "100 kB") -> Deed:
    def deed(lab: Lab) -> None:
        commit_on(lab, "learn/large", "docs: large", {"src/bento/static/large.txt": text})
        exercise(lab, "build-1").predict(guess)

    return deed


def grew_as_everybody_thinks(lab: Lab) -> None:
    large("a" * 100_000)(lab)
    for commit in ("learn/large~1", "learn/large"):
        lab.build.run(commit)


def grew_as_predicted(lab: Lab) -> None:
    """Another letter, and a guess without a measurement."""
    large("b" * 120_000, 0.3)(lab)
    for commit in ("learn/large~1", "learn/large"):
        lab.build.run(commit)


def break_the_build(lab: Lab) -> None:
    path = "native/score.c" if "c" in lab.build.scorers() else "frontend/app.ts"
    good = git(lab.world.shop, "show", f"main:{path}") + "\n"
    commit_on(lab, "learn/broken-build", "fix: score", {path: good + "\nint broken( {\n"})
    with suppress(BuildFailed):
        lab.build.run("learn/broken-build")


def taken_back(lab: Lab) -> None:
    """The build is mended by undoing the commit."""
    break_the_build(lab)
    lab.code.checkout("learn/broken-build")
    git(lab.world.shop, "revert", "--no-edit", "HEAD")
    lab.code.checkout("main")
    lab.build.run("learn/broken-build")


# ---- in production
def order(lab: Lab, key: str, quantity: int = 1) -> None:
    data = json.dumps({"lines": [{"item": 1, "quantity": quantity}]}).encode()
    headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
    with suppress(HTTPError), urlopen(Request(f"{lab.url}/api/orders", data, headers), timeout=10):
        pass


def order_twice(lab: Lab) -> None:
    order(lab, "welcome-1")
    order(lab, "welcome-1")


def other(lab: Lab) -> str:
    return [r.version for r in lab.release.registry() if r.version != lab.deploy.current()][-1]


def rolled_as_predicted(lab: Lab) -> None:
    seconds = lab.deploy.run(other(lab), "rolling", replicas=4).seconds
    exercise(lab, "deploy-1").predict(f"{seconds:.2f} s")
    lab.deploy.run(other(lab), "rolling")


def scaled_by_itself(lab: Lab) -> None:
    lab.deploy.scale(3)
    lab.operate.autoscale(ScalingPolicy("p95_ms", 50, 3, 3))


def rule(given: AlertRule) -> Deed:
    return lambda lab: lab.monitor.add_rule(given)


def by_seconds(lab: Lab) -> list[str]:
    lines = [line for line in lab.store.logs(limit=100_000) if line.request_id and line.seconds > 0]
    return [line.request_id for line in sorted(lines, key=lambda line: line.seconds)]


def second_slowest(lab: Lab) -> str:
    return f" request:{by_seconds(lab)[-2]}".strip()


def quickest(lab: Lab) -> str:
    return by_seconds(lab)[0]


def given_up(lab: Lab) -> None:
    drill = lab.operate.current_drill()
    assert drill
    drill.give_up()


def on_call(lab: Lab) -> None:
    """Named at the second guess, and mended by the drill's own way back."""
    drill = lab.operate.drill()
    until(drill.detected, "a sign", seconds=120, evidence=drill.seen)
    drill.diagnose(next(f.name for f in lab.operate.faults() if f.name != drill._note.fault))
    drill.diagnose(drill._note.fault)
    drill.mend()
    until(drill.restored, "service", seconds=120, evidence=drill.seen)
    drill.post_mortem()


def a_complaint(lab: Lab) -> str:
    found = lab.store.events(kind="complaint")
    return (found or [lab.store.event("operate", "complaint", "complaint:s1@1", "Slow!")])[-1].subject


def from_production(evidence: Callable[[Lab], list[str]]) -> Deed:
    return lambda lab: lab.plan.add(
        Item("from-production", "What customers said", "bug", 2, 5, story="s", evidence=evidence(lab))
    )


def push(mode: str, name: str, text: str = "") -> Deed:
    def deed(lab: Lab) -> None:
        lab.pipeline.install_hook(mode)
        lab.code.checkout("main")
        lab.code.write(name, text)
        lab.code.write("PUSHES.md", f"{len(lab.pipeline.runs())} so far\n")
        lab.code.commit(f"fix: {name}")
        lab.pipeline.push()

    return deed


def pushed_as_predicted(lab: Lab) -> None:
    push("deployment", "NOTES.md")(lab)
    run = lab.pipeline.runs()[-1]
    share = 100 * sum(step.seconds for step in run.steps if step.name == "test") / run.seconds
    exercise(lab, "continuous-2").predict(f"{share:.0f} percent")
    push("deployment", "NOTES.md")(lab)


def predicted_too_much(lab: Lab) -> None:
    exercise(lab, "continuous-2").predict(100_000)
    push("deployment", "NOTES.md")(lab)


PRICES = """
def test_two_of_one_and_five_of_another(shop):
    lines = [{"item": 62, "quantity": 2}, {"item": 1, "quantity": 5}]
    menu = {item["id"]: item["price_cents"] for item in shop.get("/api/menu").json()["items"]}
    assert shop.order(lines).json()["total_cents"] == 5 * menu[1] + 2 * menu[62]
"""

ALSO: dict[str, Deed] = {
    "plan-1": say("plan-1", lambda lab: f"{lab.plan.forecast(remaining=40).p85 + 1} sprints"),
    "plan-2": backup("operations", Need("database", storage_mb=5), Need("logs", log_mb_per_minute=0.1)),
    "code-1": on(
        "learn/greeting", "fix(page): hello",
        frontend__hello_dot_ts="export const hello = 1;\n", tests__unit__test_hello_dot_py=TEST,
    ),
    "code-2": say("code-2", lambda lab: author(lab).split()[0].upper()),
    "build-1": grew_as_predicted,
    "build-2": taken_back,
    "test-1": say("test-1", lambda lab: f"{sum('unit' not in b.suites for b in lab.test.planted())} bugs"),
    "test-2": on("learn/better-test", "test: two boxes", tests__unit__test_sum_dot_py=PRICES),
    "release-2": say("release-2", lambda lab: f"starlette=={version_of(lab, 'starlette')}"),
    "release-1": on("learn/breaking", "fix: x\n\nBREAKING CHANGE: other names", API_dot_md="new\n"),
    "welcome-1": order_twice,
    "deploy-1": rolled_as_predicted,
    "deploy-2": lambda lab: lab.deploy.run(other(lab), "rolling", replicas=3),
    "operate-1": say("operate-1", lambda lab: f"GET {lab.operate.slowest(by_release=False)[0].endpoint}/"),
    "operate-2": lambda lab: lab.operate.autoscale(ScalingPolicy("p95_ms", 200, 2, 4)),
    "monitor-1": rule(AlertRule("orders-slow", "p99_ms", 500, 10, 300, "/api/orders")),
    "monitor-2": say("monitor-2", second_slowest),
    "monitor-3": on_call,
    "repeat-1": from_production(lambda lab: [a_complaint(lab)]),
    "repeat-2": say("repeat-2", lambda lab: f"commit:{lab.release.find(lab.deploy.current()).commit}"),
    "continuous-1": push("delivery", "CONTRIBUTING.md", "# Welcome\n\nAsk first.\n"),
    "continuous-2": pushed_as_predicted,
}  # fmt: skip

WRONG: dict[str, list[Wrong]] = {
    "plan-1": [
        (say("plan-1", 1), "fewer than"),
        (say("plan-1", "99 sprints"), "more than"),
        (say("plan-1", "3 weeks"), "another unit"),
    ],
    "plan-2": [
        (backup("operations", Need("object-store", storage_mb=900)), "can't carry"),
        (backup("operations"), "does not say how much storage"),
        (backup("feature", Need("database", storage_mb=20)), "is a feature"),
    ],
    "code-1": [
        (on("learn/greeting", "feat: read me", README_dot_md="hello\n"), "but no test"),
        (on("learn/greeting", "feat: tested", tests__unit__test_hello_dot_py=TEST), "a test alone"),
        (on("learn/greeting", "some changes", README_dot_md="hi\n"), "no conventional commit"),
    ],
    "code-2": [
        (say("code-2", "Linus Torvalds"), "nobody of that name"),
        (say("code-2", "Ada Lindqvist"), "no migration at all"),
        (say("code-2", "0003"), "nobody of that name: 0003"),
    ],
    "build-1": [
        (nothing, "Nothing was said"),
        (large("a" * 1000), "letters or more"),
        (large("a" * 100_000), "build both commits"),
        (grew_as_everybody_thinks, "more than"),
    ],
    "build-2": [
        (nothing, "no branch"),
        (on("learn/broken-build", "fix: nothing broken", NOTES_dot_md="x\n"), "has failed so far"),
        (break_the_build, "was not built yet"),
    ],
    "test-1": [
        (say("test-1", 99), "more than you thought"),
        (say("test-1", 0), "less than you thought"),
        (say("test-1", "5 tests"), "another unit"),
    ],
    "test-2": [
        (on("learn/better-test", "test: red", tests__unit__test_p_dot_py=RED), "red on main"),
        (on("learn/better-test", "test: idle", tests__unit__test_p_dot_py=TEST), "still escapes"),
        (on("learn/better-test", "test: many", tests__a_dot_py=TEST, tests__b_dot_py=TEST), "one new test"),
    ],
    "release-2": [
        (say("release-2", "the newest"), "names no version"),
        (say("release-2", lambda lab: version_of(lab, "uvicorn")), "is the version of uvicorn"),
        (say("release-2", "0.0.1"), "has the version 0.0.1"),
    ],
    "release-1": [
        (nothing, "no branch"),
        (on("learn/breaking", "feat: a small one", API_dot_md="old\n"), "would become 1."),
        (on("learn/breaking", "docs: only words", API_dot_md="old\n"), "no feature and no fix"),
    ],
    "welcome-1": [
        (lambda lab: order(lab, "another-key"), "knows no order"),
        (lambda lab: order(lab, "welcome-1"), "was sent once"),
        (lambda lab: order(lab, "welcome-1", quantity=9), "with other lines"),
    ],
    "deploy-1": [
        (say("deploy-1", 900), "no rolling deployment since"),
        (lambda lab: lab.deploy.run(other(lab), "rolling", replicas=2), "2 replicas were rolled out"),
        (lambda lab: lab.deploy.run(other(lab), "rolling", replicas=4), "more than a factor"),
    ],
    "deploy-2": [
        (lambda lab: lab.deploy.scale(1, why="thrift"), "they will queue"),
        (lambda lab: lab.deploy.scale(4, why="to be sure"), "stands about"),
        (scaled_by_itself, "autoscaler is on"),
    ],
    "operate-1": [
        (say("operate-1", "/api/nothing"), "is no endpoint"),
        (say("operate-1", lambda lab: lab.operate.slowest(by_release=False)[-1].endpoint), "is slower"),
        (say("operate-1", " "), "Nothing was answered"),
    ],
    "operate-2": [
        (lambda lab: lab.operate.autoscale(ScalingPolicy("cpu_percent", 50, 2, 4)), "watches cpu_percent"),
        (lambda lab: lab.operate.autoscale(ScalingPolicy("p95_ms", 50, 1, 6)), "allows 1 to 6"),
        (lambda lab: lab.operate.autoscale(ScalingPolicy("p95_ms", 5000, 2, 4)), "too late"),
    ],
    "monitor-1": [
        (rule(AlertRule("orders-slow", "p95_ms", 200, 3, None, "/api/orders")), "flap"),
        (rule(AlertRule("orders-slow", "p95_ms", 200, 3, 100)), "watches p95_ms of everything"),
        (rule(AlertRule("orders-slow", "p95_ms", 0.2, 3, 0.1, "/api/orders")), "is in milliseconds"),
    ],
    "monitor-2": [
        (say("monitor-2", "nobody"), "has the id"),
        (say("monitor-2", "/api/search"), "is an endpoint"),
        (say("monitor-2", quickest), "there are slower ones"),
    ],
    "monitor-3": [
        (nothing, "No blind drill"),
        (lambda lab: lab.operate.drill(), "still runs"),
        (given_up, "is given up"),
    ],
    "repeat-1": [
        (a_complaint, "no item"),
        (from_production(lambda lab: []), "carries no evidence"),
        (from_production(lambda lab: ["alert:invented"]), "is no alert"),
    ],
    "repeat-2": [
        (say("repeat-2", "abc"), "too short"),
        (say("repeat-2", "0000000"), "has no commit"),
        (say("repeat-2", lambda lab: lab.code.log(1, "v1.0.0~3")[0].id), "comes from another one"),
    ],
    "continuous-1": [
        (nothing, "has not seen"),
        (push("integration", "CONTRIBUTING.md", "# Welcome\n"), "in the mode integration"),
        (push("delivery", "CONTRIBUTING.md", "Welcome\n"), "next to nothing"),
    ],
    "continuous-2": [
        (say("continuous-2", 0), "since your prediction"),
        (push("deployment", "NOTES.md"), "more than you thought"),
        (predicted_too_much, "less than you thought"),
    ],
}  # fmt: skip
IN_PRODUCTION: set[str] = {
    "welcome-1", "deploy-1", "deploy-2", "deploy-4", "deploy-5", "operate-1", "monitor-2", "monitor-3",
    "repeat-2", "continuous-1", "continuous-2",
}  # fmt: skip
SLOW: set[str] = {"test-2", "build-2", "continuous-4"}
AFTER_A_RELEASE: set[str] = {"release-2", "release-4"}
