"""Histories of the control loop: what happens to production, and all that the loop does about it.

Engine, proxy and clock only pretend, so that a minute takes no time; what real ones do is in test_agent.py.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from devops_lab.errors import LabError
from devops_lab.model import Event, Pool, Replica
from devops_lab.platform import clock
from devops_lab.platform.agent import launcher, reconciler
from devops_lab.platform.agent.reconciler import Reconciler
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.envoy import Address

GRACE_SECONDS = 5.0


class ToldStore(Store):
    """Notes each event, as `kind subject`."""

    done: list[str]

    def add_event(self, event: Event) -> Event:
        kind = event.kind.removeprefix("replica.").removeprefix("pool.")
        self.done.append(f"{kind} {event.subject.partition(':')[2]}")
        return super().add_event(event)


class FakeEngine:
    """Starts at once what it is asked for, unless it refuses; one that it stops is gone at the next look."""

    name = "process"

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.dead: dict[str, str] = {}  # replica -> how it ended
        self.refuses: set[str] = set()  # calls

    def launch(self, pool: Pool, replica_id: str) -> Replica:
        if "launch" in self.refuses:
            raise LabError("no room")
        return Replica(replica_id, pool.name, pool.release, "10.0.0.1", int(replica_id[1:]), 0)

    def stop(self, replica: Replica, grace_seconds: float) -> None:
        if "stop" in self.refuses:
            raise LabError("no answer")
        self.done.append(f"stop {replica.id}")
        self.dead[replica.id] = "SIGTERM"

    def alive(self, replica: Replica) -> bool:
        return replica.id not in self.dead

    def ended(self, replica: Replica) -> str:
        return self.dead[replica.id]

    def prepare(self, release: object) -> None:
        pass

    def log_path(self, replica: Replica) -> None:
        return None

    def forget(self, replica: Replica) -> None:
        pass

    def sweep(self, known: list[Replica]) -> int:
        return 0


class FakeEnvoy:
    """Finds well whom the history calls well."""

    pid = port = 0

    def __init__(self, done: list[str]) -> None:
        self.done = done
        self.well: set[int] = set()
        self.busy: set[int] = set()  # with a request in flight
        self.detours: dict[Address, Address] = {}
        self.known: set[Address] = set()
        self.draining: set[Address] = set()
        self.weights: dict[str, int] = {}

    def alive(self) -> bool:
        return True

    def bound_access_log(self) -> None:
        pass

    def hosts(self) -> dict[Address, dict[str, Any]]:
        return {
            (host, port): {
                "healthy": port in self.well,
                "draining": (host, port) in self.draining,
                "in_flight": int(port in self.busy),
            }
            for host, port in self.known
        }

    def apply(
        self, endpoints: dict[str, list[Address]], weights: dict[str, int], draining: set[Address]
    ) -> None:
        if weights != self.weights:
            shares = " ".join(f"{name}:{share}" for name, share in weights.items())
            self.done.append(f"route {shares or 'nothing'}")
        self.known = {address for addresses in endpoints.values() for address in addresses}
        self.draining, self.weights = draining, dict(weights)


class AtOnce:
    """Does in the loop's own thread what the loop has done beside it."""

    def submit(self, work: Callable[..., Replica], *args: object) -> Future[Replica]:
        future = Future[Replica]()
        try:
            future.set_result(work(*args))
        except LabError as error:
            future.set_exception(error)
        return future


class DoneAtOnce:
    def __init__(self, target: Callable[..., None], args: tuple[object, ...], daemon: bool) -> None:
        self.start = lambda: target(*args)


