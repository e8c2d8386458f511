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
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from devops_lab.exercises.base import Exercise, InLab, Quiz, QuizInLab
from devops_lab.model import PHASES
from devops_lab.settings import choice

if TYPE_CHECKING:
    from devops_lab.lab import Lab

ROOMS = ("welcome", *PHASES, "repeat", "continuous")
STRICT = "DEVOPS_LAB_STRICT"


@cache
def catalogue() -> dict[str, Exercise]:
    """All exercises by id, in the order of the phases: texts from ROOM.yaml, checks from ROOM.py."""
    found = [
        Exercise(**row | {"check": getattr(import_module(f"devops_lab.exercises.{room}"), row["check"])})
        for room in ROOMS
        for row in _texts(room)["exercises"]
    ]
    return {exercise.id: exercise for exercise in found}


@cache
def quizzes() -> dict[str, Quiz]:
    """The quiz of each phase that has one."""
    return {room: Quiz(room, **_texts(room)["quiz"]) for room in ROOMS if "quiz" in _texts(room)}


@cache
def _texts(room: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(Path(__file__).with_name(f"{room}.yaml").read_text("utf-8"))
    return found


def counts() -> dict[str, int]:
    """How many exercises each phase has, for the lifecycle map."""
    return dict(Counter(exercise.phase for exercise in catalogue().values()))


def exercise(lab: Lab, exercise_id: str) -> InLab:
    """One exercise in a lab. A check that is not right raises where $DEVOPS_LAB_STRICT is set.

    Args:
        exercise_id: such as "plan-1".

    Raises:
        BadInput: there is no such exercise; the message names the closest one.
    """
    known = catalogue()
    found = known[choice("exercise", exercise_id, tuple(known))]
    return InLab(lab, found, bool(os.environ.get(STRICT)))


def quiz(lab: Lab, phase: str) -> QuizInLab:
    """The quiz on a phase, to be asked two notebooks later."""
    known = quizzes()
    return QuizInLab(lab, known[choice("quiz", phase, tuple(known))])


__all__ = ["Exercise", "catalogue", "counts", "exercise", "quiz", "quizzes"]
