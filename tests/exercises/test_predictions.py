"""Predictions: what is kept before the truth, what is refused, and where both are shown, live and static."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from devops_lab import views
from devops_lab.errors import BadInput
from devops_lab.exercises import predict, truth
from devops_lab.lab import Lab
from devops_lab.model import Prediction
from devops_lab.platform.store import Store
from devops_lab.views import screen

STEPS = ["test", "build", "release"]
RIGHT = ["build", "test", "release"]
ASKED: dict[str, dict[str, Any]] = {
    "size": {"question": "How large?", "unit": "kB"},
    "who": {"question": "Which version answers?", "choices": ["1.0.0", "1.1.0"]},
    "first": {"question": "Which runs first?", "order": STEPS},
}


class Page:
    """Stands where a notebook's page would: outputs in order, each with the place that it has by name."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.places: dict[str, Any] = {}

    def display(self, what: Any, *, display_id: str = "", update: bool = False, **_: Any) -> None:
        if not update:
            self.shown.append(what)
        if display_id:
            self.places[display_id] = what


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    import IPython.display

    found = Page()
    monkeypatch.setattr(IPython.display, "display", found.display)
    monkeypatch.setattr(screen, "_chosen", [])
    monkeypatch.delenv("DEVOPS_LAB_VIEW", raising=False)
    return found


@pytest.fixture
def lab(tmp_path: Path, page: Page) -> Lab:
    return opened(tmp_path)


def opened(folder: Path) -> Lab:
    return cast(Lab, SimpleNamespace(store=Store(folder / "lab.db")))


def ask(lab: Lab, name: str, **more: Any) -> None:
    predict(lab, name, **ASKED[name], **more)


def kept(lab: Lab, name: str) -> Prediction:
    found = lab.store.get(Prediction, name)
    assert found
    return found


def words(output: Any) -> str:
    return str(output["text/plain"])


def test_static_asks_nothing_and_names_the_call_without_a_figure(lab: Lab, page: Page) -> None:
    for name in ASKED:
        ask(lab, name)
        ask(lab, name, answer=...)
    size, _, who, _, first, _ = map(words, page.shown)
    assert size == "Predict: How large?\npredict(lab, 'size', …, answer=…)  # a number in kB"
    assert "one of '1.0.0', '1.1.0'" in who
    assert "['build', 'release', 'test']" in first  # from A to Z, whatever order the cell names them in
    assert {kept(lab, name).answer for name in ASKED} == {None}


@pytest.mark.parametrize(
    ("name", "answer", "measured", "told"),
    [
        ("size", "140 kB", 151.2, "You predicted 140 kB, it was 151 kB: 11.2 kB too low, a factor of 1.08."),
        ("size", "70 kilobytes", 7, "You predicted 70 kB, it was 7 kB: 63 kB too high, a factor of 10."),
        ("size", 0, 3, "You predicted 0 kB, it was 3 kB: 3 kB too low."),
        ("size", 12, 12.0, "You predicted 12 kB, it was 12 kB: exactly right."),
        ("who", "1.1.0", "1.1.0", "You predicted 1.1.0, it was 1.1.0: right."),
        ("who", "1.0.0", "2.0.0", "You predicted 1.0.0, it was 2.0.0: not what you thought."),
        ("first", RIGHT, RIGHT, "it was build, test, release: right."),
        ("first", "test, build, release", tuple(RIGHT), ": 2 of 3 pairs are in order."),
    ],
)
def test_guess_truth_and_how_far_stand_where_was_asked_and_here(
    lab: Lab, page: Page, name: str, answer: Any, measured: Any, told: str
) -> None:
    ask(lab, name, answer=answer)
    assert words(page.shown[-1]).endswith("; the run will tell.")
    truth(lab, name, measured)
    assert words(page.shown[-1]).endswith(told)
    assert page.places[f"prediction-{name}"] == page.shown[-1]
    assert ASKED[name]["question"] in page.shown[-1]["text/html"]


@pytest.mark.parametrize(
    ("name", "bad", "told"),
    [
        ("size", "six", "'six' is not a number: say it in digits, in kB."),
        ("size", "30 seconds", "'30 seconds' is in another unit: say it in kB."),
        ("size", float("nan"), "'nan' is not a number"),
        ("size", 1e300, "too large"),
        ("size", True, "'True' is not a number"),
        ("who", "1.2.0", "'1.2.0' is none of the choices: 1.0.0, 1.1.0."),
        ("first", ["build", "build", "test"], "is no order of these, each once: build, release, test."),
        ("first", 3, "is no order of these"),
    ],
)
def test_a_bad_answer_is_told_in_one_sentence_and_the_good_one_stays(
    lab: Lab, page: Page, name: str, bad: Any, told: str
) -> None:
    good = {"size": 140.0, "who": "1.0.0", "first": STEPS}[name]
    ask(lab, name, answer=good)
    with pytest.raises(BadInput) as refused:
        ask(lab, name, answer=bad)
    assert told in str(refused.value)
    assert "\n" not in str(refused.value)
    assert kept(lab, name).answer == good


