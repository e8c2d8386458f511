"""Grades the hand-ins of a class: each check again on what was handed in, in a fence; claims count little.

A mark is what the check says now. Where that can't be right any more (no production, the reader went on)
an earlier check counts, if the lab's own events hold it; what only the record claims doesn't.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from devops_lab.errors import BadInput, LabError
from devops_lab.exercises import catalogue
from devops_lab.exercises.base import Exercise
from devops_lab.model import Event, Grade, Mark, Progress
from devops_lab.platform.clock import steady
from devops_lab.platform.store import Store
from devops_lab.workbook.classroom import inside
from devops_lab.workbook.classroom.fence import fenced
from devops_lab.workbook.classroom.inside import RUN_CODE, Found, Line, Record, fingerprint

GRADES = "grades.json"
STATE_SECONDS, CODE_SECONDS = 90.0, 45.0  # that a fence gives; a check that runs code ends it after 30
UNSEEN = re.compile(r"[\x00-\x1f\x7f-\x9f]")  # a terminal would obey them
MOST_REMARKS, MOST_LETTERS = 40, 500
SLACK_SECONDS = 1.0  # by which two processes of one lab may write out of order
ONLY_LIVE = ("deploy-2", "deploy-4", "deploy-5", "operate-4", "repeat-2", "welcome-1")  # need a production
UPLOADED = (
    re.compile(r"(?P<name>.+?)_\d+_assignsubmission_[a-z]+(_.*)?"),  # Moodle
    re.compile(r"(?P<name>[^_]+)(_LATE)?_\d{4,}_\d{4,}_.+"),  # Canvas; fewer digits are a name of its own
)
AGAIN = re.compile(r"\s*\(\d{1,2}\)$")  # what a browser adds to the name of a file that is there already


@dataclass(frozen=True)
class Seen:
    """One hand-in after its fences: whose, what it says of itself, and what each check says."""

    learner: str
    record: Record
    found: dict[str, Found] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    seconds: float = 0.0


def grade(
    folder: Path, out: Path | None = None, told: Callable[[Grade], None] = lambda _: None
) -> list[Grade]:
    """Grade every hand-in in a folder, and write `grades.json`.

    Args:
        folder: with one archive for each learner, as `uploads` finds them.
        out: the folder to write to; by default the same.
        told: called with each grade.

    Raises:
        BadInput: there is no such folder, or no archive in it.
        LabError: hand-ins can't be fenced on this machine.
    """
    archives = uploads(folder)
    if not archives:
        raise BadInput(
            f"{folder} holds no hand-in." if folder.is_dir() else f"There is no folder {folder}.",
            expected="files made by `devops-lab classroom hand-in`, NAME.zip for each learner",
            next_step="Name the folder that they were collected in.",
        )
    target = out or folder
    target.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 2) // 2)) as pool:
        found = zip(archives, pool.map(_looked_into, archives.values()), strict=True)
        seen = [replace(one, learner=name) for name, one in found]
    grades = [_graded(one, shared) for one, shared in _compared(_newest(seen))]
    for one in grades:
        told(one)
    aside = target / f".{GRADES}.{os.getpid()}"
    aside.write_bytes(msgspec.json.format(msgspec.json.encode(grades), indent=1))
    os.replace(aside, target / GRADES)
    return grades


def uploads(folder: Path) -> dict[str, Path]:
    """The archives of a folder, by learner: as the file is named, or the folder that it lies in.

    What Moodle and Canvas put around a name is taken off ("Ann Lee_123_assignsubmission_file",
    "annlee_LATE_1234_5678_lab.zip"); another one of the same learner is "NAME (1)".

    Source: the archives of Moodle's "Download all submissions" and Canvas' "Download Submissions".
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.zip")):
        parts = path.relative_to(folder).parts
        if any(part.startswith((".", "__")) for part in parts):  # what macOS and editors leave
            continue
        first = parts[0] if len(parts) > 1 else path.stem
        name = next((fit["name"] for form in UPLOADED if (fit := form.fullmatch(first))), first)
        again = next(n for n in range(len(found) + 1) if (f"{name} ({n})" if n else name) not in found)
        found[f"{name} ({again})" if again else name] = path
    return found


