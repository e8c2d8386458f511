"""What can be seen of a fault: its first sign, whether all is well again, and the post-mortem's draft."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from statistics import median

from devops_lab.model import Alert, AlertRule, Event, EventKind, Item, PostMortem, Request
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.plan import Plan
from devops_lab.platform.context import LabContext
from devops_lab.platform.traffic.load import failed, percentile
from devops_lab.production.drills.faults import Fault
from devops_lab.production.drills.record import DrillRun

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


def first_sign(world: LabContext, fault: Fault, run: DrillRun) -> Sign | None:
    """The first alert that fired; where none covers the fault, the first moment at which it could be seen."""
    for event in world.store.events(kind="alert.firing", since=run.injected):
        return Sign(event.subject.removeprefix("alert:"), event.t, event.message)
    if fault.sign == "customers":
        bad = [o for o in world.store.requests(since=run.injected) if unhappy(o)]
        if len(bad) >= BAD_ANSWERS:
            fifth = bad[BAD_ANSWERS - 1]
            return Sign("customers", fifth.t + fifth.seconds, "No alert fires, but customers wait.")
    if fault.sign == "clock" and skew_seconds(world, run.injected) > SKEW_SECONDS:
        return Sign("logs", world.store.now(), "No alert fires, and customers are served. Look closely.")
    return None


def unhappy(outcome: Request) -> bool:
    return failed(outcome) or outcome.seconds > PATIENCE_SECONDS


def seen(world: LabContext, run: DrillRun) -> str:
    """What has shown itself so far, in words: alerts, deaths, and what customers measured."""
    events = world.store.events(since=run.injected)
    fired = sorted({event.subject for event in events if event.kind == "alert.firing"})
    deaths = sum(event.kind == "replica.died" for event in events)
    rows = world.store.requests(since=max(run.injected, world.store.now() - 10))
    share, p95 = sum(map(failed, rows)) / max(len(rows), 1), percentile([o.seconds for o in rows], 0.95)
    figures = f"{len(rows)} requests, {share:.1%} failed, p95 {p95 * 1000:.0f} ms"
    return f"Seen so far: {', '.join(fired) or 'no alert'}; {deaths} deaths; {figures}."


def skew_seconds(world: LabContext, since: float) -> float:
    """How far the log lines of the last requests are from the time at which their customers sent them."""
    apart = []
    for outcome in world.store.requests(since=max(since, world.store.now() - 6))[-20:]:
        lines = world.store.logs(request_id=outcome.request_id, limit=1)
        apart += [abs(line.t - outcome.t) for line in lines]
    return median(apart) if apart else 0.0


def still_wrong(world: LabContext, fault: Fault, run: DrillRun, fired_before: list[str]) -> str:
    """What speaks against calling production well, in words; empty when nothing does."""
    now = world.store.now()
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


def customers_wrong(rows: list[Request], baseline_p95: float) -> str:
    """What customers of the last seconds have to complain about; empty when they are served as before."""
    span = f"the last {WINDOW_SECONDS:g} s"
    if len(rows) < ENOUGH_REQUESTS:
        return f"Only {len(rows)} requests came in {span}: too few to tell."
    if (share := sum(map(failed, rows)) / len(rows)) > MOST_FAILED:
        return f"{share:.1%} of the requests of {span} failed."
    p95, most = percentile([o.seconds for o in rows], 0.95), max(0.25, 2.5 * baseline_p95)
    return f"p95 of {span} is {p95 * 1000:.0f} ms, more than {most * 1000:.0f}." if p95 > most else ""


def only_remembers(world: LabContext, name: str, rule: AlertRule | None, now: float) -> bool:
    """Whether an alert fires only because its window of minutes holds what is over.

    The deaths of the last minute, and the longer windows of an objective (which has no stored rule).
    """
    if rule is None:
        return not name.endswith("/fast")
    died = world.store.events(kind="replica.died", since=now - CALM_SECONDS, limit=1)
    return rule.metric == "deaths_per_minute" and not died


# ---- a blameless post-mortem, drafted from the records: what happened, not who is to blame
FOLDER = "postmortems"
TOLD: tuple[EventKind, ...] = (
    *("deploy.started", "deploy.done", "deploy.refused", "rollback.done", "operate.configured"),
    *("operate.scaled", "alert.firing", "alert.resolved", "replica.died", "replica.crash_loop"),
    *("replica.unhealthy", "log.truncated", "process.ended", "drill.diagnosed"),
)
MOST_ROWS = 25


def draft(world: LabContext, run: DrillRun, fault: Fault) -> PostMortem:
    """Write the post-mortem of a drill that has ended; its action goes into the backlog. Safe to repeat."""
    if known := world.store.get(PostMortem, str(run.id)):
        return known
    events = [e for e in world.store.events(since=run.injected - 5) if e.kind in TOLD and e.t <= run.ended]
    item = action(world, run, fault, events)
    parts = [
        f"# Incident {run.id}: {fault.name}",
        f"*Drafted {time.strftime('%Y-%m-%d %H:%M')} from the lab's own records. It asks what happened, and "
        "why the system let it; never who is to blame.*",
        f"**Summary.** {fault.customers} What showed it: {fault.signal}",
        "## Impact\n" + impact(world, run),
        "## Timeline (seconds from the first customer who could meet it)\n" + timeline(events, run),
        "## Detection and response\n" + response(run, fault),
        "## What went well, and what did not\n" + well(run, fault, events),
        f"## Action items\n- [ ] {item.id}: {item.title} (in the backlog, with its evidence)",
    ]
    path = world.root / FOLDER / f"incident-{run.id}.md"
    path.parent.mkdir(exist_ok=True)
    text = "\n\n".join(parts) + "\n"
    path.write_text(text, encoding="utf-8")
    found = PostMortem(run.id, world.relative(path), text, item.id)
    world.store.put(found)
    world.store.event("operate", "drill.postmortem", f"drill:{run.id}", found.path, item=item.id)
    return found


def impact(world: LabContext, run: DrillRun) -> str:
    """What customers lost while it lasted, and what it cost of each objective's error budget."""
    over = run.restored or run.ended
    rows = world.store.requests(since=run.injected, until=over)
    lost = sum(map(failed, rows))
    late = sum(unhappy(row) for row in rows) - lost
    lines = [
        f"- {len(rows)} requests, {lost} failed ({lost / max(len(rows), 1):.1%}), "
        f"{late} more waited longer than {PATIENCE_SECONDS:g} s.",
        f"- Lasted {over - run.injected:.1f} s.",
    ]
    objectives = Monitor(world).slo
    for slo in objectives.all():
        spent = objectives.budget(slo.name, run.injected, over)
        allowed = spent.requests * (1 - slo.objective)
        lines.append(f"- Objective {slo.name}: {spent.bad:.0f} bad requests, {allowed:.1f} were allowed.")
    return "\n".join(lines)


