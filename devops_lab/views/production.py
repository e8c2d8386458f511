"""Views of versions in production: replicas, deployments, rollouts, canaries, value, scaling policies."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from devops_lab.model import (
    Analysis,
    Comparison,
    Deployment,
    Race,
    Replica,
    Request,
    failed,
    percentile,
)  # fmt: skip
from devops_lab.platform.store import Store
from devops_lab.views import style as look
from devops_lab.views.signals import SECONDS, Points, gather, replica_seconds
from devops_lab.views.style import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STATE = {"healthy": "good", "starting": "info", "draining": "warn", "unhealthy": "bad", "dead": "bad"}
ENDING = {"done": "good", "running": "info", "refused": "bad"}
ENDING |= dict.fromkeys(("interrupted", "inconclusive", "rolled back"), "warn")
MARGIN_SECONDS = 2.0  # shown before and after a rollout
BINS = 60  # at most so many points on a time axis
PANELS = 4  # at most so many steps of a canary are drawn; the table has them all


# ---- tables
def replicas(found: Sequence[Replica]) -> Picture:
    """The replicas that run now, as the engine reports them."""
    if not found:
        return look.nothing("the replicas", "Production is empty.")
    rows = [
        (r.id, look.badge(STATE[r.state], r.state), r.release, r.pool, f"{r.host}:{r.port}", r.pid,
         look.clock(r.started), r.restarts, r.reason)
        for r in sorted(found, key=lambda r: (r.pool, r.id))
    ]  # fmt: skip
    healthy = sum(r.state == "healthy" for r in found)
    running = ", ".join(sorted({r.release for r in found}))
    caption = f"{healthy} of {len(found)} replicas are healthy; releases: {running}."
    alt = f"{caption} {'; '.join(f'{r.id} {r.state} {r.release} {r.reason}'.strip() for r in found)}"
    heads = ("replica", "state", "release", "pool", "address", "pid", "since", "restarts", "why")
    return look.page(caption, alt, look.table(heads, rows))


def deployments(found: Sequence[Deployment]) -> Picture:
    """Who brought what to production, from what, how, why, and how it ended; newest first."""
    if not found:
        return look.nothing("deployments")
    newest = sorted(found, key=lambda d: -d.id)[: look.MAX_ROWS]
    rows = [
        (d.id, look.badge(ENDING[d.state], d.state), look.bold(d.version), d.previous or "–", d.strategy,
         d.who, look.lines(d.why, textwrap.shorten(d.error.partition("\n")[0], 110)), look.clock(d.started),
         look.seconds(d.seconds) if d.ended else "–")
        for d in newest
    ]  # fmt: skip
    caption = f"{len(found)} deployments, newest first; the last: {newest[0].version}, {newest[0].state}."
    listed = "; ".join(f"{d.id}: {d.previous} to {d.version} {d.strategy} {d.state}" for d in newest)
    heads = ("number", "ended", "version", "before", "strategy", "who", "why", "when", "took")
    return look.page(caption, f"{caption} {listed}", look.table(heads, rows))


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
    listed = "; ".join(f"{version or 'nothing yet'}: {value:g}" for _, version, value in points)
    return look.drawn(fig, caption, f"{caption} {listed}.")


# ---- rollouts
def _slices(requests: Sequence[Request], start: float, end: float) -> list[tuple[float, list[Request]]]:
    """The requests cut into equal slices of time, each with its middle in seconds from the start on."""
    span = max(end - start, 0.25)
    count = max(min(BINS, int(span / 0.25)), 1)
    slices: list[tuple[float, list[Request]]] = [((n + 0.5) * span / count, []) for n in range(count)]
    for request in requests:
        place = int((request.t - start) / (span / count))
        slices[min(max(place, 0), count - 1)][1].append(request)
    return slices


def rollout(store: Store, deployment: Deployment | None = None) -> Picture:
    """How the traffic moved from the old release to the new one, with the steps and any failed request.

    Args:
        deployment: the newest one when not given.
    """
    shown = deployment or store.last(Deployment)
    if shown is None:
        return look.nothing("the rollout")
    start, end = shown.started - MARGIN_SECONDS, (shown.ended or store.now()) + MARGIN_SECONDS
    requests = store.requests(since=start, until=end)
    fig, (ax,) = look.figure(height=3.6)
    _draw_shares(ax, _slices(requests, start, end))
    _draw_steps(ax, shown, start)
    errors = [r.t - start for r in requests if failed(r)]
    if errors:
        name = f"✘ {len(errors)} failed"
        ax.plot(errors, [50] * len(errors), "x", color=look.RED, markersize=8, mew=2, label=name, zorder=5)
    look.label(ax, "", "seconds since the start of the picture", "% of requests")
    if requests:
        fig.legend(loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    ending = f"{shown.state} after {look.seconds(shown.seconds)}" if shown.ended else shown.state
    caption = f"{shown.strategy} {shown.previous or 'nothing'} → {shown.version}: {ending}; "
    caption += f"{len(requests)} requests, {len(errors)} failed."
    steps = [(f"{n}. {s.name}", look.badge("good" if s.ok else "bad"), look.seconds(s.seconds))
             for n, s in enumerate(shown.steps, 1)]  # fmt: skip
    table = look.table(("step", "result", "took"), steps) if steps else ""
    error = look.pre(shown.error) if shown.error else ""
    alt = f"{caption} Steps: {'; '.join(s.name for s in shown.steps) or 'none yet'}. {shown.error}".strip()
    return look.drawn(fig, caption, alt, html=table + error)


def next_rollout(store: Store) -> Callable[[], Picture]:
    """What draws the rollout that begins next, for `watching`: until then nothing, and not the one before."""
    before = max((deployment.id for deployment in store.all(Deployment)), default=0)

    def draw() -> Picture:
        newest = store.last(Deployment)
        return rollout(store, newest) if newest and newest.id > before else look.nothing("the rollout")

    return draw


def _draw_shares(ax: Axes, slices: Sequence[tuple[float, list[Request]]]) -> None:
    """Each release's share of the answered requests, stacked."""
    t = [middle for middle, _ in slices]
    answered = [[r.release for r in requests if r.release] for _, requests in slices]
    releases = sorted({release for part in answered for release in part})
    shares = [[100 * part.count(each) / max(len(part), 1) for part in answered] for each in releases]
    if shares:
        colours = (look.SKY, "#8fd3bd", "#f3cf80", "#e3c0d4")
        for number, area in enumerate(ax.stackplot(t, *shares, labels=releases, colors=colours)):
            area.set(hatch=("", "//", "..", "xx")[number % 4], edgecolor="white", linewidth=0.5)
    ax.set(xlim=(t[0], max(t[-1], t[0] + 0.1)), ylim=(0, 100))


