"""Realistic records, and every view drawn from them; `python -m tests.views.examples DIR` writes them out."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from devops_lab import views
from devops_lab.model import (
    Alert,
    Analysis,
    Artifact,
    Budget,
    Bug,
    Burn,
    Case,
    Check,
    Commit,
    CommitGraph,
    Comparison,
    Complaint,
    Crowd,
    Deployment,
    EndpointFigures,
    EndpointRow,
    Event,
    Finding,
    Forecast,
    Image,
    Item,
    Layer,
    LogLine,
    Loops,
    PipelineRun,
    PostMortem,
    Prediction,
    Profile,
    Progress,
    Race,
    Release,
    Replica,
    Request,
    Service,
    Slo,
    Sprint,
    Step,
    TestReport,
)
from devops_lab.platform.store import Store
from devops_lab.views.style import Picture

T0 = 1_750_000_000.0
DIGEST = "sha256:" + "4f1c9a7e" * 8


STEPS = [
    Step("check out the commit", 0.031, started=T0, bytes=0),
    Step("transpile app.ts", 0.172, started=T0 + 0.031, bytes=8_412),
    Step("compile score.c", 0.064, started=T0 + 0.203, bytes=16_216),
    Step("make the wheel", 0.141, started=T0 + 0.267, bytes=48_310),
]
PIPELINE = [
    *STEPS,
    Step("install into a new environment", 0.20, started=T0 + 0.41),
    Step("test: unit, integration, contract", 0.71, started=T0 + 0.41),
    Step("start new replicas", 0.31, started=T0 + 0.61),
    Step("switch traffic", 0.12, started=T0 + 1.13),
]
RUN = PipelineRun(1, "deployment", "ab12cd34", "ann", "done", T0, PIPELINE, lead_time_seconds=1.92)
BROKEN = [
    *STEPS[:2],
    Step(
        "compile score.c",
        0.05,
        ok=False,
        started=T0 + 0.203,
        output="score.c:14:9: error: expected ';' before 'return'",
    ),
    Step("make the wheel", 0, output="skipped: the step before failed"),
    Step("test", 0, output="skipped: nothing was built"),
]
ARTIFACT = Artifact(
    "ab12cd34ef56", "1.1.0", "work/dist/bento-1.1.0-py3-none-any.whl", DIGEST, 48_310, STEPS, T0
)
ITEMS = [
    Item("B-12", "Search that forgives spelling", "feature", 5, 8, time_criticality=3, depends_on=["B-9"]),
    Item("B-14", "Photos of every lunch box", "feature", 8, 13, risk_reduction=1),
    Item("B-15", "Wrong total with vouchers", "bug", 2, 5, time_criticality=8),
    Item("B-16", "Write every click to the log", "feature", 3, 2),
    Item("B-9", "Index for the menu", "operations", 3, 5, risk_reduction=5),
    *[
        Item(f"B-{n}", f"An earlier piece of work, number {n}", "feature", 3, 3, status="done", sprint=n // 3)
        for n in range(1, 9)
    ],
    Item("B-99", "Migration of orders <old> & new", "operations", 1, 1, status="done"),
]
FINDINGS = [
    Finding(
        "B-14",
        "needs 900 MB of storage, the platform has 200 MB a replica",
        "blocks",
        "link to the supplier's photos",
        0,
    ),
    Finding("B-16", "writes 40 MB of logs a minute, the limit is 5", "risk", "count clicks as a metric"),
]
SPRINT = Sprint(4, 10, ["B-15", "B-9"], 5, 10, "wsjf", T0)
FORECAST = Forecast(10_000, [3, 2, 4, 3], 9, {2: 0.06, 3: 0.55, 4: 0.31, 5: 0.08}, 3, 4)


def report() -> TestReport:
    dice = random.Random(4)
    cases = [
        Case(
            f"{suite}/test_{['menu', 'orders', 'search'][n % 3]}::test_{n}",
            suite,
            "passed",
            dice.expovariate(30),
        )
        for suite, count in (("unit", 31), ("integration", 12), ("contract", 7))
        for n in range(count)
    ]
    cases[3] = Case(
        "unit/test_orders::test_total_with_voucher",
        "unit",
        "failed",
        0.01,
        "assert 11.50 == 12.00\n  where 11.50 = total(...)",
    )
    cases[40] = Case(
        "integration/test_menu::test_postgresql", "integration", "skipped", 0.0, "no PostgreSQL here"
    )
    return TestReport("ab12cd34", DIGEST, cases, 87.4, 0.93, T0, ["1 test failed: test_total_with_voucher"],
                      {"menu.py": 100.0, "orders.py": 91.2, "search.py": 63.4})  # fmt: skip


BUGS = [
    Bug("slow-search", False, [], []),
    Bug("broken-migration", True, ["test_migrates_from_empty", "test_migrates_twice"], ["integration"]),
    Bug("wrong-total", False, [], []),
    Bug("lying-health", True, ["a", "b", "c", "d", "e"], ["contract", "unit"]),
]
DIFF = """diff --git a/src/bento/orders.py b/src/bento/orders.py
index 1234567..89abcde 100644
--- a/src/bento/orders.py
+++ b/src/bento/orders.py
@@ -10,6 +10,7 @@ def total(lines):
     amount = 0
