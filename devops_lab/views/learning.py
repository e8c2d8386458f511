"""Views of the learner's own work: how well predictions met the truth."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import TYPE_CHECKING

from devops_lab.model import Prediction
from devops_lab.platform.store import Store
from devops_lab.views import style as look
from devops_lab.views.style import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FARTHEST = 100.0  # the figure's edge; a guess of nothing stands there, too
HOW = "Before a run, press Keep below the question (or add answer=…); after it, truth and guess stand there."


def calibration(store: Store) -> Picture:
    """The learner's predictions beside the truth: numbers by their ratio, choices and orders right or not."""
    kept = [each for each in store.all(Prediction) if each.answer is not None]
    met = sorted((each for each in kept if each.truth is not None), key=lambda each: each.met)
    if not met:
        waiting = f"{len(kept)} kept, and no run has told yet. " if kept else ""
        return look.nothing("how your predictions met the truth", waiting + HOW)
    numbers = [each for each in met if each.kind == "number"]
    others = [each for each in met if each.kind != "number"]
    heights = [0.75 + 0.24 * len(each) for each in (numbers, others) if each]
    fig, axes = look.figure(len(heights), height=sum(heights), height_ratios=heights)
    if numbers:
        _draw_numbers(axes[0], numbers)
    if others:
        _draw_others(axes[-1], others)
    caption = " ".join(filter(None, (_numbers_in_words(numbers), _others_in_words(others))))
    alt = f"{caption} {'; '.join(f'{each.id}: {_word(each)}' for each in met)}."
    return look.drawn(fig, caption, alt)


def _numbers_in_words(numbers: Sequence[Prediction]) -> str:
    if not numbers:
        return ""
    near, middle = sum(each.right for each in numbers), median(each.ratio for each in numbers)
    tend = "too high" if middle > 1.1 else "too low" if middle < 0.9 else "neither too high nor too low"
    count = f"{near} of {len(numbers)} numbers within a factor of two of the truth"
    return f"{count}; you tend to guess {tend}." if len(numbers) > 2 else f"{count}."


def _others_in_words(others: Sequence[Prediction]) -> str:
    right = sum(each.right for each in others)
    return f"{right} of {len(others)} choices and orders right." if others else ""


def _word(each: Prediction) -> str:
    if each.kind != "number":
        return "right" if each.right else "not right"
    if each.ratio == 1:
        return "exact"
    way = "high" if each.ratio > 1 else "low"
    if not 1 / FARTHEST <= each.ratio <= FARTHEST:
        return f"too {way} by more than a factor of {FARTHEST:.0f}"
    return f"too {way} by a factor of {max(each.ratio, 1 / each.ratio):.3g}"


def _draw_numbers(ax: Axes, numbers: Sequence[Prediction]) -> None:
    ratios = [min(max(each.ratio, 1 / FARTHEST), FARTHEST) for each in numbers]
    reach = max(4.0, *(max(ratio, 1 / ratio) for ratio in ratios)) * 1.15
    ax.set(xscale="log", xlim=(1 / reach, reach))
    ax.axvspan(0.5, 2, color="#d5f0e5", zorder=0)
    ax.axvline(1, color=look.GREEN, linewidth=1.2, zorder=1)
    for row, (each, ratio) in enumerate(zip(numbers, ratios, strict=True)):
        mark, colour = ("o", look.BLUE) if each.right else (">" if ratio > 1 else "<", look.RED)
        ax.plot([1, ratio], [row, row], color=look.PALE, linewidth=1.5, zorder=1)
        ax.plot([ratio], [row], mark, color=colour, markersize=7, zorder=3)
    names = {0.01: "≤ 1/100", 0.1: "1/10", 0.5: "1/2", 1: "1", 2: "2", 10: "10", 100: "≥ 100"}
    shown = {tick: name for tick, name in names.items() if 1 / reach < tick < reach}
    ax.set_xticks(list(shown), list(shown.values()))
    ax.minorticks_off()
    _rows(ax, numbers)
    look.label(ax, "Numbers: how many times the truth your guess was (green: within a factor of two)")


def _draw_others(ax: Axes, others: Sequence[Prediction]) -> None:
    for row, each in enumerate(others):
        mark, colour = ("o", look.BLUE) if each.right else ("X", look.RED)
        ax.plot([0 if each.right else 1], [row], mark, color=colour, markersize=7)
    ax.set(xlim=(-0.5, 1.5))
    ax.set_xticks([0, 1], ["right", "not right"])
    _rows(ax, others)
    look.label(ax, "Choices and orders")


def _rows(ax: Axes, each_row: Sequence[Prediction]) -> None:
    """One row for each prediction, the first on top."""
    ax.set_yticks(range(len(each_row)), [each.id for each in each_row])
    ax.set_ylim(len(each_row) - 0.4, -0.6)
