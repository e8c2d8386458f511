"""A class that was graded, as `classroom grade` keeps it: made up, the same each time."""

from __future__ import annotations

import random

from devops_lab.exercises import catalogue
from devops_lab.model import DrillTimes, Grade, Mark, Prediction

WORDS = {
    "not yet": [
        "There is no item `nightly-backup` in the backlog.",
        "lab.toml still calls you by no more than `learner`.",
        "The sprint holds 8 points, and half a team has 6.",
        "{n} of 9 replicas still serve 1.0.0.",
        "The item `allergens` is in the file, but not on main: it stands on the branch `learn/allergens`, "
        "two commits behind, with a story that has no `so that`; main has {n} items more than that one.",
    ],
    "could not check": ["Only a production that serves can answer that."],
    "told": ["You predicted {n} sprints, measured were 11: less than a factor of 2 allows."],
}
ASKED = {
    "plan-sprints": ("number", "sprints"),
    "test-escape": ("number", "bugs"),
    "code-slowest": ("choice", ""),
}
NUMBERS = [f"{part}-guess-{n}" for part in ("build", "deploy", "operate", "monitor") for n in range(8)]


def a_class(learners: int = 30) -> list[Grade]:
    """So many hand-ins, of learners who get ever less far."""
    drawn = random.Random(30)
    return [_grade(number, learners, drawn) for number in range(learners)]


def _grade(number: int, of: int, drawn: random.Random) -> Grade:
    names = list(catalogue())
    far = len(names) * (1 - 0.8 * number / of)
    marks = [_mark(name, place < far, drawn) for place, name in enumerate(names)]
    times = [DrillTimes(fault, *_times(drawn)) for fault in ("latency", "disk full", "bad release", "leak")]
    remarks = ["its record is that of learner03, too: same lab, same history"] if number == 7 else []
    if number % 5 == 1:
        remarks.append("deploy-2 and operate-1 could not be checked: only a live shop answers them")
    if number % 2:
        remarks.append("the file was cut off in the middle; what follows its registry is not there")
    guesses = [_guess(name, drawn) for name in (*ASKED, *NUMBERS)]
    return Grade(f"learner{number:02}", f"lab-{number}", marks, guesses, times, remarks, 4.0)


def _mark(name: str, reached: bool, drawn: random.Random) -> Mark:
    most = float(catalogue()[name].points)
    if not reached:
        return Mark(name, "not yet", "", "nothing there yet", 0.0, most)
    options = ["right"] * 12 + ["not yet"] * 4 + ["told", "skipped", "could not check"]
    state = drawn.choice(options)
    claimed = "right" if drawn.random() < 0.02 else state
    seen = drawn.choice(WORDS.get(state, ["as it should be"])).format(n=drawn.randrange(1, 9))
    attempts, hints = drawn.randrange(1, 6), drawn.randrange(0, 4)
    first = "right" if state == "right" and attempts == 1 else "not yet"
    points = most if state == "right" else 0.0
    return Mark(name, state, claimed, seen, points, most, attempts, hints, first)  # type: ignore[arg-type]


def _guess(name: str, drawn: random.Random) -> Prediction:
    kind, unit = ASKED.get(name, ("number", "s"))
    question = f"What of {name}?"
    if kind == "choice":
        answer = drawn.choice(["menu", "orders", "search"])
        return Prediction(name, "choice", question, answer=answer, truth="search")
    guess = 10.0 * 10 ** drawn.gauss(-0.2, 0.5)
    return Prediction(name, "number", question, unit, answer=guess, truth=10.0)


def _times(drawn: random.Random) -> list[float | None]:
    detected = drawn.uniform(5, 90)
    diagnosed = detected + drawn.uniform(20, 600)
    restored = diagnosed + drawn.uniform(5, 300)
    reached = drawn.choice([3, 3, 3, 2, 1])
    return [time if place < reached else None for place, time in enumerate((detected, diagnosed, restored))]