-    for line in lines:
+    for line in lines:  # <every> line & its quantity
+        check(line)
         amount += line.price * line.quantity
     return amount
"""
IMAGE = Image(
    "sha256:" + "1" * 64,
    "1.1.0",
    DIGEST,
    76_200_000,
    [
        Layer("Imported from -", 59_100_000),
        Layer("python3 -m compileall -q /usr/lib", 11_600_000),
        Layer("COPY … /opt/packages", 5_350_000),
        Layer("COPY … /opt/shop", 147_000),
    ],
    [
        Step("FROM ${PYTHON}", 0.0),
        Step("COPY packages/ /packages/", 0.0, output="cached"),
        Step("COPY --from=unpack /packages /opt/packages", 0.0, output="cached"),
        Step("COPY --from=unpack /shop /opt/shop", 0.4),
    ],
    2.4,
    T0,
)
IMAGE_LOG = ["Step 1/3 : FROM x", " ---> a48ceed0e945", "Step 2/3 : COPY <a> /b", " ---> Using cache"]
RELEASES = [
    Release(
        v,
        f"ab12cd3{n}ef",
        f"v{v}",
        DIGEST,
        f"registry/bento-{v}.whl",
        48_000 + n,
        "",
        f"registry/bento-{v}.cdx.json",
        T0 + n,
    )
    for n, v in enumerate(("1.0.0", "1.1.0", "1.2.0"))
]
TRAIL = [
    ("deployment:2", "brought", "release:1.1.0", T0 + 40),
    ("release:1.1.0", "made from", "artifact:4f1c9a7e", T0 + 30),
    ("release:1.1.0", "passed", "tests:4f1c9a7e", T0 + 29),
    ("artifact:4f1c9a7e", "built from", "commit:ab12cd34", T0 + 20),
    ("tests:4f1c9a7e", "ran against", "artifact:4f1c9a7e", T0 + 28),
    ("commit:ab12cd34", "does", "item:B-15", T0 + 10),
]
GRAPH = CommitGraph(
    [
        Commit("f1" * 20, "feat: a special of the day", "Ada Lindqvist", T0, ["a1" * 20]),
        Commit("b2" * 20, "docs: opening hours", "Kim Lee", T0, ["c3" * 20]),
        Commit("c3" * 20, "Merge branch 'work/diet'", "Kim Lee", T0, ["a1" * 20, "d4" * 20]),
        Commit("d4" * 20, "feat: <filter> the menu by diet", "Chen Yulan", T0, ["a1" * 20]),
        Commit("a1" * 20, "chore: release 1.0.0" + " and so on" * 20, "Ada Lindqvist", T0, ["e5" * 20]),
    ],
    {"f1" * 20: ["heads/special"], "b2" * 20: ["heads/main", "remotes/origin/main"], "a1" * 20: ["tags/v1"]},
    head="b2" * 20, branch="main", count=30, under_way="merge", incoming="f1" * 20, conflicts=["README.md"],
)  # fmt: skip
EVENTS = [
    Event(T0 + 1, "plan", "plan.chosen", "sprint:4"),
    Event(T0 + 2, "code", "code.merged", "commit:ab12cd34"),
    Event(T0 + 3, "build", "build.done", "commit:ab12cd34"),
    Event(T0 + 4, "test", "pipeline.failed", "artifact:4f1c"),
    Event(
        T0 + 8, "deploy", "deploy.started", "deployment:2", "1.0.0 to 1.1.0, rolling", "ann", "the new search"
    ),
    Event(T0 + 14, "deploy", "deploy.done", "deployment:2", f"1.1.0 serves, of {DIGEST}", "ann"),
    Event(T0 + 13, "operate", "replica.died", "replica:r3", "r3 died: killed by signal 9"),
    Event(T0 + 41, "monitor", "alert.firing", "alert:memory", "memory above 80 MB"),
]
DEPLOYMENT = Deployment(
    2, "1.1.0", "1.0.0", "rolling", "ann", "the new search", "done", T0 + 8, T0 + 14,
    [
        Step("start 1 new replica", 1.0, started=T0 + 8), Step("half of the traffic", 1.5, started=T0 + 9),
        Step("start 1 more", 1.0, started=T0 + 10.5), Step("all traffic", 1.5, started=T0 + 11.5),
        Step("drain and stop the old", 1.0, started=T0 + 13),
    ],
)  # fmt: skip
REPLICAS = [
    Replica("r1", "blue", "1.0.0", "127.0.0.1", 41001, 4711, "boot:1", "draining", T0),
    Replica("r2", "green", "1.1.0", "127.0.0.1", 41002, 4712, "boot:2", "healthy", T0 + 5),
    Replica(
        "r3",
        "green",
        "1.1.0",
        "127.0.0.1",
        41003,
        4713,
        "boot:3",
        "dead",
        T0 + 6,
        2,
        reason="killed by signal 9",
    ),
]
CROWD = Crowd("ab12", "07-operate, cell 4", T0, T0 + 60, 60.0, 60.0, 1, "boot:1")
ENDPOINTS = [
    EndpointRow(name, rate, errors, errors / rate, p50, p95, p99)
    for name, rate, errors, p50, p95, p99 in (
        ("/api/menu", 80.2, 0, 2.1, 5.4, 9.8),
        ("/api/search", 41.0, 0.5, 310.0, 812.0, 1033.0),
        ("/api/orders", 12.0, 0.0, None, None, None),
    )
]  # fmt: skip

SUSPECTS = [
    EndpointFigures(name, release, 40, 0, 10.0, p50, 2 * p50, 3 * p50, at)
    for name, release, p50, at in (
        ("/api/search", "1.1.0", 0.004, T0),
        ("/api/search", "1.3.0", 0.121, T0 + 20),
        ("/api/search", "1.2.0", 0.118, T0 + 10),
        ("/api/menu", "1.1.0", 0.003, T0),
        ("/api/menu", "1.2.0", 0.006, T0 + 11),
    )
]


def profiled(functions: dict[str, float], stacks: dict[str, int]) -> Profile:
    return Profile("r2", "1.1.0", T0, 2.0, 100, functions, {}, stacks)


PROFILE = profiled(
    {"distance (bento/search.py:41)": 0.62, "lower (search.py:38)": 0.14, "execute": 0.09, "render": 0.04},
    {
        "main;serve;search;rank;distance (bento/search.py:41)": 62, "main;serve;search;rank;lower": 14,
        "main;serve;search;execute": 9, "main;serve;menu;render": 4, "main;serve;menu": 2,
        "main;serve;idle": 9,
    },
)  # fmt: skip
COMPLAINTS = [
    Complaint(
        "ann-17",
        "/api/search",
        2.4,
        T0 + 30,
        "I typed “udon” and waited for ages. I went elsewhere for lunch.",
    ),
    Complaint("bob-3", "/api/search", 1.1, T0 + 31, "Search is slow today."),
    Complaint("eve-8", "/api/orders", 1.6, T0 + 33, "Did my order <go through>?"),
]
ALERTS = [
    Alert("memory", "firing", T0 + 41, 93_400_000.0, "replica:r2", evidence=["sample:memory_bytes"]),
    Alert("p95", "resolved", T0 + 10, 812.0, "endpoint:/api/search", T0 + 32),
    Alert("disk", "pending", T0 + 44, 4_100_000.0, "production"),
]
BUDGET = Budget(
    Slo("availability", 0.99),
    4000.0,
    50.0,
    [(T0 + n, 1 - (n > 30) * (n - 30) / 24) for n in range(61)],
    [
        Burn("fast", 14.4, 30, 2.5, 40.0, 100.0),
        Burn("slow", 6.0, 180, 15, 7.0, 80.0),
        Burn("trickle", 1.0, 2160, 180, 0.9, float("nan")),
    ],
)
LOGS = [
    LogLine(T0 + n, ("info", "info", "warning", "error")[n % 4], f"a slow search ({n})", "r2", "1.1.0",
            "/api/search", f"req{n:08d}", 200 if n % 4 < 3 else 500, 0.012 * n)
    for n in range(70)
]  # fmt: skip
MW, FISHER = "Mann-Whitney U", "Fisher's exact test"
ANALYSES = [
    Analysis(
        7, share, T0 + share, "1.3.0", "1.2.0", "worse" if slow > 0.1 else "goes on",
        [
            Comparison("/api/search", MW, slow, 0.012, share, 90, p, 0.0028, slow > 0.1),
            Comparison("/", MW, 0.009, 0.008, share, 95, 0.21, 0.0028, False),
            Comparison("/api/menu", MW, 0.019, 0.010, share, 98, 0.0004, 0.0028, False),
            Comparison("errors", FISHER, 0.0, 0.003, 3 * share, 300, 1.0, 0.0028, False),
        ],
    )
    for share, slow, p in ((5, 0.013, 0.4), (25, 0.012, 0.52), (50, 0.214, 3e-12))
]  # fmt: skip
RACES = [
    Race("by requests", "load-1", T0, T0 + 22, 1320, 0, 0.031, 0.08, 4, 61.0, 6),
    Race("always 4", "load-1", T0 + 30, T0 + 52, 1320, 2, 0.022, 0.05, 4, 88.0, 0),
]
LOOPS = Loops(100.0, 1.0, sorted([0.002] * 400 + [n / 100 for n in range(100)]), [0.002] * 396 + [1.0] * 4)
VALUE = [(T0, "1.0.0", 0.0), (T0 + 34, "1.1.0", 8.0), (T0 + 71, "1.2.0", 13.0), (T0 + 95, "1.1.0", 8.0)]
DOCTOR = [
    Check("git", True, "2.43"),
    Check("C compiler", False, "none found", "Install gcc, or go on with the pure Python scorer."),
    Check("Docker", None, "no engine answers", "Only needed for the docker engine."),
]


POST_MORTEM = PostMortem(3, "postmortems/incident-3.md", "# Incident 3: lock\n\n| s | what |\n", "INC-3")

PREDICTIONS = [
    Prediction("welcome-minutes", "number", "?", "min", answer=5.0, truth=0.3, met=T0),
    Prediction("plan-sprints", "number", "?", "sprints", answer=4.0, truth=5.0, met=T0 + 1),
    Prediction("deploy-failed", "number", "?", "requests", answer=12.0, truth=0.0, met=T0 + 2),
    Prediction("operate-lost", "number", "?", "orders", answer=3.0, truth=3.0, met=T0 + 3),
    Prediction(
        "deploy-who", "choice", "?", options=["1.0.0", "1.1.0"], answer="1.0.0", truth="1.1.0", met=T0
    ),
    Prediction("test-order", "order", "?", options=["a", "b"], answer=["a", "b"], truth=["a", "b"], met=T0),
    Prediction("later", "number", "?", "s", answer=3.0),
    Prediction("skipped", "number", "?", "s", truth=3.0, met=T0),
]


def fill(store: Store) -> None:
    """Twenty-two seconds of customers' requests over a rollout, and a minute of samples."""
    dice = random.Random(7)
    requests = []
    for n in range(22 * 60):
        t = T0 + n / 60
        share = min(max((t - T0 - 9) / 4, 0), 1)
        release = "1.1.0" if dice.random() < share else "1.0.0"
        status = 503 if 9.0 < t - T0 < 9.4 and dice.random() < 0.3 else 200
        requests.append(Request(t, "/api/search", status, dice.gammavariate(2, 0.006), release, "load-1"))
    store.add_requests(requests)
    rows: list[tuple[float, str, str, str, str, float]] = []
    for n in range(60):
        crowd = 40 + 80 * max(0, 1 - abs(n - 30) / 20)
        count = 1 + (crowd > 60) + (crowd > 80) + (crowd > 100)
        rows.append((T0 + n, "replicas", "", "", "", count))
        for replica in range(count):
            for metric, value in (
                ("requests_per_second", crowd / count * dice.uniform(0.95, 1.05)),
                ("errors_per_second", 1.5 if 40 < n < 44 else 0.0), ("took_le_0.005", crowd / count * 0.55),
                ("took_le_0.025", crowd / count * dice.uniform(0.42, 0.44)),
                ("took_le_0.05", crowd / count * 0.02),
                ("memory_bytes", 44e6 + 0.9e6 * n), ("cpu_percent", 10 + crowd / count / 3),
            ):  # fmt: skip
                rows.append((T0 + n, metric, f"r{replica}", "1.1.0", "", value))
    store.add_samples(rows)
    store.put(
        *ANALYSES,
        Progress("plan-1", "right", "", T0),
        Progress("plan-2", "not yet", "", T0),
        Progress("code-1", "skipped", "", T0),
        *PREDICTIONS,
    )
    store.put(*REPLICAS, *RELEASES, *ALERTS)
    for event in EVENTS:
        store.add_event(event)