@pytest.mark.parametrize(("unit", "said"), [("s", "30 seconds"), ("%", "30 %"), ("sprints", "30 sprint")])
def test_another_spelling_of_the_unit_is_understood(lab: Lab, unit: str, said: str) -> None:
    predict(lab, "x", "How long?", unit=unit, answer=said)
    assert kept(lab, "x").answer == 30


def test_the_last_answer_before_the_truth_stands_in_every_later_kernel(
    lab: Lab, page: Page, tmp_path: Path
) -> None:
    ask(lab, "size", answer=900)
    ask(lab, "size", answer=140)
    assert "Kept instead of 900 kB." in words(page.shown[-1])
    truth(lab, "size", 151.2)
    later = opened(tmp_path)
    for answer, note in (
        (151, "The first prediction stands"),
        ("six", "The first prediction stands"),
        (140, ""),
    ):
        ask(later, "size", answer=answer)
        assert "You predicted 140 kB, it was 151 kB" in words(page.shown[-1])
        assert words(page.shown[-1]).count("The first prediction stands") == bool(note)
    truth(later, "size", 160)
    assert "it was 151 kB: 11.2 kB too low, a factor of 1.08. This time: 160 kB." in words(page.shown[-1])
    views.mode("live")
    ask(later, "size")
    assert "You predicted 140 kB, it was 151 kB" in words(page.shown[-1])  # text, no field to fill in
    assert (kept(later, "size").answer, kept(later, "size").truth) == (140, 151.2)


def test_a_truth_without_a_guess_is_shown_and_none_is_made_up(
    lab: Lab, page: Page, capsys: pytest.CaptureFixture[str]
) -> None:
    truth(lab, "size", 151.2)
    assert "predict(lab, 'size', …) comes first" in capsys.readouterr().out
    ask(lab, "size")
    truth(lab, "size", None)  # not measured on this machine
    assert "could not be measured here" in words(page.shown[-1])
    ask(lab, "size")
    truth(lab, "size", 151.2)
    assert "It was 151 kB. You kept no prediction" in words(page.places["prediction-size"])
    ask(lab, "size", answer=151)
    assert "Too late to predict" in words(page.shown[-1])
    assert kept(lab, "size").answer is None
    assert "Nothing yet" in views.calibration(lab.store).alt


def test_a_question_that_was_changed_drops_an_answer_of_another_kind(lab: Lab) -> None:
    predict(lab, "x", "How long?", unit="s", answer=3)
    predict(lab, "x", "How long does it take?", unit="s")
    assert (kept(lab, "x").question, kept(lab, "x").answer) == ("How long does it take?", 3)
    predict(lab, "x", "How long?", unit="ms")
    assert kept(lab, "x").answer is None


# ---- live
def control(lab: Lab, page: Page, name: str) -> tuple[Any, Any, Any]:
    """The note, the field and the button of what is asked."""
    views.mode("live")
    ask(lab, name)
    note, row = page.shown[-1].children
    field, button = row.children
    return note, field, button


@pytest.mark.parametrize(
    ("name", "value", "answer"),
    [("size", "140", 140), ("who", "1.1.0", "1.1.0"), ("first", ", ".join(STEPS), STEPS)],
)
def test_a_control_keeps_what_is_filled_in(lab: Lab, page: Page, name: str, value: str, answer: Any) -> None:
    note, field, button = control(lab, page, name)
    assert field.description  # the label that a screen reader reads
    button.click()
    assert "Say your guess" in note.value
    assert kept(lab, name).answer is None
    field.value = value
    assert "Not kept yet: press Keep." in note.value
    button.click()
    assert "the run will tell." in note.value
    button.click()
    assert "That is kept already." in note.value
    assert kept(lab, name).answer == answer
    _, again, _ = control(lab, page, name)
    assert again.value == value


def test_a_control_tells_what_is_wrong_and_keeps_the_good_answer(lab: Lab, page: Page) -> None:
    note, field, button = control(lab, page, "size")
    for value in ("140", "six", "30 seconds"):
        field.value = value
        button.click()
    assert "&#x27;30 seconds&#x27; is in another unit: say it in kB." in note.value
    assert "You predicted 140 kB" in note.value
    assert kept(lab, "size").answer == 140


def test_the_truth_takes_the_place_of_the_control(lab: Lab, page: Page) -> None:
    note, field, button = control(lab, page, "size")
    box = page.shown[-1]
    field.value = "140"
    button.click()
    truth(lab, "size", 151.2)
    assert page.places["prediction-size"] == page.shown[-1]
    assert [child.value for child in box.children] == [page.shown[-1]["text/html"]]  # a page loaded anew
    field.value = "151"
    button.click()
    assert "The first prediction stands" in note.value
    assert kept(lab, "size").answer == 140


def test_a_control_that_can_not_keep_says_so(lab: Lab, page: Page, tmp_path: Path) -> None:
    note, field, button = control(lab, page, "size")
    lab.store.close()
    for file in tmp_path.glob("lab.db*"):
        file.unlink()
    field.value = "140"
    button.click()
    assert "lab.db" in note.value
