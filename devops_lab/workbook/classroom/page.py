"""The page of a class's report: what its tables hold; `report.html.j2` draws them."""

from __future__ import annotations

import math
import re
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import mean, median
from typing import Any

from devops_lab.exercises import catalogue
from devops_lab.model import Grade, Mark, Prediction
from devops_lab.views.style import TONES, seconds

TEMPLATE = Path(__file__).with_name("report.html.j2")
STUCK_CHECKS = 2  # as many before a solution may be seen
FEW = 10  # rows of a list, so that all fits a sheet
NAMES = 6  # learners in a row
LONGEST_SECONDS = 3600.0  # the right edge of the drills' strips
STATES = {  # state > tone, mark, words
    "right": ("good", "✔", "right"),
    "told": ("info", "→", "predicted, and not right"),
    "skipped": ("quiet", "◇", "done by the lab"),
    "not yet": ("warn", "…", "not yet"),
    "could not check": ("plain", "?", "can't be checked"),
    "claimed": ("bad", "✘", "claimed right, and is not"),
    "untouched": ("plain", "", "not tried"),
    "missing": ("plain", "–", "not in the hand-in"),
}
Row = dict[str, Any]
Word = Callable[[str], str]


def rendered(grades: Sequence[Grade], shown: Mapping[str, str], word: Word) -> str:
    """The whole page.

    Args:
        grades: of the class.
        shown: what each learner is called on it.
        word: what makes a text fit for it (no names, where they are not to be shown).
    """
    import jinja2

    own = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    exercises = columns(grades)
    by_name = {name: each for name, each in catalogue().items() if name in exercises}
    rows = sorted(
        (_learner(grade, exercises, shown, word) for grade in grades), key=lambda row: -row["share"]
    )
    return own.from_string(TEMPLATE.read_text("utf-8")).render(
        day=time.strftime("%Y-%m-%d"),
        rows=rows,
        parts=Counter(map(part, exercises)),
        exercises=[(name, by_name[name].title if name in by_name else "") for name in exercises],
        feet=list(feet(grades, exercises)),
        states=STATES,
        tones=TONES,
        stuck=stuck(grades, shown),
        wrong=wrong_answers(grades, word),
        calibration=calibration(grades),
        drills=drills(grades),
        remarks=[(shown[g.learner], [word(r) for r in g.remarks]) for g in grades if g.remarks],
        titles={name: each.title for name, each in by_name.items()},
        seconds=sum(grade.seconds for grade in grades),
        few=FEW,
        names=NAMES,
    )


# ---- exercises and parts
def part(exercise: str) -> str:
    """The notebook that an exercise belongs to: "plan" of "plan-1"."""
    return exercise.partition("-")[0]


def columns(grades: Sequence[Grade]) -> list[str]:
    """The exercises that somebody has a mark of, in the workbook's order; a teacher's own ones last."""
    seen = {mark.exercise: None for grade in grades for mark in grade.marks}
    order = {name: number for number, name in enumerate([*catalogue(), *sorted(seen.keys() - catalogue())])}
    first = {part(name): order[name] for name in sorted(seen, key=order.__getitem__, reverse=True)}
    return sorted(seen, key=lambda name: (first[part(name)], order[name]))


def parts(grades: Sequence[Grade]) -> dict[str, float]:
    """The notebooks, with the points to be had in each."""
    most: dict[str, float] = {}
    for grade in grades:
        for mark in grade.marks:
            most[mark.exercise] = max(most.get(mark.exercise, 0.0), mark.most)
    found: dict[str, float] = defaultdict(float)
    for name in columns(grades):
        found[part(name)] += most[name]
    return dict(found)


# ---- the heat map
def _learner(grade: Grade, exercises: Sequence[str], shown: Mapping[str, str], word: Word) -> Row:
    marks = {mark.exercise: mark for mark in grade.marks}
    points, most = sum(m.points for m in grade.marks), sum(m.most for m in grade.marks)
    met = list(_met(grade))
    return {
        "name": shown[grade.learner],
        "cells": [_cell(name, marks.get(name), word) for name in exercises],
        "points": f"{points:g}",
        "most": f"{most:g}",
        "share": points / most if most else 0.0,
        "hints": sum(mark.hints_used for mark in grade.marks),
        "guesses": f"{sum(each.right for each in met)}/{len(met)}" if met else "–",
    }


def _cell(name: str, mark: Mark | None, word: Word) -> Row:
    state = standing(mark)
    told = f"{name}: {STATES[state][2]}"
    if mark and state not in ("right", "skipped", "untouched"):
        told += f". {word(mark.seen)}"
    if mark and mark.attempts:
        told += f" ({mark.attempts} checks, {mark.hints_used} hints)"
    return {"state": state, "told": told}


def standing(mark: Mark | None) -> str:
    """How a mark is shown: its state, or what makes it another thing than that."""
    if mark is None:
        return "missing"
    if mark.state == "not yet" and mark.claimed == "right":
        return "claimed"
    return "untouched" if mark.state == "not yet" and not mark.attempts else mark.state


