"""What was found in the hand-ins of a class, one record a hand-in."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from devops_lab.model.lab import Prediction

__all__ = ["DrillTimes", "Grade", "HandIn", "Mark"]


@dataclass(frozen=True)
class Mark:
    """One exercise of one hand-in, checked again.

    Args:
        state: what the check says now.
        claimed: the state that the hand-in's own record holds.
        seen: the check's own words.
        points, most: reached, and to be had.
        first: what the learner's first check said; "" where there was none.
    """

    exercise: str
    state: Literal["right", "not yet", "could not check", "told", "skipped"]
    claimed: str
    seen: str
    points: float
    most: float
    attempts: int = 0
    hints_used: int = 0
    first: str = ""


@dataclass(frozen=True)
class DrillTimes:
    """One drill: seconds from its start until a fault was detected, diagnosed, restored; None = never."""

    fault: str
    detected: float | None = None
    diagnosed: float | None = None
    restored: float | None = None


@dataclass(frozen=True)
class Grade:
    """One hand-in.

    Args:
        learner: the hand-in's file name without its ending.
        lab: the identity of the lab that was handed in; "" where it can't be told.
        remarks: what is amiss (a copied record, a file cut off, an exercise that only a live shop answers).
        seconds: what grading it took.
    """

    learner: str
    lab: str
    marks: list[Mark] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    drills: list[DrillTimes] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0


@dataclass(frozen=True)
class HandIn:
    """The manifest of a hand-in.

    Args:
        format: of the archive.
        workbook: the version that packed it.
        lab, learner: as the lab's settings have them.
        files: the digest (SHA-256) of each file, by its name in the archive.
        left_out: what could not be read, or was left out to make it small.
    """

    format: int
    workbook: str
    lab: str
    learner: str
    files: dict[str, str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
