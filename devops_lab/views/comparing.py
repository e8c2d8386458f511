"""Views that hold one thing against another: a canary and the stable version, policies, kinds of load."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from devops_lab.model import Analysis, Check, Deployment, Loops, Race, percentile
from devops_lab.store import Store
from devops_lab.views import style as look
from devops_lab.views.customers import Bins
from devops_lab.views.picture import Picture
from devops_lab.views.running import gather, replica_seconds

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PANELS = 4  # at most so many looks are drawn; the table has them all


def canary(store: Store, deployment: Deployment | None = None) -> Picture:
    """What the canary analysis saw at each share of the traffic, and what it made of it.

    Args:
        deployment: the newest one that was analysed when not given.
    """
    every = sorted(store.all(Analysis), key=lambda one: (one.deployment, one.share))
    number = deployment.id if deployment else every[-1].deployment if every else 0
    looks = [one for one in every if one.deployment == number]
    if not looks:
        return look.nothing("the canary's analysis", "Deploy a version with the strategy canary.")
    shown = looks[-PANELS:]
    names = sorted({check.what for one in shown for check in one.checks if check.what != "errors"})
    fig, axes = look.figure(1, len(shown), height=1.7 + 0.32 * len(names), sharey=True)
    for ax, one in zip(axes, shown, strict=True):
        _means(ax, one, names)
    handles, labels = axes[-1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    last = looks[-1]
    caption = f"{last.canary} as a canary of {last.stable}: " + ", ".join(
        f"{one.verdict} at {one.share} %" for one in looks
    )
    rows = [_row(one, check) for one in looks for check in one.checks]
    heads = ("share", "what", "canary", "stable", "requests", "test", "p", "level", "")
    told = "; ".join(f"{c.what} {_value(c, c.canary)} against {_value(c, c.stable)}" for c in last.checks)
    return look.drawn(fig, f"{caption}.", f"{caption}. At {last.share} %: {told}.", look.table(heads, rows))


def _means(ax: Axes, one: Analysis, names: list[str]) -> None:
    """Each endpoint's mean answer, stable and canary, joined by a line, with p beside."""
    for check in one.checks:
        if check.what in names:
            y, colour = names.index(check.what), look.RED if check.bad else look.GREY
            new, old = check.canary * 1000, check.stable * 1000
            ax.plot([old, new], [y, y], color=colour, linewidth=2 if check.bad else 1, zorder=1)
            ax.plot(
                old, y, "o", color="white", mec=look.BLUE, mew=1.6, markersize=8, label=_once(ax, "stable")
            )
            mark, word = ("X", "canary, worse") if check.bad else ("o", "canary")
            shade = look.RED if check.bad else look.ORANGE
            ax.plot(new, y, mark, color=shade, markersize=9 if check.bad else 6, label=_once(ax, word))
            where: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
            ax.annotate(f"p {_p(check.p)}", (max(old, new), y), fontsize=8, color=colour, **where)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(max(len(names), 1) - 0.5, -0.5), xlim=(0, ax.get_xlim()[1] * 1.45))
    look.label(ax, f"{one.share} %: {one.verdict}\n", "mean answer, ms")
    for check in (c for c in one.checks if c.what == "errors"):
        words = f"failed {check.canary:.1%}, stable {check.stable:.1%}"
        ax.text(
            0, 1.02, words, transform=ax.transAxes, fontsize=8, color=look.RED if check.bad else look.GREY
        )


def _once(ax: Axes, word: str) -> str:
    return "" if word in ax.get_legend_handles_labels()[1] else word


def _row(one: Analysis, check: Check) -> tuple[object, ...]:
    fine = look.badge("good", "no worse") if check.p >= check.level else look.badge("quiet", "not felt")
    return (
        f"{one.share} %", check.what, _value(check, check.canary), _value(check, check.stable),
        f"{check.canary_count} / {check.stable_count}", check.test, _p(check.p), f"{check.level:.2g}",
        look.badge("bad", "worse") if check.bad else fine,
    )  # fmt: skip