def feet(grades: Sequence[Grade], exercises: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    """The rows below the heat map: a figure for each exercise."""
    marks: dict[str, list[Mark]] = defaultdict(list)
    for mark in (mark for grade in grades for mark in grade.marks):
        marks[mark.exercise].append(mark)
    each = [marks[name] for name in exercises]
    yield "right", [str(sum(m.state == "right" for m in ms)) for ms in each]
    yield "at the first check", [str(sum(m.first == "right" for m in ms)) for ms in each]
    yield "hints, a learner", [f"{mean(m.hints_used for m in ms):.1f}".removesuffix(".0") for ms in each]


# ---- who is stuck, and on what
def stuck(grades: Sequence[Grade], shown: Mapping[str, str]) -> list[tuple[str, list[str]]]:
    """The exercises that learners have checked again and again and not solved, most learners first."""
    found: dict[str, list[tuple[int, str]]] = defaultdict(list)
    for grade in grades:
        for mark in grade.marks:
            if standing(mark) == "not yet" and mark.attempts >= STUCK_CHECKS:
                told = f"{shown[grade.learner]} ({mark.attempts}, {mark.hints_used})"
                found[mark.exercise].append((-mark.attempts, told))
    most = sorted(found.items(), key=lambda item: (-len(item[1]), item[0]))
    return [(name, [told for _, told in sorted(who)]) for name, who in most]


def wrong_answers(grades: Sequence[Grade], word: Word) -> list[tuple[int, str, str]]:
    """How many learners, which exercise, and what the check says to them; the commonest first.

    What differs in figures alone is one answer; the words are those of the first who got them.
    """
    counts: Counter[tuple[str, str]] = Counter()
    words: dict[tuple[str, str], str] = {}
    for mark in (mark for grade in grades for mark in grade.marks):
        if standing(mark) in ("not yet", "told", "claimed") and mark.seen:
            key = (mark.exercise, re.sub(r"\b[0-9a-f]{7,64}\b|\d+(?:[.,]\d+)*", "#", mark.seen))
            counts[key] += 1
            words.setdefault(key, word(mark.seen))
    return [(count, key[0], words[key]) for key, count in counts.most_common(FEW)]


# ---- predictions and drills: dots on a strip
def calibration(grades: Sequence[Grade]) -> list[Row]:
    """Each prediction of the class: how many were right, and guess to truth of the numbers."""
    asked: dict[str, list[Prediction]] = defaultdict(list)
    for each in (each for grade in grades for each in _met(grade)):
        asked[each.id].append(each)
    order = [*dict.fromkeys(part(name) for name in catalogue())]
    known = sorted(asked, key=lambda name: order.index(part(name)) if part(name) in order else len(order))
    return [_guesses(name, asked[name]) for name in known]


def _guesses(name: str, given: Sequence[Prediction]) -> Row:
    ratios = [each.ratio for each in given if not math.isnan(each.ratio)]
    middle = median(ratios) if ratios else math.nan
    words = {ratio: _times(ratio) for ratio in ratios}
    return {
        "name": name,
        "question": given[0].question,
        "right": sum(each.right for each in given),
        "all": len(given),
        "middle": _times(middle) if ratios else "",
        "dots": [(round(_place(ratio, 0.01, 100.0), 1), words[ratio]) for ratio in ratios],
    }


def _met(grade: Grade) -> Iterator[Prediction]:
    return (each for each in grade.predictions if each.answer is not None and each.truth is not None)


def _times(ratio: float) -> str:
    if not 0.01 <= ratio <= 100:
        return "> 100 ×" if ratio > 1 else "< 1/100 ×"
    return f"{ratio:.2g} ×"


def _place(value: float, least: float, most: float) -> float:
    """Where on a logarithmic strip a value stands, in percent of its width."""
    held = min(max(value, least), most)
    return 100 * math.log(held / least) / math.log(most / least)


def drills(grades: Sequence[Grade]) -> list[tuple[str, int, list[Row]]]:
    """Each fault, how many had it, and for each stage who got there after how many seconds."""
    had: dict[str, list[dict[str, float | None]]] = defaultdict(list)
    for drill in (drill for grade in grades for drill in grade.drills):
        times = {"detected": drill.detected, "diagnosed": drill.diagnosed, "restored": drill.restored}
        had[drill.fault].append(times)
    return [
        (fault, len(all_), [_stage(name, [times[name] for times in all_]) for name in all_[0]])
        for fault, all_ in sorted(had.items())
    ]


def _stage(name: str, times: Sequence[float | None]) -> Row:
    reached = sorted(each for each in times if each is not None)
    return {
        "name": name,
        "reached": len(reached),
        "middle": seconds(median(reached)) if reached else "never",
        "dots": [(round(_place(each, 1.0, LONGEST_SECONDS), 1), seconds(each)) for each in reached],
    }
