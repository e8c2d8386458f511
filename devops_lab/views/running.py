"""Views of production: the four golden signals, memory, scaling, delivered value, replicas."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from devops_lab.model import Event, Replica
from devops_lab.store import Store
from devops_lab.views import style as look
from devops_lab.views.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED = (  # kinds that explain a signal
    "deploy.done", "deploy.refused", "rollback.done", "replica.died",
    "alert.firing", "alert.resolved", "operate.scaled",
)  # fmt: skip
SECONDS = "seconds since the start"
PANELS = {"left": 0.055, "right": 0.985, "top": 0.93, "bottom": 0.1, "hspace": 0.25, "wspace": 0.14}
Series = list[tuple[float, float]]
Window = tuple[float, float]  # since, until
STATE = {"healthy": "good", "starting": "info", "draining": "warn", "unhealthy": "bad", "dead": "bad"}


# ---- the store's samples over time
def gather(
    store: Store, metric: str, window: Window, how: Literal["sum", "max"] = "sum", endpoint: str = ""
) -> Series:
    """One line from the samples of all replicas: those of the same second are put together by `how`."""
    return [(t - window[0], value) for t, value in store.curve(metric, *window, endpoint, how)]


def _line(ax: Axes, points: Series, name: str = "", **style: Any) -> None:
    if points:
        marker = "." if len(points) < 40 else None
        ax.plot(*zip(*points, strict=True), label=name, **{"linewidth": 1.8, "marker": marker, **style})


def _most(points: Series) -> float:
    return max((value for _, value in points), default=0.0)


def golden_signals(
    store: Store, since: float, until: float = 0.0, events: Sequence[Event] | None = None
) -> Picture:
    """The four golden signals (Google SRE book, chapter 6): latency, traffic, errors, saturation.

    Args:
        since, until: the window, POSIX seconds; until now when 0.
        events: to mark; by default the store's deployments, dead replicas and alerts in the window.
    """
    window = (since, until or time.time())
    waits = {name: gather(store, f"{name}_ms", window, "max") for name in ("p50", "p95", "p99")}
    names = ("requests_per_second", "errors_per_second")
    rate, errors = (gather(store, name, window) for name in names)
    memory, cpu = (gather(store, name, window, "max") for name in ("memory_bytes", "cpu_percent"))
    if not any((*waits.values(), rate, errors, memory, cpu)):
        return look.nothing("the four golden signals", "No samples in this window.")
    fig, axes = look.figure(2, 2, height=4.5, margins=PANELS, sharex=True)
    for (name, points), colour, dash in zip(
        waits.items(), (look.SKY, look.BLUE, look.PURPLE), look.DASHES, strict=False
    ):
        _line(axes[0], points, name, color=colour, linestyle=dash)
    _line(axes[1], rate, color=look.BLUE)
    _line(axes[2], errors, color=look.RED)
    _line(axes[3], [(t, value / 1e6) for t, value in memory], "memory MB", color=look.GREEN)
    _line(axes[3], cpu, "CPU % of a core", color=look.ORANGE, linestyle="--")
    titles = ("Latency, ms", "Traffic, requests/s", "Errors, failed requests/s", "Saturation")
    for ax, title, x in zip(axes, titles, ("", "", SECONDS, SECONDS), strict=True):
        look.label(ax, title, x)
        ax.set(xlim=(0, max(window[1] - since, 1)), ylim=(0, max(ax.get_ylim()[1] * 1.25, 0.1)))
        look.legend(ax)
    happened = store.events(since=since) if events is None else events
    marks = [e for e in happened if since <= e.t <= window[1] and e.kind.startswith(MARKED)][-20:]
    _mark(axes, marks, since)
    lasts = {"p95 in ms": waits["p95"], "requests/s": rate, "errors/s": errors}
    now = "; ".join(f"{what} {points[-1][1]:.3g}" for what, points in lasts.items() if points)
    caption = f"Golden signals, last values: {now or 'no traffic'}; "
    caption += f"peak memory {look.size(_most(memory))}."
    told = [(n, f"{e.t - since:.0f} s", f"{e.kind} {e.subject} {e.message}") for n, e in enumerate(marks, 1)]
    listed = look.table(("mark", "after", "event"), told) if told else ""
    return look.drawn(fig, caption, f"{caption} {len(marks)} events marked.", html=listed)


def _mark(axes: Sequence[Axes], events: Sequence[Event], since: float) -> None:
    """Each event as a numbered line through all panels; their words stand in the table below."""
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.8}
    for number, event in enumerate(events, 1):
        alarm = event.kind.endswith(("firing", "died", "refused"))
        colour, dash = (look.RED, "--") if alarm else (look.GREY, ":")
        for ax in axes:
            ax.axvline(event.t - since, color=colour, linestyle=dash, linewidth=1.2)
            place = (event.t - since, ax.get_ylim()[1])
            ax.annotate(str(number), place, ha="center", va="top", fontsize=8, color=colour, bbox=ground)


def memory(store: Store, since: float, until: float = 0.0) -> Picture:
    """Each replica's memory over time: a leak climbs and never comes down."""
    until = until or time.time()
    lines: dict[tuple[str, str], Series] = defaultdict(list)
    for t, replica, release, _, value in store.samples("memory_bytes", since=since, until=until):
        lines[replica, release].append((t - since, value / 1e6))
    if not lines:
        return look.nothing("the replicas' memory", "No samples in this window.")
    fig, (ax,) = look.figure(height=3.2)
    for number, ((replica, release), points) in enumerate(lines.items()):
        colour, dash = look.SERIES[number % len(look.SERIES)], look.DASHES[number % 4]
        _line(ax, points, f"{replica} ({release})", color=colour, linestyle=dash)
    ax.set_ylim(0, max(_most(points) for points in lines.values()) * 1.2)
    look.label(ax, "", SECONDS, "memory, MB")
    look.legend(ax)
    told = [f"{name} ({of}) {p[0][1]:.1f} to {p[-1][1]:.1f} MB" for (name, of), p in lines.items()]
    caption = f"Memory, first to last: {'; '.join(told[:4])}{'; …' if len(told) > 4 else ''}."
    return look.drawn(fig, caption, f"Memory of each replica: {'; '.join(told)}.")


