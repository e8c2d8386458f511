"""Views of customers' requests: how a rollout moved the traffic, and what customers saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from devops_lab.model import Deployment, Outcome, failed, percentile
from devops_lab.store import Store
from devops_lab.views import style as look
from devops_lab.views.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MARGIN_SECONDS = 2.0  # shown before and after a rollout
BINS = 60  # at most so many points on a time axis


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

    def p95_ms(self) -> list[tuple[float, float]]:
        """Per slice that has requests; a slice without any has no p95, not a zero."""
        found = zip(self.t, self.slices, strict=True)
        return [(t, 1000 * percentile([r.seconds for r in part], 0.95)) for t, part in found if part]


def rollout(store: Store, deployment: Deployment | None = None) -> Picture:
    """How the traffic moved from the old release to the new one, with the steps and any failed request.

    Args:
        deployment: the newest one when not given.
    """
    found = deployment or store.last(Deployment)
    if found is None:
        return look.nothing("the rollout")
    start, end = found.started - MARGIN_SECONDS, (found.ended or time.time()) + MARGIN_SECONDS
    requests = store.requests(since=start, until=end)
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
