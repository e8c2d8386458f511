"""The control loop: compare the desired state with what runs, and take the next step.

Phases write which *pools* they want (store: Pool); here each pool gets its replicas and its share of the
traffic, and loses what it has too much of. All it remembers can be found again after a restart.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

from devops_lab.errors import LabError
from devops_lab.model import EventKind, Pool, Replica
from devops_lab.platform import web
from devops_lab.platform.agent.launcher import Launch, Launches, Vacancy
from devops_lab.platform.agent.notices import Teller
from devops_lab.platform.agent.observer import last_lines
from devops_lab.platform.clock import Awake
from devops_lab.platform.context import LabContext
from devops_lab.platform.traffic.envoy import Address, Envoy, detours

START_SECONDS = 10.0  # a replica that is not healthy by then is reported
HUNG_SECONDS = 30.0  # one that was healthy and fails its check for so long is replaced
LAUNCH_SECONDS = 0.05  # the loop waits so long for who is being started, which is enough for a process
AGAIN_SECONDS = 1.0  # until a stop that the engine refused is tried again
PROBE_SECONDS = 0.1  # for the first answer of a replica, while the loop waits
CALM_SECONDS = 10.0  # one that lives longer does not count as crashing in a loop


class Reconciler:
    """Makes the production of one lab what its desired state says.

    Args:
        world: the lab.
        watch: called with the number of each process that should wake the loop when it ends.
    """

    start_seconds = START_SECONDS

    def __init__(self, world: LabContext, watch: Callable[[int], None] = lambda pid: None) -> None:
        self.world, self.watch = world, watch
        self.store, self.engine = world.store, world.engine
        self.envoy = Envoy(world.production / "envoy", world.root)
        self.replicas = {replica.id: replica for replica in self.store.all(Replica)}
        self.hosts: dict[Address, dict[str, Any]] = {}  # Envoy's view
        self.teller = Teller(self.store)
        self.event, self.complain = self.teller.event, self.teller.complain
        self.launches = Launches(self.engine, self.store, self.event)
        self.vacancies: dict[str, list[Vacancy]] = {}
        self.crashes: dict[str, int] = {}  # replica -> quick deaths before it, in a row
        self.routed: dict[str, int] = {}
        self.ill_since: dict[str, float] = {}
        self.listening: set[str] = set()
        self.awake = Awake()  # seconds that the loop could do something: no deadline passes in its sleep
        self.met: dict[str, float] = {}
        now, leaving = self.awake(), [r.id for r in self.replicas.values() if r.state == "draining"]
        self.draining_since = dict.fromkeys(leaving, now)
        self.stopping: set[str] = set()
        self.trouble: dict[str, str] = {}  # pool -> why its replicas do not start, or die
        self.saved = list(self.replicas.values())
        told = self.store.events(subject="replica:r*", limit=1000)
        names = [*self.replicas, *(event.subject.removeprefix("replica:") for event in told)]
        self.number = max([0, *(int(name[1:]) for name in names if name[1:].isdecimal())])
        self.engine.sweep(self.saved)
        for replica in self.replicas.values():
            self.watch(replica.pid)
        if self.envoy.alive():
            self.watch(self.envoy.pid)

    # ---- the loop's body: wanted against actual
    def reconcile(self) -> None:
        """Take the next step from production as it is to production as it is wanted."""
        self.awake()  # its clock stands still while nobody asks
        pools = {pool.name: pool for pool in self.store.all(Pool)}
        self.keep_envoy_running()
        self.reap()
        self.launch_missing(pools)
        self.read_health()
        self.route(pools)
        self.retire_surplus(pools)
        self.stop_drained()
        self.save()

    def keep_envoy_running(self) -> None:
        if self.envoy.alive():
            self.envoy.bound_access_log()
            return
        died, self.routed = bool(self.envoy.pid), {}
        self.envoy.start()
        self.watch(self.envoy.pid)
        word = "was restarted on the same port" if died else "listens"
        self.event(
            "envoy.restarted" if died else "envoy.started", "envoy", f"Envoy {word}: {self.envoy.port}"
        )

    def reap(self) -> None:
        for replica in list(self.replicas.values()):
            if self.engine.alive(replica):
                continue
            if replica.id in self.draining_since:
                self.event("replica.stopped", f"replica:{replica.id}", f"{replica.id} ended after draining")
            else:
                self._note_death(replica)
            self._forget(replica)

    def _note_death(self, replica: Replica) -> None:
        how = self.engine.ended(replica)
        words = last_lines(self.engine.log_path(replica))
        self.event(
            "replica.died", f"replica:{replica.id}", f"{replica.id} died: {how}", how=how, last_lines=words
        )
        quick = self.age(replica) < CALM_SECONDS
        crashes = self.crashes.get(replica.id, 0) + 1 if quick else 1
        if quick:
            self.trouble[replica.pool] = f"{replica.id} died: {how}; its last lines:\n{words}"
        vacancy = Vacancy.after(replica.id, replica.restarts + 1, crashes)
        self.vacancies.setdefault(replica.pool, []).append(vacancy)
        if crashes == 3:
            text = f"{replica.pool} crashes again and again; replacements wait longer each time ({how})"
            self.event("replica.crash_loop", f"replica:{replica.id}", text, last_lines=words)

    def _forget(self, replica: Replica) -> None:
        del self.replicas[replica.id]
        self.draining_since.pop(replica.id, None)
        self.crashes.pop(replica.id, None)
        self.ill_since.pop(replica.id, None)
        self.met.pop(replica.id, None)
        self.stopping.discard(replica.id)
        self.listening.discard(replica.id)
        self.engine.forget(replica)

    def launch_missing(self, pools: dict[str, Pool]) -> None:
        self.vacancies = {name: places for name, places in self.vacancies.items() if name in pools}
        for pool in pools.values():
            there = len(self.serving(pool.name, pool.release)) + self.launches.count(pool)
            missing = pool.replicas - there
            places = self.vacancies.get(pool.name, [])[: max(missing, 0)]
            due = [place for place in places if place.due <= time.monotonic()]
            self.vacancies[pool.name] = [place for place in places if place not in due]
            for place in due:
                self._launch(pool, place)
            for _ in range(missing - len(places)):
                self._launch(pool)
        self.meet_launched()

    def _launch(self, pool: Pool, place: Vacancy | None = None) -> None:
        self.number += 1
        self.launches.begin(pool, f"r{self.number}", place)

    def meet_launched(self, seconds: float = LAUNCH_SECONDS) -> None:
        """Take in who was started; waits for those on their way, `seconds` at the longest."""
        for launch in self.launches.done(seconds):
            self._meet_launched(launch)

    def _meet_launched(self, launch: Launch) -> None:
        pool, place = launch.pool, launch.place
        try:
            replica = launch.replica.result()
        except (LabError, OSError) as error:
            crashes = (place.crashes if place else 1) + 1
            self.trouble[pool.name] = f"{pool.release} can't be launched: {error}"
            self.complain("replica.failed", f"pool:{pool.name}", self.trouble[pool.name])
            again = Vacancy.after(place.died if place else "", 0, crashes)
            self.vacancies.setdefault(pool.name, []).append(again)
            return
        replica = replace(replica, started=self.store.now())
        self.age(replica)
        if place:
            replica = replace(replica, restarts=place.restarts)
            self.crashes[replica.id] = place.crashes
        self.replicas[replica.id] = replica
        self.watch(replica.pid)
        kind: EventKind = "replica.started"
        text = f"{replica.id} of {pool.release} started on port {replica.port}"
        if place and place.died:
            kind, text = "replica.replaced", f"{replica.id} takes the place of {place.died}"
        self.event(kind, f"replica:{replica.id}", text, pool=pool.name, release=pool.release, pid=replica.pid)

    def read_health(self) -> None:
        """A replica is healthy when Envoy, which sends it the traffic, says so."""
        try:
            self.hosts = self.envoy.hosts()
        except (OSError, ValueError):
            return  # Envoy is busy or gone: what was seen last still holds
        for replica in list(self.replicas.values()):
            if replica.state == "draining":
                continue
            if self.hosts.get((replica.host, replica.port), {}).get("healthy"):
                self.ill_since.pop(replica.id, None)
                if replica.state != "healthy":
                    self._set_state(replica, "healthy")
            elif replica.state == "healthy":
                self._set_state(replica, "unhealthy", "it no longer passes its health check")
                self.ill_since[replica.id] = self.awake()
            elif self.awake() - self.ill_since.get(replica.id, math.inf) > HUNG_SECONDS:
                self._replace_hung(replica)
            elif replica.state == "starting" and self.age(replica) > self.start_seconds:
                words = last_lines(self.engine.log_path(replica)) or "it wrote no log"
                self._set_state(
                    replica,
                    "unhealthy",
                    f"not ready after {self.start_seconds:g} s; its last lines:\n{words}",
                )

    def _replace_hung(self, replica: Replica) -> None:
        """A replica that was well once and answers no more is ended; its place is taken as after a crash."""
        self.ill_since.pop(replica.id)
        text = f"{replica.id} failed its health check for {HUNG_SECONDS:g} s and is replaced"
        self.event("replica.hung", f"replica:{replica.id}", text)
        self._stop_aside(replica, 1.0)

    def _stop_aside(self, replica: Replica, grace_seconds: float) -> None:
        self.stopping.add(replica.id)
        threading.Thread(target=self._stop, args=(replica, grace_seconds), daemon=True).start()

    def _stop(self, replica: Replica, grace_seconds: float) -> None:
        try:
            self.engine.stop(replica, grace_seconds)
        except LabError as error:
            self.complain("agent.error", f"replica:{replica.id}", f"{replica.id} can't be stopped: {error}")
            time.sleep(AGAIN_SECONDS)
            self.stopping.discard(replica.id)  # so the loop tries it again

    def _set_state(self, replica: Replica, state: Literal["healthy", "unhealthy"], reason: str = "") -> None:
        self.replicas[replica.id] = replace(replica, state=state, reason=reason)
        if state == "healthy":
            self.trouble.pop(replica.pool, None)
        seconds = round(self.store.now() - replica.started, 3)
        text = f"{replica.id} is {state}" + (f": {reason}" if reason else f" after {seconds:.2f} s")
        kind: EventKind = "replica.healthy" if state == "healthy" else "replica.unhealthy"
        self.event(kind, f"replica:{replica.id}", text, seconds=seconds, release=replica.release)

    def route(self, pools: dict[str, Pool]) -> None:
        """Traffic goes to pools that Envoy finds healthy; while none is, it stays where it was."""
        wanted = {name: pool.weight for name, pool in pools.items() if pool.weight > 0}
        weights = {name: weight for name, weight in wanted.items() if self.healthy(name)}
        if wanted and not weights:
            weights = {name: weight for name, weight in self.routed.items() if self.serving(name)}
        endpoints: dict[str, list[Address]] = {name: [] for name in pools}
        for replica in self.replicas.values():
            if self._listens(replica):
                endpoints.setdefault(replica.pool, []).append((replica.host, replica.port))
        draining = {(r.host, r.port) for r in self.replicas.values() if r.state == "draining"}
        self.envoy.detours = detours(self.store)
        self.envoy.apply(endpoints, weights, draining)
        self.routed = weights

    def _listens(self, replica: Replica) -> bool:
        """Envoy hears of a replica when it answers: a failed first check would cost a quarter of a second."""
        if replica.id not in self.listening:
            late = self.age(replica) > START_SECONDS
            if not (answers(replica.host, replica.port) or late):
                return False
            self.listening.add(replica.id)
        return True

    def retire_surplus(self, pools: dict[str, Pool]) -> None:
        for replica in self._surplus(pools):
            self.replicas[replica.id] = replace(replica, state="draining", reason="")
            self.draining_since[replica.id] = self.awake()
            self.event("replica.draining", f"replica:{replica.id}", f"{replica.id} gets no new requests")

    def _surplus(self, pools: dict[str, Pool]) -> list[Replica]:
        """Who may go: all of a pool that nobody wants and no route leads to; the newest of too many."""
        found = []
        for name in {replica.pool for replica in self.replicas.values()}:
            pool = pools.get(name)
            if pool is None:
                found += self.serving(name) if name not in self.routed else []
                continue
            right = self.serving(name, pool.release)
            right.sort(key=lambda r: (r.state == "healthy", -int(r.id[1:])))
            found += right[: max(len(right) - pool.replicas, 0)]
            if sum(r.state == "healthy" for r in right) >= pool.replicas:  # another release of the same name
                found += [r for r in self.serving(name) if r.release != pool.release]
        return found

    def stop_drained(self) -> None:
        """SIGTERM to who has finished what was in flight, or has had its grace."""
        grace = self.world.settings.grace_seconds
        for replica in list(self.replicas.values()):
            since = self.draining_since.get(replica.id)
            if since is None or replica.id in self.stopping:
                continue
            host = self.hosts.get((replica.host, replica.port))
            done = host is None or (host["draining"] and host["in_flight"] == 0)
            left = grace - (self.awake() - since)
            if done or left <= 0:
                self._stop_aside(replica, max(left, 0.5))

    # ---- small questions
    def serving(self, pool: str, release: str = "") -> list[Replica]:
        """The replicas of a pool that are not on their way out."""
        return [
            r
            for r in self.replicas.values()
            if r.pool == pool and r.state != "draining" and release in ("", r.release)
        ]

    def age(self, replica: Replica) -> float:
        """Seconds awake since the loop first asked, which is when it met the replica."""
        now = self.awake()
        return now - self.met.setdefault(replica.id, now)

    def healthy(self, pool: str) -> list[Replica]:
        return [replica for replica in self.serving(pool) if replica.state == "healthy"]

    def moving(self) -> bool:
        """Whether the next step may come any moment."""
        fresh = any(r.state == "starting" for r in self.replicas.values())
        waiting = bool(self.draining_since) or any(self.vacancies.values())
        return fresh or waiting or bool(self.launches.under_way)

    def settled(self) -> bool:
        """Whether production is as it is wanted now."""
        pools = {pool.name: pool for pool in self.store.all(Pool)}
        counts = [
            (len(self.healthy(p.name)), len(self.serving(p.name, p.release)), p.replicas)
            for p in pools.values()
        ]
        right = all(healthy == serving == wanted for healthy, serving, wanted in counts)
        known = all(r.pool in pools and r.state == "healthy" for r in self.replicas.values())
        known &= not self.launches.under_way
        wanted = {name: pool.weight for name, pool in pools.items() if pool.weight > 0 and pool.replicas > 0}
        return right and known and wanted == self.routed

    def save(self) -> None:
        now = list(self.replicas.values())
        if now != self.saved:
            self.store.replace_all(Replica, now)
            self.saved = now


def answers(host: str, port: int) -> bool:
    """Whether somebody speaks HTTP there; an open port is not enough.

    In front of a container, Docker's own forwarder listens before the shop does.
    """
    try:
        return bool(web.ask(f"http://{host}:{port}/healthz", seconds=PROBE_SECONDS))
    except OSError:
        return False
