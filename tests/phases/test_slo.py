"""Objectives: an error budget, how fast it burns, and alerts that fire and resolve by two windows at once."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

import devops_lab
from devops_lab.errors import BadInput
from devops_lab.model import Slo
from devops_lab.phases.monitor import Monitor
from devops_lab.platform.context import LabContext
from devops_lab.platform.histograms import BOUNDS_SECONDS
from devops_lab.platform.monitoring.objectives import HOUR_SECONDS, PAIRS, WINDOW_SECONDS
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store

AVAILABLE = Slo("availability", 0.99)
QUICK = Slo("quick", 0.95, within_seconds=0.25, endpoint="/api/search")
START = float(int(time.time())) - 10_000


@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    made = Monitor(LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db")))
    for rule in made.rules():
        made.remove_rule(rule.name)
    return made


def feed(m: Monitor, seconds: range, requests: float, bad: float = 0.0) -> None:
    """So many requests in each second, over two replicas, some of them bad in both ways."""
    rows = []
    for second in seconds:
        for replica in ("r1", "r2"):
            who = (replica, "1.1.0")
            for endpoint in ("", "/api/search"):
                rows.append((START + second, "requests_per_second", *who, endpoint, requests / 2))
                rows.append((START + second, "errors_per_second", *who, endpoint, bad / 2))
                rows.append((START + second, "took_le_0.25", *who, endpoint, (requests - bad) / 2))
                rows.append((START + second, "took_le_0.5", *who, endpoint, bad / 2))
    m.store.add_samples(rows)


def judged(m: Monitor, seconds: range) -> list[str]:
    """What changed, second by second."""
    return [f"{a.rule} {a.state} {s}" for s in seconds for a in m.evaluate(START + s)]


def test_the_windows_are_the_workbooks_scaled_to_a_lab() -> None:
    assert [(p.long_hours, round(p.short_hours * 60), p.factor) for p in PAIRS] == [
        (1, 5, 14.4), (6, 30, 6), (72, 360, 1),
    ]  # fmt: skip
    share = [pair.factor * pair.seconds[0] / WINDOW_SECONDS for pair in PAIRS]
    assert share == pytest.approx([0.02, 0.05, 0.10])  # of the month's budget, as in table 5-8
    assert HOUR_SECONDS * 720 == WINDOW_SECONDS


@pytest.mark.parametrize("slo", [AVAILABLE, QUICK], ids=lambda slo: slo.name)
def test_an_outage_fires_the_fast_pair_within_seconds_and_it_resolves_soon_after(
    monitor: Monitor, slo: Slo
) -> None:
    monitor.slo.add(slo)
    feed(monitor, range(60), 100)
    assert judged(monitor, range(50, 60)) == []
    feed(monitor, range(60, 90), 100, bad=100)
    fired = next(
        word for word in judged(monitor, range(60, 90)) if word.startswith(f"{slo.name}/fast firing")
    )
    needed = (
        PAIRS[0].factor * (1 - slo.objective) * PAIRS[0].seconds[0]
    )  # seconds of outage in the long window
    assert int(fired.split()[-1]) - 60 == pytest.approx(needed, abs=2)
    feed(monitor, range(90, 110), 100)
    over = judged(monitor, range(90, 110))
    assert {f"{slo.name}/fast resolved {second}" for second in (91, 92, 93)} & {*over}  # the short window
    assert not [word for word in over if "firing" in word]
    events = [(e.kind, e.subject) for e in monitor.store.events(kind="alert.*") if "fast" in e.subject]
    assert events == [(f"alert.{kind}", f"alert:{slo.name}/fast") for kind in ("firing", "resolved")]


def test_a_trickle_of_errors_fires_the_long_pair_alone(monitor: Monitor) -> None:
    monitor.slo.add(AVAILABLE)
    feed(monitor, range(2200), 100, bad=2)  # twice the budget, far below a page
    assert judged(monitor, range(2190, 2195)) == ["availability/trickle firing 2190"]


def test_a_burn_on_the_border_rings_once(monitor: Monitor) -> None:
    monitor.slo.add(AVAILABLE)
    for second in range(200):
        feed(monitor, range(second, second + 1), 100, bad=15 if second // 10 % 2 else 14)
    rung = [word for word in judged(monitor, range(40, 200)) if word.startswith("availability/fast")]
    assert len(rung) == 1
    assert "firing" in rung[0]


def test_every_second_counts_once_however_it_was_read(monitor: Monitor) -> None:
    """What was there at the start is read at once, and then each tick's own; samples lie on the ticks."""
    monitor.slo.add(AVAILABLE)
    feed(monitor, range(3000, 3020), 100, bad=100)
    monitor.evaluate(START + 3019)
    for second in range(3020, 3030):
        feed(monitor, range(second, second + 1), 100)
        monitor.evaluate(START + second)
    fast = monitor.slo.burns(AVAILABLE, START + 3029)[0]
    assert (fast.long, fast.short) == pytest.approx((100 * 20 / 30, 0))
    for second in range(3030, 7000, 10):  # in an agent that lives long, what is known stays bounded
        monitor.evaluate(START + second)
    feed(monitor, range(7000, 9000), 100, bad=1)
    for second in range(7000, 9000):
        monitor.slo.burn_rate(AVAILABLE, 30, START + second)
    assert monitor.slo.burn_rate(AVAILABLE, 1000, START + 8999) == pytest.approx(1)
    assert len(monitor.slo.sums_of[AVAILABLE].t) < 3200