def scaling(store: Store, since: float, until: float = 0.0) -> Picture:
    """Arrivals, replicas, waiting and cost on one time axis."""
    window = (since, until or time.time())
    rate, counts = gather(store, "requests_per_second", window), gather(store, "replicas", window, "max")
    p95 = gather(store, "p95_ms", window, "max")
    if not rate and not counts:
        return look.nothing("the compressed day", "No samples in this window.")
    fig, (top, middle, low) = look.figure(3, 1, height=4.5, sharex=True)
    _line(top, rate, color=look.BLUE, marker=None)
    look.label(top, "Arrivals, requests/s")
    _line(middle, counts, color=look.GREEN, drawstyle="steps-post", marker=None)
    look.label(middle, "Replicas (steps), and what they cost in replica-seconds (dashed)")
    _line(low, p95, color=look.PURPLE, marker=None)
    look.label(low, "Waiting, p95 in ms", SECONDS)
    for ax in (top, middle, low):
        ax.set_ylim(0, max(ax.get_ylim()[1] * 1.2, 1))
    cost, least = replica_seconds(counts), min((count for _, count in counts), default=0)
    _draw_cost(middle, cost)
    caption = (
        f"Up to {_most(rate):.0f} requests/s on {least:.0f} to {_most(counts):.0f} "
        f"replicas; {_most(cost):.0f} replica-seconds paid, p95 at worst {_most(p95):.0f} ms."
    )
    return look.drawn(fig, caption, "Scaling over time. " + caption)


def replica_seconds(replicas: Series) -> Series:
    """What the replicas cost up to each moment: each counted until the next sample."""
    total, found = 0.0, [(t, 0.0) for t, _ in replicas[:1]]
    for (t, count), (later, _) in pairwise(replicas):
        total += count * (later - t)
        found.append((later, total))
    return found


def _draw_cost(ax: Axes, cost: Series) -> None:
    if cost:
        paid = ax.twinx()
        _line(paid, cost, color=look.ORANGE, linestyle="--", marker=None)
        paid.set_ylim(0, cost[-1][1] * 1.8 or 1)  # below the steps
        paid.tick_params(labelsize=9, colors="#333333")
        paid.spines["top"].set_visible(False)
        text = f"cost {cost[-1][1]:.0f}"
        paid.annotate(text, cost[-1], (0, -6), textcoords="offset points", fontsize=9, ha="right", va="top")