def pictures(store: Store) -> dict[str, Picture]:
    """Every view, drawn from the records above."""
    return {
        "lifecycle": views.lifecycle(
            store, dict.fromkeys(("plan-1", "plan-2", "code-1", "build-1", "repeat-1"), 2)
        ),
        "board": views.board(ITEMS, SPRINT, FINDINGS),
        "forecast": views.forecast(FORECAST),
        "modes": views.modes(),
        "pipeline": views.pipeline(RUN),
        "pipeline_failed": views.pipeline(BROKEN, "push of ab12cd34"),
        "build": views.build(ARTIFACT),
        "image": views.image(IMAGE),
        "image_log": views.image_log(IMAGE_LOG),
        "scorers": views.scorers({"C": 0.0021, "pure Python": 0.0834}),
        "tests": views.tests(report()),
        "test_grid": views.test_grid(report()),
        "matrix": views.matrix(BUGS),
        "diff": views.diff(DIFF),
        "checks": views.checks(
            [
                ("tests touched", True, "tests/unit/test_orders.py"),
                ("no secrets", False, "line 12 of settings.py"),
            ]
        ),
        "git_graph": views.git_graph(GRAPH),
        "now": views.now(store, [CROWD], T0 + 15),
        "registry": views.registry(RELEASES),
        "trail": views.trail(TRAIL),
        "rollout": views.rollout(store, DEPLOYMENT),
        "golden_signals": views.golden_signals(store, T0, T0 + 60),
        "scaling": views.scaling(store, T0, T0 + 60),
        "replicas": views.replicas(REPLICAS),
        "endpoints": views.endpoints(ENDPOINTS),
        "suspects": views.suspects(SUSPECTS),
        "profile": views.profile(PROFILE),
        "memory": views.memory(store, T0, T0 + 60),
        "before_after": views.before_after({"1.3.0": 5120.0, "1.3.1": 12.5}),
        "services": views.services(
            [Service("database", "orders are kept here", "SQL", "DATABASE_URL", "sqlite:///bento.db")]
        ),
        "rollout_steps": views.rollout_steps(DEPLOYMENT),
        "deployments": views.deployments([DEPLOYMENT]),
        "profile_flat": views.profile(
            profiled({"a": 0.6, "a_function_with_a_very_long_name (bento/some/module.py:1)": 0.4}, {})
        ),
        "value_clock": views.value_clock(VALUE),
        "complaints": views.complaints(COMPLAINTS),
        "inbox": views.inbox(EVENTS),
        "logs": views.logs(LOGS),
        "alerts": views.alerts(ALERTS),
        "budget": views.budget(BUDGET),
        "canary": views.canary(store),
        "race": views.race(store, RACES),
        "loops": views.loops(LOOPS),
        "calibration": views.calibration(store),
        "doctor": views.doctor(DOCTOR),
        "post_mortem": views.post_mortem(POST_MORTEM),
    }


