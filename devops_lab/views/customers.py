"""Views of customers' requests: how a rollout moved the traffic, and what customers saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from devops_lab.model import Deployment, Outcome
from devops_lab.store import Store
from devops_lab.views import style as look
from devops_lab.views.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Series = list[tuple[float, float]]
BINS = 60  # at most so many points on a time axis


def failed(outcome: Outcome) -> bool:
    """A request that a customer would call failed: no answer, or a server's error."""
    return outcome.status == 0 or outcome.status >= 500


def percentile(values: Sequence[float], share: float) -> float:
    """The value that `share` (0..1) of the values do not exceed (nearest rank); 0 when there are none."""
    ordered = sorted(values)
    return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else 0.0


# ---- customers' requests over time
class Bins:
    """Requests cut into equal slices of time."""

    def __init__(self, requests: Sequence[Outcome], start: float, end: float) -> None:
        span = max(end - start, 0.25)
        self.count = max(min(BINS, int(span / 0.25)), 1)
        self.width = span / self.count
        self.slices: list[list[Outcome]] = [[] for _ in range(self.count)]
        for request in requests:
            place = int((request.t - start) / self.width)
            self.slices[min(max(place, 0), self.count - 1)].append(request)
        self.t = [(index + 0.5) * self.width for index in range(self.count)]
        self.releases = sorted({r.release for r in requests if r.release})

    def rate(self, wanted: Callable[[Outcome], bool]) -> list[float]:
        return [sum(map(wanted, part)) / self.width for part in self.slices]

    def of_release(self, release: str) -> list[float]:
        return self.rate(lambda r: r.release == release)

    def p95_ms(self) -> Series:
        """Per slice that has requests; a slice without any has no p95, not a zero."""
        return [
            (t, 1000 * percentile([r.seconds for r in part], 0.95))
            for t, part in zip(self.t, self.slices, strict=True)
            if part
        ]


def rollout(
    store: Store, deployment: Deployment | None = None, *, run: str = "", margin_seconds: float = 2.0
) -> Picture:
    """How the traffic moved from the old release to the new one, with the steps and any failed request.

    Args:
        deployment: the newest one when not given.
        run: only the customers of this load run.
        margin_seconds: shown before and after.
    """
    found = deployment or store.last(Deployment)
    if found is None:
        return look.nothing("the rollout")
    start, end = found.started - margin_seconds, (found.ended or time.time()) + margin_seconds
    requests = store.requests(run=run, since=start, until=end)
    bins = Bins(requests, start, end)
    fig, (ax,) = look.figure(height=3.6)
    _shares(ax, bins)
    _step_bands(ax, found, start)
    errors = [r.t - start for r in requests if failed(r)]
    if errors:
        name = f"✘ {len(errors)} failed"
        ax.plot(errors, [50] * len(errors), "x", color=look.RED, markersize=8, mew=2, label=name, zorder=5)
    ax.set(xlim=(bins.t[0], max(bins.t[-1], bins.t[0] + 0.1)), ylim=(0, 100))
    look.label(ax, "", "seconds since the start of the picture", "% of requests")
    if requests:
        fig.legend(loc="outside lower center", ncols=5, fontsize=9, frameon=False)
    ending = f"{found.state} after {look.seconds(found.seconds)}" if found.ended else found.state
    caption = f"{found.strategy} {found.previous or 'nothing'} → {found.version}: {ending}; "
    caption += f"{len(requests)} requests, {len(errors)} failed."
    steps = [(f"{n}. {s.name}", look.badge("good" if s.ok else "bad"), look.seconds(s.seconds))
             for n, s in enumerate(found.steps, 1)]  # fmt: skip
    told = look.table(("step", "", "took"), steps) if steps else ""
    wrong = look.pre(found.error) if found.error else ""
    alt = f"{caption} Steps: {'; '.join(s.name for s in found.steps) or 'none yet'}. {found.error}".strip()
    return look.drawn(fig, caption, alt, html=told + wrong)


def _shares(ax: Axes, bins: Bins) -> None:
    """Each release's share of the answered requests, stacked."""
    answered = bins.rate(lambda request: bool(request.release))
    parts = [zip(bins.of_release(name), answered, strict=True) for name in bins.releases]
    shares = [[100 * part / whole if whole else 0.0 for part, whole in pairs] for pairs in parts]
    if shares:
        colours = (look.SKY, "#8fd3bd", "#f3cf80", "#e3c0d4")
        areas = ax.stackplot(bins.t, *shares, labels=bins.releases, colors=colours)
        for number, area in enumerate(areas):
            area.set(hatch=("", "//", "..", "xx")[number % 4], edgecolor="white", linewidth=0.5)


def _step_bands(ax: Axes, deployment: Deployment, start: float) -> None:
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
            ax.annotate(
                word, (when - start, 101), ha="center", va="bottom", fontsize=9, annotation_clip=False
            )


def traffic(store: Store, since: float, *, run: str = "", until: float = 0.0) -> Picture:
    """Requests a second by release, failed ones, and the p95 that customers saw."""
    requests = store.requests(run=run, since=since, until=until or 1e12)
    if not requests:
        return look.nothing("customers' requests")
    start, end = requests[0].t, requests[-1].t
    bins = Bins(requests, start, end)
    fig, (top, low) = look.figure(2, 1, height=4.0, sharex=True, height_ratios=(3, 2))
    for number, release in enumerate(bins.releases):
        colour, dash = look.SERIES[number % len(look.SERIES)], look.DASHES[number % 4]
        top.plot(bins.t, bins.of_release(release), dash, color=colour, linewidth=2, label=release)
    bad = sum(map(failed, requests))
    points = [(t, rate) for t, rate in zip(bins.t, bins.rate(failed), strict=True) if rate]
    if points:
        top.plot(
            *zip(*points, strict=True), "x", color=look.RED, markersize=7, mew=2, label=f"✘ failed ({bad})"
        )
    top.set_ylim(0, max(1.0, top.get_ylim()[1] * 1.2))
    look.label(top, "", y="requests/s")
    look.legend(top)
    low.plot(*zip(*bins.p95_ms(), strict=True), color=look.BLUE, linewidth=1.6)
    low.set_ylim(0, None)
    look.label(low, "", "seconds since the first request", "p95, ms")
    p95 = percentile([r.seconds for r in requests], 0.95)
    by_release = ", ".join(f"{sum(r.release == v for r in requests)} by {v}" for v in bins.releases)
    caption = f"{len(requests)} requests ({by_release}), {bad} failed, p95 {look.seconds(p95)}."
    return look.drawn(fig, caption, f"Requests a second and p95 over {end - start:.0f} s: {caption}")
