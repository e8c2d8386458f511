"""The editions for nbgrader: made from the one source, changed by a teacher, and run by the real nbgrader."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import nbformat
import pytest

from devops_lab.errors import BadInput, LabError
from devops_lab.exercises import STRICT, catalogue, exercise
from devops_lab.exercises.base import NotChecked
from devops_lab.lab import Lab
from devops_lab.platform.store import Store
from devops_lab.workbook import options
from devops_lab.workbook.classroom import autograde, editions
from devops_lab.workbook.classroom.editions import Settings, build, edition, read_settings
from tests.classroom import nbgrader

OWN = """
tasks:
  - id: own-1
    notebook: plan
    title: How many?
    task: Bind the number of items in the backlog to `items`.
    hints: [Count `lab.plan.backlog()`.]
    points: 4
    check: |
      assert items == len(lab.plan.backlog()), f"there are other than {items} items"
    solution: items = len(lab.plan.backlog())
"""
SMALL = f"""
assignments:
  - name: week-1
    notebooks: [plan]
    due: 2026-12-01 18:00+01:00
leave_out: [plan-1, plan-3, plan-4, plan-6]
points: {{plan-5: 7}}
{OWN}"""


def settings(tmp_path: Path, text: str, *leave_out: str) -> Settings:
    (tmp_path / "settings.yaml").write_text(text, encoding="utf-8")
    return read_settings(tmp_path / "settings.yaml", leave_out)


def told(cell: dict[str, Any]) -> dict[str, Any]:
    return cast("dict[str, Any]", cell["metadata"].get("nbgrader", {}))


def ids(notebook: dict[str, Any]) -> list[str]:
    return [told(cell)["grade_id"] for cell in notebook["cells"] if told(cell)]


@pytest.fixture
def no_nbgrader(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)


# ---- what is in them
def test_every_exercise_is_there_with_its_solution_and_its_strict_check() -> None:
    found: dict[str, dict[str, Any]] = {}
    for path in options.find_notebooks():
        notebook = edition(path, Settings())
        nbformat.validate(nbformat.from_dict(notebook))
        assert [cell["id"] for cell in notebook["cells"] if cell.get("outputs")] == []
        named = ids(notebook)
        assert len(set(named)) == len(named)
        assert sum(name.startswith("start-") for name in named) == 2
        found |= {told(cell)["grade_id"]: cell for cell in notebook["cells"] if told(cell)}
    for name, each in catalogue().items():
        task, turn, check = (found[f"{name}-{part}"] for part in ("task", "turn", "check"))
        assert told(task) | {"grade_id": ""} == told(turn) | {
            "grade_id": "",
            "locked": True,
            "solution": False,
        }
        assert told(turn)["solution"]
        assert "### BEGIN SOLUTION\n" in turn["source"]
        assert (told(check)["grade"], told(check)["points"]) == (True, each.points)
        hidden = re.search(r"### BEGIN HIDDEN TESTS\n(.*)### END HIDDEN TESTS", check["source"], re.DOTALL)
        assert hidden
        assert f'exercise(lab, "{name}", strict=True).check()' in hidden[1]


def test_a_strict_check_raises_whatever_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = cast(Lab, SimpleNamespace(store=Store(tmp_path / "lab.db"), root=tmp_path))
    monkeypatch.delenv(STRICT, raising=False)
    with pytest.raises(NotChecked, match="plan-1 is not yet"):
        exercise(lab, "plan-1", strict=True).check()
    monkeypatch.setenv(STRICT, "1")
    exercise(lab, "plan-1", strict=False).check()
    assert "plan-1: not yet" in capsys.readouterr().out


def test_what_a_teacher_changes(tmp_path: Path) -> None:
    changed = settings(tmp_path, SMALL, "plan-2")
    notebook = edition(options.find_notebooks()[1], changed, changed.tasks)
    nbformat.validate(nbformat.from_dict(notebook))
    assert ids(notebook)[2:] == ["plan-5-task", "plan-5-turn", "plan-5-check", "own-1-turn", "own-1-check"]
    cells = {cell["id"]: cell for cell in notebook["cells"]}
    assert cells["plan-5-points"]["source"] == "*plan-5* counts 7 points here."
    points = [told(cell)["points"] for cell in notebook["cells"] if told(cell).get("grade")]
    assert points == [7, 4]
    assert "assert items ==" in cells["own-1-check"]["source"].partition("BEGIN HIDDEN TESTS")[2]
    places = ["".join(cell["source"])[:11] for cell in notebook["cells"] if cell["cell_type"] == "markdown"]
    assert places.index("**Exercise ") == places.index("## Clean up") - 1


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("leave_out: [plan-99]", "plan-99"), ("points: {plam-1: 3}", "plan-1"),
        ("points: {plan-1: -1}", ">= 0"),
        ("point: {plan-1: 3}", "unknown field `point`"), ("- plan-1", "no settings"), (": :", "no settings"),
        ("assignments: [{name: ../up}]", "regex"), ("assignments: [{due: soon}]", "no date"),
        ("assignments: [{name: a}, {name: a}]", "one name"),
        (OWN.replace("own-1", "plan-1"), "more than one"),
        (OWN.replace("    title: How many?\n", ""), "missing required field `title`"),
    ],
)  # fmt: skip
def test_settings_that_can_not_be_used_are_named(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput) as refused:
        settings(tmp_path, text)
    assert words in str(refused.value)


def test_no_settings_and_an_empty_file_change_nothing(tmp_path: Path) -> None:
    assert settings(tmp_path, "") == read_settings(None) == Settings(leave_out=[])
    with pytest.raises(BadInput, match="can't be read"):
        read_settings(tmp_path / "none.yaml")


# ---- where they go
def test_an_edition_is_made_anew_and_what_was_handed_in_stays(tmp_path: Path, no_nbgrader: None) -> None:
    out, small = tmp_path / "course", settings(tmp_path, SMALL)
    assert "nbgrader is not installed" in build(out, small)[1]
    kept = {
        out / "submitted/ada/week-1/x.ipynb": "{}",
        out / editions.CONFIG: editions.CONFIGURATION + "c.X = 1\n",
    }
    for path, text in kept.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (out / "source/week-1/99-old.ipynb").write_text("{}")
    build(out, small)
    assert {path: path.read_text() for path in kept} == kept
    assert [path.name for path in (out / "source/week-1").iterdir()] == ["01-plan.ipynb"]


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path, no_nbgrader: None) -> None:
    (tmp_path / "x").write_text("mine")
    for folder, words in ((tmp_path, "something else"), (tmp_path / "x", "can't be written")):
        with pytest.raises(BadInput, match=words):
            build(folder, Settings())
    (tmp_path / editions.CONFIG).write_text("c = get_config()\n")
    with pytest.raises(BadInput, match="all get its marks"):
        build(tmp_path, Settings())
    assert {path.name for path in tmp_path.iterdir()} == {"x", editions.CONFIG}
    with pytest.raises(BadInput, match="plam"):
        build(tmp_path / "new", settings(tmp_path, OWN.replace("notebook: plan", "notebook: plam")))
    assert not (tmp_path / "new").exists()


# ---- around a hand-in
def test_each_hand_in_has_a_lab_of_its_own_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setenv(autograde.VARIABLE, "somewhere")
    places = []
    for _ in range(2):
        autograde.begin(
            assignment="a", student="*", notebooks=[]
        )  # nbgrader tells no student where it runs all
        places.append(Path(os.environ[autograde.VARIABLE]))
        Lab.open(places[-1]).close()
    assert [place.exists() for place in places] == [False, True]
    autograde.end(assignment="a", student="*", notebooks=[])
    assert (list(tmp_path.iterdir()), os.environ[autograde.VARIABLE]) == ([], os.devnull)


def test_where_a_lab_can_not_be_removed_nobody_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """nbgrader goes on when a hook fails."""

    def refuse(root: Path) -> None:
        raise LabError("it is held")

    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    autograde.begin()
    Lab.open(os.environ[autograde.VARIABLE]).close()
    with monkeypatch.context() as held:
        held.setattr("devops_lab.lab.clean", refuse)
        with pytest.raises(LabError, match="held"):
            autograde.begin()
    assert os.environ[autograde.VARIABLE] == os.devnull
    with pytest.raises(LabError):
        Lab.open(None)


# ---- the real one
@pytest.mark.nbgrader
@pytest.mark.notebook
@pytest.mark.timeout(900)
def test_nbgrader_gives_the_right_one_its_points_and_the_untouched_one_none(tmp_path: Path) -> None:
    course = tmp_path / "course"
    settings(tmp_path, SMALL)
    call = ("devops_lab", "classroom", "build", "--out", str(course), "--settings", "settings.yaml")
    assert "due 2026-12-01 17:00:00 UTC" in nbgrader.call(tmp_path, *call)
    released = (course / "release/week-1/01-plan.ipynb").read_text("utf-8")
    assert "SOLUTION" not in released
    assert "HIDDEN" not in released
    for name, edition_ in (("right", "source"), ("untouched", "release")):
        (course / "submitted" / name).mkdir(parents=True)
        shutil.copytree(course / edition_ / "week-1", course / "submitted" / name / "week-1")
    said = nbgrader.call(course, "nbgrader", "validate", "release/week-1/01-plan.ipynb")
    assert "own-1 is checked here" in said or "Success" in said, said
    nbgrader.call(course, "nbgrader", "autograde", "week-1")
    nbgrader.call(course, "nbgrader", "generate_feedback", "week-1")
    assert marks(course) == {"right": [2, 4, 7], "untouched": [0, 0, 0]}
    for name, words in (("right", "plan-2: right"), ("untouched", "plan-2 is not yet")):
        assert words in (course / f"feedback/{name}/week-1/01-plan.html").read_text("utf-8")


def marks(course: Path) -> dict[str, list[float]]:
    """What each learner got in the exercises, by nbgrader's own record."""
    query = """select a.student_id, g.auto_score from grade g
        join submitted_notebook n on g.notebook_id = n.id
        join submitted_assignment a on n.assignment_id = a.id order by 1, 2"""
    found: dict[str, list[float]] = {}
    with closing(sqlite3.connect(course / "gradebook.db")) as book:
        for student, score in book.execute(query):
            found.setdefault(student, []).append(score)
    return found


def test_the_settings_in_the_readme_are_some(tmp_path: Path) -> None:
    lines = (nbgrader.ROOT / "README.md").read_text("utf-8").splitlines()
    first = lines.index("    assignments:")
    block = [line[4:] for line in lines[first : lines.index("", first)]]
    found = settings(tmp_path, "\n".join(block))
    assert (found.assignments[0].notebooks, found.leave_out, found.points) == (
        ["plan", "code"],
        ["plan-3"],
        {"plan-2": 5},
    )
    (own,) = found.tasks
    assert not {own.id} & catalogue().keys()
    compile(own.check, own.id, "exec")
