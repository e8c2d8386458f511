"""Operate: customers come, and complain; find out why, scale, and hear of every key event."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from devops_lab.errors import BadInput
from devops_lab.model import Complaint, Event, Loops, Outcome, Race, Replica, ScalingPolicy
from devops_lab.phases import World, beside, profiling, racing, scaling
from devops_lab.phases.complaints import PATIENCE_SECONDS, anger, complaint_text
from devops_lab.phases.notify import inbox, notify
from devops_lab.phases.profiling import Profile
from devops_lab.settings import choice
from devops_lab.traffic.load import MIX, LoadRun, LoadSpec, endpoint_figures, failed
from devops_lab.traffic.loops import compare_loops

if TYPE_CHECKING:
    from devops_lab.phases.drills import Drill, DrillRun, Fault

# (share of the day, share of the way from the quiet rate to the peak)
DAYS = {
    "lunch": [(0.0, 0.0), (0.25, 0.05), (0.4, 1.0), (0.55, 1.0), (0.7, 0.1), (1.0, 0.0)],  # ordered before it
    "flash crowd": [(0.0, 0.0), (0.3, 0.0), (0.32, 1.0), (0.5, 1.0), (0.75, 0.15), (1.0, 0.0)],  # in the news
}


@dataclass(frozen=True)
class EndpointFigures:
    """What customers measured at one endpoint, of one release or ("") of all; in seconds."""

    endpoint: str
    release: str
    requests: int
    failed: int
    rate: float
    p50: float
    p95: float
    p99: float
    first_seen: float


class Operate:
    """Production in daily life.

    Args:
        world: the lab to work on.
    """

    def __init__(self, world: World) -> None:
        self.world, self.store = world, world.store

    # ---- customers
    def load(
        self,
        rate: float = 50.0,
        seconds: float = 5.0,
        *,
        keep_alive: bool = True,
        mix: dict[str, float] | None = None,
        curve: list[tuple[float, float]] | None = None,
        seed: int = 7,
        even: bool = False,
    ) -> LoadRun:
        """Send customers into the shop; they come by themselves, in a process of their own.

        Args:
            rate: requests per second, all the time.
            seconds: how long.
            keep_alive: whether customers keep their connections.
            mix: weights of page, menu, search, order, status.
            curve: (second, requests per second) points instead of rate and seconds.
            seed: the same seed brings the same customers.

        Raises:
            BadInput: the load is not bounded, or there is no such kind of request.
        """
        spec = LoadSpec(
            url=self.world.control.url(),
            run=uuid.uuid4().hex[:8],
            store=str(self.store.path),
            curve=curve or [(0.0, float(rate)), (float(seconds), float(rate))],
            keep_alive=keep_alive,
            even=even,
            mix=dict(MIX if mix is None else mix),
            seed=seed,
        )
        return LoadRun(spec, self.world.root / "run")

    def day(
        self,
        seconds: float = 20.0,
        peak: float = 120.0,
        low: float = 10.0,
        *,
        seed: int = 7,
        shape: str = "lunch",
    ) -> LoadRun:
        """A whole day of customers in `seconds`: from `low`/s to `peak` before lunch, and back.

        Args:
            shape: "lunch", or "flash crowd": all at once, without warning.
        """
        if not 0 < low <= peak:
            raise BadInput(f"A day from {low:g} to {peak:g} requests a second", expected="0 < low <= peak")
        points = DAYS[choice("shape of a day", shape, tuple(DAYS))]
        curve = [(share * seconds, low + height * (peak - low)) for share, height in points]
        return self.load(curve=curve, seed=seed)

    def compare_loops(
        self, rate: float = 100.0, seconds: float = 5.0, freeze_seconds: float = 1.0, users: int = 4
    ) -> Loops:
        """Measure a server that freezes once by an open and a closed loop. See `traffic.loops`."""
        return compare_loops(self.world.root, rate, seconds, freeze_seconds, users)

    def complaints(
        self, run: str = "", *, since: float = 0.0, patience_seconds: float = PATIENCE_SECONDS, limit: int = 8
    ) -> list[Complaint]:
        """Tickets of the customers who waited too long or got an error, worst first, from what they measured.

        Args:
            run: only customers of this load run.
            since: only what happened after this time.
            patience_seconds: how long a customer waits in silence.
            limit: most tickets that are written.
        """
        worst: dict[str, Outcome] = {}
        for outcome in self.store.requests(run=run, since=since):
            annoyed = outcome.seconds > patience_seconds or failed(outcome)
            if annoyed and anger(outcome) > anger(worst.get(outcome.session)):
                worst[outcome.session] = outcome
        angriest = sorted(worst.values(), key=anger, reverse=True)[:limit]
        tickets = [Complaint(o.session, o.endpoint, o.seconds, o.t, complaint_text(o)) for o in angriest]
        for outcome, ticket in zip(angriest, tickets, strict=True):
            if self.store.get(Complaint, ticket.key) is None:
                subject = f"complaint:{ticket.key}"
                self.store.event("operate", "complaint", subject, ticket.text, who=outcome.session)
                self.store.link(subject, "about", f"release:{outcome.release}" if outcome.release else "shop")
        self.store.put(*tickets)
        return tickets

    # ---- find the cause
    def slowest(
        self, since: float = 0.0, until: float = 1e12, *, run: str = "", by_release: bool = True
    ) -> list[EndpointFigures]:
        """Which endpoint is slow, and since which release: slowest p95 first.

        Args:
            since, until: the window, POSIX seconds.
            run: only customers of this load run.
            by_release: a row for each release that answered; False gives one row an endpoint.
        """
        groups: dict[tuple[str, str], list[Outcome]] = {}
        for outcome in self.store.requests(run=run, since=since, until=until):
            groups.setdefault((outcome.endpoint, outcome.release if by_release else ""), []).append(outcome)
        rows = [_figures(endpoint, release, found) for (endpoint, release), found in groups.items()]
        return sorted(rows, key=lambda row: row.p95, reverse=True)

    def profile(self, replica: str = "", seconds: float = 2.0) -> Profile:
        """Look into a live replica with py-spy, without stopping it: which functions take the time.

        Args:
            replica: its id; the busiest one when empty.
            seconds: how long to look.

        Raises:
            BadInput: there is no such replica, or none at all.
            MissingTool: py-spy is not there, or this machine does not let it look.
        """
        return profiling.profile(self.world, replica, seconds)

    def why_no_profile(self) -> str:
        """Why no replica can be profiled on this machine, in plain words; empty when one can."""
        return profiling.why_not(self.world)

    # ---- break on purpose
    def kill(self, replica: str = "") -> Replica:
        """End a replica the hard way (`kill -9`), as a crash would: no goodbye, nothing finished.

        Args:
            replica: its id; the first healthy one when empty.

        Raises:
            BadInput: there is no such replica, or none at all.
        """
        live = [r for r in self.store.all(Replica) if r.state in ("healthy", "unhealthy", "starting")]
        meant = [r for r in live if r.id == replica] if replica else [r for r in live if r.state == "healthy"]
        if not meant:
            raise BadInput(
                f"There is no replica {replica!r} to kill." if replica else "Nothing healthy runs.",
                expected=", ".join(r.id for r in live) or "a running replica",
            )
        victim = meant[0]
        self.world.engine.kill(victim)
        return victim

    # ---- incidents
    def drill(self, fault: str | None = None, *, seed: object = None) -> Drill:
        """Let something real go wrong in production, with customers in the shop: an incident drill.

        Args:
            fault: one of `faults()`; None draws one, and does not tell which.
            seed: what the draw depends on, beside the learner; None is the number of drills so far.

        Raises:
            BadInput: no such fault, this lab can't have it now, or a drill runs already.
        """
        from devops_lab.phases import drills

        return drills.start(self.world, fault, seed)

    def drills(self) -> list[DrillRun]:
        """All drills of this lab, oldest first: what was wrong, and how long each step took."""
        from devops_lab.phases.drills import DrillRun

        return self.store.all(DrillRun)

    def current_drill(self) -> Drill | None:
        """The drill that runs, found again."""
        from devops_lab.phases import drills

        return drills.current(self.world)

    def faults(self) -> list[Fault]:
        """What may go wrong in a drill: what customers see, and what shows it."""
        from devops_lab.phases import drills

        return list(drills.catalogue().values())

    def processes(self) -> list[beside.Beside]:
        """What this lab runs on this machine, and which of production's files it has open."""
        return beside.processes(self.world)

    def end_process(self, pid: int, why: str = "") -> beside.Beside:
        """End a process that is no part of production. See `beside.end_process`."""
        return beside.end_process(self.world, pid, why)

    def lost_on_the_way(self, since: float = 0.0) -> dict[str, float]:
        """Seconds that the newest requests lost between customer and replica (the median), by replica."""
        from devops_lab.phases.drills.signs import lost_on_the_way

        return lost_on_the_way(self.world, since)

    # ---- scale
    def autoscale(self, policy: ScalingPolicy | None) -> ScalingPolicy | None:
        """Let the agent scale by a policy, or (None) by hand again.

        Raises:
            BadInput: the policy's limits contradict each other; nothing changes.
        """
        if policy is not None:
            scaling.check_policy(policy)
            self.store.replace_all(ScalingPolicy, [policy])
            text = f"{policy.metric} {policy.target:g} a replica, {policy.min_replicas}-{policy.max_replicas}"
        else:
            self.store.replace_all(ScalingPolicy, [])
            text = "off"
        self.store.replace_all(scaling.Memory, [])
        self.store.event("operate", "operate.autoscale", "policy", text, who=self.world.settings.learner)
        return policy

    def race(
        self,
        policies: Mapping[str, ScalingPolicy | int],
        seconds: float = 20.0,
        peak: float = 90.0,
        low: float = 5.0,
        *,
        seed: int = 7,
        shape: str = "lunch",
    ) -> list[Race]:
        """Give each policy the same day, one after the other, and compare; a number is a fixed one.

        Raises:
            BadInput: a policy's limits contradict each other; nothing was played.
        """
        return racing.race(
            self.world, policies, self.autoscale, lambda: self.day(seconds, peak, low, seed=seed, shape=shape)
        )

    def autoscale_step(self, now: float | None = None) -> int | None:
        """One decision of the autoscaler; the agent calls this every second. See `scaling.autoscale_step`."""
        return scaling.autoscale_step(self.world, time.time() if now is None else now)

    # ---- hear
    def inbox(self, since: float = 0.0) -> list[Event]:
        """What production told the operations team, oldest first."""
        return inbox(self.world, since=since)


def _figures(endpoint: str, release: str, rows: Iterable[Outcome]) -> EndpointFigures:
    found = list(rows)
    first, last = found[0].t, found[-1].t
    figures = endpoint_figures(found)
    return EndpointFigures(
        endpoint=endpoint,
        release=release,
        requests=len(found),
        failed=int(figures["failed"]),
        rate=len(found) / max(last - first, 1.0),
        p50=figures["p50"],
        p95=figures["p95"],
        p99=figures["p99"],
        first_seen=first,
    )


__all__ = ["EndpointFigures", "Operate", "Profile", "complaint_text", "inbox", "notify"]
