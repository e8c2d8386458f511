"""Incident drills: each fault really does what it says, is seen, mended, and leaves nothing behind."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest

from devops_lab.errors import BadInput
from devops_lab.lab import Lab
from devops_lab.model import Detour, Event, EventKind, Request
from devops_lab.phases.operate import Operate
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import failed, percentile
from devops_lab.production.drills import Drill, DrillRun, catalogue, faults
from devops_lab.production.drills.evidence import skew_seconds
from devops_lab.production.drills.record import path_of
from tests.patience import until
from tests.shoplab import copied

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
BAR_SECONDS = 60.0
ALERT_SECONDS = 5.0
fired: dict[str, float] = {}  # fault -> seconds from the injection to its alert
Start = Callable[..., Drill]


@pytest.fixture(scope="module")
def lab(operated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab whose production serves a version without known faults."""
    opened = copied(operated, tmp_path_factory.mktemp("drills") / "lab")
    try:
        opened.catch_up("monitor")
        yield opened
    finally:
        opened.clean()


@pytest.fixture
def started(lab: Lab) -> Iterator[Start]:
    """Starts drills, and ends what a test that failed has left."""
    drills: list[Drill] = []

    def start(name: str | None = None, **how: Any) -> Drill:
        drills.append(lab.operate.drill(name, **how))
        return drills[-1]

    yield start
    for drill in drills:
        drill.give_up()


def production(lab: Lab) -> list[tuple[str, int, int, dict[str, str]]]:
    return [(pool.release, pool.replicas, pool.weight, pool.env) for pool in lab.deploy.pools()]


def jobs(lab: Lab) -> list[str]:
    return [each.command for each in lab.operate.processes() if "drills.jobs" in each.command]


def told(drill: Drill) -> Callable[[], str]:
    return lambda: f"{drill.restored().seen} {drill.seen()}"


# ---- what each fault does to production, as it was measured
class Measured:
    """What the store holds since a fault was injected."""

    def __init__(self, lab: Lab, since: float) -> None:
        self.lab, self.since = lab, since
        self.rows = lab.store.requests(since=since)
        self.failed = [row for row in self.rows if failed(row)]

    def events(self, kind: EventKind) -> list[Event]:
        return self.lab.store.events(kind=kind, since=self.since)

    def alert(self, rule: str) -> float:
        return max(
            float(e.data["value"]) for e in self.events("alert.firing") if e.subject == f"alert:{rule}"
        )

    def p95(self, endpoint: str) -> float:
        return percentile([row.seconds for row in self.rows if row.endpoint == endpoint], 0.95)

    def only(self, status: int, endpoint: str) -> bool:
        return {(row.status, row.endpoint) for row in self.failed} == {(status, endpoint)}

    def errors(self) -> str:
        lines = self.lab.monitor.logs(level="ERROR", since=self.since)
        return " ".join(f"{line.message} {line.extra}" for line in lines)


def canary_alone_fails(seen: Measured) -> bool:
    def of_search(rows: list[Request]) -> set[str]:
        return {row.release for row in rows if row.endpoint == "/api/search"}

    return len(of_search(seen.failed)) == 1 and len(of_search(seen.rows)) == 2


def half_is_late(seen: Measured) -> bool:
    late = list(seen.lab.operate.lost_on_the_way(seen.since).values())
    return late[0] > 0.5 and late[-1] < 0.5 and seen.failed == []


def all_healthy(seen: Measured) -> bool:
    return all(replica.state == "healthy" for replica in seen.lab.replicas())


SYMPTOMS: dict[str, Callable[[Measured], bool]] = {
    "memory leak": lambda seen: seen.alert("memory-growth") > 20e6,
    "CPU burn": lambda seen: (
        max(row[-1] for row in seen.lab.store.samples("cpu_percent", since=seen.since)) > 30
    ),
    "slow query": lambda seen: seen.p95("/api/orders/{id}") > 2 * seen.p95("/api/menu"),
    "lock": lambda seen: seen.p95("/api/orders") > 2 * seen.p95("/api/menu"),
    "log flood": lambda seen: seen.alert("log-flood") > 10e6,
    "crash loop": lambda seen: sum(e.data["how"] == "SIGSEGV" for e in seen.events("replica.died")) >= 3,
    "lying health check": lambda seen: all_healthy(seen) and "closed database" in seen.errors(),
    "wrong configuration": lambda seen: any(
        "BENTO_LOG_LEVEL" in e.data["last_lines"] for e in seen.events("replica.died")
    ),
    "dead dependency": lambda seen: seen.only(503, "/api/orders") and "does not answer" in seen.errors(),
    "packet delay": half_is_late,
    "clock skew in logs": lambda seen: (
        skew_seconds(seen.lab.world, seen.since) > 4 * 3600 and not seen.failed
    ),
    "bad canary": canary_alone_fails,
    "poisoned order": lambda seen: seen.failed == [] and "IndexError" in seen.errors(),
    "connection leak": lambda seen: seen.only(503, "/api/orders/{id}"),
}