def test_a_clock_that_is_set_back_makes_nobody_blind(monitor: Monitor) -> None:
    monitor.slo.add(AVAILABLE)
    feed(monitor, range(500, 560), 100)
    assert judged(monitor, range(550, 560)) == []
    feed(monitor, range(100, 130), 100, bad=100)
    assert "availability/fast firing 120" in judged(monitor, range(120, 130))


def test_without_requests_nothing_burns_and_nothing_is_made_up(monitor: Monitor) -> None:
    monitor.slo.add(AVAILABLE)
    budget = monitor.slo.budget("availability")
    assert (budget.requests, budget.left) == (0, 1)
    assert all(burn.both != burn.both for burn in budget.burns)
    assert judged(monitor, range(5)) == []


def test_the_budget_left_is_what_bad_requests_did_not_use(monitor: Monitor) -> None:
    monitor.slo.add(AVAILABLE)
    feed(monitor, range(100), 100, bad=0)
    feed(monitor, range(100, 200), 100, bad=0.5)
    budget = monitor.slo.budget("availability", START, START + 199.5)
    assert (budget.requests, budget.bad) == pytest.approx((20_000, 50))
    assert budget.left == pytest.approx(0.75)
    shares = [share for _, share in budget.points]
    assert shares == sorted(shares, reverse=True)
    assert shares[len(shares) // 2] == pytest.approx(1, abs=0.02)
    assert len(budget.points) == 61


def test_removing_an_objective_closes_its_alerts(monitor: Monitor) -> None:
    monitor.slo.add(AVAILABLE)
    feed(monitor, range(30), 100, bad=100)
    judged(monitor, range(28, 30))
    assert monitor.alerts("firing")
    monitor.slo.remove("availability")
    assert (monitor.alerts("firing"), monitor.slo.all()) == ([], [])
    with pytest.raises(BadInput, match="There is no objective 'availability'"):
        monitor.slo.remove("availability")


@pytest.mark.parametrize(
    ("slo", "words"),
    [
        (Slo("availability", 1.0), "leaves no error budget"),
        (Slo("availability", 99.0), "a share such as 0.99, not per cent"),
        (Slo("availability", 0.5), "not even an outage burns"),
        (Slo("Availability", 0.99), "small letters"),
        (Slo("quick", 0.99, within_seconds=0.2), "none of the buckets"),
    ],
)
def test_an_objective_that_contradicts_itself_is_refused(monitor: Monitor, slo: Slo, words: str) -> None:
    with pytest.raises(BadInput, match=words):
        monitor.slo.add(slo)
    assert monitor.slo.all() == []


def test_the_buckets_are_those_that_the_shop_counts_in() -> None:
    source = Path(devops_lab.__file__).parent / "shop/template/src/bento/metrics.py"
    said = re.search(r"BUCKETS_SECONDS = \((.*)\)", source.read_text())
    assert said
    assert tuple(map(float, said[1].split(","))) == BOUNDS_SECONDS
