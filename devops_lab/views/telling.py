"""Views of what production says in words: log lines, events, alerts, complaints, deployments, the doctor."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from devops_lab.model import Alert, Complaint, Deployment, Event
from devops_lab.views import style as look
from devops_lab.views.picture import Picture

LEVEL = {"debug": "quiet", "info": "info", "warning": "warn", "error": "bad", "critical": "bad"}
STATE = {"pending": "warn", "firing": "bad", "resolved": "good"}
ENDING = {"done": "good", "running": "info", "interrupted": "warn", "refused": "bad", "rolled back": "warn"}
BAD_ENDINGS = ("failed", "refused", "died", "firing")
GOOD_ENDINGS = ("done", "resolved", "healthy", "replaced")
MAX_ROWS = 50


def _newest(rows: Sequence[Any]) -> tuple[list[Any], str]:
    """The newest rows, newest first, and words for those left out."""
    ordered = sorted(rows, key=lambda row: -row.t)
    return ordered[:MAX_ROWS], f" The newest {MAX_ROWS} are shown." if len(ordered) > MAX_ROWS else ""


def logs(found: Any) -> Picture:
    """Log lines, newest first: a list of `LogLine`, or a trace with `lines`."""
    found = list(getattr(found, "lines", found))
    if not found:
        return look.nothing("log lines", "Or none matches what was asked for.")
    shown, cut = _newest(found)
    rows = [
        (look.clock(x.t), look.badge(LEVEL.get(x.level.lower(), "quiet"), x.level.lower()), x.message[:300],
         x.endpoint, x.status or "", look.seconds(x.seconds) if x.seconds else "", x.replica, x.release,
         look.code(x.request_id[:12]))
        for x in shown
    ]  # fmt: skip
    counts = Counter(x.level.lower() for x in found).most_common()
    levels = ", ".join(f"{count} {level}" for level, count in counts)
    caption = f"{len(found)} log lines ({levels}), newest first.{cut}"
    heads = ("time", "level", "message", "endpoint", "status", "took", "replica", "release", "request id")
    return look.page(caption, f"{caption} The newest says: {shown[0].message[:200]}", look.table(heads, rows))


def inbox(events: Sequence[Event]) -> Picture:
    """What the operations team was told, newest first."""
    if not events:
        return look.nothing("messages to the operations team")
    shown, cut = _newest(events)
    rows = [
        (look.clock(e.t), look.badge(_event_tone(e.kind), e.kind),
         look.lines(e.message or e.subject, e.why and f"why: {e.why}"), e.subject, e.who)
        for e in shown
    ]  # fmt: skip
    caption = f"{len(events)} messages, newest first.{cut}"
    alt = f"{caption} The newest: {shown[0].kind} {shown[0].subject} {shown[0].message}"
    return look.page(caption, alt, look.table(("time", "event", "message", "about", "who"), rows))


def _event_tone(kind: str) -> str:
    return "bad" if kind.endswith(BAD_ENDINGS) else "good" if kind.endswith(GOOD_ENDINGS) else "info"


def alerts(found: Sequence[Alert]) -> Picture:
    """Alerts with how long they were on, newest first."""
    if not found:
        return look.nothing("alerts", "No rule has fired.")
    ordered = sorted(found, key=lambda alert: -alert.since)[:MAX_ROWS]
    rows = [
        (look.badge(STATE[a.state], a.state), a.rule, a.subject, f"{a.value:,.4g}", look.clock(a.since),
         look.clock(a.resolved), look.seconds(a.resolved - a.since) if a.resolved else "–",
         ", ".join(a.evidence))
        for a in ordered
    ]  # fmt: skip
    counts = ", ".join(f"{count} {state}" for state, count in Counter(a.state for a in found).items())
    heads = ("state", "rule", "about", "value", "since", "resolved", "lasted", "evidence")
    alt = f"Alerts: {counts}. Newest: {ordered[0].rule} is {ordered[0].state}."
    return look.page(f"Alerts: {counts}.", alt, look.table(heads, rows))


def complaints(found: Sequence[Complaint]) -> Picture:
    """Customers' tickets, the longest waiting first, each with what was measured."""
    if not found:
        return look.nothing("customers' complaints", "Nobody has waited too long.")
    ordered = sorted(found, key=lambda c: -c.waited_seconds)[:MAX_ROWS]
    rows = [
        (look.clock(c.t), c.session, c.endpoint, look.seconds(c.waited_seconds), f"“{c.text}”")
        for c in ordered
    ]
    endpoint, count = Counter(c.endpoint for c in found).most_common(1)[0]
    longest = look.seconds(ordered[0].waited_seconds)
    caption = f"{len(found)} complaints, longest wait first ({longest}); {count} of them about {endpoint}."
    heads = ("time", "customer", "endpoint", "waited", "what they wrote")
    return look.page(caption, f"{caption} The first: {ordered[0].text}", look.table(heads, rows))


def deployments(found: Sequence[Deployment]) -> Picture:
    """Who brought what to production, from what, how, why, and how it ended; newest first."""
    if not found:
        return look.nothing("deployments")
    ordered = sorted(found, key=lambda d: -d.started)[:MAX_ROWS]
    rows = [
        (d.id, look.badge(ENDING[d.state], d.state), look.bold(d.version), d.previous or "–", d.strategy,
         d.who, look.lines(d.why, textwrap.shorten(d.error.partition("\n")[0], 110)), look.clock(d.started),
         look.seconds(d.seconds) if d.ended else "–")
        for d in ordered
    ]  # fmt: skip
    caption = f"{len(found)} deployments, newest first; the last: {ordered[0].version}, {ordered[0].state}."
    told = "; ".join(f"{d.id}: {d.previous} to {d.version} {d.strategy} {d.state}" for d in ordered)
    alt = f"{caption} {told}"
    heads = ("", "ended", "version", "before", "strategy", "who", "why", "when", "took")
    return look.page(caption, alt, look.table(heads, rows))


def post_mortem(found: Any) -> Picture:
    """The draft of a post-mortem as it lies in the lab.

    Args:
        found: has `text` (Markdown), `path` and `item`.
    """
    if not found:
        return look.nothing("the post-mortem", "It is drafted when an incident is over.")
    caption = f"The draft lies in {found.path}; its action is {found.item} in the backlog."
    return look.page(caption, f"{caption} {found.text}", look.pre(found.text))


def doctor(rows: Iterable[Any]) -> Picture:
    """What is on this machine: records, mappings or tuples of name, ok, detail, what to do."""
    return look.checklist(rows, "This machine", {True: "there", False: "missing", None: "not needed"})
