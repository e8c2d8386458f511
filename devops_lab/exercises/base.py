"""What an exercise is: its task, its hints, a check that looks at the state of the lab, and a solution."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from devops_lab.errors import LabError

if TYPE_CHECKING:
    from devops_lab.lab import Lab

# told: a prediction that met the truth; skipped: the lab did it
State = Literal["right", "not yet", "could not check", "told", "skipped"]
MOST = 1e12
SAME_UNIT = (
    {"s", "sec", "second", "seconds"},
    {"ms", "millisecond", "milliseconds"},
    {"min", "minute", "minutes"},
    {"kb", "kilobyte", "kilobytes"},
    {"mb", "megabyte", "megabytes"},
    {"%", "percent"},
)


@dataclass(frozen=True)
class Verdict:
    """What a check found.

    Args:
        seen: what the lab's state showed, or why it could not be read.
    """

    state: State
    seen: str


@dataclass(frozen=True)
class Said:
    """What the learner predicted or answered, and when; `value` is None when nothing was said yet."""

    value: Any = None
    t: float = 0.0


CheckFunction = Callable[["Lab", Said], Verdict]
Ask = Callable[["Lab", str], Any]  # `exercise`, as a notebook has it
Solution = Callable[["Lab", Ask], None]


@dataclass(frozen=True)
class Exercise:
    """One exercise; its id is the phase and a number.

    Args:
        task: in Markdown.
        hints: from general to concrete.
        check: reads the state of the lab, never the learner's text.
        answer: what it takes; "none" where all is done in the lab.
        solution: does it, as a reader would; its body is what *Show a solution* shows.
        start: brings about what is to be found out, where the reader is not to see it happen.
    """

    id: str
    kind: Literal["predict", "change", "find"]
    title: str
    task: str
    hints: Sequence[str]
    check: CheckFunction
    points: int = 1
    answer: Literal["any", "none", "number", "text"] = "any"
    solution: Solution | None = None
    start: Callable[[Lab], str] | None = None


@dataclass(frozen=True)
class Quiz:
    """A short question on a phase, asked two notebooks later."""

    phase: str
    question: str
    choices: Sequence[str]
    right: str  # a letter
    why: str

    @property
    def id(self) -> str:
        return f"quiz-{self.phase}"


class NotYet(Exception):
    """Raised inside a check where something that the task asks for is not there."""


class NotChecked(LabError):
    """Raised by a strict check that is not right."""


def right(seen: str) -> Verdict:
    return Verdict("right", seen)


def not_yet(seen: str) -> Verdict:
    return Verdict("not yet", seen)


def could_not(why: str) -> Verdict:
    return Verdict("could not check", why)


def judged(fits: bool, seen: str) -> Verdict:
    """A prediction that has met the truth: right, or told. It can't be made right by then predicting that."""
    return right(seen) if fits else Verdict("told", f"{seen} What did you not think of?")


def close(said: Said, measured: float, factor: float, unit: str) -> Verdict:
    """Compare a predicted figure with the measured one; right within a factor (2 = half to double)."""
    value = number(said, unit)
    fits = value > 0 and measured / factor <= value <= measured * factor
    seen = f"You predicted {value:g} {unit}, measured were {measured:.3g} {unit}".rstrip()
    off = "less than" if value < measured else "more than"
    return judged(fits, f"{seen}." if fits else f"{seen}: {off} a factor of {factor:g} allows.")


def figure(words: str) -> tuple[float, str] | None:
    """A number and the unit behind it ("3 s"); None where it is none."""
    found = re.fullmatch(r"\s*([-+]?[0-9.]+(?:e[-+]?[0-9]+)?)\s*([^\W\d]*|%)\s*", words)
    try:
        return (float(found[1]), found[2]) if found else None
    except ValueError:
        return None


def number(said: Said, unit: str = "") -> float:
    """What was said, as a number; its unit may stand behind it ("3 s"), and another one is refused."""
    if said.value is None:
        raise NotYet("Nothing was said yet: .predict(...) or .answer(...) comes first.")
    if (found := figure(str(said.value))) is None:
        in_unit = f", in {unit}" if unit else ""
        raise NotYet(f"{said.value!r} is not a number: say it in digits{in_unit}.")
    value, behind = found
    if behind and unit and not _same_unit(behind.lower(), unit.split()[0].lower()):
        raise NotYet(f"{said.value!r} is in another unit: say it in {unit}.")
    return value


def _same_unit(said: str, unit: str) -> bool:
    """Whether two words name one unit: "s" and "seconds", "sprint" and "sprints"."""
    plural = min(len(said), len(unit)) > 2 and said.rstrip("s") == unit.rstrip("s")
    return said == unit or plural or any({said, unit} <= names for names in SAME_UNIT)


def text(said: Said) -> str:
    """What was said, as a text."""
    if said.value is None or not str(said.value).strip():
        raise NotYet("Nothing was answered yet: .answer(...) comes first.")
    return str(said.value).strip()
