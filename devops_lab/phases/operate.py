"""Operate: customers come, and complain; find out why, scale, and hear of every key event."""

from __future__ import annotations

import uuid
from dataclasses import replace
from statistics import median
from zlib import crc32

from devops_lab.errors import BadInput
from devops_lab.model import (
    Complaint,
    Crowd,
    EndpointFigures,
    Event,
    Loops,
    Pool,
    Replica,
    Request,
    ScalingPolicy,
)
from devops_lab.platform.agent import autoscaler
from devops_lab.platform.cells import ends_with_cell, whereabouts
from devops_lab.platform.monitoring.notify import INBOX
from devops_lab.platform.processes import end
from devops_lab.platform.traffic.load import (
    MAX_RATE,
    MAX_SECONDS,
    MIX,
    LoadRun,
    LoadSpec,
    curve_of_day,
    endpoint_figures,
    failed,
    in_the_shop,
    number,
)
from devops_lab.platform.traffic.loops import compare_loops
from devops_lab.production.diagnosis import Diagnosis

PATIENCE_SECONDS = 0.5  # a customer who waits longer for one answer complains
HOME_SECONDS = 40.0  # for the last answers, and to look for every order
DOING = {
    "/": "opened the page",
    "/api/menu": "looked at the menu",
    "/api/search": "searched for a lunch box",
    "/api/orders": "sent my order",
    "/api/orders/{id}": "asked where my order is",
}
VOICES = (
    "I {did} and {felt}. The site is slow!",
    "My lunch break is half an hour, and some of it is yours now: I {did} and {felt}.",
    "Dear team, perhaps it is my telephone, but I {did} and {felt}. Kind regards",
    "A meeting room full of hungry people looks at my screen: I {did} and {felt}.",
    "i {did} and {felt}. srsly? the noodle place next door is open btw",
    "I {did} and {felt}. Is anybody there? My colleague thinks that you have closed.",
)


