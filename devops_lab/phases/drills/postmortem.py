"""A blameless post-mortem, drafted from what the lab has recorded: what happened, not who is to blame."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from devops_lab.model import Event, Item
from devops_lab.phases import World
from devops_lab.phases.drills.faults import Fault
from devops_lab.phases.drills.note import DrillRun
from devops_lab.phases.drills.signs import PATIENCE_SECONDS, unhappy
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.plan import Plan
from devops_lab.traffic.load import failed

FOLDER = "postmortems"
TOLD = (
    *("deploy.started", "deploy.done", "deploy.refused", "rollback.done", "operate.configured"),
    *("operate.scaled", "alert.firing", "alert.resolved", "replica.died", "replica.crash_loop"),
    *("replica.unhealthy", "log.truncated", "process.ended", "drill.diagnosed"),
)
MOST_ROWS = 25


@dataclass(frozen=True)
class PostMortem:
    """A draft: its place in the lab, its text in Markdown, and the backlog item that it asks for."""

    drill: int
    path: str
    text: str
    item: str

    @property
    def key(self) -> str:
        return str(self.drill)


def draft(world: World, run: DrillRun, fault: Fault) -> PostMortem:
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


def impact(world: World, run: DrillRun) -> str:
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


def action(world: World, run: DrillRun, fault: Fault, events: list[Event]) -> Item:
    """The backlog item that keeps this from happening again, with what it is based on."""
    alerts = {event.subject for event in events if event.kind == "alert.firing"}
    plan, name = Plan(world), f"INC-{run.id}"
    known = {item.id: item for item in [*plan.backlog(), *plan.finished()]}
    if name in known:
        return known[name]
    story = f"Incident {run.id} was a {fault.name}. Done when a drill with it is seen or refused earlier."
    item = Item(name, fault.action, "operations", effort=3, value=5, risk_reduction=8, story=story)
    return plan.add(replace(item, evidence=[f"drill:{run.id}", *sorted(alerts)]))