def empties(store: Store) -> dict[str, Callable[[], Picture]]:
    """Every view that can have nothing to show, called with nothing."""
    return {
        "board": lambda: views.board([]),
        "forecast": lambda: views.forecast(Forecast(0, [], 0, {}, 0, 0)),
        "pipeline": lambda: views.pipeline([]),
        "build": lambda: views.build(None),
        "scorers": lambda: views.scorers({}),
        "image": lambda: views.image(None, "No Docker engine answers."),
        "image_log": lambda: views.image_log([]),
        "tests": lambda: views.tests(None),
        "test_grid": lambda: views.test_grid([]),
        "matrix": lambda: views.matrix([]),
        "diff": lambda: views.diff(""),
        "checks": lambda: views.checks([]),
        "git_graph": lambda: views.git_graph(CommitGraph([], {}, "", "", 0)),
        "now": lambda: views.now(store),
        "registry": lambda: views.registry([]),
        "trail": lambda: views.trail([]),
        "rollout": lambda: views.rollout(store, None),
        "golden_signals": lambda: views.golden_signals(store, T0, T0 + 60),
        "scaling": lambda: views.scaling(store, T0, T0 + 60),
        "replicas": lambda: views.replicas([]),
        "endpoints": lambda: views.endpoints([]),
        "budget": lambda: views.budget(replace(BUDGET, requests=0.0)),
        "canary": lambda: views.canary(store),
        "race": lambda: views.race(store, []),
        "calibration": lambda: views.calibration(store),
        "memory": lambda: views.memory(store, T0, T0 + 60),
        "before_after": lambda: views.before_after({}),
        "services": lambda: views.services([]),
        "rollout_steps": lambda: views.rollout_steps(replace(DEPLOYMENT, steps=[])),
        "deployments": lambda: views.deployments([]),
        "profile": lambda: views.profile(profiled({}, {})),
        "value_clock": lambda: views.value_clock([]),
        "complaints": lambda: views.complaints([]),
        "suspects": lambda: views.suspects([]),
        "inbox": lambda: views.inbox([]),
        "logs": lambda: views.logs([]),
        "alerts": lambda: views.alerts([]),
        "doctor": lambda: views.doctor([]),
        "post_mortem": lambda: views.post_mortem(None),
    }


def main(folder: Path) -> None:
    """Write every picture into `folder`, as PNG and HTML."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "lab.db").unlink(missing_ok=True)
    store = Store(folder / "lab.db")
    fill(store)
    for name, picture in pictures(store).items():
        (folder / f"{name}.html").write_text(picture.html, encoding="utf-8")
        if picture.png:
            (folder / f"{name}.png").write_bytes(picture.png)
        print(f"{name:16} {len(picture.png) / 1000:6.1f} kB  {picture.caption}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
