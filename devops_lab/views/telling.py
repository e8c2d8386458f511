"""Views of what production says in words: log lines, events, alerts, complaints, the doctor's findings."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from devops_lab.model import Alert, Complaint, Event, LogLine
from devops_lab.views.picture import Picture
from devops_lab.views.style import Html, badge, clock, code, lines, nothing, page, pick, safe, seconds, table

LEVEL = {"debug": "quiet", "info": "info", "warning": "warn", "error": "bad", "critical": "bad"}
STATE = {"pending": "warn", "firing": "bad", "resolved": "good"}
MAX_ROWS = 50


def _newest(rows: Sequence[Any]) -> tuple[list[Any], str]:
    """The newest rows, newest first, and words for those left out."""
    ordered = sorted(rows, key=lambda row: -row.t)
    cut = f" The newest {MAX_ROWS} are shown." if len(ordered) > MAX_ROWS else ""
    return ordered[:MAX_ROWS], cut


def logs(found: Sequence[LogLine]) -> Picture:
    """Log lines, newest first."""
    if not found:
        return nothing("log lines", "Or none matches what was asked for.")
    shown, cut = _newest(found)
    rows = [
        (
            clock(x.t),
            badge(LEVEL.get(x.level.lower(), "quiet"), x.level.lower()),
            x.message[:300],
            x.endpoint,
            x.status or "",
            seconds(x.seconds) if x.seconds else "",
            x.replica,
            x.release,
            code(x.request_id[:12]),
        )
        for x in shown
    ]
    levels = ", ".join(
        f"{count} {level}" for level, count in Counter(x.level.lower() for x in found).most_common()
    )
    caption = f"{len(found)} log lines ({levels}), newest first.{cut}"
    heads = ("time", "level", "message", "endpoint", "status", "took", "replica", "release", "request id")
    return page(caption, f"{caption} The newest says: {shown[0].message[:200]}", table(heads, rows))


def inbox(events: Sequence[Event]) -> Picture:
    """What the operations team was told, newest first."""
    if not events:
        return nothing("messages to the operations team")
    shown, cut = _newest(events)
    rows = [
        (
            clock(e.t),
            badge(_event_tone(e.kind), e.kind),
            lines(e.message or e.subject, e.why and f"why: {e.why}"),
            e.subject,
            e.who,
        )
        for e in shown
    ]
    caption = f"{len(events)} messages, newest first.{cut}"
    alt = f"{caption} The newest: {shown[0].kind} {shown[0].subject} {shown[0].message}"
    return page(caption, alt, table(("time", "event", "message", "about", "who"), rows))


def _event_tone(kind: str) -> str:
    ending = kind.rpartition(".")[2]
    if ending in ("failed", "refused", "died", "firing"):
        return "bad"
    return "good" if ending in ("done", "resolved", "healthy", "replaced") else "info"


def alerts(found: Sequence[Alert]) -> Picture:
    """Alerts with how long they were on, newest first."""
    if not found:
        return nothing("alerts", "No rule has fired.")
    ordered = sorted(found, key=lambda alert: -alert.since)[:MAX_ROWS]
    rows = [
        (
            badge(STATE[a.state], a.state),
            a.rule,
            a.subject,
            f"{a.value:.4g}",
            clock(a.since),
            clock(a.resolved),
            seconds(a.resolved - a.since) if a.resolved else "–",
            ", ".join(a.evidence),
        )
        for a in ordered
    ]
    counts = Counter(a.state for a in found)
    caption = ", ".join(f"{count} {state}" for state, count in counts.items()) + "."
    heads = ("state", "rule", "about", "value", "since", "resolved", "lasted", "evidence")
    return page(
        f"Alerts: {caption}",
        f"{caption} Newest: {ordered[0].rule} is {ordered[0].state}.",
        table(heads, rows),
    )


def complaints(found: Sequence[Complaint]) -> Picture:
    """Customers' tickets, the longest waiting first, each with what was measured."""
    if not found:
        return nothing("customers' complaints", "Nobody has waited too long.")
    ordered = sorted(found, key=lambda c: -c.waited_seconds)
    rows = [
        (clock(c.t), c.session, c.endpoint, seconds(c.waited_seconds), Html(f"“{safe(c.text)}”"))
        for c in ordered[:MAX_ROWS]
    ]
    worst = Counter(c.endpoint for c in found).most_common(1)[0]
    caption = (
        f"{len(found)} complaints, longest wait first ({seconds(ordered[0].waited_seconds)}); "
        f"{worst[1]} of them about {worst[0]}."
    )
    heads = ("time", "customer", "endpoint", "waited", "what they wrote")
    return page(caption, f"{caption} The first: {ordered[0].text}", table(heads, rows))


def doctor(rows: Iterable[Any]) -> Picture:
    """What is on this machine: records, mappings or tuples of name, ok, detail, what to do."""
    found = [
        (
            str(pick(r, "name", 0)),
            pick(r, "ok", 1, None),
            str(pick(r, "detail", 2)),
            str(pick(r, "what_to_do", 3)),
        )
        for r in rows
    ]
    if not found:
        return nothing("the doctor's findings")
    words = {True: ("good", "there"), False: ("bad", "missing"), None: ("quiet", "not needed")}
    cells = [
        (badge(*words[None if ok is None else bool(ok)]), name, detail, todo)
        for name, ok, detail, todo in found
    ]
    bad = [name for name, ok, _, _ in found if ok is not None and not ok]
    caption = f"This machine: {len(found) - len(bad)} of {len(found)} fine." + (
        f" Missing: {', '.join(bad)}." if bad else ""
    )
    alt = caption + " " + "; ".join(f"{name}: {detail}" for name, _, detail, _ in found)
    return page(caption, alt, table(("", "what", "found", "what to do"), cells))