def _draw_steps(ax: Axes, deployment: Deployment, start: float) -> None:
    """The rollout's steps as numbered bands on top; their names stand in the table below."""
    at = deployment.started
    for number, step in enumerate(deployment.steps, 1):
        begin = (step.started or at) - start
        at = (step.started or at) + step.seconds
        colour = look.RED if not step.ok else look.GREY
        ax.axvspan(begin, at - start, ymin=0.93, color=colour if number % 2 else "#808080", linewidth=0)
        ax.axvline(begin, color=colour, linewidth=0.8, linestyle=":")
        middle = ((begin + at - start) / 2, 96.5)
        ax.annotate(str(number), middle, color="white", ha="center", va="center", fontsize=8, weight="bold")
    for when, word in ((deployment.started, "start"), (deployment.ended, "end")):
        if when:
            ax.axvline(when - start, color="black", linewidth=1.2)
            above: dict[str, Any] = {"ha": "center", "va": "bottom", "annotation_clip": False}
            ax.annotate(word, (when - start, 101), fontsize=9, **above)


# ---- one thing against another
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
    shown, last = looks[-PANELS:], looks[-1]
    names = sorted({check.what for one in shown for check in one.checks if check.what != "errors"})
    fig, axes = look.figure(1, len(shown), height=1.7 + 0.32 * len(names), sharey=True)
    for ax, one in zip(axes, shown, strict=True):
        _draw_means(ax, one, names)
    handles, labels = axes[-1].get_legend_handles_labels()
    fig.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    verdicts = ", ".join(f"{one.verdict} at {one.share} %" for one in looks)
    caption = f"{last.canary} as a canary of {last.stable}: {verdicts}"
    rows = [_comparison_row(one, check) for one in looks for check in one.checks]
    heads = ("share", "what", "canary", "stable", "requests", "test", "p", "level", "verdict")
    listed = "; ".join(f"{c.what} {_value(c, c.canary)} against {_value(c, c.stable)}" for c in last.checks)
    return look.drawn(fig, f"{caption}.", f"{caption}. At {last.share} %: {listed}.", look.table(heads, rows))