# ---- what is no fault
def test_starts_drains_and_replacements_fire_no_alert(lab: Lab) -> None:
    """An alert says "slow" only where customers waited too; every other one would be false."""
    since, version = lab.store.event("test", "profile.done", "mark").t, lab.deploy.current()
    with lab.operate.load(rate=40, seconds=170) as load:
        until(lambda: lab.store.requests(run=load.id, limit=1), "customers")
        for strategy in ("rolling", "blue/green", "canary"):
            lab.deploy.run(version, strategy, env={})
        for replicas in (4, 1, 2):
            lab.deploy.scale(replicas)
        lab.operate.kill()
        lab.world.control.wait_settled(60)
        count = len(lab.store.requests(run=load.id))
        until(lambda: len(lab.store.requests(run=load.id)) > count + 240, "customers afterwards")
    seen = Measured(lab, since)
    assert seen.failed == []
    waited = max(seen.p95(endpoint) for endpoint in {row.endpoint for row in seen.rows}) > 0.15
    alerts = {event.subject for event in seen.events("alert.firing")}
    assert alerts <= ({"alert:slow"} if waited else set())


def test_there_are_thirteen_and_each_has_its_symptom() -> None:
    assert len(catalogue()) >= 13
    assert SYMPTOMS.keys() == catalogue().keys()


@pytest.mark.parametrize("name", list(catalogue()))
def test_a_fault_is_seen_mended_and_gone(lab: Lab, started: Start, name: str) -> None:
    fault, before = catalogue()[name], production(lab)
    drill = started(name)
    sign = until(drill.detected, f"a sign of {name}", seconds=BAR_SECONDS, evidence=drill.seen)
    assert sign
    if fault.alerts:
        assert sign.by in fault.alerts
        fired[name] = sign.t - drill.run.injected
    else:
        assert sign.by == {"customers": "customers", "clock": "logs"}[fault.sign]
    seen = lambda: SYMPTOMS[name](Measured(lab, drill.run.injected))  # noqa: E731
    until(seen, f"the symptom of {name}", every_seconds=0.5, evidence=drill.seen)
    assert not drill.restored()
    assert drill.diagnose(name)
    drill.mend()
    until(
        drill.restored, f"service after {name}", seconds=BAR_SECONDS, every_seconds=0.3, evidence=told(drill)
    )
    took = drill.run.seconds
    print(f"\n{name}: " + ", ".join(f"{what} after {seconds:.1f} s" for what, seconds in took.items()))
    assert took["detected"] <= BAR_SECONDS
    assert took["restored"] <= BAR_SECONDS
    assert (production(lab), jobs(lab), lab.store.all(Detour)) == (before, [], [])
    assert not path_of(lab.world).exists()


def test_the_alerts_come_soon() -> None:
    """The bar is 5 s, and holds on an idle machine; a busy one is told, and failed at three times as much."""
    if len(fired) < 5:
        pytest.skip("the drills themselves did not run")
    told = ", ".join(f"{name} {seconds:.1f}" for name, seconds in sorted(fired.items(), key=lambda x: x[1]))
    print(f"\nfault injected > alert firing: median {median(fired.values()):.1f} s ({told})")
    assert median(fired.values()) < 3 * ALERT_SECONDS