def _value(check: Check, value: float) -> str:
    return f"{value:.1%}" if check.what == "errors" else look.seconds(value)


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def race(store: Store, races: Sequence[Race]) -> Picture:
    """Policies on the same day: arrivals, replicas, waiting on one time axis, and what each of them cost."""
    if not races:
        return look.nothing("the race of the policies", "See lab.operate.race.")
    fig, (arrivals, counts, waiting, cost) = look.figure(2, 2, height=4.8, sharex=True)
    for number, one in enumerate(races):
        style: dict[str, Any] = {
            "color": look.SERIES[number],
            "linestyle": look.DASHES[number % 4],
            "linewidth": 1.8,
        }
        window = (one.started, one.ended)
        replicas = gather(store, "replicas", window, "max")
        arrivals.plot(*_xy(gather(store, "requests_per_second", window)), label=one.policy, **style)
        counts.plot(*_xy(replicas), drawstyle="steps-post", **style)
        waiting.plot(*_xy(Bins(store.requests(run=one.run), *window).p95_ms()), **style)
        cost.plot(*_xy(replica_seconds(replicas)), **style)
    titles = ("Requests/s", "Replicas", "Waiting, p95 in ms", "Cost so far, replica-seconds")
    for ax, title in zip((arrivals, counts, waiting, cost), titles, strict=True):
        look.label(ax, title, "seconds since the start of the day" if ax in (waiting, cost) else "")
        ax.set_ylim(0, max(ax.get_ylim()[1] * 1.1, 1))
    handles, labels = arrivals.get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    cheapest, fastest = min(races, key=lambda r: r.replica_seconds), min(races, key=lambda r: r.p95)
    caption = (
        f"Cheapest: {cheapest.policy}, {cheapest.replica_seconds:.0f} replica-seconds; "
        f"least waiting: {fastest.policy}, p95 {look.seconds(fastest.p95)}."
    )
    most = max(one.replica_seconds for one in races) or 1
    rows = [
        (look.bold(one.policy), f"{one.requests} ({one.failed} failed)", look.seconds(one.p95),
         look.seconds(one.p99), one.most_replicas, one.changes,
         look.bar(one.replica_seconds / most, f"{one.replica_seconds:.0f}"))
        for one in races
    ]  # fmt: skip
    heads = ("policy", "requests", "p95", "p99", "most replicas", "changes", "replica-seconds")
    told = "; ".join(
        f"{r.policy}: {r.replica_seconds:.0f} replica-seconds, p95 {look.seconds(r.p95)}" for r in races
    )
    return look.drawn(fig, caption, f"{caption} {told}.", look.table(heads, rows))


def _xy(points: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    return [t for t, _ in points], [value for _, value in points]


def loops(found: Loops) -> Picture:
    """Two measurements of the same server at the same time: how long the unlucky ones wait, by percentile."""
    fig, (ax,) = look.figure(height=3.4)
    shares = [0.5, 0.75, 0.9, 0.95, 0.98, 0.99, 0.995, 1.0]
    kinds = {"open loop": (found.open, look.BLUE, "-"), "closed loop": (found.closed, look.ORANGE, "--")}
    told = []
    for name, (waits, colour, dash) in kinds.items():
        points = [1000 * percentile(waits, share) for share in shares]
        ax.plot(range(len(shares)), points, "o", linestyle=dash, color=colour, linewidth=2, label=name)
        slow = sum(waited > 0.1 for waited in waits)
        told.append(f"{name}: {slow} of {len(waits)} waited over 100 ms, p95 {points[3]:.0f} ms")
    ax.set_xticks(range(len(shares)), [f"{100 * share:g} %" for share in shares])
    ax.set_ylim(0, None)
    look.label(ax, "", "share of the requests that waited no longer", "waited, ms")
    look.legend(ax)
    caption = f"One freeze of {look.seconds(found.freeze_seconds)}. {'; '.join(told)}."
    return look.drawn(fig, caption, f"Waiting by percentile. {caption}")
