"""A card, clicked as a browser would: its buttons are the plain calls, and bad input is told at once."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from devops_lab.errors import LabError
from devops_lab.exercises import card, quizzes
from devops_lab.exercises.base import Exercise, Said, Verdict, close, not_yet, right
from devops_lab.exercises.inlab import InLab, QuizInLab
from devops_lab.lab import Lab
from devops_lab.platform.store import Store
from devops_lab.views import screen
from tests.patience import until

DOOR = threading.Event()  # a check that waits for it is a slow one


def do_it(lab: Lab, exercise: Any) -> None:
    lab.store.event("plan", "plan.added", "item:x")


def looks(lab: Lab, said: Said) -> Verdict:
    DOOR.wait(60)
    done = lab.store.events(kind="plan.added")
    return right("It is there.") if done else not_yet(f"Nothing is there, said {said.value}.")


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    (tmp_path / "lab").mkdir()
    store = Store(tmp_path / "lab" / "lab.db")
    DOOR.set()
    yield cast(Lab, SimpleNamespace(store=store))
    store.close()


@pytest.fixture
def shown(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> card.Card:
    """A card as a person sees it."""
    monkeypatch.setattr(card, "live", lambda: True)
    asked(lab)._ipython_display_()
    return card._newest[asked(lab)._key]


def asked(lab: Lab) -> InLab:
    hints = ("general", "closer", "concrete")
    one = Exercise("plan-9", "find", "A title", "A `task`.", hints, looks, 2, "number", do_it)
    return InLab(lab, one)


def clicked(shown: card.Card, name: str) -> str:
    shown.buttons[name].click()
    until(lambda: not shown._doing, "an answer")
    return str(shown._said.value)


def test_a_card_says_what_the_plain_calls_say(lab: Lab, shown: card.Card) -> None:
    assert list(shown.buttons) == ["Answer", "Check", "Hint", "Skip", "Show a solution"]
    assert "<code>task</code>" in shown._head.value
    assert "open" in shown._head.value
    shown.field.value = "5"
    assert "&#x27;5&#x27; is kept" in clicked(shown, "Answer")
    assert "said 5" in clicked(shown, "Check")
    assert "not yet" in shown._head.value
    assert "Hint 1 of 3: general" in clicked(shown, "Hint")
    do_it(lab, None)
    asked(lab).check()  # in another cell
    assert "✔" in shown._head.value
    kept = asked(lab).progress
    assert (kept.state, kept.first, kept.attempts, kept.hints_used) == ("right", "not yet", 2, 1)


def test_bad_input_is_told_in_one_sentence_and_nothing_is_lost(lab: Lab, shown: card.Card) -> None:
    asked(lab).answer(4)
    for value, told in (("soon", "is not a number"), ("", "is not a number")):
        shown.field.value = value
        assert told in (said := clicked(shown, "Answer"))
        assert "\n" not in said
    assert asked(lab).said().value == 4
    assert "too early" in clicked(shown, "Show a solution")
    assert not asked(lab).progress.shown


def test_two_honest_tries_open_the_solution_and_two_quick_ones_do_not(lab: Lab, shown: card.Card) -> None:
    for _ in range(3):
        clicked(shown, "Check")
    assert "1 of 2 honest tries" in clicked(shown, "Show a solution")
    asked(lab).answer(5)
    clicked(shown, "Check")
    assert "lab.store.event(" in clicked(shown, "Show a solution")
    assert asked(lab).progress.shown


def test_a_button_pressed_twice_does_its_work_once(lab: Lab, shown: card.Card) -> None:
    DOOR.clear()
    shown.click("Check")
    assert all(button.disabled for button in shown.buttons.values())
    shown.click("Check")  # was under way before the first was seen
    assert "Check is still at work" in shown._said.value
    DOOR.set()
    until(lambda: not shown._doing, "an answer")
    assert asked(lab).progress.attempts == 1
    assert not any(button.disabled for button in shown.buttons.values())


def test_what_the_lab_did_is_told_apart_and_stays(lab: Lab, shown: card.Card) -> None:
    assert "done by the lab" in clicked(shown, "Skip")
    assert asked(lab).progress.state == "skipped"
    assert "done by the lab" in shown._head.value
    assert "done by the lab" in clicked(shown, "Check")
    assert "nothing to skip" in clicked(shown, "Skip")
    assert "lab.store.event(" in clicked(shown, "Show a solution")


def test_a_card_in_a_lab_that_is_gone_says_so(lab: Lab, shown: card.Card) -> None:
    shutil.rmtree(lab.store.path.parent)
    for name in ("Check", "Hint", "Skip", "Show a solution"):
        assert "The lab of plan-9 is gone" in clicked(shown, name)
    with pytest.raises(LabError, match="is gone"):
        asked(lab).check()


def test_where_no_person_looks_the_text_names_the_calls(lab: Lab) -> None:
    assert screen.mode() == "static"
    with pytest.raises(NotImplementedError):
        asked(lab)._ipython_display_()
    for call in ("answer(…)", "check()", "hint()", "skip()", "solution()"):
        assert call in asked(lab)._repr_markdown_()


def test_a_quiz_is_answered_by_a_click(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(card, "live", lambda: True)
    one = QuizInLab(lab, quizzes()["plan"])
    one._ipython_display_()
    shown = card._newest[one._key]
    for letter, state in (("c", "not yet"), ("a", "right")):
        clicked(shown, letter)
        assert one.progress.state == state
    assert one.progress.first == "not yet"
    assert one.quiz.why.split()[0] in shown._said.value


def test_a_prediction_can_be_made_once(lab: Lab) -> None:
    one = Exercise(
        "plan-8", "predict", "T", "t", ("a",), lambda _, said: close(said, 10.0, 2, "s"), 1, "number"
    )
    InLab(lab, one).predict("900 s")
    assert InLab(lab, one).verdict().state == "told"
    InLab(lab, one).predict(10)
    assert InLab(lab, one).said().value == "900 s"
