"""Exercises: predict, change, find. A check looks at the state of the lab, never at the text of an answer.

exercise(lab, "plan-1")            # shows the task
exercise(lab, "plan-1").predict(3) # or .answer(...), where the task asks for one
exercise(lab, "plan-1").check()    # right | not yet | could not check
exercise(lab, "plan-1").hint()     # from general to concrete
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, InLab, Quiz, QuizInLab
from devops_lab.settings import choice

if TYPE_CHECKING:
    from devops_lab.lab import Lab

ROOMS = (
    "welcome",
    "plan",
    "code",
    "build",
    "test",
    "release",
    "deploy",
    "operate",
    "monitor",
    "repeat",
    "continuous",
)
STRICT = "DEVOPS_LAB_STRICT"


@cache
def catalogue() -> dict[str, Exercise]:
    """All exercises by id, in the order of the phases."""
    modules = [import_module(f"devops_lab.exercises.{room}") for room in ROOMS]
    return {exercise.id: exercise for module in modules for exercise in module.EXERCISES}


@cache
def quizzes() -> dict[str, Quiz]:
    """The quiz of each phase that has one."""
    modules = [import_module(f"devops_lab.exercises.{room}") for room in ROOMS]
    return {module.QUIZ.phase: module.QUIZ for module in modules if hasattr(module, "QUIZ")}


def counts() -> dict[str, int]:
    """How many exercises each phase has, for the lifecycle map."""
    return dict(Counter(exercise.phase for exercise in catalogue().values()))


def exercise(lab: Lab, exercise_id: str, strict: bool | None = None) -> InLab:
    """One exercise in a lab.

    Args:
        exercise_id: such as "plan-1".
        strict: a check that is not right raises; default: only where $DEVOPS_LAB_STRICT is set.

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


__all__ = ["Exercise", "catalogue", "counts", "exercise", "quiz", "quizzes"]