def timeline(events: list[Event], run: DrillRun) -> str:
    rows = [
        f"| {e.t - run.injected:+.1f} | {e.kind} | {_cell(e.message or e.subject)} | {_cell(e.who)} |"
        for e in events
    ]
    if (left := len(rows) - MOST_ROWS) > 0:
        rows = [*rows[:MOST_ROWS], f"| | | and {left} more | |"]
    return "\n".join(["| s | what | words | who |", "| --- | --- | --- | --- |", *rows])


def _cell(text: str) -> str:
    return text.splitlines()[0].replace("|", "/")[:140] if text else ""


def response(run: DrillRun, fault: Fault) -> str:
    took = run.seconds
    words = {"detected": f"by {run.detected_by}", "diagnosed": f"guesses: {', '.join(run.guesses)}"}
    lines = [
        f"- {name.capitalize()} after {took[name]:.1f} s{f', {words[name]}' if name in words else ''}."
        for name in took
    ]
    covered = f"covered by the alerts {', '.join(fault.alerts)}" if fault.alerts else "covered by no alert"
    return "\n".join([*lines, f"- It ended as: {run.state}. This kind of fault is {covered}."])


def well(run: DrillRun, fault: Fault, events: list[Event]) -> str:
    """What the records themselves can tell about that."""
    healed = sum(event.kind == "replica.died" for event in events)
    told = {
        "- Well: the platform spoke before anybody had to ask.": run.detected and fault.alerts,
        f"- Well: {healed} dead replicas were replaced without anybody's help.": healed,
        "- Well: service came back before the cause was mended.": run.state == "restored",
        "- Not well: no alert rule looks at what this fault changes.": not fault.alerts,
        "- Not well: every test was green; the suite does not ask this question.": fault.change,
    }
    return "\n".join(line for line, so in told.items() if so)


def action(world: LabContext, run: DrillRun, fault: Fault, events: list[Event]) -> Item:
    """The backlog item that keeps this from happening again, with what it is based on."""
    alerts = {event.subject for event in events if event.kind == "alert.firing"}
    plan, name = Plan(world), f"INC-{run.id}"
    known = {item.id: item for item in [*plan.backlog(), *plan.finished()]}
    if name in known:
        return known[name]
    story = f"Incident {run.id} was a {fault.name}. Done when a drill with it is seen or refused earlier."
    item = Item(name, fault.action, "operations", effort=3, value=5, risk_reduction=8, story=story)
    return plan.add(replace(item, evidence=[f"drill:{run.id}", *sorted(alerts)]))
