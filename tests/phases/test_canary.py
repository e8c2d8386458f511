"""The canary's judge: its tests against published values, its false alarms and its hits on recorded requests.

recorded/latencies.json: milliseconds of each endpoint of the real shop behind Envoy, two replicas on a busy
machine, customers of `Operate.load`: 1.0.0 at 60 requests/s for 40 s, and with slow-search at 25 for 20 s.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab.errors import DeployRefused
from devops_lab.model import Analysis, LogLine, Pool, Request
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.operate import Operate
from devops_lab.platform.context import LabContext
from devops_lab.platform.store import Store
from devops_lab.production import canary
from devops_lab.production.canary import LEVEL, MIN_REQUESTS, fisher, judge, mann_whitney, problem, served
from devops_lab.production.strategies import canary_replicas
from tests.phases.production import production

Recorded = dict[str, dict[str, list[float]]]
STEPS = 3


@pytest.fixture(scope="module")
def recorded() -> Recorded:
    found: Recorded = json.loads((Path(__file__).parent / "recorded" / "latencies.json").read_text())
    return found


def outcomes(rows: list[tuple[str, float]], status: int = 200, release: str = "1.0.0") -> list[Request]:
    return [Request(float(n), name, status, ms / 1000, release) for n, (name, ms) in enumerate(rows)]


def flat(of: dict[str, list[float]]) -> list[tuple[str, float]]:
    return [(name, ms) for name, values in of.items() for ms in values]


# ---- the tests, against values from elsewhere
def test_mann_whitney_against_published_values() -> None:
    """SciPy's manual on `mannwhitneyu` (method asymptotic, two-sided 0.11134688653314041)."""
    first, second = [19, 22, 16, 29, 24], [20, 11, 17, 12]
    assert mann_whitney(first, second) == pytest.approx(0.11134688653314041 / 2, rel=1e-9)
    assert mann_whitney(second, first) > 0.9


def test_mann_whitney_shares_ranks_among_equal_values() -> None:
    # by hand: ranks 1, 3, 3, 3 | 5.5, 5.5; U = 0, E = 4, variance 8/12 * (7 - (24 + 6) / 30) = 4
    assert mann_whitney([9, 9], [1, 5, 5, 5]) == pytest.approx(0.04005915686381709)  # z = (8 - 4 - 0.5) / 2
    assert mann_whitney([5, 5], [5, 5, 5]) == 1.0
    assert mann_whitney([], [1.0]) == 1.0


def test_fisher_against_published_values() -> None:
    assert fisher(3, 4, 1, 4) == pytest.approx(17 / 70)  # Fisher's lady who tastes tea
    assert fisher(8, 10, 1, 6) == pytest.approx(0.024475524475524)  # SciPy's manual, one-sided
    assert fisher(0, 10, 5, 10) == pytest.approx(1.0)
    assert fisher(0, 0, 0, 0) == 1.0
    assert 0 < fisher(300, 1000, 100, 4000) < 1e-100


# ---- false alarms and hits
def rollout_of(
    new: list[tuple[str, float]], old: list[tuple[str, float]], rng: random.Random, size: int
) -> str:
    """A whole rollout in three looks, each on requests of its own."""
    for look in range(STEPS):
        count = size * (look + 1)
        if worse := problem(
            judge(outcomes(rng.sample(new, count)), outcomes(rng.sample(old, 150)), LEVEL / STEPS)
        ):
            return worse
    return ""


@pytest.mark.parametrize(
    ("share", "stable", "wanted", "count"),
    [(5, 2, 2, 1), (25, 2, 2, 1), (50, 2, 2, 2), (25, 4, 4, 2), (50, 4, 2, 2), (90, 3, 3, 3), (1, 1, 1, 1)],
)
def test_no_replica_of_a_canary_is_busier_than_a_stable_one(
    share: int, stable: int, wanted: int, count: int
) -> None:
    assert canary_replicas(share, stable, wanted) == count
    if count < wanted:
        assert share / count <= (100 - share) / stable


@pytest.mark.parametrize("size", [40, 80])
@pytest.mark.parametrize("floor", [True, False])
def test_a_release_as_its_own_canary_is_seldom_turned_away(
    recorded: Recorded, monkeypatch: pytest.MonkeyPatch, floor: bool, size: int
) -> None:
    """Without the floor of what a customer feels the tests alone must hold their level, too."""
    if not floor:
        monkeypatch.setattr(canary, "SLOWER_FACTOR", 0.0)
        monkeypatch.setattr(canary, "SLOWER_SECONDS", -1.0)
    rows, trials = flat(recorded["same"]), 200
    aborted = sum(bool(rollout_of(rows, rows, random.Random(seed), size)) for seed in range(trials))
    allowed = LEVEL + 2.6 * (LEVEL * (1 - LEVEL) / trials) ** 0.5  # 99 % of the runs of a test at its level
    print(f"{aborted} of {trials} aborted, level {LEVEL:.0%}, floor {floor}")
    assert aborted <= allowed * trials
    if floor:
        assert aborted <= 1