# ---- one hand-in
def _looked_into(archive: Path) -> Seen:
    """`look_into`, whatever happens: no hand-in may keep another from being graded."""
    try:
        return look_into(archive)
    except LabError:  # of this machine, not of the hand-in
        raise
    except Exception as error:
        return Seen(archive.stem, Record(), {}, [f"grading it failed: {type(error).__name__}: {error}"])


def look_into(archive: Path) -> Seen:
    """Check everything in a hand-in, behind fences."""
    began, remarks = steady(), list[str]()
    if archive.is_symlink() or not archive.is_file():
        return Seen(archive.stem, Record(), {}, ["it is no plain file: refused"])
    record, found, why = _asked(archive, (), STATE_SECONDS)
    if record is None:
        return Seen(archive.stem, Record(), {}, [f"it could not be opened: {why}"], steady() - began)
    if why:
        remarks.append(f"its checks did not come to an end: {why}")
    for name in record.begun if not why else ():
        _, more, ended = _asked(archive, (name,), CODE_SECONDS)
        found |= {name: more[name]} if name in more else {name: Found(name, "could not check", f"{ended}.")}
        if ended:
            remarks.append(f"{name}: what it runs was ended by the fence: {ended}")
    return Seen(archive.stem, record, found, remarks, steady() - began)


def _asked(
    archive: Path, names: tuple[str, ...], seconds: float
) -> tuple[Record | None, dict[str, Found], str]:
    """What one fenced process prints: the record, what checks say, and why it was ended."""
    said = fenced(inside.__name__, str(archive.resolve()), *names, seconds=seconds)
    record, found = None, dict[str, Found]()
    for row in said.out.splitlines():
        with suppress(msgspec.MsgspecError):
            line = msgspec.json.decode(row, type=Line)
            record = record or line.record
            if line.found and (not names or line.found.exercise in names):
                found.setdefault(line.found.exercise, line.found)
    return record, found, said.why


# ---- between hand-ins
def _newest(seen: list[Seen]) -> list[Seen]:
    """One hand-in for each learner: of several, the one in which the last thing happened."""
    kept: dict[str, Seen] = {}
    for one in seen:
        who = AGAIN.sub("", one.learner) or one.learner
        other = kept.get(who)
        if other is None:
            kept[who] = one
            continue
        newer, older = sorted(
            (one, other), key=lambda each: (each.record.newest, len(each.found)), reverse=True
        )
        kept[who] = replace(newer, remarks=[*newer.remarks, *_again(older, newer)])
    return list(kept.values())


def _again(older: Seen, newer: Seen) -> list[str]:
    return [
        f"handed in twice: {newer.learner} is newer, by what happened in it; {older.learner} is left aside"
    ]


def _compared(seen: list[Seen]) -> Iterator[tuple[Seen, set[str]]]:
    """Each hand-in, with what others are found to share with it; and the prints of what is shared."""
    counts = Counter(each for one in seen for each in set(one.record.prints))
    for one in seen:
        shared = {each for each in one.record.prints if counts[each] > 1}
        told = []
        for other in seen:
            if other is one:
                continue
            common = len(shared & set(other.record.prints))
            if common:
                told.append(
                    f"{common} of its {len(one.record.prints)} events are also those of {other.learner}"
                )
            if one.record.lab and one.record.lab == other.record.lab:
                told.append(f"its lab has the identity of {other.learner}'s, {one.record.lab}")
        note = ["one record was copied; what it holds in common gives no points until you decide whose it is"]
        yield replace(one, remarks=[*one.remarks, *told, *note * bool(told)]), shared


