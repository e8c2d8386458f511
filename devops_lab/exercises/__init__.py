"""Exercises: predict, change, find. A check looks at the state of the lab, never at the text of an answer.

exercise(lab, "plan-1")            # shows the task
exercise(lab, "plan-1").predict(3) # or .answer(...), where the task asks for one
exercise(lab, "plan-1").check()    # right | not yet | could not check
exercise(lab, "plan-1").hint()     # from general to concrete
exercise(lab, "plan-1").skip()     # the lab does it, for no points
exercise(lab, "plan-1").solution() # after two honest tries, or a skip
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from devops_lab.exercises import delivery, drills, making, planning, production
from devops_lab.exercises.base import Exercise, Quiz
from devops_lab.exercises.inlab import InLab, QuizInLab
from devops_lab.exercises.predictions import predict, truth
from devops_lab.exercises.solutions import delivery as do_delivery
from devops_lab.exercises.solutions import files as do_files
from devops_lab.exercises.solutions import production as do_production
from devops_lab.model import PHASES
from devops_lab.platform.settings import choice

if TYPE_CHECKING:
    from devops_lab.lab import Lab

ROOMS = ("welcome", *PHASES, "repeat", "continuous")
STRICT = "DEVOPS_LAB_STRICT"
CODE = vars(planning) | vars(delivery) | vars(making) | vars(drills) | vars(production)
SOLUTIONS = vars(do_delivery) | vars(do_files) | vars(do_production)


@cache
def _texts() -> dict[str, Any]:
    """What ROOM.yaml says, by room."""
    folder = Path(__file__).parent
    return {room: yaml.safe_load((folder / f"{room}.yaml").read_text("utf-8")) for room in ROOMS}


@cache
def catalogue() -> dict[str, Exercise]:
    """All exercises by id, in the order of the phases, with their checks and solutions."""
    found = {}
    for row in (row for texts in _texts().values() for row in texts["exercises"]):
        ways = {name: CODE[row[name]] for name in ("check", "start") if name in row}
        solution = SOLUTIONS.get(row["id"].replace("-", "_"))
        found[row["id"]] = Exercise(**{"answer": "none"} | row | ways | {"solution": solution})
    return found


@cache
def quizzes() -> dict[str, Quiz]:
    """The quiz of each phase that has one."""
    return {room: Quiz(room, **texts["quiz"]) for room, texts in _texts().items() if "quiz" in texts}


def counts() -> dict[str, int]:
    """What each exercise counts, in points, for the lifecycle map."""
    return {name: exercise.points for name, exercise in catalogue().items()}


def exercise(lab: Lab, exercise_id: str, strict: bool | None = None) -> InLab:
    """One exercise in a lab.

    Args:
        exercise_id: such as "plan-1".
        strict: a check that is not right raises; None = where $DEVOPS_LAB_STRICT is set.

    Raises:
        BadInput: there is no such exercise; the message names the closest one.
    """
    known = catalogue()
    found = known[choice("exercise", exercise_id, tuple(known))]
    return InLab(lab, found, bool(os.environ.get(STRICT)) if strict is None else strict)


def quiz(lab: Lab, phase: str) -> QuizInLab:
    """The quiz on a phase, to be asked two notebooks later."""
    known = quizzes()
    return QuizInLab(lab, known[choice("quiz", phase, tuple(known))])


__all__ = ["Exercise", "catalogue", "counts", "exercise", "predict", "quiz", "quizzes", "truth"]
