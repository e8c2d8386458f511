"""One exercise, or one quiz, in one lab: shows itself, takes what the learner says, checks, helps along.

Every button of a card is one of these calls; where a page can't have buttons, its text names them.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

from devops_lab.errors import BadInput, LabError
from devops_lab.exercises import card
from devops_lab.exercises.base import (
    MOST,  # fmt: skip
    Exercise,
    NotChecked,
    NotYet,
    Quiz,
    Said,
    State,
    Verdict,
    could_not,
    figure,
    not_yet,
)
from devops_lab.exercises.solutions import commit_on
from devops_lab.model import Progress

if TYPE_CHECKING:
    from devops_lab.lab import Lab

MARKS: dict[str, str] = {"right": "✔", "not yet": "…", "could not check": "?", "told": "→", "skipped": "◇"}
WORDS = {"skipped": "done by the lab"}
FINAL = ("right", "told", "skipped")
ENOUGH = 2  # honest tries before a solution is shown
THINKING_SECONDS = 20.0  # a check that sees the same again counts as a try only after so long
Say = Callable[[str], None]


class _Asked:
    """What an exercise and a quiz share: whose they are, and what is kept of them."""

    def __init__(self, lab: Lab, name: str, say: Say) -> None:
        self._lab, self._store, self.id, self._say = lab, lab.store, name, say

    @property
    def progress(self) -> Progress:
        """What was done so far; attempts are 0 before the first check."""
        if not self._store.path.exists():
            raise LabError(
                f"The lab of {self.id} is gone: {self._store.path.parent} has no lab.db.",
                next_step="Run the notebook's first cells again: they open a lab.",
            )
        fresh = Progress(self.id, "not yet", "not checked yet", 0.0, attempts=0)
        return self._store.get(Progress, self.id) or fresh

    def _keep(self, **changes: Any) -> None:
        self._store.put(replace(self.progress, t=self._store.now(), **changes))
        card.renew(self._key)

    @property
    def _key(self) -> tuple[str, str]:
        return str(self._store.path), self.id

    def _repr_markdown_(self) -> str:
        return repr(self)


class InLab(_Asked):
    """One exercise in one lab.

    Args:
        strict: a check that is not right raises `NotChecked`.
        say: where its words go; a card shows them on itself.
    """

    def __init__(self, lab: Lab, exercise: Exercise, strict: bool = False, say: Say = print) -> None:
        super().__init__(lab, exercise.id, say)
        self._strict = strict
        self.exercise = exercise

    # ---- what the reader says
    def said(self) -> Said:
        """The last prediction or answer."""
        events = self._store.events(kind="exercise.said", subject=f"exercise:{self.id}", limit=1)
        return Said(events[-1].data["value"], events[-1].t) if events else Said()

    def answer(self, value: Any = None) -> None:
        """Keep a prediction (before the run) or an answer; `None` or `...` leaves the question open.

        Raises:
            BadInput: it takes no answer, or one of another type; what was kept before stays.
        """
        done, noun = self.progress, "prediction" if self.exercise.kind == "predict" else "answer"
        if self.exercise.answer == "none":
            raise BadInput(f"{self.id} takes no answer.", next_step="Do it in the lab, then .check().")
        if value is None or value is ...:
            self._say(f"{self.id}: put your {noun} between the brackets.")
            return
        if self.exercise.kind == "predict" and done.state in FINAL:
            self._say(f"{self.id}: your prediction {done.prediction} stands, for it has met the truth.")
            return
        plain = self._plain(value)
        self._event("exercise.said", f"{noun}: {plain}", value=plain)
        self._keep(prediction=str(plain))
        self._say(f"{self.id}: {noun} {plain!r} is kept. Next: .check()")

    predict = answer

    def _plain(self, value: Any) -> Any:
        """What can be kept, of the type that is asked for."""
        plain = sorted(value, key=str) if isinstance(value, (set, tuple)) else value
        plain = plain.item() if hasattr(plain, "item") else plain  # a figure of numpy's
        too_much = isinstance(plain, (int, float)) and not abs(plain) < MOST
        if too_much or not isinstance(plain, (str, int, float, list)):
            raise BadInput(f"{value!r} can't be kept.", expected="a number, a text, or a list of them")
        wanted = self.exercise.answer
        if wanted == "number" and (isinstance(plain, (bool, list)) or figure(str(plain)) is None):
            raise BadInput(f"{value!r} is not a number.", expected='such as 3, or "3 s"')
        if wanted == "text" and isinstance(plain, list):
            raise BadInput(f"{value!r} is a list.", expected="one text")
        return plain

    # ---- what the lab says
    def verdict(self) -> Verdict:
        """Look at the lab, keep the outcome as progress, and return it; what was solved once stays solved."""
        before, found = self.progress, self.look()
        kept = Verdict(before.state, before.seen) if before.state in FINAL else found
        again = found.seen == before.seen and self._store.now() - before.t < THINKING_SECONDS
        honest = found.state in ("not yet", "told") and not again
        self._keep(
            state=kept.state, seen=kept.seen, attempts=before.attempts + 1, tries=before.tries + honest,
            first=before.first or found.state,
        )  # fmt: skip
        self._event("exercise.checked", found.seen, state=found.state)
        if found.state == kept.state or (found.state == "right" and kept.state == "skipped"):
            return kept if kept.state == "skipped" else found
        return replace(kept, seen=f"{kept.seen} Now: {found.seen}")

    def look(self) -> Verdict:
        """What the check says now; nothing is kept of it."""
        try:
            return self.exercise.check(self._lab, self.said())
        except NotYet as problem:
            return not_yet(str(problem))
        except LabError as error:
            return could_not(" ".join(str(error).splitlines()))
        except Exception as error:  # a check must never break the notebook, and never count as right
            return could_not(f"The check itself failed: {type(error).__name__}: {error}")

    def check(self) -> None:
        """Check, and say what was seen.

        Raises:
            NotChecked: in strict mode, when it is not right.
        """
        found = self.verdict()
        if self._strict and found.state != "right":
            message = f"{self.id} is {found.state}: {found.seen}"
            raise NotChecked(message, next_step=self.exercise.task)
        self._say(f"{MARKS[found.state]} {self.id}: {WORDS.get(found.state, found.state)}. {found.seen}")

    # ---- help
    def hint(self) -> None:
        """Say the next hint, from general to concrete."""
        before, hints = self.progress, self.exercise.hints
        used = min(before.hints_used + 1, len(hints))
        self._keep(hints_used=used)
        self._say(f"Hint {used} of {len(hints)}: {hints[used - 1]}")

    def skip(self) -> None:
        """Let the lab do it, so that the way goes on; gives no points.

        Raises:
            LabError: the lab can't do it either now; says why, and the exercise stays open.
        """
        if self.progress.state in FINAL:
            self._say(f"{self.id} is {self.progress.state} already: there is nothing to skip.")
            return
        assert self.exercise.solution
        quiet = InLab(self._lab, self.exercise, say=lambda _: None)
        try:
            self.exercise.solution(self._lab, lambda *_: quiet)
            found = self.look()
        except LabError:
            raise
        except Exception as error:  # whatever state the lab is in, one sentence says it
            found = could_not(f"{type(error).__name__}: {error}")
        if found.state != "right":
            raise LabError(f"The lab can't do {self.id} now: {found.seen}", next_step="Try again later.")
        self._keep(state="skipped", seen=found.seen)
        self._event("exercise.skipped", found.seen)
        self._say(f"◇ {self.id}: done by the lab. {found.seen} .solution() shows how.")

    def solution(self) -> None:
        """Show a way to do it: the code that `skip` runs.

        Raises:
            BadInput: it is too early; two honest tries come first, or a skip.
        """
        done = self.progress
        if done.state not in FINAL and done.tries < ENOUGH:
            raise BadInput(
                f"It is too early for the solution of {self.id}: {done.tries} of {ENOUGH} honest tries.",
                next_step=f"Try and check again, ask for a .hint(), or .skip() {self.id}.",
            )
        self._keep(shown=True)
        self._say(source(self.exercise))

    def start(self) -> None:
        """Bring about what is to be found out.

        Raises:
            BadInput: there is nothing to start.
        """
        if not self.exercise.start:
            raise BadInput(f"{self.id} needs no start.", next_step="Its task says what to do.")
        told = self.exercise.start(self._lab)
        self._event("exercise.started", told)
        self._say(f"{self.id}: {told}")

    # ---- how it looks
    def _event(self, kind: Any, message: str, **data: Any) -> None:
        self._store.event("learning", kind, f"exercise:{self.id}", message, **data)

    def __repr__(self) -> str:
        takes = {"none": ""}.get(self.exercise.answer, "`.answer(…)` · ")
        start = "`.start()` · " if self.exercise.start else ""
        calls = f"{start}{takes}`.check()` · `.hint()` · `.skip()` · `.solution()`"
        return f'{self._title()}\n\n{self.exercise.task}\n\nThen `exercise(lab, "{self.id}")` and: {calls}'

    def _title(self) -> str:
        e, done = self.exercise, self.progress
        points = f"{e.points} point{'s' if e.points != 1 else ''}"
        opened = done.attempts or done.state in FINAL
        return f"**Exercise {e.id}: {e.title}** ({e.kind}, {points}, {done.state if opened else 'open'})"

    def _ipython_display_(self) -> None:
        card.show(self._key, self._face, self._buttons, "your answer" * (self.exercise.answer != "none"))

    def _face(self) -> tuple[str, str, str]:
        done = self.progress
        used = (
            f"checks: {done.attempts}, hints: {done.hints_used}" if done.attempts or done.hints_used else ""
        )
        said = f"you said {done.prediction}" if done.prediction else ""
        state = WORDS.get(done.state, done.state) if done.attempts or done.state in FINAL else "open"
        return state, f"{self._title()}\n\n{self.exercise.task}", ", ".join(filter(None, (said, used)))

    def _buttons(self, say: Say) -> dict[str, Callable[..., None]]:
        own = InLab(self._lab, self.exercise, say=say)
        return {
            **({"Start": own.start} if self.exercise.start else {}),
            **({"Answer": own.answer} if self.exercise.answer != "none" else {}),
            "Check": own.check, "Hint": own.hint, "Skip": own.skip, "Show a solution": own.solution,
        }  # fmt: skip


def source(exercise: Exercise) -> str:
    """The code of a solution, as a reader would type it into a cell of the notebook."""
    assert exercise.solution
    text = textwrap.dedent(inspect.getsource(exercise.solution).split("-> None:\n", 1)[1])
    if "commit_on(" in text:
        text = f"{inspect.getsource(commit_on)}\n\n{text}"
    if re.search(r"\bgit\(", text) and "import git\n" not in text:
        text = f"from devops_lab.platform.git import git\n\n{text}"
    return text.strip()


class QuizInLab(_Asked):
    """A quiz in one lab: shows itself and takes an answer."""

    def __init__(self, lab: Lab, quiz: Quiz, say: Say = print) -> None:
        super().__init__(lab, quiz.id, say)
        self.quiz = quiz

    def answer(self, letter: Any = None) -> None:
        """Answer with a letter; tells whether it is right, and why. `None` leaves the question open."""
        letters = "abcdef"[: len(self.quiz.choices)]
        if letter is None or letter is ...:
            self._say(f"{self.quiz.id}: put a letter between the brackets, {letters[0]} to {letters[-1]}.")
            return
        plain = str(letter).strip(" ().").lower()
        if len(plain) != 1 or plain not in letters:
            raise BadInput(f"There is no choice {letter!r}.", expected=", ".join(letters))
        fits, before = plain == self.quiz.right, self.progress
        state: State = "right" if fits else "not yet"
        kept: State = "right" if before.state == "right" else state
        self._keep(
            state=kept, seen=f"answered {plain}", attempts=before.attempts + 1, prediction=plain,
            first=before.first or state,
        )  # fmt: skip
        self._say(f"{MARKS[state]} {self.quiz.why if fits else 'Not that one. Think again, or look back.'}")

    def __repr__(self) -> str:
        lettered = zip("abcdef", self.quiz.choices, strict=False)
        question = f"**Two notebooks ago ({self.quiz.phase}).** {self.quiz.question}"
        return f"{question}\n\n" + "\n".join(f"- ({letter}) {text}" for letter, text in lettered)

    def _ipython_display_(self) -> None:
        card.show(self._key, self._face, self._buttons)

    def _face(self) -> tuple[str, str, str]:
        done = self.progress
        return done.state if done.attempts else "open", repr(self), done.seen if done.attempts else ""

    def _buttons(self, say: Say) -> dict[str, Callable[..., None]]:
        own = QuizInLab(self._lab, self.quiz, say)
        return {letter: partial(own.answer, letter) for letter in "abcdef"[: len(self.quiz.choices)]}
