"""Views of what production tells: logs, events, alerts, complaints, endpoints, post-mortems, profiles."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

from devops_lab.model import (
    Alert,
    Check,
    Complaint,
    EndpointFigures,
    EndpointRow,
    Event,
    LogLine,
    PostMortem,
    Profile,
)  # fmt: skip
from devops_lab.views import style as look
from devops_lab.views.style import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVEL = {"debug": "quiet", "info": "info", "warning": "warn", "error": "bad", "critical": "bad"}
STATE = {"pending": "warn", "firing": "bad", "resolved": "good"}
BAD_ENDINGS = ("failed", "refused", "died", "firing")
GOOD_ENDINGS = ("done", "resolved", "healthy", "replaced")
# What every request of the shop runs inside of: threads, event loop, HTTP server. It explains nothing.
PLUMBING = re.compile(
    r"\((<frozen runpy>|threading\.py|asyncio/|anyio/|uvicorn/|bento/(__main__|server)\.py)"
)
DEEPEST = 14  # frames of a flame graph
Stacks = Mapping[tuple[str, ...], float]


def logs(lines: Sequence[LogLine]) -> Picture:
    """Log lines, newest first."""
    if not lines:
        return look.nothing("log lines", "Or none matches what was asked for.")
    shown = sorted(lines, key=lambda line: -line.t)[: look.MAX_ROWS]
    rows = [
        (look.clock(x.t), look.badge(LEVEL.get(x.level.lower(), "quiet"), x.level.lower()), x.message[:300],
         x.endpoint, x.status or "", look.seconds(x.seconds) if x.seconds else "", x.replica, x.release,
         look.code(x.request_id[:12]))
        for x in shown
    ]  # fmt: skip
    counts = Counter(line.level.lower() for line in lines).most_common()
    levels = ", ".join(f"{count} {level}" for level, count in counts)
    caption = f"{len(lines)} log lines ({levels}), newest first.{_cut(lines)}"
    heads = ("time", "level", "message", "endpoint", "status", "took", "replica", "release", "request id")
    return look.page(caption, f"{caption} The newest says: {shown[0].message[:200]}", look.table(heads, rows))


def _cut(rows: Sequence[object]) -> str:
    """Words for the rows that are left out."""
    return f" The newest {look.MAX_ROWS} are shown." if len(rows) > look.MAX_ROWS else ""


def inbox(events: Sequence[Event]) -> Picture:
    """What the operations team was told, newest first."""
    if not events:
        return look.nothing("messages to the operations team")
    shown = sorted(events, key=lambda event: -event.t)[: look.MAX_ROWS]
    rows = [
        (look.clock(e.t), look.badge(_event_tone(e.kind), e.kind),
         look.lines(e.message or e.subject, e.why and f"why: {e.why}"), e.subject, e.who)
        for e in shown
    ]  # fmt: skip
    caption = f"{len(events)} messages, newest first.{_cut(events)}"
    alt = f"{caption} The newest: {shown[0].kind} {shown[0].subject} {shown[0].message}"
    return look.page(caption, alt, look.table(("time", "event", "message", "about", "who"), rows))


def _event_tone(kind: str) -> str:
    return "bad" if kind.endswith(BAD_ENDINGS) else "good" if kind.endswith(GOOD_ENDINGS) else "info"


def alerts(found: Sequence[Alert]) -> Picture:
    """Alerts with how long they were on, newest first."""
    if not found:
        return look.nothing("alerts", "No rule has fired.")
    newest = sorted(found, key=lambda alert: -alert.since)[: look.MAX_ROWS]
    rows = [
        (look.badge(STATE[a.state], a.state), a.rule, a.subject, f"{a.value:,.4g}", look.clock(a.since),
         look.clock(a.resolved), look.seconds(a.resolved - a.since) if a.resolved else "–",
         ", ".join(a.evidence))
        for a in newest
    ]  # fmt: skip
    counts = ", ".join(f"{count} {state}" for state, count in Counter(a.state for a in found).items())
    heads = ("state", "rule", "about", "value", "since", "resolved", "lasted", "evidence")
    alt = f"Alerts: {counts}. Newest: {newest[0].rule} is {newest[0].state}."
    return look.page(f"Alerts: {counts}.", alt, look.table(heads, rows))


def complaints(found: Sequence[Complaint]) -> Picture:
    """Customers' tickets, the longest waiting first, each with what was measured."""
    if not found:
        return look.nothing("customers' complaints", "Nobody has waited too long.")
    longest = sorted(found, key=lambda c: -c.waited_seconds)[: look.MAX_ROWS]
    waits = [look.seconds(c.waited_seconds) for c in longest]
    rows = [
        (waited, f"“{c.text}”", c.endpoint, look.clock(c.t), c.session)
        for c, waited in zip(longest, waits, strict=True)
    ]
    endpoint, count = Counter(c.endpoint for c in found).most_common(1)[0]
    caption = f"{len(found)} complaints, longest wait first ({waits[0]}); {count} of them about {endpoint}."
    heads = ("waited", "what they wrote", "endpoint", "time", "customer")
    return look.page(caption, f"{caption} The first: {longest[0].text}", look.table(heads, rows))


