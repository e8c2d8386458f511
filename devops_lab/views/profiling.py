"""The profile of a live replica: its functions by share, and its call stacks as a flame graph."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from devops_lab.views import style as look
from devops_lab.views.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

# What every request of the shop runs inside of: threads, event loop, HTTP server. It explains nothing.
PLUMBING = re.compile(
    r"\((<frozen runpy>|threading\.py|asyncio/|anyio/|uvicorn/|bento/(__main__|server)\.py)"
)
DEEPEST = 14  # frames of a flame graph
Stacks = Mapping[tuple[str, ...], float]


def profile(found: Any, why_not: str = "") -> Picture:
    """Where a live replica spends its time: functions by share, and its call stacks as a flame graph.

    Args:
        found: has `functions` (name -> share, 0..1) and perhaps `stacks` ("a;b;c" -> samples); None where
            nobody could look.
        why_not: the reason for that, in plain words.
    """
    if found is None:
        return look.nothing("the profile", why_not)
    functions: dict[str, float] = dict(getattr(found, "functions", None) or {})
    top = dict(sorted(functions.items(), key=lambda pair: -pair[1])[:8])
    if not top:
        return look.nothing("the profile", "No samples: the replica had nothing to do.")
    first = next(iter(top))
    told_stacks: dict[str, float] = getattr(found, "stacks", None) or {}
    flames = _flames(_without_plumbing(told_stacks))
    height = 1.0 + 0.25 * len(top)
    if flames:
        rows = 1 + max(flame.depth for flame in flames)
        fig, axes = look.figure(
            2, 1, height=height + 0.9 + 0.23 * rows, height_ratios=(height, 0.9 + 0.23 * rows)
        )
        _draw_flames(axes[1], flames, first)
    else:
        fig, axes = look.figure(height=height)
    percent = [(_short(name, 36), 100 * share) for name, share in top.items()]
    colours = [look.ORANGE] + [look.SKY] * 9
    look.bars(axes[0], percent, [f"{value:.0f} %" for _, value in percent], colours)
    look.label(axes[0], "% of the time in the function itself")
    caption = f"{first} takes {100 * top[first]:.0f} % of the time in which the replica worked."
    told = "; ".join(f"{name} {100 * share:.0f} %" for name, share in top.items())
    return look.drawn(fig, caption, f"{caption} {told}.")


@dataclass(frozen=True)
class _Flame:
    """One frame of a flame graph; left and wide in percent of all samples."""

    name: str
    depth: int
    left: float
    wide: float


def _without_plumbing(stacks: Mapping[str, float]) -> Stacks:
    """The stacks from the first frame on that says something; outermost first."""
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for told, count in stacks.items():
        frames = told.split(";")
        while len(frames) > 1 and PLUMBING.search(frames[0]):
            frames.pop(0)
        found[tuple(frames)] += count
    return found


def _flames(stacks: Stacks) -> list[_Flame]:
    """Each frame as wide as its share of the samples, on top of its caller; slivers are left out."""
    total = sum(stacks.values())
    level: list[tuple[float, Stacks]] = [(0.0, stacks)]
    found = []
    for depth in range(DEEPEST):
        higher: list[tuple[float, Stacks]] = []
        for left, part in level:
            inside: dict[str, dict[tuple[str, ...], float]] = {}
            for key, count in sorted(part.items(), key=lambda pair: -pair[1]):
                inside.setdefault(key[0], {})[key] = count
            for name, those in inside.items():
                wide = 100 * sum(those.values()) / total
                if wide >= 0.5:
                    found.append(_Flame(name, depth, left, wide))
                    higher.append((left, _below(those)))
                left += wide
        level = [(left, part) for left, part in higher if part]
    return found


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


def _below(stacks: Stacks) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = defaultdict(float)
    for key, count in stacks.items():
        if len(key) > 1:
            found[key[1:]] += count
    return found


def _short(name: str, room: int) -> str:
    return name if len(name) <= room else name[: room - 1] + "…"
