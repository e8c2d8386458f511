"""Views of what production measures: the four golden signals, memory, scaling, loops, and an error budget."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from devops_lab.model import Budget, Event, EventKind, Loops, percentile
from devops_lab.platform.histograms import percentiles_ms
from devops_lab.platform.store import Store
from devops_lab.views import style as look
from devops_lab.views.style import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARKED: tuple[EventKind, ...] = (  # kinds that explain a signal
    "deploy.done", "deploy.refused", "rollback.done", "replica.died",
    "alert.firing", "alert.resolved", "operate.scaled",
)  # fmt: skip
SECONDS = "seconds since the start"
PANELS = {"left": 0.055, "right": 0.985, "top": 0.93, "bottom": 0.1, "hspace": 0.25, "wspace": 0.14}
Points = list[tuple[float, float]]
Window = tuple[float, float]  # since, until


def gather(
    store: Store, metric: str, window: Window, how: Literal["sum", "max"] = "sum", endpoint: str = ""
) -> Points:
    """One line from the samples of all replicas: those of the same second are put together by `how`."""
    return [(t - window[0], value) for t, value in store.curve(metric, *window, endpoint, how)]


def _waits(store: Store, window: Window) -> dict[str, Points]:
    """p50, p95 and p99 in milliseconds, of what all replicas counted together."""
    percentiles = percentiles_ms(store, *window)
    return {name: [(t - window[0], ms) for t, ms in points] for name, points in percentiles.items()}


def _line(ax: Axes, points: Points, name: str = "", **style: Any) -> None:
    if points:
        marker = "." if len(points) < 40 else None
        ax.plot(*zip(*points, strict=True), label=name, **{"linewidth": 1.8, "marker": marker, **style})


def _most(points: Points) -> float:
    return max((value for _, value in points), default=0.0)


def golden_signals(store: Store, since: float, until: float = 0.0) -> Picture:
    """The four golden signals (Google SRE book, chapter 6): latency, traffic, errors, saturation.

    Deployments, dead replicas and alerts are marked.

    Args:
        since, until: the window, POSIX seconds; until now when 0.
    """
    window = (since, until or store.now())
    waits = _waits(store, window)
    rate, errors = (gather(store, f"{name}_per_second", window) for name in ("requests", "errors"))
    memory, cpu = (gather(store, name, window, "max") for name in ("memory_bytes", "cpu_percent"))
    if not any((*waits.values(), rate, errors, memory, cpu)):
        return look.nothing("the four golden signals", "No samples in this window.")
    fig, axes = look.figure(2, 2, height=4.5, margins=PANELS, sharex=True)
    colours = (look.SKY, look.BLUE, look.PURPLE)
    for (name, points), colour, dash in zip(waits.items(), colours, look.DASHES, strict=False):
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
    events = [e for e in store.events(since=since) if e.t <= window[1] and e.kind in MARKED][-20:]
    _mark(axes, events, since)
    lasts = {"p95 in ms": waits["p95"], "requests/s": rate, "errors/s": errors}
    now = "; ".join(f"{what} {points[-1][1]:.3g}" for what, points in lasts.items() if points)
    peak = look.size(_most(memory))
    caption = f"Golden signals, last values: {now or 'no traffic'}; peak memory {peak}."
    rows = [(n, f"{e.t - since:.0f} s", f"{e.kind} {e.subject} {e.message}") for n, e in enumerate(events, 1)]
    table = look.table(("mark", "after", "event"), rows) if rows else ""
    return look.drawn(fig, caption, f"{caption} {len(events)} events marked.", html=table)


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
    until = until or store.now()
    lines: dict[str, Points] = defaultdict(list)
    for t, replica, release, _, value in store.samples("memory_bytes", since=since, until=until):
        lines[f"{replica} ({release})"].append((t - since, value / 1e6))
    if not lines:
        return look.nothing("the replicas' memory", "No samples in this window.")
    fig, (ax,) = look.figure(height=3.2)
    for number, (name, points) in enumerate(lines.items()):
        colour, dash = look.SERIES[number % len(look.SERIES)], look.DASHES[number % 4]
        _line(ax, points, name, color=colour, linestyle=dash)
    ax.set_ylim(0, max(_most(points) for points in lines.values()) * 1.2)
    look.label(ax, "", SECONDS, "memory, MB")
    look.legend(ax)
    listed = [f"{name} {points[0][1]:.1f} to {points[-1][1]:.1f} MB" for name, points in lines.items()]
    caption = f"Memory, first to last: {'; '.join(listed[:4])}{'; …' if len(listed) > 4 else ''}."
    return look.drawn(fig, caption, f"Memory of each replica: {'; '.join(listed)}.")


def scaling(store: Store, since: float, until: float = 0.0) -> Picture:
    """Arrivals, replicas, waiting and cost on one time axis."""
    window = (since, until or store.now())
    rate, counts = gather(store, "requests_per_second", window), gather(store, "replicas", window, "max")
    p95 = _waits(store, window)["p95"]
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


def replica_seconds(replicas: Points) -> Points:
    """What the replicas cost up to each moment: each counted until the next sample."""
    total, paid = 0.0, [(t, 0.0) for t, _ in replicas[:1]]
    for (t, count), (later, _) in pairwise(replicas):
        total += count * (later - t)
        paid.append((later, total))
    return paid


def _draw_cost(ax: Axes, cost: Points) -> None:
    if cost:
        paid = ax.twinx()
        _line(paid, cost, color=look.ORANGE, linestyle="--", marker=None)
        paid.set_ylim(0, cost[-1][1] * 1.8 or 1)  # below the steps
        paid.tick_params(labelsize=9, colors="#333333")
        paid.spines["top"].set_visible(False)
        text = f"cost {cost[-1][1]:.0f}"
        paid.annotate(text, cost[-1], (0, -6), textcoords="offset points", fontsize=9, ha="right", va="top")


def loops(measured: Loops) -> Picture:
    """Two measurements of the same server at the same time: how long the unlucky ones wait, by percentile."""
    fig, (ax,) = look.figure(height=3.4)
    shares = [0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0]
    both = ("open loop", measured.open, look.BLUE, "-"), ("closed loop", measured.closed, look.ORANGE, "--")
    words = []
    for name, waits, colour, dash in both:
        points = [1000 * percentile(waits, share) for share in shares]
        ax.plot(range(len(shares)), points, "o", linestyle=dash, color=colour, linewidth=2, label=name)
        slow = sum(waited > 0.1 for waited in waits)
        words.append(f"{name}: {slow} of {len(waits)} waited over 100 ms, p95 {points[3]:.0f} ms")
    ax.set_xticks(range(len(shares)), [f"{100 * share:g} %" for share in shares])
    ax.set_ylim(0, None)
    look.label(ax, "", "share of the requests that waited no longer", "waited, ms")
    look.legend(ax)
    caption = f"One freeze of {look.seconds(measured.freeze_seconds)}. {'; '.join(words)}."
    return look.drawn(fig, caption, f"Waiting by percentile. {caption}")


def budget(found: Budget) -> Picture:
    """The error budget of an objective over time; below zero, more failed than was allowed."""
    slo = found.slo
    good = f"within {look.seconds(slo.within_seconds)}" if slo.within_seconds else "without a server's error"
    to = f" to {slo.endpoint}" if slo.endpoint else ""
    promise = f"{100 * slo.objective:g} % of the requests{to} {good}"
    if not found.requests:
        return look.nothing(f"the error budget of {slo.name}", f"Promised: {promise}. Nobody has asked yet.")
    fig, (ax,) = look.figure(height=3.0)
    start = found.points[0][0]
    t, left = [at - start for at, _ in found.points], [100 * share for _, share in found.points]
    ax.step(t, left, where="pre", color=look.BLUE, linewidth=2.2)
    ax.axhline(0, color=look.RED, linestyle="--", linewidth=1.2)
    spent = [min(value, 0) for value in left]
    ax.fill_between(t, spent, 0, step="pre", color=look.RED, alpha=0.25)
    ax.set(xlim=(0, t[-1] or 1), ylim=(min(*left, 0) * 1.1 - 5, 108))
    look.label(ax, f"{slo.name}: {promise}", "seconds since the start", "error budget left, %")
    fast = [burn.name for burn in found.burns if burn.both > burn.factor]
    rows = []
    for burn in found.burns:
        windows = (look.seconds(burn.long_seconds), look.seconds(burn.short_seconds))
        verdict = look.badge("bad", "too fast") if burn.name in fast else look.badge("good", "in bounds")
        rates = (_rate(burn.long), _rate(burn.short), f"{burn.factor:g}")
        rows.append((burn.name, *windows, *rates, verdict))
    heads = ("windows", "long", "short", "burn rate, long", "burn rate, short", "alert above", "verdict")
    allowed = found.requests * (1 - slo.objective)
    caption = (
        f"{100 * found.left:.0f} % of the error budget of {slo.name} is left: {found.bad:.0f} bad of "
        f"{found.requests:.0f} requests, where {allowed:.0f} were allowed."
    )
    alt = f"{caption} Burns too fast over: {', '.join(fast) or 'no pair of windows'}."
    return look.drawn(fig, caption, alt, html=look.table(heads, rows))


def _rate(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3g}"  # where nobody asks, nothing is measured
