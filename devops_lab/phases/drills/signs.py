"""What can be seen of a fault: its first sign, figures on the way, and whether production is well again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from statistics import median

from devops_lab.model import Alert, AlertRule, Outcome
from devops_lab.phases import World
from devops_lab.phases.drills.faults import Fault
from devops_lab.phases.drills.note import DrillRun
from devops_lab.traffic.load import failed, percentile

PATIENCE_SECONDS = 0.5  # who waits longer counts as dissatisfied
BAD_ANSWERS = 5  # so many customers who got nothing, or too late, are no chance
WINDOW_SECONDS = 3.0  # so long must all be well
CALM_SECONDS = 10.0  # nobody died for so long: the count of a whole minute need not run out
MOST_FAILED, ENOUGH_REQUESTS = 0.01, 10
SKEW_SECONDS = 60.0


@dataclass(frozen=True)
class Sign:
    """What first showed that something is wrong, and when (POSIX seconds)."""

    by: str
    t: float
    text: str


def first_sign(world: World, fault: Fault, run: DrillRun) -> Sign | None:
    """The first alert that fired; where none covers the fault, the first moment at which it could be seen."""
    for event in world.store.events(kind="alert.firing", since=run.injected):
        return Sign(event.subject.removeprefix("alert:"), event.t, event.message)
    if fault.sign == "customers":
        bad = [o for o in world.store.requests(since=run.injected) if unhappy(o)]
        if len(bad) >= BAD_ANSWERS:
            fifth = bad[BAD_ANSWERS - 1]
            return Sign("customers", fifth.t + fifth.seconds, "No alert fires, but customers wait.")
    if fault.sign == "clock" and skew_seconds(world, run.injected) > SKEW_SECONDS:
        return Sign("logs", time.time(), "No alert fires, and customers are served. Look closely.")
    return None


def unhappy(outcome: Outcome) -> bool:
    return failed(outcome) or outcome.seconds > PATIENCE_SECONDS


def seen(world: World, run: DrillRun) -> str:
    """What has shown itself so far, in words: alerts, deaths, and what customers measured."""
    events = world.store.events(since=run.injected)
    fired = sorted({event.subject for event in events if event.kind == "alert.firing"})
    deaths = sum(event.kind == "replica.died" for event in events)
    rows = world.store.requests(since=max(run.injected, time.time() - 10))
    share, p95 = sum(map(failed, rows)) / max(len(rows), 1), percentile([o.seconds for o in rows], 0.95)
    figures = f"{len(rows)} requests, {share:.1%} failed, p95 {p95 * 1000:.0f} ms"
    return f"Seen so far: {', '.join(fired) or 'no alert'}; {deaths} deaths; {figures}."


def skew_seconds(world: World, since: float) -> float:
    """How far the log lines of the last requests are from the time at which their customers sent them."""
    apart = []
    for outcome in world.store.requests(since=max(since, time.time() - 6))[-20:]:
        lines = world.store.logs(request_id=outcome.request_id, limit=1)
        apart += [abs(line.t - outcome.t) for line in lines]
    return median(apart) if apart else 0.0


def lost_on_the_way(world: World, since: float) -> dict[str, float]:
    """Seconds that requests spent between customer and replica (the median), by replica, worst first."""
    lost: dict[str, list[float]] = {}
    for outcome in world.store.requests(since=since)[-200:]:
        for line in world.store.logs(request_id=outcome.request_id, limit=1):
            lost.setdefault(line.replica, []).append(outcome.seconds - line.seconds)
    found = {replica: median(seconds) for replica, seconds in lost.items()}
    return dict(sorted(found.items(), key=lambda pair: -pair[1]))


def still_wrong(world: World, fault: Fault, run: DrillRun, fired_before: list[str]) -> str:
    """What speaks against calling production well, in words; empty when nothing does."""
    now = time.time()
    if now - (run.detected or run.diagnosed) < WINDOW_SECONDS:  # most that is looked at came before the fault
        return f"It was noticed just now: for {WINDOW_SECONDS:g} s from then all must be well."
    if not world.control.status()["settled"]:
        return "Production is not as it is wanted: replicas are missing, or too many, or unhealthy."
    if found := customers_wrong(world.store.requests(since=now - WINDOW_SECONDS), run.baseline_p95):
        return found
    rules = {rule.name: rule for rule in world.store.all(AlertRule)}
    for alert in world.store.all(Alert):
        new = alert.state == "firing" and alert.rule not in fired_before
        if new and not only_remembers(world, alert.rule, rules.get(alert.rule), now):
            return f"The alert {alert.rule} on {alert.subject} still fires."
    if fault.sign == "clock" and skew_seconds(world, run.injected) > SKEW_SECONDS:
        return "Customers are served, but not all that is kept about them can be trusted."
    return ""


def customers_wrong(rows: list[Outcome], baseline_p95: float) -> str:
    """What customers of the last seconds have to complain about; empty when they are served as before."""
    span = f"the last {WINDOW_SECONDS:g} s"
    if len(rows) < ENOUGH_REQUESTS:
        return f"Only {len(rows)} requests came in {span}: too few to tell."
    if (share := sum(map(failed, rows)) / len(rows)) > MOST_FAILED:
        return f"{share:.1%} of the requests of {span} failed."
    p95, most = percentile([o.seconds for o in rows], 0.95), max(0.25, 2.5 * baseline_p95)
    return f"p95 of {span} is {p95 * 1000:.0f} ms, more than {most * 1000:.0f}." if p95 > most else ""


def only_remembers(world: World, name: str, rule: AlertRule | None, now: float) -> bool:
    """Whether an alert fires only because its window of minutes holds what is over.

    The deaths of the last minute, and the longer windows of an objective (which has no stored rule).
    """
    if rule is None:
        return not name.endswith("/fast")
    died = world.store.events(kind="replica.died", since=now - CALM_SECONDS, limit=1)
    return rule.metric == "deaths_per_minute" and not died
