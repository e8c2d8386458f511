"""Judged on too little: no verdict without enough requests, and "can't tell" is an answer of its own."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from devops_lab.errors import DeployRefused, Inconclusive
from devops_lab.model import (
    AlertRule,
    Analysis,
    Pool,
    Replica,
    ReplicaState,
    Request,
    ScalingPolicy,
    Slo,
    Step,
)
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.operate import Operate
from devops_lab.platform.agent.autoscaler import autoscale_step
from devops_lab.platform.agent.exposition import together
from devops_lab.platform.clock import Awake
from devops_lab.platform.context import LabContext
from devops_lab.platform.monitoring.rules import read
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.production import canary, strategies, verify
from devops_lab.production.canary import compare
from devops_lab.production.rollout import NOT_READY_SECONDS
from devops_lab.production.strategies import SURE_ROUNDS, side_by_side
from devops_lab.production.verify import PATHS, check_production
from tests.patience import until
from tests.phases.production import production

RNG = random.Random(7)
OLD, GOOD, FAILS, SLOW = "1.0.0", "1.1.0", "1.2.0", "1.3.0"


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    with production(tmp_path_factory.mktemp("labs") / "lab", OLD, GOOD, FAILS, SLOW) as made:
        Deploy(made).run(OLD)
        yield made


@pytest.fixture
def world(shop: LabContext) -> LabContext:
    """Production serves the old version."""
    if Deploy(shop).current() != OLD:
        Deploy(shop).run(OLD)
    return shop


@contextmanager
def busy() -> Iterator[None]:
    """The machine has two endless loops for each core, as beside five other labs."""
    loops = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(2 * (os.cpu_count() or 1))
    ]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


# ---- deployments
@pytest.mark.alone  # it keeps the machine busy itself
@pytest.mark.timeout(240)
def test_blue_green_judges_versions_and_not_the_machine(world: LabContext) -> None:
    """15a: a good version was refused on 9 and 6 requests, from before and after the switch.

    The bad ones come without the loops: beside them, the slow one's replicas can't keep up, and it is
    refused as unhealthy before it is judged by its answers.
    """
    with Operate(world).load(60, 300) as run:
        until(lambda: world.store.requests(run=run.id), "customers")
        with busy():
            for version in (GOOD, OLD, GOOD, OLD):
                assert Deploy(world).run(version, "blue/green").state == "done"
        with pytest.raises(DeployRefused, match=r"/api/search.*Mann-Whitney"):
            Deploy(world).run(SLOW, "blue/green")
        with pytest.raises(DeployRefused, match="requests fail"):
            Deploy(world).run(FAILS, "blue/green")
        assert Deploy(world).current() == OLD


@pytest.mark.parametrize("count", [9, 90])
def test_a_machine_that_got_busy_at_the_switch_speaks_against_nobody(world: LabContext, count: int) -> None:
    """15a, by its figures: 6 quick requests of the old version before, 9 slow ones of the new one after."""

    def waited(release: str, milliseconds: float, number: int) -> None:
        t = world.store.now()
        rows = [Request(t + 0.001 * n, "/api/menu", 200, milliseconds / 1000, release) for n in range(number)]
        world.store.add_requests(rows)

    def at_the_switch(step: Step) -> None:
        if step.name.startswith("start"):
            waited(OLD, 5, count * 2 // 3)
        if step.name.startswith("switch"):
            waited(GOOD, 300, count)

    assert Deploy(world).run(GOOD, "blue/green", on_step=at_the_switch).state == "done"


@pytest.mark.timeout(120)
def test_blue_green_with_few_customers_waits_and_says_that_it_cant_tell(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strategies, "PATIENCE_SECONDS", 4.0)
    with Operate(world).load(1, 120):
        done = Deploy(world).run(GOOD, "blue/green")
    step = next(step for step in done.steps if step.name.startswith("prove"))
    assert step.seconds >= 4
    assert "too few to judge errors by" in step.output


def test_without_customers_there_is_nothing_to_wait_for(world: LabContext) -> None:
    done = Deploy(world).run(GOOD, "blue/green")
    assert next(step for step in done.steps if step.name.startswith("prove")).seconds < 10


def test_a_canary_that_too_few_saw_is_inconclusive(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It was called refused, as a bad version is."""
    monkeypatch.setattr(canary, "PATIENCE_SECONDS", 1.0)
    with pytest.raises(Inconclusive, match=r"too few to tell(.|\n)*40 of each(.|\n)*lab\.operate\.load"):
        Deploy(world).run(GOOD, "canary")
    last = Deploy(world).history()[-1]
    assert (last.state, Deploy(world).current()) == ("inconclusive", OLD)
    assert world.store.all(Analysis)[-1].verdict == "inconclusive"
    assert "1.1.0 was inconclusive" in Operate(world).inbox()[-1].message