class Operate(Diagnosis):
    """Production in daily life.

    Args:
        world: the lab to work on.
    """

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
        outlives_cell: bool = False,
    ) -> LoadRun:
        """Send customers into the shop; they come by themselves, in a process of their own.

        They go when their time is over, with the kernel, and when the cell that sent them fails, is
        interrupted or is run again.

        Args:
            rate: requests per second, all the time.
            seconds: how long.
            keep_alive: whether customers keep their connections.
            mix: weights of page, menu, search, order, status.
            curve: (second, requests per second) points instead of rate and seconds.
            seed: the same seed brings the same customers.
            outlives_cell: they stay whatever becomes of the cell.

        Raises:
            BadInput: the load is not bounded, or there is no such kind of request.
        """
        if curve is None:
            rate = number("rate", rate, MAX_RATE)
            curve = [(0.0, rate), (number("seconds", seconds, MAX_SECONDS), rate)]
        if not self.store.all(Pool):
            raise BadInput(
                "Nothing is in production yet, so there is no shop to come to.",
                next_step='lab.catch_up("operate") deploys a version.',
            )
        url, run_id, mix = self.world.control.url(), uuid.uuid4().hex[:8], MIX if mix is None else mix
        spec = LoadSpec(
            url, run_id, str(self.store.path), curve, keep_alive, mix=mix, seed=seed, who=whereabouts()
        )
        for crowd in self.customers():
            there = crowd.told(self.store.now())
            print(f"Others are in the shop already: {there}. See lab.operate.customers(), send_home().")
        run = LoadRun(spec, self.world.root / "run")
        if not outlives_cell:
            ends_with_cell(self.world.root, run.send_home)
        return run

    def customers(self) -> list[Crowd]:
        """Who is in the shop now: sent by whom, since when, at which rate, and for how long still."""
        return in_the_shop(self.store)

    def send_home(self, run: str = "") -> list[Crowd]:
        """Send customers home, whoever sent them; what they measured until now is kept.

        Args:
            run: only those of this load run; all when empty.

        Returns:
            those who went.

        Raises:
            BadInput: no such run is in the shop.
        """
        there = self.customers()
        going = [crowd for crowd in there if run in ("", crowd.run)]
        if run and not going:
            known = ", ".join(crowd.run for crowd in there)
            raise BadInput(f"No customers of a run {run!r} are in the shop.", expected=known or "nobody is")
        end([(crowd.pid, crowd.created) for crowd in going], HOME_SECONDS)
        return going

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
        return self.load(curve=curve_of_day(seconds, peak, low, shape), seed=seed)

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
        worst: dict[str, Request] = {}
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
        groups: dict[tuple[str, str], list[Request]] = {}
        for outcome in self.store.requests(run=run, since=since, until=until):
            groups.setdefault((outcome.endpoint, outcome.release if by_release else ""), []).append(outcome)
        rows = [_figures(endpoint, release, found) for (endpoint, release), found in groups.items()]
        return sorted(rows, key=lambda row: row.p95, reverse=True)

    def lost_on_the_way(self, since: float = 0.0) -> dict[str, float]:
        """Seconds that the newest requests lost between customer and replica (the median), worst first."""
        lost: dict[str, list[float]] = {}
        for outcome in self.store.requests(since=since)[-200:]:
            for line in self.store.logs(request_id=outcome.request_id, limit=1):
                lost.setdefault(line.replica, []).append(outcome.seconds - line.seconds)
        found = {replica: median(seconds) for replica, seconds in lost.items()}
        return dict(sorted(found.items(), key=lambda pair: -pair[1]))

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

    # ---- scale
    def autoscale(self, policy: ScalingPolicy | None) -> ScalingPolicy | None:
        """Let the agent scale by a policy, or (None) by hand again.

        Raises:
            BadInput: the policy's limits contradict each other; nothing changes.
        """
        if policy is not None:
            autoscaler.check_policy(policy)
            self.store.replace_all(ScalingPolicy, [policy])
            text = f"{policy.metric} {policy.target:g} a replica, {policy.min_replicas}-{policy.max_replicas}"
        else:
            self.store.replace_all(ScalingPolicy, [])
            text = "off"
        self.store.replace_all(autoscaler.Memory, [])
        self.store.event("operate", "operate.autoscale", "policy", text, who=self.world.settings.learner)
        return policy

    # ---- hear
    def inbox(self, since: float = 0.0) -> list[Event]:
        """What production told the operations team, oldest first: each event under its own kind."""
        told: dict[object, Event] = {}
        for event in self.store.events(kind=INBOX, since=since):
            told.setdefault(event.data.get("event") or event.id, replace(event, kind=event.data["about"]))
        return list(told.values())


def _figures(endpoint: str, release: str, rows: list[Request]) -> EndpointFigures:
    first, last = rows[0].t, rows[-1].t
    figures = endpoint_figures(rows)
    return EndpointFigures(
        endpoint=endpoint,
        release=release,
        requests=len(rows),
        failed=int(figures["failed"]),
        rate=len(rows) / max(last - first, 1.0),
        p50=figures["p50"],
        p95=figures["p95"],
        p99=figures["p99"],
        first_seen=first,
    )


def complaint_text(outcome: Request) -> str:
    """A ticket in a customer's words, each in a voice of their own; the figures are what they measured."""
    did = DOING.get(outcome.endpoint, f"used {outcome.endpoint}")
    felt = f"waited {outcome.seconds:.1f} s for an answer"
    if failed(outcome):
        got = f"error {outcome.status}" if outcome.status else "no answer at all"
        felt = f"got {got} after {outcome.seconds:.1f} s"
    return VOICES[crc32(outcome.session.encode()) % len(VOICES)].format(did=did, felt=felt)


def anger(outcome: Request | None) -> tuple[bool, float, float]:
    """Who is angrier: first an error, then the longer wait, then who came earlier."""
    return (failed(outcome), outcome.seconds, -outcome.t) if outcome else (False, 0.0, -1e18)
