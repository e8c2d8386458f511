"""How exercises answer, hint, keep progress and are strict, on a lab with nothing but a store."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from devops_lab import exercises
from devops_lab.errors import AgentDown, BadInput
from devops_lab.exercises.base import (
    CheckFunction,
    Exercise,
    NotChecked,
    NotYet,
    Said,
    Verdict,
    close,
    not_yet,
    right,
)
from devops_lab.exercises.inlab import InLab
from devops_lab.lab import Lab
from devops_lab.model import Progress
from devops_lab.platform.records import decoded
from devops_lab.platform.store import Store


@pytest.fixture
def lab(tmp_path: Path) -> Lab:
    return cast(Lab, SimpleNamespace(store=Store(tmp_path / "lab.db")))


def made(lab: Lab, check: CheckFunction, strict: bool = False) -> InLab:
    hints = ("general", "closer", "concrete")
    return InLab(lab, Exercise("plan-9", "predict", "A title", "A task.", hints, check, 2), strict)


def test_progress_counts_attempts_and_hints(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    one = made(lab, lambda lab, said: not_yet("two of three"))
    for _ in range(4):
        one.hint()
    one.check()
    one.check()
    kept = lab.store.get(Progress, "plan-9")
    assert kept
    assert (kept.state, kept.attempts, kept.hints_used, kept.seen) == ("not yet", 2, 3, "two of three")
    said = capsys.readouterr().out
    assert said.index("general") < said.index("closer") < said.index("concrete")
    assert "not yet. two of three" in said


def test_a_record_of_an_earlier_version_still_loads() -> None:
    old = decoded('{"exercise": "plan-1", "state": "right", "seen": "s", "t": 1.0}', Progress, "a row")
    assert (old.state, old.attempts, old.first, old.tries, old.shown) == ("right", 1, "", 0, False)


def broken(lab: Lab, said: Said) -> Verdict:
    raise KeyError("x")


def no_agent(lab: Lab, said: Said) -> Verdict:
    raise AgentDown("The agent is gone.", next_step="Start it.")


def nothing_there(lab: Lab, said: Said) -> Verdict:
    raise NotYet("No branch.")


@pytest.mark.parametrize(
    ("check", "state", "seen"),
    [
        (broken, "could not check", "KeyError"),
        (no_agent, "could not check", "Start it."),
        (nothing_there, "not yet", "No branch."),
        (lambda lab, said: right("There."), "right", "There."),
    ],
)
def test_three_answers_are_told_apart(lab: Lab, check: CheckFunction, state: str, seen: str) -> None:
    found = made(lab, check).verdict()
    assert found.state == state
    assert seen in found.seen


def test_only_a_strict_check_raises(lab: Lab) -> None:
    made(lab, nothing_there).check()
    with pytest.raises(NotChecked, match="No branch"):
        made(lab, nothing_there, strict=True).check()


def test_a_prediction_is_kept_with_its_time_and_an_open_one_is_not(lab: Lab) -> None:
    one = made(lab, lambda lab, said: close(said, 10.0, 2, "s"))
    one.predict()
    one.predict(...)
    assert one.said() == Said()
    assert one.verdict().state == "not yet"
    one.predict("soon")
    assert "not a number" in one.verdict().seen
    for bad in (object(), float("nan"), 10**40):
        with pytest.raises(BadInput):
            one.predict(bad)
    for other in ("6 ms", "6 minutes"):
        one.predict(other)
        assert "another unit: say it in s" in one.verdict().seen
    one.predict(3)
    one.predict("6 s")
    assert one.verdict().state == "right"
    assert one.progress.prediction == "6 s"
    assert one.said().t > 0


def test_an_exercise_shows_title_task_points_and_state(lab: Lab) -> None:
    one = made(lab, nothing_there)
    assert "Exercise plan-9: A title** (predict, 2 points, open)" in one._repr_markdown_()
    one.verdict()
    assert "2 points, not yet)" in one._repr_markdown_()
    assert "A task." in repr(one)


def test_an_unknown_exercise_names_the_closest(lab: Lab) -> None:
    with pytest.raises(BadInput, match="plan-1"):
        exercises.exercise(lab, "plan_1")
    with pytest.raises(BadInput, match="plan"):
        exercises.quiz(lab, "plans")


@pytest.mark.parametrize("phase", list(exercises.quizzes()))
def test_a_quiz_tells_right_from_wrong(lab: Lab, phase: str, capsys: pytest.CaptureFixture[str]) -> None:
    quiz = exercises.quiz(lab, phase)
    letters = "abcdef"[: len(quiz.quiz.choices)]
    wrong = next(letter for letter in letters if letter != quiz.quiz.right)
    quiz.answer()
    quiz.answer(wrong)
    assert lab.store.all(Progress)[0].state == "not yet"
    assert quiz.quiz.why not in capsys.readouterr().out
    quiz.answer(quiz.quiz.right.upper())
    kept: Any = lab.store.all(Progress)[0]
    assert (kept.state, kept.attempts) == ("right", 2)
    assert quiz.quiz.why in capsys.readouterr().out
    with pytest.raises(BadInput):
        quiz.answer("z")