def endpoints(found: Sequence[EndpointRow | EndpointFigures]) -> Picture:
    """Rate, errors and waiting of each endpoint, the slowest first (the agent's rows, or the customers')."""
    if not found:
        return look.nothing("the endpoints' figures")
    rows = sorted((_endpoint(row) for row in found), key=lambda row: -(row.p95_ms or 0))
    slowest, cells = rows[0], []
    for row in rows:
        errors = look.badge("bad", f"{row.errors_per_second:.2f}") if row.errors_per_second else "0"
        colour = look.ORANGE if row.p95_ms and row.p95_ms == slowest.p95_ms else look.SKY
        p95 = look.bar((row.p95_ms or 0) / (slowest.p95_ms or 1), _ms(row.p95_ms), colour)
        rate = f"{row.requests_per_second:.1f}"
        cells.append((row.endpoint, rate, errors, _ms(row.p50_ms), p95, _ms(row.p99_ms)))
    caption = f"{slowest.endpoint} is the slowest: p95 {_ms(slowest.p95_ms)} ms."
    alt = f"{caption} {'; '.join(f'{row.endpoint} p95 {_ms(row.p95_ms)} ms' for row in rows)}"
    heads = ("endpoint", "requests/s", "errors/s", "p50, ms", "p95, ms", "p99, ms")
    return look.page(caption, alt, look.table(heads, cells))


def suspects(found: Sequence[EndpointFigures]) -> Picture:
    """The median wait at each endpoint under each release, the releases in the order in which they came."""
    if not found:
        return look.nothing("the releases side by side")
    in_order = sorted(found, key=lambda row: row.first_seen)
    releases = list(dict.fromkeys(row.release or "no answer" for row in in_order))
    waits = {(row.endpoint, row.release or "no answer"): 1000 * row.p50 for row in found}
    (endpoint, release), worst = max(waits.items(), key=lambda pair: pair[1])

    def cell(endpoint: str, release: str) -> str:
        wait = waits.get((endpoint, release))
        colour = look.ORANGE if (wait or 0) > worst / 2 else look.SKY
        return look.bar((wait or 0) / (worst or 1), _ms(wait), colour)

    endpoints = sorted({row.endpoint for row in found}, key=lambda name: -max(
        wait for (of, _), wait in waits.items() if of == name
    ))  # fmt: skip
    caption = f"The longest median wait: {worst:.0f} ms at {endpoint} under {release}."
    table = look.table(
        ("median wait, ms", *releases),
        [(name, *(cell(name, each) for each in releases)) for name in endpoints],
    )
    told = (
        f"{name} under {each} {_ms(waits.get((name, each)))} ms" for name in endpoints for each in releases
    )
    return look.page(caption, f"{caption} {'; '.join(told)}.", table)


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"  # what was not measured is not zero


def _endpoint(row: EndpointRow | EndpointFigures) -> EndpointRow:
    """What customers measured (counts, seconds), on the scales of the agent (a second, ms)."""
    if isinstance(row, EndpointRow):
        return row
    ratio = row.failed / max(row.requests, 1)
    name = f"{row.endpoint} ({row.release})" if row.release else row.endpoint
    waits = (1000 * row.p50, 1000 * row.p95, 1000 * row.p99)
    return EndpointRow(name, row.rate, row.rate * ratio, ratio, *waits)