class Production:
    """Carries out what the lines of a history say."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch) -> None:
        self.done: list[str] = []
        self.seconds = 1000.0
        patch.setattr(clock, "steady", lambda: self.seconds)
        time = SimpleNamespace(monotonic=lambda: self.seconds, sleep=lambda seconds: None)
        patch.setattr(launcher, "time", time)
        patch.setattr(reconciler, "time", time)
        patch.setattr(reconciler, "threading", SimpleNamespace(Thread=DoneAtOnce))
        patch.setattr(reconciler, "answers", lambda host, port: True)
        store = ToldStore(root / "lab.db")
        store.done = self.done
        world = LabContext(root, Settings(grace_seconds=GRACE_SECONDS), store)
        self.engine, self.envoy = FakeEngine(self.done), FakeEnvoy(self.done)
        object.__setattr__(world, "engine", self.engine)
        self.loop = Reconciler(world)
        self.loop.envoy = cast(Any, self.envoy)
        self.loop.launches.threads = cast(Any, AtOnce())

    def what_follows(self, happening: str) -> str:
        """All that the loop does about it, until it has nothing more to do."""
        self.done.clear()
        word, *names = happening.split()
        getattr(self, word)(*names)
        for _ in range(4):
            self.loop.reconcile()
        return ", ".join(self.done)

    def want(self, *pools: str) -> None:
        """`v1=1.0.0*2@100`: pool, release, replicas, weight."""
        wanted = []
        for name, release, replicas, weight in (re.split("[=*@]", pool) for pool in pools):
            wanted.append(Pool(name, release, int(replicas), int(weight)))
        self.loop.store.replace_all(Pool, wanted)

    def well(self, *replicas: str) -> None:
        self.envoy.well |= {int(name[1:]) for name in replicas}

    def ill(self, *replicas: str) -> None:
        self.envoy.well -= {int(name[1:]) for name in replicas}

    def busy(self, *replicas: str) -> None:
        self.envoy.busy |= {int(name[1:]) for name in replicas}

    def idle(self, *replicas: str) -> None:
        self.envoy.busy -= {int(name[1:]) for name in replicas}

    def dies(self, *replicas: str) -> None:
        self.engine.dead |= dict.fromkeys(replicas, "SIGKILL")

    def refuse(self, *calls: str) -> None:
        self.engine.refuses |= {*calls}

    def allow(self, *calls: str) -> None:
        self.engine.refuses -= {*calls}

    def pass_(self, seconds: str) -> None:
        """The loop looks every half second, as it does where nothing wakes it."""
        for _ in range(int(float(seconds) * 2)):
            self.seconds += 0.5
            self.loop.reconcile()


TWO = ("want v1=1.0.0*2@100", "started r1, started r2")
TWO_SERVE = [TWO, ("well r1 r2", "healthy r1, healthy r2, route v1:100")]

# What happens, and all that the loop does about it.
HISTORIES: dict[str, list[tuple[str, str]]] = {
    "the first deployment": [*TWO_SERVE, ("pass_ 60", "")],
    "traffic begins with the first who is well": [
        TWO,
        ("well r2", "healthy r2, route v1:100"),
        ("well r1", "healthy r1"),
    ],
    "out": [*TWO_SERVE, ("want v1=1.0.0*3@100", "started r3"), ("well r3", "healthy r3")],
    "in: the newest goes": [*TWO_SERVE, ("want v1=1.0.0*1@100", "draining r2, stop r2, stopped r2")],
    "in: who is not well goes first": [
        *TWO_SERVE,
        ("ill r1", "unhealthy r1"),
        ("want v1=1.0.0*1@100", "draining r1, stop r1, stopped r1"),
    ],
    "in: who serves somebody ends with that": [
        *TWO_SERVE,
        ("busy r2", ""),
        ("want v1=1.0.0*1@100", "draining r2"),
        ("pass_ 3", ""),
        ("idle r2", "stop r2, stopped r2"),
    ],
    "in: nobody has more than the grace": [
        *TWO_SERVE,
        ("busy r2", ""),
        ("want v1=1.0.0*1@100", "draining r2"),
        ("pass_ 4.5", ""),
        ("pass_ 1", "stop r2, stopped r2"),
    ],
    "a stop that the engine refuses is tried again": [
        *TWO_SERVE,
        ("refuse stop", ""),
        ("want v1=1.0.0*1@100", "draining r2, agent.error r2"),
        ("pass_ 2", ""),
        ("allow stop", "stop r2, stopped r2"),
    ],
    "a death": [*TWO_SERVE, ("dies r1", "died r1, replaced r3"), ("well r3", "healthy r3")],
    "the death of all: the route stays for who comes": [
        *TWO_SERVE,
        ("dies r1 r2", "died r1, died r2, replaced r3, replaced r4"),
        ("well r4", "healthy r4"),
    ],
    "deaths in a row: each replacement waits longer": [
        ("want v1=1.0.0*1@100", "started r1"),
        ("dies r1", "died r1, replaced r2"),
        ("dies r2", "died r2"),
        ("pass_ 0.5", "replaced r3"),
        ("dies r3", "died r3, crash_loop r3"),
        ("pass_ 0.5", ""),
        ("pass_ 0.5", "replaced r4"),
        ("dies r4", "died r4"),
        ("pass_ 1.5", ""),
        ("pass_ 0.5", "replaced r5"),
    ],
    "who lived for a while does not crash in a row": [
        ("want v1=1.0.0*1@100", "started r1"),
        ("dies r1", "died r1, replaced r2"),
        ("well r2", "healthy r2, route v1:100"),
        ("pass_ 11", ""),
        ("dies r2", "died r2, replaced r3"),
        ("dies r3", "died r3, route nothing"),
        ("pass_ 0.5", "replaced r4"),
    ],
    "a place that nobody wants any more is forgotten": [
        ("want v1=1.0.0*1@100", "started r1"),
        ("dies r1", "died r1, replaced r2"),
        ("dies r2", "died r2"),
        ("want", ""),
        ("pass_ 5", ""),
        ("want v1=1.0.0*1@100", "started r3"),
    ],
    "ill, and well again": [
        *TWO_SERVE,
        ("ill r1", "unhealthy r1"),
        ("pass_ 29", ""),
        ("well r1", "healthy r1"),
        ("pass_ 5", ""),
        ("ill r1", "unhealthy r1"),
        ("pass_ 29", ""),
    ],
    "hung": [
        *TWO_SERVE,
        ("ill r1", "unhealthy r1"),
        ("pass_ 30", ""),
        ("pass_ 0.5", "hung r1, stop r1, died r1, replaced r3"),
    ],
    "never ready: told, and left to who deploys": [
        TWO,
        ("well r1", "healthy r1, route v1:100"),
        ("pass_ 10", ""),
        ("pass_ 0.5", "unhealthy r2"),
        ("pass_ 60", ""),
        ("well r2", "healthy r2"),
    ],
    "blue/green: nobody goes before the new one serves": [
        *TWO_SERVE,
        ("want v1=1.0.0*2@100 v2=1.1.0*2@0", "started r3, started r4"),
        ("want v2=1.1.0*2@100", ""),
        ("pass_ 5", ""),
        (
            "well r3 r4",
            "healthy r3, healthy r4, route v2:100, draining r1, draining r2, "
            "stop r1, stop r2, stopped r1, stopped r2",
        ),
    ],
    "a canary that is not well gets nothing": [
        *TWO_SERVE,
        ("want v1=1.0.0*2@80 v2=1.1.0*1@20", "started r3, route v1:80"),
        ("well r3", "healthy r3, route v1:80 v2:20"),
        ("ill r3", "unhealthy r3, route v1:80"),
        ("want v1=1.0.0*2@100", "route v1:100, draining r3, stop r3, stopped r3"),
    ],
    "in place: the old release goes when the new one is well": [
        *TWO_SERVE,
        ("want v1=1.1.0*2@100", "started r3, started r4"),
        ("well r3", "healthy r3"),
        ("well r4", "healthy r4, draining r1, draining r2, stop r1, stop r2, stopped r1, stopped r2"),
    ],
    "nothing is wanted: the last ones go when no route leads to them": [
        *TWO_SERVE,
        ("want", "route nothing, draining r1, draining r2, stop r1, stop r2, stopped r1, stopped r2"),
    ],
    "an engine that refuses to start is told of once and asked again": [
        ("refuse launch", ""),
        ("want v1=1.0.0*1@100", "failed v1"),
        ("pass_ 20", ""),
        ("allow launch", ""),
        ("pass_ 10", "started r7"),
    ],
}


@pytest.fixture
def production(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Production]:
    made = Production(tmp_path, monkeypatch)
    yield made
    made.loop.store.close()


@pytest.mark.parametrize("name", HISTORIES)
def test_a_history_of_production(production: Production, name: str) -> None:
    history = HISTORIES[name]
    assert [(said, production.what_follows(said)) for said, _ in history] == history


def test_a_new_loop_goes_on_where_the_last_one_ended(production: Production) -> None:
    for said, expected in TWO_SERVE:
        assert production.what_follows(said) == expected
    later = Reconciler(production.loop.world)
    later.envoy = production.loop.envoy
    later.launches.threads = production.loop.launches.threads
    production.loop = later
    assert production.what_follows("pass_ 1") == ""
    assert production.what_follows("dies r2") == "died r2, replaced r3"