# ---- blind, guessing, giving up
def test_a_blind_drill_keeps_its_secret_until_it_is_named(lab: Lab, started: Start) -> None:
    first = lab.store.event("test", "profile.done", "mark")
    drill = started(seed="lock, as it happens")
    name = drill._note.fault
    with pytest.raises(BadInput, match="A drill runs already"):
        lab.operate.drill()
    assert lab.operate.current_drill() is drill
    with pytest.raises(BadInput, match="There is no fault 'gremlins'"):
        drill.diagnose("gremlins")
    with pytest.raises(BadInput, match="The incident goes on"):
        drill.post_mortem()
    wrong = next(other for other in catalogue() if other != name)
    answer = drill.diagnose(wrong)
    assert not answer
    assert "It is something else. Seen so far:" in answer.seen
    visible = [repr(event) for event in lab.store.events(after_id=first.id)] + [repr(drill), repr(drill.run)]
    assert [text for text in visible if name in text] == []
    assert path_of(lab.world).stat().st_mode & 0o77 == 0
    assert name in drill.give_up()
    assert (drill.run.state, drill.run.fault, drill.run.guesses) == ("given up", name, [wrong])
    assert (jobs(lab), lab.operate.current_drill()) == ([], None)


def test_seeds_and_learners_draw_different_faults(lab: Lab) -> None:
    world = lab.world
    drawn = {seed: faults.pick(world, seed, []).name for seed in range(20)}
    assert len(set(drawn.values())) > 5
    assert drawn == {seed: faults.pick(world, seed, []).name for seed in range(20)}
    ann, bob = (
        [
            faults.pick(replace(world, settings=replace(world.settings, learner=who)), n, []).name
            for n in range(10)
        ]
        for who in ("ann", "bob")
    )
    assert ann != bob
    met = [name for name in catalogue() if name != "lock"]
    assert {faults.pick(world, seed, met).name for seed in range(5)} == {"lock"}


def test_an_unknown_fault_is_refused(lab: Lab) -> None:
    with pytest.raises(BadInput, match="Did you mean 'memory leak'"):
        lab.operate.drill("memory leek")


def test_what_can_not_be_ended(lab: Lab) -> None:
    agent = next(each for each in lab.operate.processes() if each.what == "agent")
    with pytest.raises(BadInput, match="belongs to production"):
        lab.operate.end_process(agent.pid)
    with pytest.raises(BadInput, match="no process 1"):
        lab.operate.end_process(1)


# ---- afterwards
def test_a_post_mortem_has_all_its_parts_and_its_action_is_in_the_backlog(lab: Lab, started: Start) -> None:
    drill = started("lock")
    until(drill.detected, "a sign", seconds=BAR_SECONDS)
    drill.give_up()
    found = drill.post_mortem()
    assert drill.post_mortem() == found
    text = (lab.root / found.path).read_text("utf-8")
    for part in ("Impact", "Timeline", "Detection and response", "What went well", "Action items"):
        assert f"## {part}" in text
    assert f"Detected after {drill.run.seconds['detected']:.1f} s, by slow" in text
    requests = len(lab.store.requests(since=drill.run.injected, until=drill.run.ended))
    assert f"{requests} requests" in text
    item = next(item for item in lab.plan.backlog() if item.id == found.item)
    assert item.evidence == [f"drill:{drill.run.id}", "alert:slow"]
    assert ("item:" + item.id, "because of", "alert:slow") in {
        row[:3] for row in lab.store.trail(f"item:{item.id}")
    }


CHILD = """
import sys, time
from devops_lab.lab import Lab
lab = Lab.open(sys.argv[1])
lab.operate.drill("poisoned order")
print("started", flush=True)
time.sleep(600)
"""


def test_a_drill_whose_process_was_killed_is_undone_when_the_lab_is_opened_again(
    lab: Lab, tmp_path: Path
) -> None:
    before, drills = production(lab), len(lab.store.all(DrillRun))
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(lab.root)], stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]
    )
    assert child.stdout
    assert child.stdout.readline() == b"started\n"
    assert production(lab) != before
    child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    until(lambda: jobs(lab) == [], "what ran beside it to end with it")
    Lab.open(lab.root).close()
    assert production(lab) == before
    left = lab.store.all(DrillRun)
    assert (len(left), left[-1].state, left[-1].fault) == (drills + 1, "undone", "poisoned order")
    assert not path_of(lab.world).exists()


def test_the_way_back_waits_for_a_request_that_both_its_ends_have_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Right after the first sign there was none yet: a bare StopIteration."""
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    answers, killed = iter([{}, {}, {"r2": 0.6, "r1": 0.0}]), list[str]()
    monkeypatch.setattr(Operate, "lost_on_the_way", lambda *_: next(answers))
    monkeypatch.setattr(Operate, "kill", lambda _, replica: killed.append(replica))
    faults.mend(world, faults.find("packet delay"), DrillRun(1, "", False, 0.0, 0.0))
    assert killed == ["r2"]