# ---- marks
def _graded(one: Seen, shared: set[str]) -> Grade:
    record = one.record
    remarks = [*record.remarks, *one.remarks, *_history(record)]
    if record.lacks:
        remarks.append(f"this machine's fence lacks: {record.lacks}")
    kept = {each.exercise: each for each in record.progress}
    marks, by_record, open_ = list[Mark](), list[str](), list[str]()
    for exercise in catalogue().values():
        mark, remark = _mark(exercise, one, kept.get(exercise.id), shared)
        marks.append(mark)
        remarks += [remark] * bool(remark)
        now = one.found.get(exercise.id)
        if mark.state == "right" and not (now and now.state == "right"):
            by_record.append(exercise.id)
        if mark.state == "could not check" and (mark.attempts or exercise.id in record.begun):
            open_.append(exercise.id)
    if by_record:
        remarks.append(f"not to be seen any more, and counted as its events hold it: {', '.join(by_record)}")
    if open_:
        remarks.append(f"could not be checked: {', '.join(open_)}")
    remarks = [UNSEEN.sub("?", remark)[:MOST_LETTERS] for remark in remarks[:MOST_REMARKS]]
    return Grade(
        one.learner, record.lab, marks, record.predictions, record.drills, remarks, round(one.seconds, 2)
    )


def _history(record: Record) -> list[str]:
    """What is odd about the events as a whole."""
    told = [f"{record.gone} events were taken out of its history"] * bool(record.gone)
    if record.newest > (now := Store(Path(":memory:")).now()) + 86_400:
        told.append(f"its clock is {(record.newest - now) / 86_400:.0f} days ahead of this machine's")
    return told


def _mark(exercise: Exercise, one: Seen, kept: Progress | None, shared: set[str]) -> tuple[Mark, str]:
    """What an exercise gets, and what is to be remarked of it."""
    record = one.record
    not_begun = exercise.id in RUN_CODE and exercise.id not in record.begun
    left = (
        ("not yet", "It was not begun.") if not_begun else ("could not check", "Its check was not reached.")
    )
    found = one.found.get(exercise.id) or Found(exercise.id, *left)
    claimed, name = kept.state if kept else "", exercise.id
    mine = [event for event in record.events if event.subject == f"exercise:{name}"]
    first = _settled(mine)
    state, seen, remark = found.state, found.seen, ""
    how = str(first.data.get("state", "skipped")) if first else ""
    if claimed in ("told", "skipped") and how != "right":
        state, seen = claimed, kept.seen if kept else seen
    elif how in ("told", "skipped"):
        state, seen = how, first.message if first else seen
        if claimed == "right":
            remark = f"{name}: its record says right, but its events say that it was {how} before: no points"
    elif state != "right" and first and (doubt := _doubt(first, record, name)):
        remark = f"{name}: {doubt}: no points"
    elif state != "right" and first:
        state, seen = "right", f"When it was checked: {first.message} Now: {seen}"
    elif state != "right" and claimed == "right":
        remark = f"{name}: its record says right, but no check ever did, and now it is {state}: no points"
    points = float(exercise.points) if state == "right" else 0.0
    if points and shared and (not first or fingerprint(first) in shared):
        points, remark = (
            0.0,
            remark or f"{name}: right, but solved in what is shared with another hand-in: no points",
        )
    mark = Mark(name, state, claimed, seen, points, float(exercise.points))  # type: ignore[arg-type]
    if kept:
        mark = replace(mark, attempts=kept.attempts, hints_used=kept.hints_used, first=kept.first)
    return mark, remark


def _settled(events: list[Event]) -> Event | None:
    """The event that closed an exercise: checked and right, or found wrong for good, or done by the lab."""
    for event in events:
        if event.kind == "exercise.skipped" or (
            event.kind == "exercise.checked" and event.data.get("state") in ("right", "told")
        ):
            return event
    return None


def _doubt(event: Event, record: Record, name: str) -> str:
    """Why an event does not hold a verdict; "" where it does."""
    around = [each.t for each in record.events if each.id < event.id]
    if around and max(around) > event.t + SLACK_SECONDS:
        return "the event that says so is out of order, as if it had been written later"
    if name in ONLY_LIVE and not 0 < record.produced < event.id:
        return "its record says right, but there was no production before that"
    return ""