def post_mortem(draft: PostMortem | None) -> Picture:
    """The draft of a post-mortem as it lies in the lab."""
    if draft is None:
        return look.nothing("the post-mortem", "It is drafted when an incident is over.")
    caption = f"The draft lies in {draft.path}; its action is {draft.item} in the backlog."
    return look.page(caption, f"{caption} {draft.text}", look.pre(draft.text))


def doctor(rows: Sequence[Check]) -> Picture:
    """What is on this machine."""
    return look.checklist(rows, "This machine", {True: "there", False: "missing", None: "not needed"})


# ---- where a replica's time goes
def profile(found: Profile | None, why_not: str = "") -> Picture:
    """Where a live replica spends its time: functions by share, and its call stacks as a flame graph.

    Args:
        found: None where nobody could look.
        why_not: the reason for that, in plain words.
    """
    if found is None:
        return look.nothing("the profile", why_not)
    top = sorted(found.functions.items(), key=lambda pair: -pair[1])[:8]
    if not top:
        return look.nothing("the profile", "No samples: the replica had nothing to do.")
    first, share = top[0]
    flames = _flames(_without_plumbing(found.stacks))
    heights = [1.0 + 0.25 * len(top)]
    if flames:
        heights.append(1.13 + 0.23 * max(flame.depth for flame in flames))
    fig, axes = look.figure(len(heights), height=sum(heights), height_ratios=heights)
    if flames:
        _draw_flames(axes[1], flames, first)
    percent = [(_short(name, 36), 100 * part) for name, part in top]
    colours = [look.ORANGE] + [look.SKY] * 9
    look.bars(axes[0], percent, [f"{value:.0f} %" for _, value in percent], colours)
    look.label(axes[0], "% of the time in the function itself")
    caption = f"{first} takes {100 * share:.0f} % of the time in which the replica worked."
    listed = "; ".join(f"{name} {100 * part:.0f} %" for name, part in top)
    return look.drawn(fig, caption, f"{caption} {listed}.")


class _Flame(NamedTuple):
    """One frame of a flame graph; left and wide in percent of all samples."""

    name: str
    depth: int
    left: float
    wide: float


def _without_plumbing(stacks: Mapping[str, float]) -> Stacks:
    """The stacks from the first frame on that says something; outermost first."""
    kept: dict[tuple[str, ...], float] = defaultdict(float)
    for stack, count in stacks.items():
        frames = stack.split(";")
        while len(frames) > 1 and PLUMBING.search(frames[0]):
            frames.pop(0)
        kept[tuple(frames)] += count
    return kept


def _flames(stacks: Stacks, total: float = 0.0, left: float = 0.0, depth: int = 0) -> list[_Flame]:
    """Each frame as wide as its share of the samples, on top of its caller; slivers are left out."""
    total, flames = total or sum(stacks.values()), []
    callers: dict[str, dict[tuple[str, ...], float]] = {}
    for (name, *above), count in sorted(stacks.items(), key=lambda pair: -pair[1]):
        called = callers.setdefault(name, defaultdict(float))
        called[tuple(above)] += count
    for name, called in callers.items():
        wide = 100 * sum(called.values()) / total
        if wide >= 0.5:
            flames.append(_Flame(name, depth, left, wide))
            higher = {frames: count for frames, count in called.items() if frames}
            flames += _flames(higher, total, left, depth + 1) if depth + 1 < DEEPEST else []
        left += wide
    return flames


def _draw_flames(ax: Axes, flames: Sequence[_Flame], guilty: str) -> None:
    for flame in flames:
        colour = look.ORANGE if flame.name == guilty else ("#fbe3b3", "#f3cf80")[flame.depth % 2]
        ax.barh(flame.depth, flame.wide, left=flame.left, height=0.94, align="center", color=colour,
                edgecolor="white", linewidth=1)  # fmt: skip
        room = int(flame.wide * 0.75)  # letters: the names of functions beside it take a third of the width
        if room >= 6:
            name = flame.name.split(" (")[0].rpartition("<locals>.")[2]
            middle = flame.left + flame.wide / 2
            ax.text(middle, flame.depth, _short(name, room), ha="center", va="center", fontsize=7)
    ax.set(xlim=(0, 100), yticks=[])
    ax.grid(visible=False)
    look.label(ax, "Flame graph: each function stands on the one that called it", "% of the samples")


def _short(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"