def value_clock(points: Sequence[tuple[float, str, float]]) -> Picture:
    """The value that reached customers, over time: flat until a deployment."""
    if not points:
        return look.nothing("the value clock", "It stands at 0 until the first deployment.")
    fig, (ax,) = look.figure(height=3.0)
    t, values = [point[0] - points[0][0] for point in points], [point[2] for point in points]
    end = max(t[-1] * 1.15, 1.0)
    ax.step([*t, end], [*values, values[-1]], where="post", color=look.GREEN, linewidth=2.5)
    for when, (_, version, value) in zip(t, points, strict=True):
        ax.plot([when], [value], "o", color=look.GREEN)
        ax.annotate(version, (when, value), xytext=(4, 6), textcoords="offset points", fontsize=9)
    ax.set(xlim=(0, end), ylim=(min(0, *values), max(*values, 1) * 1.25))
    look.label(ax, "", SECONDS, "value in customers' hands")
    caption = f"Value in customers' hands: {values[-1]:g}; it moves only when a version is deployed."
    told = "; ".join(f"{version or 'nothing yet'}: {value:g}" for _, version, value in points)
    return look.drawn(fig, caption, f"{caption} {told}.")


# ---- tables
def replicas(found: Sequence[Replica]) -> Picture:
    """The replicas that run now, as the engine reports them."""
    if not found:
        return look.nothing("the replicas", "Production is empty.")
    rows = [
        (r.id, look.badge(STATE[r.state], r.state), r.release, r.pool, f"{r.host}:{r.port}", r.pid,
         look.clock(r.created), r.restarts, r.reason)
        for r in sorted(found, key=lambda r: (r.pool, r.id))
    ]  # fmt: skip
    healthy = sum(r.state == "healthy" for r in found)
    running = ", ".join(sorted({r.release for r in found}))
    caption = f"{healthy} of {len(found)} replicas are healthy; releases: {running}."
    alt = f"{caption} {'; '.join(f'{r.id} {r.state} {r.release} {r.reason}'.strip() for r in found)}"
    heads = ("replica", "state", "release", "pool", "address", "pid", "since", "restarts", "why")
    return look.page(caption, alt, look.table(heads, rows))


def endpoints(rows: Iterable[Any]) -> Picture:
    """Rate, errors and waiting of each endpoint, the slowest first (the agent's rows, or the customers')."""
    found = sorted((_endpoint(row) for row in rows), key=lambda row: -(row[4] or 0))
    if not found:
        return look.nothing("the endpoints' figures")
    worst = found[0][4] or 1
    cells = [
        (name, f"{rate:.1f}", look.badge("bad", f"{errors:.2f}") if errors else "0", _ms(p50),
         look.bar((p95 or 0) / worst, _ms(p95), look.ORANGE if p95 == worst else look.SKY), _ms(p99))
        for name, rate, errors, p50, p95, p99 in found
    ]  # fmt: skip
    caption = f"{found[0][0]} is the slowest: p95 {_ms(found[0][4])} ms."
    alt = f"{caption} {'; '.join(f'{row[0]} p95 {_ms(row[4])} ms' for row in found)}"
    heads = ("endpoint", "requests/s", "errors/s", "p50, ms", "p95, ms", "p99, ms")
    return look.page(caption, alt, look.table(heads, cells))


def _ms(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"  # what was not measured is not zero


def _endpoint(row: Any) -> tuple[str, float, float, float | None, float | None, float | None]:
    """A row of the agent (a second, ms) or of the customers (counts, seconds), on the same scales."""
    if not hasattr(row, "requests"):
        rate, errors = row.requests_per_second, row.errors_per_second
        return row.endpoint, rate, errors, row.p50_ms, row.p95_ms, row.p99_ms
    errors = row.rate * row.failed / max(row.requests, 1)
    name = f"{row.endpoint} ({row.release})" if row.release else row.endpoint
    return name, row.rate, errors, 1000 * row.p50, 1000 * row.p95, 1000 * row.p99
