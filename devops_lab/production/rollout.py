"""One rollout: change the desired pools step by step, wait for what production really does, or go back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import cast

from devops_lab.errors import DeployRefused, LabError, TimedOut
from devops_lab.model import Deployment, Event, Keyed, Pool, Replica, Step
from devops_lab.platform import web
from devops_lab.platform.clock import Awake
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.base import STEADY, Orchestrator
from devops_lab.platform.waits import until

OnStep = Callable[[Step], None]
HEALTH_SECONDS = 25.0  # for a whole pool to become healthy
ROLL_SECONDS = 10.0  # for each replica of a pool that is updated in place
NOT_READY_SECONDS = 3.0  # a replica that answers "not ready" for this long is not going to be
DEATHS = 2  # replicas of the new version that may die before it is given up
WORDS = 12  # last log lines that a refusal carries


@dataclass(frozen=True)
class Baseline(Keyed, by="deployment"):
    """The last good pools, kept while a deployment runs, so that anybody can go back to them."""

    deployment: str
    pools: list[Pool]
    new: str  # name of the new pool


@dataclass
class Rollout:
    """Carries out the steps of one deployment and keeps its record.

    Args:
        old: the pool that serves now; None when production is empty.
        new: the pool that is wanted in the end.
        gate: called before the new version gets its first traffic; raises to refuse it.
    """

    world: LabContext
    record: Deployment
    before: list[Pool]
    old: Pool | None
    new: Pool
    on_step: OnStep | None = None
    gate: Callable[[], None] | None = None
    seen: dict[str, Replica] = field(default_factory=dict)
    verified: set[str] = field(default_factory=set)  # replicas whose own health checks are fine
    took_traffic: bool = False
    begun: int = 0  # the event before which nothing belongs to this deployment
    awake: Awake = field(default_factory=Awake)
    unwell: dict[str, float] = field(default_factory=dict)  # replica -> awake since when it is not healthy

    @property
    def in_place(self) -> bool:
        """Whether the pool that serves is itself taken to the new version."""
        return self.old is not None and self.old.name == self.new.name

    # ---- steps
    @contextmanager
    def step(self, name: str) -> Iterator[list[str]]:
        """Measure one step and record it; what is appended to the yielded list becomes its output."""
        started, clock, said = self.world.store.now(), time.perf_counter(), list[str]()
        ok = False
        try:
            yield said
            ok = True
        finally:
            done = Step(name, time.perf_counter() - clock, ok, started, output="\n".join(said))
            self.record = replace(self.record, steps=[*self.record.steps, done])
            self.world.store.put(self.record)
            subject = f"deployment:{self.record.id}"
            self.world.store.event(
                "deploy", "deploy.step", subject, name, seconds=done.seconds, ok=ok, output=done.output
            )
            if self.on_step:
                self.on_step(done)

    def want(self, *pools: Pool | None) -> None:
        """Make these the desired pools; the agent takes its first step before this returns."""
        wanted = [pool for pool in pools if pool is not None]
        new = (self.new.name, self.new.release)
        self.took_traffic |= any((p.name, p.release) == new and p.weight > 0 for p in wanted)
        self.world.store.replace_all(Pool, wanted)
        self.world.control.poke()

    def open_gate(self) -> None:
        """Nothing gets traffic before the gate (tests that still ran) says so."""
        if self.gate:
            with self.step("wait for the gate"):
                self.gate()

    # ---- what production really does
    def replicas(self, pool: Pool) -> list[Replica]:
        """The replicas of a pool that are not on their way out."""
        return [r for r in self.all_replicas() if of(r, pool) and r.state != "draining"]

    def all_replicas(self) -> list[Replica]:
        """All that run, as the agent sees them; it is started again where it died meanwhile."""
        self.world.control.keep()
        return self.world.store.all(Replica)

    def wait(self, probe: Callable[[], bool], what: str, seconds: float, every_seconds: float = 0.02) -> None:
        """Wait for what the agent has to bring about.

        Raises:
            TimedOut: it did not come.
            AgentDown: since the agent hangs; the version is not to blame.
        """
        try:
            until(probe, what, seconds=seconds, every_seconds=every_seconds)
        except TimedOut:
            self.world.control.status()
            raise

    def wait_healthy(self, pool: Pool, count: int) -> str:
        """Wait until so many replicas of a pool are healthy in the proxy's own view.

        Raises:
            DeployRefused: they die, are not ready, or need too long; carries their last log lines.
        """
        since: dict[str, float] = {}

        def enough() -> bool:
            replicas = self.replicas(pool)
            self.seen.update({r.id: r for r in replicas})
            for replica in replicas:
                if replica.id not in self.verified:
                    self._look_closer(replica, since)
            if (died := len(self._deaths())) >= DEATHS:
                raise self.refused(f"{died} replicas of {self.new.release} died while they started.")
            if broken := self.world.store.events(
                kind="replica.failed", subject=f"pool:{pool.name}", after_id=self.begun
            ):
                raise self.refused(broken[-1].message)
            return sum(r.state == "healthy" and r.id in self.verified for r in replicas) >= count

        try:
            self.wait(enough, f"{count} healthy replicas of {pool.release}", HEALTH_SECONDS)
        except TimedOut as error:
            raise self.refused(error.wrong) from error
        return f"{count} of {pool.replicas} healthy"

    def wait_rolled(self) -> str:
        """Wait until the cluster has taken the pool to the new version, replica by replica.

        Raises:
            DeployRefused: it went back by itself, or the new replicas are not well, or it needs too long.
        """
        cluster, since = cast(Orchestrator, self.world.engine), dict[str, float]()

        def rolled() -> bool:
            replicas = self.replicas(self.new)
            self.seen.update({r.id: r for r in replicas})
            for replica in replicas:
                if replica.state == "healthy" and replica.id not in self.verified:  # else: see the cluster
                    self._look_closer(replica, since, ROLL_SECONDS)
            subject = f"pool:{self.new.name}"
            for kind in ("pool.rolled_back", "replica.failed"):
                if told := self.world.store.events(kind=kind, subject=subject, after_id=self.begun):
                    raise self.refused(told[-1].message)
            well = sum(r.id in self.verified for r in replicas) >= self.new.replicas
            state = cluster.pools().get(self.new.name, "")
            # A cluster calls a service "rolled back" from then on, also when that was asked for.
            return well and (state == STEADY or state.startswith("rolled back"))

        seconds = HEALTH_SECONDS + ROLL_SECONDS * self.new.replicas
        try:
            self.wait(rolled, f"the cluster to bring {self.new.release}", seconds, every_seconds=0.1)
        except TimedOut as error:
            raise self.refused(error.wrong) from error
        return f"{self.new.replicas} of {self.new.replicas} healthy"

    def _look_closer(
        self, replica: Replica, since: dict[str, float], patience: float = NOT_READY_SECONDS
    ) -> None:
        """A replica that answers that it is not well gets little time; one that is still silent, more."""
        now, asked = self.awake(), f"asked {replica.id} {replica.state}"
        young = replica.state == "starting" and now - since.setdefault(f"met {replica.id}", now) < 1.0
        if young or now - since.get(asked, -1.0) < 0.2:
            return
        since[asked] = now
        answer = unwell(replica)
        if not answer:
            since.pop(replica.id, None)
            if replica.state == "healthy":
                self.verified.add(replica.id)
        elif now - since.setdefault(replica.id, now) > patience:
            raise self.refused(f"{replica.id} of {replica.release} fails its health check: {answer}")

    def _deaths(self) -> list[Event]:
        """Replicas of the new version that died since this deployment began."""
        events = self.world.store.events(kind="replica.*", after_id=self.begun)
        new = (self.new.name, self.new.release)
        ours = {e.subject for e in events if (e.data.get("pool"), e.data.get("release")) == new}
        return [event for event in events if event.kind == "replica.died" and event.subject in ours]

    def check_new_replicas(self) -> bool:
        """A replica of the new version that died, or stays unhealthy, speaks against it.

        Returns:
            whether all are well now: a busy machine answers one health check in a hundred too late.

        Raises:
            DeployRefused: one died, or was unhealthy for too long.
        """
        bad = [r.id for r in self.replicas(self.new) if r.state not in ("healthy", "starting")]
        self.unwell = {name: self.unwell.get(name, self.awake()) for name in bad}
        if self._deaths() or any(self.awake() - t > NOT_READY_SECONDS for t in self.unwell.values()):
            raise self.refused(f"A replica of {self.new.release} died or turned unhealthy.")
        return not bad

    def wait_gone(self, pool: Pool, left: int = 0) -> str:
        """Wait until only `left` replicas of a pool are there: the others have finished and stopped."""
        grace = self.world.settings.grace_seconds

        def gone() -> bool:
            return sum(of(r, pool) for r in self.all_replicas()) <= left

        try:
            self.wait(gone, "the old to finish what is in flight", grace + 5, every_seconds=0.01)
        except TimedOut as error:  # the traffic has moved on; whoever still stops is no reason to go back
            return error.wrong
        return f"{left} of {pool.release} left"

    def refused(self, why: str) -> DeployRefused:
        """The error that stops this deployment, with the last log lines of the replica that caused it."""
        words = self._last_words()
        stays = f"{self.old.release} stays in production" if self.old else "production stays empty"
        return DeployRefused(
            why + (f"\nIts last log lines:\n{words}" if words else ""),
            expected=f"{self.new.replicas} healthy replicas without errors",
            next_step=f"{stays}. Mend the version, release it anew, and deploy that.",
        )

    def _last_words(self) -> str:
        if (died := self._deaths()) and died[-1].data.get("last_lines"):
            return str(died[-1].data["last_lines"])
        for replica in reversed(list(self.seen.values())):
            path = self.world.engine.log_path(replica)
            with suppress(OSError):
                if path and (lines := path.read_text(errors="replace").splitlines()[-WORDS:]):
                    return "\n".join(lines)
        return ""

    # ---- back
    def restore(self) -> None:
        """Put the last good pools back; the agent lets nobody go before they serve again."""
        if self.world.store.all(Pool) != self.before:
            self.world.store.replace_all(Pool, self.before)
        with suppress(LabError):  # the desired state is right; the agent goes on from there in any case
            self.world.control.ensure()
            self.world.control.wait_settled(HEALTH_SECONDS)


def of(replica: Replica, pool: Pool) -> bool:
    """Whether a replica is one of a pool at that pool's release: a pool may be changing its release."""
    return (replica.pool, replica.release) == (pool.name, pool.release)


def unwell(replica: Replica) -> str:
    """What a replica's own health checks say against it; nothing when all is well, or it still starts.

    The proxy asks only whether it is ready; that it calls itself alive counts as well before it gets traffic.
    """
    if not replica.port:
        return ""
    for path in ("/healthz", "/readyz"):
        try:
            answer = web.ask(f"http://{replica.host}:{replica.port}{path}", seconds=1)
        except OSError as error:
            return "" if replica.state == "starting" else f"{path} does not answer: {error}"
        if answer.status >= 400:
            return f"{path} answers {answer.status} {answer.text[:300]}"
    return ""
