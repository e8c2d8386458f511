"""Views of production: rollouts, traffic, the four golden signals, replicas, profiles, scaling, delivered value."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from devops_lab.model import Event, Replica
from devops_lab.store import Store
from devops_lab.views.picture import Picture
from devops_lab.views.style import (
    BLUE,
    DASHES,
    GREEN,
    GREY,
    ORANGE,
    PURPLE,
    RED,
    SKY,
    badge,
    bar,
    clock,
    drawn,
    figure,
    label,
    legend,
    nothing,
    page,
    pick,
    size,
    table,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = ("deploy", "operate", "monitor")  # phases whose events explain a signal
Series = list[tuple[float, float]]
STATE = {"healthy": "good", "starting": "info", "draining": "warn", "unhealthy": "bad", "dead": "bad"}
BINS = 60  # at most so many points on a time axis of requests


# ---- the store's samples over time
def gather(
    store: Store,
    metric: str,
    since: float,
    until: float,
    how: Callable[[Iterable[float]], float] = sum,
    endpoint: str = "",
) -> Series:
    """One line from the samples of all replicas: those of the same second are put together by `how`."""
    seconds_of: dict[int, dict[str, float]] = defaultdict(dict)
    for t, replica, _, of, value in store.samples(metric, since=since, until=until):
        if of == endpoint:
            seconds_of[int(t)][replica] = value
    return [(float(t), how(values.values())) for t, values in sorted(seconds_of.items())]


def _line(ax: Axes, points: Series, start: float, name: str = "", **style: Any) -> None:
    if points:
        style = {"linewidth": 1.8, "marker": "." if len(points) < 40 else None, **style}
        ax.plot([t - start for t, _ in points], [value for _, value in points], label=name, **style)


def golden_signals(
    store: Store, since: float, until: float = 0.0, events: Sequence[Event] = (), endpoint: str = ""
) -> Picture:
    """The four golden signals (Google SRE book, chapter 6): latency, traffic, errors, saturation.

    Args:
        since, until: the window, POSIX seconds; until now when 0.
        events: deployments and alerts to mark.
        endpoint: only this one; all together when empty. Saturation is always the whole replica's.
    """
    until = until or time.time()

    def series(metric: str, how: Callable[[Iterable[float]], float] = sum, of: str = endpoint) -> Series:
        return gather(store, metric, since, until, how, of)

    waits = {name: series(f"{name}_ms", max) for name in ("p50", "p95", "p99")}
    rate, errors = series("requests_per_second"), series("errors_per_second")
    memory, cpu = series("memory_bytes", max, ""), series("cpu_percent", max, "")
    if not any((*waits.values(), rate, errors, memory, cpu)):
        return nothing("the four golden signals", "No samples in this window.")
    fig, (latency, flow, wrong, full) = figure(2, 2, height=4.5, sharex=True)
    for number, (name, points) in enumerate(waits.items()):
        _line(latency, points, since, name, color=(SKY, BLUE, PURPLE)[number], linestyle=DASHES[number])
    label(latency, "Latency, ms")
    _line(flow, rate, since, color=BLUE)
    label(flow, "Traffic, requests/s")
    _line(wrong, errors, since, color=RED)
    label(wrong, "Errors, failed requests/s", "seconds since the start")
    _line(full, [(t, value / 1e6) for t, value in memory], since, "memory MB", color=GREEN)
    _line(full, cpu, since, "CPU % of a core", color=ORANGE, linestyle="--")
    label(full, "Saturation", "seconds since the start")
    for ax in (latency, flow, wrong, full):
        ax.set(xlim=(0, max(until - since, 1)), ylim=(0, max(ax.get_ylim()[1] * 1.25, 0.1)))
        legend(ax)
    marks = [event for event in events if since <= event.t <= until and event.phase in MARKED][-20:]
    _mark_events((latency, flow, wrong, full), marks, since)
    last = {"p95": waits["p95"], "requests/s": rate, "errors/s": errors}
    now = ", ".join(
        f"{name} {points[-1][1]:.3g}{' ms' if name == 'p95' else ''}"
        for name, points in last.items()
        if points
    )
    peak = f"; peak memory {size(max(v for _, v in memory))}" if memory else ""
    caption = (
        f"The four golden signals{f' of {endpoint}' if endpoint else ''}; last: {now or 'no traffic'}{peak}."
    )
    listed = (
        table(
            ("mark", "after", "event"),
            [
                (str(n), f"{e.t - since:.0f} s", f"{e.kind} {e.subject} {e.message}")
                for n, e in enumerate(marks, 1)
            ],
        )
        if marks
        else ""
    )
    return drawn(fig, caption, f"{caption} {len(marks)} events marked.", html=listed)


def _mark_events(axes: Sequence[Axes], events: Sequence[Event], since: float) -> None:
    for number, event in enumerate(events, 1):
        alarm = event.kind.endswith(("firing", "died", "refused"))
        for ax in axes:
            ax.axvline(
                event.t - since, color=RED if alarm else GREY, linestyle="--" if alarm else ":", linewidth=1.2
            )
            place, ground = (
                (event.t - since, ax.get_ylim()[1]),
                {"facecolor": "white", "edgecolor": "none", "pad": 0.8},
            )
            colour = RED if alarm else "#333333"
            ax.annotate(str(number), place, ha="center", va="top", fontsize=8, color=colour, bbox=ground)


def scaling(store: Store, since: float, until: float = 0.0) -> Picture:
    """Arrivals, replicas, waiting and cost on one time axis."""
    until = until or time.time()
    rate = gather(store, "requests_per_second", since, until)
    replicas = gather(store, "replicas", since, until, max)
    p95 = gather(store, "p95_ms", since, until, max)
    if not rate and not replicas:
        return nothing("the compressed day", "No samples in this window.")
    cost = _replica_seconds(replicas)
    fig, (top, middle, low) = figure(3, 1, height=4.5, sharex=True)
    _line(top, rate, since, color=BLUE, marker=None)
    label(top, "Arrivals, requests/s")
    _line(middle, replicas, since, "replicas", color=GREEN, drawstyle="steps-post", marker=None)
    label(middle, "Replicas, and what they cost in replica-seconds")
    if cost:
        paid = middle.twinx()
        _line(paid, cost, since, "replica-seconds", color=ORANGE, linestyle="--", marker=None)
        paid.set_ylim(0, cost[-1][1] * 1.3 or 1)
        paid.tick_params(labelsize=9, colors="#333333")
        paid.spines["top"].set_visible(False)
        paid.annotate(
            f"cost {cost[-1][1]:.0f}", (cost[-1][0] - since, cost[-1][1]), fontsize=9, ha="right", va="bottom"
        )
    _line(low, p95, since, color=PURPLE, marker=None)
    label(low, "Waiting, p95 in ms", "seconds since the start")
    for ax in (top, middle, low):
        ax.set_ylim(0, max(ax.get_ylim()[1] * 1.2, 1))
    counts = [value for _, value in replicas] or [0]
    caption = (
        f"Up to {max((v for _, v in rate), default=0):.0f} requests/s on {min(counts):.0f} to {max(counts):.0f} replicas; "
        f"{cost[-1][1] if cost else 0:.0f} replica-seconds paid, p95 at worst {max((v for _, v in p95), default=0):.0f} ms."
    )
    return drawn(fig, caption, "Scaling over time. " + caption)


def _replica_seconds(replicas: Series) -> Series:
    """What the replicas cost up to each moment: each counted until the next sample."""
    total, found = 0.0, replicas[:1] and [(replicas[0][0], 0.0)]
    for (t, count), (later, _) in zip(replicas, replicas[1:], strict=False):
        total += count * (later - t)
        found.append((later, total))
    return found


def value_clock(points: Sequence[tuple[float, str, float]]) -> Picture:
    """The value that reached customers, over time: flat until a deployment."""
    if not points:
        return nothing("the value clock", "It stands at 0 until the first deployment.")
    start = points[0][0]
    fig, (ax,) = figure(height=3.0)
    t = [point[0] - start for point in points]
    end = max(t[-1] * 1.15, 1.0)
    values = [point[2] for point in points]
    ax.step([*t, end], [*values, values[-1]], where="post", color=GREEN, linewidth=2.5)
    for when, (_, version, value) in zip(t, points, strict=True):
        ax.plot([when], [value], "o", color=GREEN)
        ax.annotate(version, (when, value), xytext=(4, 6), textcoords="offset points", fontsize=9)
    ax.set(xlim=(0, end), ylim=(min(0, *values), max(*values, 1) * 1.25))
    label(ax, "", "seconds since the start", "value in customers' hands")
    caption = f"Value in customers' hands: {values[-1]:g} after {points[-1][1]}; it only moves when a version is deployed."
    return drawn(fig, caption, caption + " " + "; ".join(f"{v}: {value:g}" for _, v, value in points))


# ---- tables
def replicas(found: Sequence[Replica]) -> Picture:
    """The replicas that run now, as the engine reports them."""
    if not found:
        return nothing("the replicas", "Production is empty.")
    rows = [
        (
            r.id,
            badge(STATE[r.state], r.state),
            r.release,
            r.pool,
            f"{r.host}:{r.port}",
            r.pid,
            clock(r.created),
            r.restarts,
            r.reason,
        )
        for r in sorted(found, key=lambda r: (r.pool, r.id))
    ]
    healthy = sum(r.state == "healthy" for r in found)
    caption = f"{healthy} of {len(found)} replicas are healthy, running {', '.join(sorted({r.release for r in found}))}."
    alt = caption + " " + "; ".join(f"{r.id} {r.state} {r.release} {r.reason}".strip() for r in found)
    heads = ("replica", "state", "release", "pool", "address", "pid", "since", "restarts", "why")
    return page(caption, alt, table(heads, rows))


def endpoints(rows: Iterable[Any]) -> Picture:
    """Rate, errors and waiting of each endpoint, the slowest first: endpoint, rate, errors (a second), p50, p95, p99 (ms)."""
    found = [_endpoint(row) for row in rows]
    if not found:
        return nothing("the endpoints' figures")
    ordered = sorted(found, key=lambda row: -row[4])
    worst = ordered[0][4] or 1
    cells = [
        (
            name,
            f"{rate:.1f}",
            badge("bad", f"{errors:.2f}") if errors else "0",
            f"{p50:.1f}",
            bar(p95 / worst, f"{p95:.1f}", ORANGE if p95 == worst else SKY),
            f"{p99:.1f}",
        )
        for name, rate, errors, p50, p95, p99 in ordered
    ]
    caption = f"{ordered[0][0]} is the slowest: p95 {ordered[0][4]:.1f} ms."
    alt = caption + " " + "; ".join(f"{row[0]} p95 {row[4]:.1f} ms" for row in ordered)
    heads = ("endpoint", "requests/s", "errors/s", "p50, ms", "p95, ms", "p99, ms")
    return page(caption, alt, table(heads, cells))


def _endpoint(row: Any) -> tuple[str, float, float, float, float, float]:
    names = ("rate", "errors", "p50_ms", "p95_ms", "p99_ms")
    rate, errors, p50, p95, p99 = (float(pick(row, name, i, 0) or 0) for i, name in enumerate(names, 1))
    return str(pick(row, "endpoint")), rate, errors, p50, p95, p99


# ---- the profile of a replica
def profile(found: Any) -> Picture:
    """Where a live replica spends its time: functions by share, and its call stacks as an icicle.

    Args:
        found: has `functions` (mapping, or rows of name and share 0..1) and perhaps `stacks` ("a;b;c" -> samples).
    """
    functions = getattr(found, "functions", None) or {}
    pairs = (
        functions.items()
        if isinstance(functions, Mapping)
        else [(pick(f, "name", 0), pick(f, "share", 1)) for f in functions]
    )
    top = sorted(((str(name), float(share)) for name, share in pairs), key=lambda pair: -pair[1])[:10]
    if not top:
        return nothing("the profile", "No samples: the replica had nothing to do.")
    stacks = getattr(found, "stacks", None) or {}
    fig, axes = figure(2 if stacks else 1, 1, height=4.5 if stacks else 1.0 + 0.3 * len(top))
    for row, (name, share) in enumerate(top):
        axes[0].barh(row, 100 * share, color=ORANGE if row == 0 else SKY, height=0.65)
        axes[0].text(100 * share + 0.8, row, f"{100 * share:.0f} %", va="center", fontsize=8)
    axes[0].set_yticks(range(len(top)), [_short(name, 44) for name, _ in top], fontsize=8)
    axes[0].invert_yaxis()
    axes[0].set_xlim(0, min(100 * top[0][1] * 1.15 + 3, 112))
    axes[0].grid(axis="y", visible=False)
    label(axes[0], "% of the time in the function itself")
    if stacks:
        _icicle(axes[1], {tuple(key.split(";")): float(count) for key, count in dict(stacks).items()})
    caption = f"{top[0][0]} takes {100 * top[0][1]:.0f} % of the replica's time."
    return drawn(
        fig, caption, caption + " " + "; ".join(f"{name} {100 * share:.0f} %" for name, share in top)
    )


def _icicle(ax: Axes, stacks: Mapping[tuple[str, ...], float], depth: int = 7) -> None:
    """The deepest frames that all stacks share are left out; below, each frame is as wide as its share of the samples."""
    while stacks and len({key[:1] for key in stacks}) == 1 and all(len(key) > 1 for key in stacks):
        stacks = {key[1:]: count for key, count in stacks.items()}
    total = sum(stacks.values()) or 1
    level = [(0.0, stacks)]
    for row in range(depth):
        deeper: list[tuple[float, Mapping[tuple[str, ...], float]]] = []
        for left, part in level:
            for name in dict.fromkeys(key[0] for key in part):
                inside = {key: count for key, count in part.items() if key[0] == name}
                wide = 100 * sum(inside.values()) / total
                if wide >= 0.5:
                    _frame(ax, row, left, wide, name)
                    deeper.append((left, _below(inside)))
                left += wide
        level = [(left, part) for left, part in deeper if part]
    ax.set(xlim=(0, 100), yticks=[])
    ax.invert_yaxis()
    ax.grid(visible=False)
    label(ax, "Call stacks: the caller above, what it called below", "% of the samples")


def _below(stacks: Mapping[tuple[str, ...], float]) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for key, count in stacks.items():
        if len(key) > 1:
            found[key[1:]] += count
    return found


def _frame(ax: Axes, row: int, left: float, wide: float, name: str) -> None:
    ax.barh(
        row,
        wide,
        left=left,
        height=0.94,
        color=("#fbe3b3", "#f3cf80")[row % 2],
        edgecolor="white",
        linewidth=1,
    )
    room = int(wide * 1.15)
    if room >= 6:
        ax.text(left + wide / 2, row, _short(name.split(" (")[0], room), ha="center", va="center", fontsize=7)


def _short(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"