def test_one_late_health_check_is_not_an_unhealthy_version(tmp_path: Path) -> None:
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    begun, now = Deploy(world).begin(GOOD, "canary", "ada", ""), [0.0]
    go = replace(begun, awake=cast(Awake, lambda: now[0]))

    def look(seconds: float, state: ReplicaState) -> bool:
        now[0] += seconds
        world.store.replace_all(Replica, [Replica("r1", go.new.name, GOOD, "127.0.0.1", 0, 0, "", state)])
        return go.check_new_replicas()

    assert look(0.1, "healthy")
    assert not look(0.1, "unhealthy")
    assert look(NOT_READY_SECONDS, "healthy")
    assert not look(0.1, "unhealthy")
    with pytest.raises(DeployRefused, match="unhealthy"):
        look(NOT_READY_SECONDS + 0.1, "unhealthy")


@pytest.mark.parametrize(
    ("later", "status", "said"),
    [
        ((0.036, 0.04), 200, ""),
        ((0.1, 0.11), 200, "/api/orders takes"),
        ((0.036, 0.04), 500, "requests fail"),
    ],
)
def test_a_cold_start_speaks_against_no_canary(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, later: tuple[float, float], status: int, said: str
) -> None:
    """Six first orders of a replica that just began took 99 ms, 135 of the stable ones 38: it was refused."""

    def orders(waits: tuple[float, float], count: int, status: int = 200) -> list[Request]:
        menu = [Request(0.0, "/api/menu", 200, RNG.uniform(0.004, 0.006)) for _ in range(40)]
        return [*menu, *(Request(0.0, "/api/orders", status, RNG.uniform(*waits)) for _ in range(count))]

    stable = orders((0.03, 0.045), 135)
    looks = iter([(orders((0.09, 0.11), 6, status), stable), (orders(later, 8), stable)])
    monkeypatch.setattr(canary, "_watch", lambda *_: next(looks))
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    begun = Deploy(world).begin(GOOD, "canary", "ada", "")
    go = replace(begun, old=replace(begun.new, name="p0", release=OLD))
    if said:
        with pytest.raises(DeployRefused, match=said):
            compare(go, 5, 1.0, 3)
    else:
        assert "slow at first, and not again: /api/orders" in compare(go, 5, 1.0, 3)
    assert len(list(looks)) == (status != 200)  # failures speak for themselves, and at once
    judged = world.store.all(Analysis)[-1]
    assert judged.verdict == ("worse" if said else "goes on")
    levels = [check.level for check in judged.checks]
    assert sum(levels) == pytest.approx(canary.LEVEL / 3)  # shared by looks and tests


def test_customers_who_leave_before_the_second_look_leave_it_open(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def search(seconds: float, count: int) -> list[Request]:
        return [Request(0.0, "/api/search", 200, RNG.uniform(seconds, 1.1 * seconds)) for _ in range(count)]

    looks = iter([(search(0.4, 50), search(0.01, 200)), (search(0.4, 3), search(0.01, 9))])
    monkeypatch.setattr(canary, "_watch", lambda *_: next(looks))
    begun = Deploy(LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))).begin(
        GOOD, "canary", "ada", ""
    )
    with pytest.raises(Inconclusive, match=r"too few to tell again whether it is slow \(/api/search\)"):
        compare(replace(begun, old=replace(begun.new, name="p0", release=OLD)), 5, 1.0, 3)


def probed(page_seconds: float, queue: float = 0.0) -> list[Request]:
    """Answers of pages that take so long, on a machine that stalls, behind a queue that comes and goes."""

    def one() -> float:
        return page_seconds + RNG.choice((0.0, 0.0, 0.0, 0.09)) + RNG.choice((0.0, 0.5, 1.0)) * queue

    return [Request(0.0, page, 200, one()) for _ in range(SURE_ROUNDS + 1) for page in PATHS]


@pytest.mark.parametrize(
    ("new", "queue", "old", "bad"),
    [(0.004, 0.0, 0.004, False), (0.004, 0.2, 0.004, False), (0.024, 0.0, 0.001, True)],
)
def test_side_by_side_finds_the_slow_version_and_no_queue(
    new: float, queue: float, old: float, bad: bool
) -> None:
    found = [any(c.bad for c in side_by_side(probed(new, queue), probed(old))) for _ in range(50)]
    assert sum(found) == len(found) * bad


@pytest.mark.parametrize(
    ("slow", "seconds", "status", "well"),
    [
        (1, 3.0, 200, True),
        (1, 5.0, 0, True),
        (3, 5.0, 0, False),
        (99, 0.8, 200, False),
        (99, 5.0, 0, False),
        (1, 0.01, 500, False),
    ],
)
def test_one_slow_probe_refuses_nothing(
    monkeypatch: pytest.MonkeyPatch, slow: int, seconds: float, status: int, well: bool
) -> None:
    """The slowest of twenty over half a second refused a version, whatever kept the machine busy."""
    asked = iter(range(1000))

    def ask(url: str) -> tuple[int, str, float]:
        return (status, GOOD if status else "", seconds) if next(asked) < slow else (200, GOOD, 0.01)

    monkeypatch.setattr(verify, "ask", ask)
    if well:
        assert "20 probes" in check_production("http://x", GOOD)
    else:
        with pytest.raises(DeployRefused):
            check_production("http://x", GOOD)


