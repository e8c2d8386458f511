"""The teacher's edition of the notebooks in nbgrader's format, which makes the students' edition from it.

The one source is the workbook: a notebook's exercises stand there as three cells (task, the reader's, check),
and their checks and solutions in the catalogue. What a teacher changes stands in a file of settings.
"""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec

from devops_lab.errors import BadInput, BuildFailed
from devops_lab.exercises import catalogue
from devops_lab.exercises.inlab import source as solution_of
from devops_lab.platform import commands, variables
from devops_lab.platform.settings import choice
from devops_lab.workbook import copies, options
from devops_lab.workbook.copies import Json

CONFIG = "nbgrader_config.py"
CONFIGURATION = """# Made by `devops-lab classroom build`; yours to change.
c = get_config()
c.CourseDirectory.course_id = "devops-lab"
c.ClearSolutions.code_stub = {"python": "# Your code goes here."}
c.Execute.timeout = 300  # seconds that a cell may take; some deploy under load
# Each hand-in runs in a lab of its own. Without these lines all get the marks of one and the same lab.
c.Autograde.pre_convert_hook = "devops_lab.workbook.classroom.autograde.begin"
c.Autograde.post_convert_hook = "devops_lab.workbook.classroom.autograde.end"
"""
HOOK = "devops_lab.workbook.classroom.autograde.begin"
CARD = re.compile(r'exercise\(lab, "([\w-]+)"\)(\.check\(\))?')
TURN = "# Your turn"
Name = Annotated[str, msgspec.Meta(pattern="^[a-z0-9]+(-[a-z0-9]+)*$")]
Points = Annotated[float, msgspec.Meta(ge=0)]