def _draw_means(ax: Axes, one: Analysis, names: list[str]) -> None:
    """Each endpoint's mean answer, stable and canary, joined by a line, with p beside."""
    named: set[str] = set()

    def mark(x: float, y: int, marker: str, word: str, **style: Any) -> None:
        ax.plot(x, y, marker, label="" if word in named else word, **style)
        named.add(word)

    for check in one.checks:
        colour = look.RED if check.bad else look.GREY
        if check.what == "errors":
            words = f"failed {check.canary:.1%}, stable {check.stable:.1%}"
            ax.text(0, 1.02, words, transform=ax.transAxes, fontsize=8, color=colour)
            continue
        y, new, old = names.index(check.what), check.canary * 1000, check.stable * 1000
        ax.plot([old, new], [y, y], color=colour, linewidth=2 if check.bad else 1, zorder=1)
        mark(old, y, "o", "stable", color="white", mec=look.BLUE, mew=1.6, markersize=8)
        if check.bad:
            mark(new, y, "X", "canary, worse", color=look.RED, markersize=9)
        else:
            mark(new, y, "o", "canary", color=look.ORANGE, markersize=6)
        beside: dict[str, Any] = {"xytext": (9, 0), "textcoords": "offset points", "va": "center"}
        ax.annotate(f"p {_p(check.p)}", (max(old, new), y), fontsize=8, color=colour, **beside)
    ax.set_yticks(range(len(names)), names)
    ax.set(ylim=(max(len(names), 1) - 0.5, -0.5), xlim=(0, ax.get_xlim()[1] * 1.45))
    look.label(ax, f"{one.share} %: {one.verdict}\n", "mean answer, ms")


def _comparison_row(one: Analysis, check: Comparison) -> tuple[object, ...]:
    fine = look.badge("good", "no worse") if check.p >= check.level else look.badge("quiet", "not felt")
    return (
        f"{one.share} %", check.what, _value(check, check.canary), _value(check, check.stable),
        f"{check.canary_count} / {check.stable_count}", check.test, _p(check.p), f"{check.level:.2g}",
        look.badge("bad", "worse") if check.bad else fine,
    )  # fmt: skip


def _value(check: Comparison, value: float) -> str:
    return f"{value:.1%}" if check.what == "errors" else look.seconds(value)


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.2g}"


def race(store: Store, races: Sequence[Race]) -> Picture:
    """Policies on the same day: arrivals, replicas, waiting on one time axis, and what each of them cost."""
    if not races:
        return look.nothing("the race of the policies", "See lab.operate.race.")
    fig, axes = look.figure(2, 2, height=4.8, sharex=True)
    titles = ("Requests/s", "Replicas", "Waiting, p95 in ms", "Cost so far, replica-seconds")
    for number, one in enumerate(races):
        style: dict[str, Any] = {"color": look.SERIES[number], "linestyle": look.DASHES[number % 4]}
        for ax, points in zip(axes, _race_lines(store, one), strict=True):
            steps = "steps-post" if ax is axes[1] else "default"
            t, values = zip(*points, strict=True) if points else ((), ())
            ax.plot(t, values, label=one.policy, drawstyle=steps, linewidth=1.8, **style)
    for ax, title in zip(axes, titles, strict=True):
        look.label(ax, title, "seconds since the start of the day" if ax in axes[2:] else "")
        ax.set_ylim(0, max(ax.get_ylim()[1] * 1.1, 1))
    handles, labels = axes[0].get_legend_handles_labels()
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
    costs = (f"{r.policy}: {r.replica_seconds:.0f} replica-seconds, p95 {look.seconds(r.p95)}" for r in races)
    return look.drawn(fig, caption, f"{caption} {'; '.join(costs)}.", look.table(heads, rows))


def _race_lines(store: Store, one: Race) -> tuple[Points, Points, Points, Points]:
    """Arrivals, replicas, customers' p95 in ms (none where nobody asked, not zero), and cost so far."""
    window = (one.started, one.ended)
    slices = _slices(store.requests(run=one.run), *window)
    p95 = [(t, 1000 * percentile([r.seconds for r in part], 0.95)) for t, part in slices if part]
    counts = gather(store, "replicas", window, "max")
    return gather(store, "requests_per_second", window), counts, p95, replica_seconds(counts)
