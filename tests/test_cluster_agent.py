"""The control loop on a cluster, with a cluster that only pretends: what it is told, and what people hear."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devops_lab.model import Pool, Replica
from devops_lab.platform import clock
from devops_lab.platform.agent.cluster import ClusterReconciler
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store

POOL = Pool("shop-1", "1.0.0", 2, 100)


class Pretended:
    """Answers as it was set to, and notes what it was told."""

    name = "swarm"

    def __init__(self) -> None:
        self.seen: list[Replica] = []
        self.nodes = {"n1": True, "n2": True}
        self.told: list[str] = []
        self.why = ""

    def ensure(self, pool: Pool) -> str:
        self.told.append(f"ensure {pool.name} {pool.release}")
        return self.why

    def drop(self, pool: str) -> None:
        self.told.append(f"drop {pool}")

    def pools(self) -> dict[str, str]:
        return {"shop-1": "steady"}

    def observe(self) -> list[Replica]:
        return self.seen

    def machines(self) -> dict[str, bool]:
        return self.nodes

    def sweep(self, known: list[Replica]) -> int:
        return 0

    def ended(self, replica: Replica) -> str:
        return replica.reason

    def log_path(self, replica: Replica) -> None:
        return None

    def forget(self, replica: Replica) -> None:
        pass


class Quiet:
    """An Envoy that is always there and sees nobody."""

    pid = port = 0

    def __init__(self) -> None:
        self.endpoints: dict[str, Any] = {}
        self.draining: set[Any] = set()

    def alive(self) -> bool:
        return True

    def bound_access_log(self) -> None:
        pass

    def hosts(self) -> dict[Any, Any]:
        return {}

    def apply(self, endpoints: Any, weights: Any, draining: Any) -> None:
        self.endpoints, self.draining = endpoints, draining


def task(name: str, node: str = "n1", state: Any = "starting", port: int = 80, **more: Any) -> Replica:
    return Replica(
        name, "shop-1", "1.0.0", "10.0.0.1", port, 0, "", state, started=4e9, handle=name, node=node, **more
    )


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ClusterReconciler]:
    world = LabContext(tmp_path, Settings(engine="swarm"), Store(tmp_path / "lab.db"))
    object.__setattr__(world, "engine", Pretended())
    made = ClusterReconciler(world)
    monkeypatch.setattr(made, "envoy", Quiet())
    world.store.put(POOL)
    yield made
    world.store.close()


def told(loop: ClusterReconciler) -> list[str]:
    return [f"{event.kind} {event.subject.partition(':')[2]}" for event in loop.store.events(limit=50)]


def pretended(loop: ClusterReconciler) -> Any:
    return loop.engine


def test_who_comes_is_routed_to_and_who_is_told_to_end_gets_nothing_new(loop: ClusterReconciler) -> None:
    cluster, envoy = pretended(loop), loop.envoy
    cluster.seen = [task("r1-a"), task("r2-b", port=0)]
    loop.reconcile()
    assert envoy.endpoints == {"shop-1": [("10.0.0.1", 80)]}  # type: ignore[attr-defined]
    cluster.seen = [task("r1-a", state="draining")]
    loop.reconcile()
    assert envoy.draining == {("10.0.0.1", 80)}  # type: ignore[attr-defined]
    cluster.seen = []
    loop.reconcile()
    assert told(loop) == [
        *("replica.started r1-a", "replica.started r2-b"),
        *("replica.draining r1-a", "replica.stopped r2-b", "replica.stopped r1-a"),
    ]


def test_a_death_is_told_once_and_before_who_takes_the_place(loop: ClusterReconciler) -> None:
    cluster = pretended(loop)
    cluster.seen = [task("r1-a")]
    loop.reconcile()
    cluster.seen = [task("r1-b"), task("r1-a", state="dead", reason="SIGKILL")]
    for _ in range(3):
        loop.reconcile()
    assert told(loop) == ["replica.started r1-a", "replica.died r1-a", "replica.replaced r1-b"]
    assert loop.replicas["r1-b"].restarts == 1


@pytest.mark.parametrize(("lived", "loops"), [(1, 1), (60, 0)])
def test_only_quick_deaths_are_a_crash_loop(
    loop: ClusterReconciler, monkeypatch: pytest.MonkeyPatch, lived: int, loops: int
) -> None:
    now = [clock.steady()]
    monkeypatch.setattr(clock, "steady", lambda: now[0])
    monkeypatch.setattr(loop.envoy, "hosts", lambda: {("10.0.0.1", 80): {"healthy": True}})
    for name in ("r1-a", "r1-b", "r1-c", "r1-d"):
        pretended(loop).seen = [task(name)]
        for _ in range(lived):
            loop.reconcile()
            now[0] += 1.0
        pretended(loop).seen = [task(name, state="dead", reason="SIGSEGV")]
        loop.reconcile()
    assert len(loop.store.events(kind="replica.died")) == 4
    assert len(loop.store.events(kind="replica.crash_loop")) == loops


def test_who_came_and_died_between_two_looks_is_told_too(loop: ClusterReconciler) -> None:
    loop.reconcile()
    pretended(loop).seen = [task("r1-a", state="dead", reason="exit code 3")]
    for _ in range(2):
        loop.reconcile()
    assert told(loop) == ["replica.started r1-a", "replica.died r1-a"]


def test_history_from_before_is_not_told(loop: ClusterReconciler) -> None:
    pretended(loop).seen = [task("r1-a", state="dead")]  # its time of birth says nothing: clocks step
    for _ in range(2):
        loop.reconcile()
    assert told(loop) == []


def test_a_node_goes_and_comes_back(loop: ClusterReconciler) -> None:
    cluster = pretended(loop)
    cluster.seen = [task("r1-a", node="n2")]
    loop.reconcile()
    cluster.nodes = {"n1": True, "n2": False}
    cluster.seen = [task("r1-a", node="n2", state="dead", reason="its node n2 is down")]
    loop.reconcile()
    cluster.nodes = {"n1": True, "n2": True}
    loop.reconcile()
    assert told(loop)[1:] == ["node.down n2", "replica.died r1-a", "node.back n2"]
    assert loop.store.events(kind="node.down")[0].data["replicas"] == ["r1-a"]


def test_an_update_that_the_cluster_undid_is_told_once_for_each_try(loop: ClusterReconciler) -> None:
    cluster = pretended(loop)
    for why in ("a task failed", "a task failed", "", "a task failed"):
        cluster.why = why
        loop.reconcile()
    assert told(loop) == ["pool.rolled_back shop-1"] * 2


def test_a_pool_that_nobody_wants_goes_when_no_route_leads_to_it(loop: ClusterReconciler) -> None:
    loop.store.replace_all(Pool, [])
    loop.routed = {"shop-1": 100}
    loop.want({})
    assert pretended(loop).told == []
    loop.routed = {}
    loop.want({})
    assert pretended(loop).told == ["drop shop-1"]
