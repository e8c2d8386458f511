"""The report of a class: one page that needs no network, and the files that Moodle and Canvas import.

The page knows learners by pseudonyms. What holds names lies apart from it, in `with-names/`: the key to the
pseudonyms, which keeps them the same from report to report, and the files of grades, since whoever imports
them has to find the person.
"""

from __future__ import annotations

import csv
import json
import os
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import msgspec

from devops_lab.errors import BadInput, Damaged, DiskFull, is_full
from devops_lab.model import Grade
from devops_lab.workbook.classroom import page

PAGE, APART, KEY = "report.html", "with-names", "pseudonyms.json"
BIRDS = (
    "avocet", "bittern", "bunting", "crane", "curlew", "dipper", "dunlin", "egret", "finch", "godwit",
    "grebe", "heron", "jay", "kite", "lapwing", "linnet", "merlin", "osprey", "pipit", "plover",
    "robin", "siskin", "swift", "wren",
)  # fmt: skip
NO_GRADE = "-"  # what Moodle and Canvas take for none
FORMULA = tuple("=+-@\t\r")


def write_report(grades_file: Path, out: Path | None = None, names: bool = False) -> list[Path]:
    """Write the page and the files of grades.

    Args:
        grades_file: what `classroom grade` wrote: a list of grades, as JSON.
        out: a folder; None = `report` beside the file.
        names: the page shows the learners' names instead of pseudonyms.

    Returns:
        What was written, the page first.

    Raises:
        BadInput: the file can't be read, or holds no hand-in; or the folder can't be written.
        Damaged: the file holds something else than grades, or the key to the pseudonyms does.
        DiskFull: there is no room.
    """
    grades = read_grades(grades_file)
    folder = out or grades_file.parent / "report"
    apart = folder / APART
    try:
        apart.mkdir(parents=True, exist_ok=True)
        apart.chmod(0o700)
        called = pseudonyms(apart / KEY, [grade.learner for grade in grades])
        shown = {name: name for name in called} if names else called
        word = masked({} if names else called)
        (folder / PAGE).write_text(page.rendered(grades, shown, word), encoding="utf-8")
        rows = {"moodle.csv": moodle(grades), "canvas.csv": canvas(grades)}
        for name, table in rows.items():
            write_table(apart / name, table)
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"No room left for the report in {folder}.") from error
        raise BadInput(
            f"The report can't be written to {folder}: {error.strerror}.",
            expected="a folder that you can write to",
            next_step="Name another folder with --out.",
        ) from error
    return [folder / PAGE, *(apart / name for name in rows), apart / KEY]


def read_grades(path: Path) -> list[Grade]:
    """The grades of a file, in its order.

    Raises:
        BadInput, Damaged: as from `write_report`.
    """
    again = "Make it with: devops-lab classroom grade DIR"
    try:
        grades = msgspec.json.decode(path.read_bytes(), type=list[Grade])
    except OSError as error:
        raise BadInput(
            f"{path} can't be read: {error.strerror}.", expected="the file grades.json", next_step=again
        ) from error
    except (msgspec.MsgspecError, ValueError) as error:  # also bytes that are no UTF-8
        raise Damaged(
            f"{path} holds no grades: {error}.", expected="a list of grades, as JSON", next_step=again
        ) from error
    if not grades:
        raise BadInput(f"{path} holds no hand-in.", expected="one at least", next_step=again)
    return grades


# ---- pseudonyms
def pseudonyms(key: Path, learners: Iterable[str]) -> dict[str, str]:
    """The pseudonym of each learner: drawn by lot once, then kept in the file `key`.

    Raises:
        Damaged: the file is no such key.
    """
    known: dict[str, str] = {}
    if key.exists():
        try:
            known = msgspec.json.decode(key.read_bytes(), type=dict[str, str])
        except (msgspec.MsgspecError, ValueError) as error:
            step = "Delete it; then all get new pseudonyms."
            raise Damaged(f"{key} is no key to pseudonyms: {error}.", next_step=step) from error
    taken = set(known.values())
    for learner in learners:
        while learner not in known:
            drawn = f"{secrets.choice(BIRDS)}-{10 + secrets.randbelow(90 + 2 * len(taken))}"
            if drawn not in taken:
                known[learner] = drawn
                taken.add(drawn)
    aside = key.with_suffix(".new")
    with os.fdopen(
        os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8"
    ) as file:
        json.dump(known, file, indent=1, ensure_ascii=False, sort_keys=True)
    os.replace(aside, key)
    return known


def masked(called: dict[str, str]) -> Callable[[str], str]:
    """What puts pseudonyms for the names in a text (a remark may name the neighbour)."""
    if not called:
        return str
    lower = {name.lower(): pseudonym for name, pseudonym in called.items()}
    longest = sorted(map(re.escape, filter(None, called)), key=len, reverse=True)
    names = re.compile(rf"(?<!\w)(?:{'|'.join(longest)})(?!\w)", re.IGNORECASE)
    return lambda text: names.sub(lambda found: lower.get(found[0].lower(), "somebody"), text)


# ---- files of grades
def moodle(grades: Sequence[Grade]) -> list[list[str]]:
    """What Moodle's import of grades takes: who, as Moodle knows them, and a grade item for each notebook."""
    names = [grade.learner for grade in grades]
    if all("@" in name for name in names):
        who = "Email address"
    else:
        who = "ID number" if all(name.isdigit() for name in names) else "Username"
    parts = list(page.parts(grades))
    rows = [[grade.learner, *_points(grade, parts)] for grade in grades]
    return [[who, *(f"DevOps lab: {part}" for part in parts)], *rows]


def canvas(grades: Sequence[Grade]) -> list[list[str]]:
    """What Canvas's gradebook takes: five columns about the person, an assignment for each notebook."""
    parts = page.parts(grades)
    titles = [f"DevOps lab: {part}" for part in parts]
    rows = [["Student", "ID", "SIS User ID", "SIS Login ID", "Section", *titles]]
    rows.append(["    Points Possible", "", "", "", "", *(f"{most:g}" for most in parts.values())])
    for grade in grades:
        name = grade.learner
        number, login = (name, "") if name.isdigit() else ("", name)
        rows.append([name, "", number, login, "", *_points(grade, list(parts))])
    return rows


def _points(grade: Grade, parts: Sequence[str]) -> list[str]:
    """The points in each part; nothing where no exercise of a hand-in could be looked at."""
    if not grade.marks:
        return [NO_GRADE] * len(parts)
    reached = dict.fromkeys(parts, 0.0)
    for mark in grade.marks:
        reached[page.part(mark.exercise)] += mark.points
    return [f"{points:g}" for points in reached.values()]


def write_table(path: Path, rows: Iterable[Iterable[str]]) -> None:
    """Write a CSV file in which no cell acts as a formula, for its owner alone."""
    with os.fdopen(
        os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8", newline=""
    ) as file:
        for row in rows:
            csv.writer(file).writerow([harmless(cell) for cell in row])


def harmless(cell: str) -> str:
    """A cell that a spreadsheet shows and never computes."""
    acts = cell.lstrip().startswith(FORMULA) and cell != NO_GRADE
    return f"'{cell}" if acts else cell