@pytest.mark.parametrize("size", [MIN_REQUESTS])
def test_a_slow_search_is_turned_away(recorded: Recorded, size: int) -> None:
    slow, good = flat(recorded["slow-search"]), flat(recorded["same"])
    reasons = [rollout_of(slow, good, random.Random(seed), size) for seed in range(60)]
    assert sum(map(bool, reasons)) >= 57
    assert sum("/api/search takes" in reason for reason in reasons) >= 48  # others suffer as well
    assert "Mann-Whitney U: p = " in reasons[0]


def test_a_small_difference_is_sure_and_yet_no_reason(recorded: Recorded) -> None:
    rows = flat(recorded["same"])
    checks = judge(outcomes([(name, ms + 10) for name, ms in rows]), outcomes(rows))
    latency = [check for check in checks if check.what != "errors"]
    assert all(check.p < check.level / 1000 and not check.bad for check in latency)
    assert problem(checks) == ""


def test_errors_turn_it_away_when_they_are_many_and_no_chance() -> None:
    good = outcomes([("/api/orders", 5.0)] * 200)

    def with_errors(count: int, of: int) -> str:
        return problem(judge([*outcomes([("/x", 5.0)] * count, 500), *good[: of - count]], good))

    assert with_errors(1, 20) == ""
    assert "15.0% of its requests fail against 0.0%" in with_errors(3, 20)
    assert "Fisher" in with_errors(3, 20)
    assert with_errors(3, 200) == ""  # below the floor
    assert with_errors(20, 20).startswith("100.0%")


def test_an_endpoint_with_few_answers_is_not_judged() -> None:
    rows = [("/api/menu", 5.0)] * 50
    checks = judge(
        outcomes([*rows, *[("/api/search", 900.0)] * 4]), outcomes([*rows, *[("/api/search", 5.0)] * 50])
    )
    assert {check.what for check in checks} == {"/api/menu", "errors"}


def test_where_no_customer_measured_the_replicas_logs_tell(tmp_path: Path) -> None:
    store = Store(tmp_path / "lab.db")
    lines = [("/api/menu", 200), ("/readyz", 200), ("", 0), ("/api/orders", 500)]
    store.add_logs(
        LogLine(5.0, "INFO", "x", "r1", "1.1.0", endpoint, "", status, 0.25) for endpoint, status in lines
    )
    found = {(o.endpoint, o.status, o.seconds) for o in served(store, 1.0)["1.1.0"]}
    assert found == {("/api/menu", 200, 0.25), ("/api/orders", 500, 0.25)}
    store.add_requests([Request(6.0, "/", 200, 0.1, "1.0.0")])
    assert set(served(store, 1.0)) == {"1.0.0"}
    store.close()


# ---- in production
@pytest.fixture
def world(tmp_path: Path) -> Iterator[LabContext]:
    with production(tmp_path / "lab", "1.0.0", "1.3.0", "1.7.0") as made:
        yield made


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("bad", "pace"), [("1.3.0", "quick"), ("1.7.0", "class")])
def test_a_bad_canary_goes_back_by_itself_and_says_why(world: LabContext, bad: str, pace: str) -> None:
    """1.3.0 searches slowly; 1.7.0 says that it is well while, five seconds after its start, orders fail."""
    Deploy(replace_pace(world, pace)).run("1.0.0")
    with Operate(world).load(60, 120) as run, pytest.raises(DeployRefused, match="is worse: "):
        Deploy(replace_pace(world, pace)).run(bad, "canary", who="ada", why="looks fine")
    run.stop()
    last = Deploy(world).history()[-1]
    assert (last.state, Deploy(world).current()) == ("rolled back", "1.0.0")
    assert [pool.release for pool in world.store.all(Pool)] == ["1.0.0"]
    seen = [one for one in world.store.all(Analysis) if one.deployment == last.id]
    assert seen[-1].verdict == "worse"
    notice = Operate(world).inbox()[-1]
    assert (notice.kind, notice.who) == ("deploy.refused", "ada")
    assert "p = " in notice.message
    assert ("/api/search takes" if bad == "1.3.0" else "requests fail") in notice.message
    assert time.time() - last.started < 120


def replace_pace(world: LabContext, pace: str) -> LabContext:
    return replace(world, settings=replace(world.settings, pace=pace))
