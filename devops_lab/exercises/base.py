"""What an exercise is: its task, its hints, and a check that looks at the state of the lab."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from devops_lab.errors import BadInput, LabError
from devops_lab.model import Progress

if TYPE_CHECKING:
    from devops_lab.lab import Lab

State = Literal["right", "not yet", "could not check"]
MARKS: dict[str, str] = {"right": "✔", "not yet": "…", "could not check": "?"}


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


Check = Callable[["Lab", Said], Verdict]


@dataclass(frozen=True)
class Exercise:
    """One exercise; its id is the phase and a number.

    Args:
        task: in Markdown.
        hints: from general to concrete.
        check: reads the state of the lab, never the learner's text.
    """

    id: str
    kind: Literal["predict", "change", "find"]
    title: str
    task: str
    hints: Sequence[str]
    check: Check
    points: int = 1

    @property
    def phase(self) -> str:
        return self.id.partition("-")[0]


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


def close(said: Said, measured: float, factor: float, unit: str) -> Verdict:
    """Compare a predicted figure with the measured one; right within a factor (2 = half to double)."""
    value = number(said)
    seen = f"You predicted {value:g} {unit}, measured were {measured:.3g} {unit}".rstrip()
    if value > 0 and measured / factor <= value <= measured * factor:
        return right(f"{seen}.")
    return not_yet(f"{seen}: not within a factor of {factor:g}. What is missing? Predict again.")


def number(said: Said) -> float:
    """What was said, as a number."""
    if said.value is None:
        raise NotYet("Nothing was predicted yet: .predict(...) comes first.")
    try:
        return float(said.value)
    except (TypeError, ValueError):
        raise NotYet(f"{said.value!r} is not a number.") from None


def text(said: Said) -> str:
    """What was said, as a text."""
    if said.value is None or not str(said.value).strip():
        raise NotYet("Nothing was answered yet: .answer(...) comes first.")
    return str(said.value).strip()


class Shown:
    """Shows itself as Markdown, on the page and in a terminal."""

    def show(self) -> None:
        """Display it on the page."""
        from IPython.display import Markdown, display

        display(Markdown(repr(self)))  # type: ignore[no-untyped-call]

    def _repr_markdown_(self) -> str:
        return repr(self)


class InLab(Shown):
    """One exercise in one lab: shows itself, takes what the learner says, checks, gives hints.

    Args:
        strict: a check that is not right raises `NotChecked`.
    """

    def __init__(self, lab: Lab, exercise: Exercise, strict: bool = False) -> None:
        self._store = lab.store
        self._lab = lab
        self._strict = strict
        self.exercise = exercise

    @property
    def progress(self) -> Progress:
        """What was done so far; attempts are 0 before the first check."""
        fresh = Progress(self.exercise.id, "not yet", "not checked yet", 0.0, attempts=0)
        return self._store.get(Progress, self.exercise.id) or fresh

    def said(self) -> Said:
        """The last prediction or answer."""
        events = self._store.events(kind="exercise.said", subject=f"exercise:{self.exercise.id}", limit=1)
        return Said(events[-1].data["value"], events[-1].t) if events else Said()

    def predict(self, value: Any = None) -> None:
        """Keep a prediction (before the run) or an answer; `None` or `...` leaves the question open."""
        if value is None or value is ...:
            print(f"{self.exercise.id}: put your {self._noun()} between the brackets.")
            return
        plain = sorted(value) if isinstance(value, (set, tuple)) else value
        if not isinstance(plain, (str, int, float, list)):
            raise BadInput(f"{value!r} can't be kept.", expected="a number, a text, or a list of them")
        subject = f"exercise:{self.exercise.id}"
        self._store.event("learning", "exercise.said", subject, f"{self._noun()}: {plain}", value=plain)
        self._store.put(replace(self.progress, prediction=str(plain), t=time.time()))
        print(f"{self.exercise.id}: {self._noun()} {plain!r} is kept.")

    answer = predict

    def verdict(self) -> Verdict:
        """Look at the lab, keep the outcome as progress, and return it."""
        try:
            found = self.exercise.check(self._lab, self.said())
        except NotYet as problem:
            found = not_yet(str(problem))
        except LabError as error:
            found = could_not(str(error))
        except Exception as error:  # a check must never break the notebook, and never count as right
            found = could_not(f"The check itself failed: {type(error).__name__}: {error}")
        before = self.progress
        self._store.put(
            replace(before, state=found.state, seen=found.seen, t=time.time(), attempts=before.attempts + 1)
        )
        subject = f"exercise:{self.exercise.id}"
        self._store.event("learning", "exercise.checked", subject, found.seen, state=found.state)
        return found

    def check(self) -> None:
        """Check, and print the answer.

        Raises:
            NotChecked: in strict mode, when it is not right.
        """
        found = self.verdict()
        if self._strict and found.state != "right":
            raise NotChecked(
                f"{self.exercise.id} is {found.state}: {found.seen}", next_step=self.exercise.task
            )
        print(f"{MARKS[found.state]} {self.exercise.id}: {found.state}. {found.seen}")

    def hint(self) -> None:
        """Print the next hint, from general to concrete."""
        before, hints = self.progress, self.exercise.hints
        used = min(before.hints_used + 1, len(hints))
        self._store.put(replace(before, hints_used=used, t=time.time()))
        print(f"Hint {used} of {len(hints)}: {hints[used - 1]}")

    def _noun(self) -> str:
        return "prediction" if self.exercise.kind == "predict" else "answer"

    def __repr__(self) -> str:
        e, done = self.exercise, self.progress
        points = f"{e.points} point{'s' if e.points != 1 else ''}"
        state = done.state if done.attempts else "open"
        return f"**Exercise {e.id}: {e.title}** ({e.kind}, {points}, {state})\n\n{e.task}"


class QuizInLab(Shown):
    """A quiz in one lab: shows itself and takes an answer."""

    def __init__(self, lab: Lab, quiz: Quiz) -> None:
        self._store = lab.store
        self.quiz = quiz

    def answer(self, letter: str | None = None) -> None:
        """Answer with a letter; tells whether it is right, and why. `None` leaves the question open."""
        letters = "abcdef"[: len(self.quiz.choices)]
        if letter is None:
            print(f"{self.quiz.id}: put a letter between the brackets, {letters[0]} to {letters[-1]}.")
            return
        if len(letter) != 1 or letter.lower() not in letters:
            raise BadInput(f"There is no choice {letter!r}.", expected=", ".join(letters))
        fits = letter.lower() == self.quiz.right
        before = self._store.get(Progress, self.quiz.id)
        attempts = before.attempts + 1 if before else 1
        state: State = "right" if fits else "not yet"
        seen = f"answered {letter.lower()}"
        self._store.put(Progress(self.quiz.id, state, seen, time.time(), attempts, prediction=letter.lower()))
        print(f"{MARKS[state]} {self.quiz.why if fits else 'Not that one. Think again, or look back.'}")

    def __repr__(self) -> str:
        lettered = zip("abcdef", self.quiz.choices, strict=False)
        choices = "\n".join(f"- ({letter}) {text}" for letter, text in lettered)
        return f"**Two notebooks ago ({self.quiz.phase}).** {self.quiz.question}\n\n{choices}"
