"""Policies race on the same day in a real production; what can't race is refused before anything starts."""

from __future__ import annotations

from pathlib import Path

import pytest

from devops_lab.errors import BadInput
from devops_lab.lab.parts import Operations
from devops_lab.model import Behaviour, Pool, ScalingPolicy
from devops_lab.phases.deploy import Deploy
from devops_lab.platform.traffic.load import DAYS, LoadSpec
from tests.phases.production import production


@pytest.mark.parametrize("shape", DAYS)
def test_a_day_begins_and_ends_quietly(shape: str) -> None:
    spec = LoadSpec("http://127.0.0.1:1", "r", "x.db", [(100 * s, 5 + 85 * h) for s, h in DAYS[shape]])
    assert (spec.rate_at(0), spec.rate_at(100), max(map(spec.rate_at, range(100)))) == (5, 5, 90)
    steepest = max(spec.rate_at(s + 1) - spec.rate_at(s) for s in range(100))
    assert (steepest > 40) is (shape == "flash crowd")


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_each_policy_gets_the_same_day(tmp_path: Path) -> None:
    quick = ScalingPolicy("requests_per_second", 20, 1, 3, scale_in=Behaviour(2.0))
    with production(tmp_path / "lab", "1.0.0", replicas=2) as world:
        operate = Operations(world)
        with pytest.raises(BadInput, match="nobody to race"):
            operate.race({})
        Deploy(world).run("1.0.0")
        with pytest.raises(BadInput, match="between 3 and 2"):
            operate.race({"good": quick, "bad": ScalingPolicy("cpu_percent", 50, 3, 2)})
        assert world.store.events(kind="load.started") == []
        with pytest.raises(BadInput, match="shape of a day"):
            operate.race({"good": quick}, shape="carnival")

        scaled, fixed = operate.race({"by requests": quick, "always 3": 3}, seconds=12, peak=60, low=5)

        assert scaled.requests == fixed.requests  # the same customers
        assert scaled.failed == fixed.failed == 0
        assert (fixed.most_replicas, fixed.changes) == (3, 0)
        assert fixed.replica_seconds == pytest.approx(36, rel=0.1)
        assert scaled.changes >= 1
        assert scaled.replica_seconds < fixed.replica_seconds
        assert world.store.last(ScalingPolicy) is None
        assert [pool.replicas for pool in world.store.all(Pool)] == [2]