# ---- alerts, objectives, scaling
@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    made = Monitor(LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db")))
    for rule in made.rules():
        made.remove_rule(rule.name)
    return made


def seconds(monitor: Monitor, start: float, *rows: dict[str, float]) -> list[str]:
    """Feed one second after the other, and judge after each; the states in the end."""
    for number, row in enumerate({"up": 1.0, **row} for row in rows):
        t = start + number
        monitor.store.add_samples((t, name, "r1", OLD, "", value) for name, value in row.items())
        monitor.store.add_samples((t, name, "", "", "", row[name]) for name in row if name.endswith("_ms"))
        monitor.evaluate(t)
    return [alert.state for alert in monitor.alerts()]


def test_one_failed_request_of_two_is_no_alert(monitor: Monitor) -> None:
    monitor.add_rule(AlertRule("errors", "error_ratio", 0.05, resolve=0.01))
    start = time.time() - 60
    one, none = {"requests_per_second": 2.0, "errors_per_second": 1.0}, {"requests_per_second": 0.0}
    assert seconds(monitor, start, one, none, none) == []
    assert seconds(monitor, start + 20, one, one, one) == ["firing"]  # three of six are
    quiet = {"requests_per_second": 50.0, "errors_per_second": 0.0}
    assert seconds(monitor, start + 23, *[quiet] * 6) == ["resolved"]


def test_one_slow_request_is_no_alert(monitor: Monitor) -> None:
    monitor.add_rule(AlertRule("slow", "p95_ms", 250))
    start = time.time() - 60
    slow, quick = ({"requests_per_second": 1.0, "p95_ms": ms} for ms in (3000.0, 4.0))
    assert seconds(monitor, start, slow) == []  # the only request there is
    assert seconds(monitor, start + 20, quick, slow, quick, quick, quick) == []
    many = {"requests_per_second": 3.0, "p95_ms": 4.0}
    assert (
        seconds(monitor, start + 40, many, {"requests_per_second": 3.0, "p95_ms": 3000.0}, many, many) == []
    )
    assert seconds(monitor, start + 50, *[{"requests_per_second": 4.0, "p95_ms": 400.0}] * 4) == ["firing"]


def test_the_few_slow_answers_of_a_young_replica_are_no_alert(monitor: Monitor) -> None:
    """A canary with one request a second, and slow ones at first, spoke for the whole endpoint."""
    monitor.add_rule(AlertRule("slow", "p95_ms", 250, 1, endpoint="*"))

    def alerts(start: float, of_old: int, of_canary: int) -> list[str]:
        for t in (start + number for number in range(5)):
            rows = [
                (t, name, replica, release, "/api/orders", value)
                for replica, release, bucket, count, p95 in (
                    ("r1", OLD, "took_le_0.01", of_old, 9.0),
                    ("r2", GOOD, "took_le_1", of_canary, 750.0),
                )
                for name, value in ((bucket, count), ("p95_ms", p95), ("requests_per_second", count))
            ]
            monitor.store.add_samples(rows)
            monitor.store.add_samples((t, name, "", "", "/api/orders", ms) for name, _, ms in together(rows))
            monitor.evaluate(t)
        return [f"{alert.state} {alert.evidence[:2]}" for alert in monitor.alerts()]

    assert alerts(time.time() - 60, 25, 1) == []
    assert alerts(time.time() - 30, 20, 5) == ["firing ['endpoint:/api/orders', 'release:1.1.0']"]


def test_a_replica_that_is_gone_is_judged_no_more(monitor: Monitor) -> None:
    rule, start, gone = AlertRule("growth", "memory_bytes_per_minute", 20e6), time.time() - 60, 16
    grows = [(start + n, "memory_bytes", "r1", OLD, "", 40e6 + 1e6 * n) for n in range(gone)]
    stays = [(start + n, "memory_bytes", "r2", OLD, "", 40e6) for n in range(30)]
    monitor.store.add_samples([*grows, *stays])
    for then, least, most, who in ((gone - 1, 50e6, 70e6, "replica:r1"), (gone + 8, 0, 0, "replica:r2")):
        reading = read(monitor.store, rule, start + then)
        assert reading
        assert (reading.subject, least <= reading.value <= most) == (who, True), reading


def test_one_failed_request_of_two_burns_no_budget_alert(monitor: Monitor) -> None:
    monitor.slo.add(Slo("availability", objective=0.99))
    start = time.time() - 60
    one = {"requests_per_second": 2.0, "errors_per_second": 1.0}
    assert seconds(monitor, start, one) == []
    assert "firing" in seconds(monitor, start + 1, one, one)


def test_the_autoscaler_moves_on_no_single_second(tmp_path: Path) -> None:
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    operate, now = Operate(world), time.time()
    world.store.put(Pool("p", OLD, 1, 100), Replica("r0", "p", OLD, "127.0.0.1", 1, 1, "", "healthy"))
    operate.autoscale(ScalingPolicy("p95_ms", 50, 1, 4))
    world.store.add_samples([(now, "p95_ms", "r0", OLD, "", 900.0)])
    assert autoscale_step(world, now) is None
    world.store.add_samples([(now + 1, "p95_ms", "r0", OLD, "", 900.0)])
    assert autoscale_step(world, now + 1) == 4