class Task(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A task of the teacher's own, in the form of the workbook's exercises.

    Args:
        notebook: where it stands, behind that one's exercises.
        check, solution: code for a cell; the check raises unless the task is done.
    """

    id: Name
    notebook: str
    title: str
    task: str
    check: str
    solution: str
    kind: str = "change"
    hints: Sequence[str] = ()
    points: Points = 1


class Assignment(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is handed in together; without names, all notebooks.

    Args:
        due: a date, with or without a time; of this machine's time zone where it names none.
    """

    name: Name = "devops-lab"
    notebooks: Sequence[str] = ()
    due: Any = None


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a teacher changes."""

    assignments: Sequence[Assignment] = (Assignment(),)
    leave_out: Sequence[str] = ()
    points: dict[str, Points] = {}
    tasks: Sequence[Task] = ()


def read_settings(file: Path | None, leave_out: Sequence[str] = ()) -> Settings:
    """The settings of a file, and what is left out besides.

    Raises:
        BadInput: the file can't be read, or names what is not there.
    """
    found = Settings()
    if file:
        try:
            found = msgspec.yaml.decode(file.read_bytes() or b"{}", type=Settings)
        except OSError as error:
            raise BadInput(f"{file} can't be read: {error.strerror}.", expected="a YAML file") from error
        except (msgspec.MsgspecError, ValueError) as error:
            expected = ", ".join(Settings.__struct_fields__)
            raise BadInput(f"{file} holds no settings: {error}", expected=f"YAML with {expected}") from error
    found = msgspec.structs.replace(found, leave_out=[*found.leave_out, *leave_out])
    own = [task.id for task in found.tasks]
    names = [each.name for each in found.assignments]
    for name in (*found.leave_out, *found.points):
        choice("exercise", name, tuple(catalogue()))
    if clash := sorted({name for name in own if own.count(name) > 1 or name in catalogue()}):
        raise BadInput(f"There is more than one exercise {', '.join(clash)}.", expected="ids of their own")
    if len(set(names)) < len(names):
        raise BadInput(f"Two assignments have one name: {', '.join(names)}.", expected="a name for each")
    for each in found.assignments:
        _due(each)
    return found


def _due(assignment: Assignment) -> str:
    """A date as nbgrader takes it; "" where there is none."""
    if assignment.due is None:
        return ""
    try:
        due = datetime.fromisoformat(str(assignment.due))
    except ValueError as error:
        wrong = f"{assignment.due!r} is no date for {assignment.name}."
        raise BadInput(wrong, expected="such as 2026-12-01 18:00") from error
    return due.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def build(out: Path, settings: Settings) -> list[str]:
    """Write the teacher's edition, and have nbgrader make the students' from it where it is installed.

    Args:
        out: a folder that is new, empty, or an earlier edition; what was handed in there stays.

    Returns:
        What was made, and what comes next; a line each.

    Raises:
        BadInput: a notebook that is not there, or a folder that holds something else.
        BuildFailed: nbgrader refused; its own words.
    """
    known = options.find_notebooks()
    places = {task.id: options.choose(known, [task.notebook], "")[0] for task in settings.tasks}
    chosen = {each.name: options.choose(known, list(each.notebooks), "") for each in settings.assignments}
    _prepare(out)
    said = []
    for name, paths in chosen.items():
        folder = out / "source" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for path in paths:
            own = [task for task in settings.tasks if places[task.id] == path]
            text = json.dumps(edition(path, settings, own), indent=1, ensure_ascii=False)
            (folder / path.name).write_text(text + "\n", encoding="utf-8")
        said.append(f"{folder}: the teacher's edition, {len(paths)} notebooks")
    if importlib.util.find_spec("nbgrader") is None:
        return [*said, "nbgrader is not installed here, so the students' edition is not made.", NEXT]
    for each in settings.assignments:
        if due := _due(each):
            _nbgrader(out, "db", "assignment", "add", each.name, "--duedate", due)
        _nbgrader(out, "generate_assignment", each.name, "--force")
        said.append(f"{out / 'release' / each.name}: the students' edition{f', due {due}' if due else ''}")
    return said


NEXT = f"Get it with: {sys.executable} -m uv pip install --python {sys.executable} nbgrader; then again this."


def _prepare(out: Path) -> None:
    config = out / CONFIG
    try:
        if out.exists() and not config.exists() and any(out.iterdir()):
            raise BadInput(f"{out} holds something else.", expected="a new or empty folder, or an edition")
        out.mkdir(parents=True, exist_ok=True)
        if not config.exists():
            config.write_text(CONFIGURATION, encoding="utf-8")
        elif HOOK not in config.read_text("utf-8"):  # a teacher may have changed it, but not without this
            raise BadInput(
                f"With {config} all hand-ins would run in one lab, and all get its marks.",
                expected=f"a line with {HOOK}",
                next_step=f"Add what is in it from here on:\n{CONFIGURATION}",
            )
    except OSError as error:
        raise BadInput(f"{out} can't be written: {error.strerror}.", expected="a folder") from error


def _nbgrader(out: Path, *arguments: str) -> None:
    call = [sys.executable, "-m", "nbgrader", *arguments]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    env = variables.command(PATH=path)  # it starts alembic by name
    done = commands.run(call, env=env, cwd=out, capture_output=True, text=True, check=False)
    if done.returncode:
        last = "\n".join(done.stderr.splitlines()[-5:])
        raise BuildFailed(f"nbgrader {arguments[0]} failed:\n{last}", next_step=f"See {out / CONFIG}.")


# ---- one notebook
def edition(path: Path, settings: Settings, own: Sequence[Task] = ()) -> Json:
    """A notebook of the workbook in nbgrader's format, with the solutions in it.

    Args:
        own: the teacher's tasks in this notebook.
    """
    notebook = copies.start(path)
    cells, name = list[Json](), ""
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        card = CARD.fullmatch(text)
        name = card[1] if card else name
        turn = bool(name) and text.startswith(TURN)
        if text.startswith("## Clean up"):
            cells += [each for task in own for each in _own(task)]
        if not (card or turn):
            is_start = "parameters" in cell["metadata"].get("tags", []) or "Lab.open(" in text
            cells.append(_marked(cell, f"start-{cell['id']}", locked=True) if is_start else cell)
        elif name not in settings.leave_out:
            cells += _exercise(
                cell, name, "turn" if turn else "check" if card and card[2] else "task", settings
            )
    return notebook | {"cells": cells}


def _exercise(cell: Json, name: str, part: str, settings: Settings) -> Iterator[Json]:
    """A cell of an exercise, as nbgrader has it."""
    exercise = catalogue()[name]
    points = settings.points.get(name, exercise.points)
    text = "".join(cell["source"])
    if part == "task":
        if points != exercise.points:
            note = f"*{name}* counts {points:g} points here."
            yield {"cell_type": "markdown", "id": f"{name}-points", "metadata": {}, "source": note}
        yield _marked(cell, f"{name}-task", locked=True)
    elif part == "turn":
        yield _answer(cell | {"source": text}, name, solution_of(exercise))
    else:
        strict = f'from devops_lab.exercises import exercise\nexercise(lab, "{name}", strict=True).check()'
        yield _graded(cell | {"source": text}, name, strict, points)


def _own(task: Task) -> list[Json]:
    """The cells of a teacher's own task."""
    hints = "".join(f"\n\n<details><summary>Hint</summary>\n\n{hint}\n\n</details>" for hint in task.hints)
    title = f"**Exercise {task.id}: {task.title}** ({task.kind}, {task.points:g} points)"
    words = {"cell_type": "markdown", "id": f"{task.id}-task", "metadata": {}}
    blank: Json = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    turn, check = (blank | {"id": f"{task.id}-{part}"} for part in ("turn", "check"))
    return [
        words | {"source": f"{title}\n\n{task.task}{hints}"},
        _answer(turn | {"source": f"{TURN}."}, task.id, task.solution),
        _graded(check | {"source": f"# {task.id} is checked here."}, task.id, task.check, task.points),
    ]


def _answer(cell: Json, name: str, solution: str) -> Json:
    text = f"{cell['source']}\n### BEGIN SOLUTION\n{solution.strip()}\n### END SOLUTION"
    return _marked(cell | {"source": text}, f"{name}-turn", solution=True)


def _graded(cell: Json, name: str, test: str, points: float) -> Json:
    text = f"{cell['source']}\n### BEGIN HIDDEN TESTS\n{test.strip()}\n### END HIDDEN TESTS"
    return _marked(cell | {"source": text}, f"{name}-check", grade=True, locked=True, points=points)


def _marked(cell: Json, grade_id: str, **more: Any) -> Json:
    """A cell with nbgrader's metadata, of the third version of its form."""
    told = {"schema_version": 3, "grade_id": grade_id, "grade": False, "solution": False, "locked": False}
    return cell | {"metadata": cell["metadata"] | {"nbgrader": told | {"task": False} | more}}
