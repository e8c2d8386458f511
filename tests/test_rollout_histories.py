"""Histories of rollouts: how the traffic moves, and comes back, for each way in which a new version behaves.

The agent's own loop carries them out, with an engine, a proxy and a clock that only pretend.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from devops_lab.errors import DeployRefused
from devops_lab.model import Deployment, Pool, Replica
from devops_lab.platform import waits
from devops_lab.production import rollout, strategies
from devops_lab.production.rollout import Rollout
from tests.test_histories import Production

OLD, NEW = Pool("v1", "1.0.0", 2, 100), Pool("v2", "1.1.0", 2, 100)
READY_SECONDS = 0.3
STRATEGIES: dict[str, Callable[[Rollout], None]] = {
    "rolling": strategies.rolling,
    "blue/green": strategies.blue_green,
    "rollback": strategies.rollback,
}


class Acted:
    """Production in which time goes by whenever the rollout waits, and replicas behave by their version.

    Args:
        habit: of the new version's replicas.
    """

    def __init__(self, root: Path, patch: pytest.MonkeyPatch, habit: str) -> None:
        self.production, self.habit = Production(root, patch), habit
        self.loop, self.envoy = self.production.loop, self.production.envoy
        self.born: dict[str, float] = {}
        self.had_customers: set[str] = set()  # replicas
        self.fewest = 99  # replicas that were well and had a share of the traffic
        patch.setattr(waits, "time", SimpleNamespace(sleep=self.advance))
        patch.setattr(rollout, "unwell", self.unwell)
        patch.setattr(strategies, "ask", lambda url: (200, "", 0.01))
        object.__setattr__(self.loop.world, "control", self)
        self.loop.store.put(OLD)
        self.wait_settled()
        self.production.done.clear()
        self.fewest = 99

    def unwell(self, replica: Replica) -> str:
        words = {"not ready": "/readyz answers 503", "ready, and broken": "/healthz answers 500"}
        return words.get(self.habit, "") if replica.release == NEW.release else ""

    def advance(self, seconds: float) -> None:
        self.production.seconds += max(seconds, 0.02)
        for replica in self.loop.replicas.values():
            age = self.production.seconds - self.born.setdefault(replica.id, self.production.seconds)
            self.behave(replica, age, "well" if replica.release == "1.0.0" else self.habit)
        self.loop.reconcile()
        serving = [r for name in self.envoy.weights for r in self.loop.healthy(name)]
        self.fewest = min(self.fewest, len(serving))

    def behave(self, replica: Replica, age: float, habit: str) -> None:
        if self.envoy.weights.get(replica.pool) and replica.state == "healthy":
            self.had_customers.add(replica.id)
        suffers = habit.endswith("with customers") and replica.id in self.had_customers
        if habit == "dies at once" or (suffers and habit.startswith("dies")):
            self.production.dies(replica.id)
        elif suffers:
            self.envoy.well.discard(replica.port)
        elif age > READY_SECONDS and habit not in ("not ready", "silent"):
            self.envoy.well.add(replica.port)

    # ---- the line to the agent
    def poke(self) -> None:
        self.loop.reconcile()

    def keep(self) -> bool:
        return True

    def ensure(self) -> None: ...

    def status(self) -> dict[str, Any]:
        return {}

    def wait_settled(self, seconds: float = 30.0) -> None:
        waits.until(self.loop.settled, "production to be as it was", seconds=seconds)

    def roll(self, strategy: str) -> str:
        """How it ended: done, or why not."""
        record = Deployment(1, NEW.release, OLD.release, strategy, "", "", "running", self.loop.store.now())
        go = Rollout(self.loop.world, record, [OLD], OLD, NEW)
        try:
            STRATEGIES[strategy](go)
        except DeployRefused as refused:
            go.restore()
            return refused.wrong.splitlines()[0]
        self.wait_settled()
        return "done"

    def routes(self) -> list[str]:
        return [line.removeprefix("route ") for line in self.production.done if line.startswith("route ")]


@pytest.fixture
def acted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], Acted]]:
    made: list[Acted] = []

    def act(habit: str) -> Acted:
        made.append(Acted(tmp_path, monkeypatch, habit))
        return made[-1]

    yield act
    for each in made:
        each.loop.store.close()


DIED, ILL = "2 replicas of 1.1.0 died while they started.", "A replica of 1.1.0 died or turned unhealthy."
IN_VAIN = "Waited 25 s for 2 healthy replicas of 1.1.0 in vain."
BROKEN = "r3 of 1.1.0 fails its health check: /healthz answers 500"
NOT_READY = "r3 of 1.1.0 fails its health check: /readyz answers 503"
NO_MORE = ["v1:2", "v2:1 v1:1", "v1:1", "v2:1 v1:1", "v1:1", "v1:100"]  # who takes a place is tried as well
# Strategy, and the new version's habit: how it ends, the traffic's routes, the fewest who served at any time.
HISTORIES: list[tuple[str, str, str, list[str], int]] = [
    ("rolling", "well", "done", ["v1:2", "v2:1 v1:1", "v2:2", "v2:100"], 2),
    ("rolling", "dies at once", DIED, ["v1:2", "v1:100"], 2),
    ("rolling", "not ready", NOT_READY, ["v1:2", "v1:100"], 2),
    ("rolling", "silent", "Waited 25 s for 1 healthy replicas of 1.1.0 in vain.", ["v1:2", "v1:100"], 2),
    ("rolling", "dies with customers", DIED, NO_MORE, 1),
    (
        "rolling",
        "falls ill with customers",
        "Waited 25 s for 2 healthy replicas of 1.1.0 in vain.",
        NO_MORE,
        1,
    ),
    ("blue/green", "well", "done", ["v2:100"], 2),
    ("blue/green", "dies at once", DIED, [], 2),
    ("blue/green", "not ready", NOT_READY, [], 2),
    ("blue/green", "ready, and broken", BROKEN, [], 2),
    ("blue/green", "silent", IN_VAIN, [], 2),
    ("blue/green", "dies with customers", ILL, ["v2:100", "v1:100"], 0),
    ("blue/green", "falls ill with customers", ILL, ["v2:100", "v1:100"], 0),
    ("rollback", "well", "done", ["v2:100"], 2),
    ("rollback", "dies at once", DIED, [], 2),
    ("rollback", "not ready", NOT_READY, [], 2),
]


@pytest.mark.parametrize(("strategy", "habit", "ending", "routes", "fewest"), HISTORIES)
def test_a_rollout(
    acted: Callable[[str], Acted], strategy: str, habit: str, ending: str, routes: list[str], fewest: int
) -> None:
    production = acted(habit)
    assert (production.roll(strategy), production.routes(), production.fewest) == (ending, routes, fewest)
    assert production.loop.store.all(Pool) == [NEW if ending == "done" else OLD]
    assert {r.release for r in production.loop.replicas.values()} == {
        NEW.release if ending == "done" else OLD.release
    }
