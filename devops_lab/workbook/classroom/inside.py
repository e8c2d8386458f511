"""What runs inside the fence, once for each hand-in: opens it as a lab to read, and checks every exercise.

python -m devops_lab.workbook.classroom.inside FOLDER ARCHIVE [EXERCISE …]  # prints one JSON record a line
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import msgspec

from devops_lab.errors import LabError
from devops_lab.exercises import catalogue, exercise
from devops_lab.exercises.making import HOOK_BRANCH, METRIC_BRANCH, TYPED_BRANCH
from devops_lab.lab import Lab
from devops_lab.lab.removal import PARTS
from devops_lab.model import Bug, DrillTimes, Event, Prediction, Progress
from devops_lab.platform import settings
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git
from devops_lab.platform.identity import MARKER, home, identity
from devops_lab.platform.store import Store
from devops_lab.workbook.classroom.fence import LACKS
from devops_lab.workbook.classroom.pack import STORE
from devops_lab.workbook.classroom.unpack import unpack

# Their checks run what the learner wrote, on a branch: each in a fence of its own, after all others.
RUN_CODE = {
    "build-6": TYPED_BRANCH,
    "continuous-3": HOOK_BRANCH,
    "monitor-5": METRIC_BRANCH,
}
MOST_EVENTS = 200_000
IN_PRODUCTION = ("replica.healthy", "deploy.done")


@dataclass(frozen=True)
class Record:
    """What a hand-in says of itself.

    Args:
        lacks: what the fence lacks on this machine.
        events: of exercises.
        prints: a short digest of each event, in their order, to find what two hand-ins share.
        gone: how many events were taken out of its history.
        newest: when the last thing happened, POSIX seconds of the lab's clock.
        begun: the exercises that run code and were begun.
        produced: the number of the event with which its production first stood; 0 for none.
    """

    lab: str = ""
    learner: str = ""
    lacks: str = ""
    remarks: list[str] = field(default_factory=list)
    progress: list[Progress] = field(default_factory=list)
    predictions: list[Prediction] = field(default_factory=list)
    drills: list[DrillTimes] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    prints: list[str] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    gone: int = 0
    newest: float = 0.0
    produced: int = 0


@dataclass(frozen=True)
class Found:
    """What a check says now, of one exercise."""

    exercise: str
    state: str
    seen: str


@dataclass(frozen=True)
class Line:
    """One line of what is printed."""

    record: Record | None = None
    found: Found | None = None


def fingerprint(event: Event) -> str:
    return hashlib.sha256(f"{event.t!r} {event.kind} {event.subject} {event.message}".encode()).hexdigest()[
        :16
    ]


# ---- opening
def opened(folder: Path, archive: Path) -> tuple[Lab, list[str]]:
    """Make a lab of a hand-in, with its own identity and no production.

    Returns:
        The lab, and what is amiss with it.
    """
    parts, root = folder / "parts", folder / "lab"
    parts.mkdir()
    told = unpack(archive, parts)
    for name in PARTS:
        (root / name).mkdir(parents=True)
    for name in ("registry", "work"):
        if (parts / name).is_dir():
            (root / name).rmdir()
            (parts / name).rename(root / name)
    if (parts / MARKER).exists():
        (parts / MARKER).rename(root / MARKER)
    else:
        told.append(f"it has no {MARKER}: whose lab it is can't be told")
    for name, bare in (("shop", False), ("origin.git", True)):
        bundle = parts / f"{name.removesuffix('.git')}.bundle"
        try:
            _repository(root / name, bundle, bare)
        except LabError as error:
            told.append(f"{name} can't be read: {' '.join(str(error).split())[:200]}")
    store, wrong = _store(parts / STORE, root / STORE)
    known = replace(_settings(root, told), engine="process", home=str(home(root)), docker_host="")
    lab = Lab(LabContext(root, known, store), None)
    lab.test.plant = _not_here  # type: ignore[method-assign]
    return lab, [*told, *wrong, *_edited(parts / settings.NOTEBOOKS)]


def _not_here(*_: object, **__: object) -> Bug:
    raise LabError("Bugs are planted again in the learner's own lab only: it takes packages.")


def _settings(root: Path, told: list[str]) -> settings.Settings:
    try:
        if (root / MARKER).exists():
            settings.read(root)
        return settings.salvage(root)
    except LabError as error:
        told.append(" ".join(error.wrong.replace(f"{root}/", "").split())[:200])
    with suppress(LabError):  # not of a newer format
        return settings.salvage(root)
    return settings.Settings()


def _repository(repo: Path, bundle: Path, bare: bool) -> None:
    if not bundle.exists():
        raise LabError("it is not in the hand-in")
    git(repo, "init", "--quiet", "--initial-branch=main", *["--bare"] * bare)
    git(repo, "fetch", "--quiet", "--update-head-ok", str(bundle), "+refs/*:refs/*")
    if not bare:
        git(repo, "config", "core.symlinks", "false")
        git(repo, "remote", "add", "origin", "../origin.git")
        git(repo, "reset", "--quiet", "--hard")


def _store(given: Path, path: Path) -> tuple[Store, list[str]]:
    """The store that was handed in; an empty one where that is missing or damaged."""
    why = "is not in the hand-in"
    if given.exists():
        given.rename(path)
        try:
            store = Store(path)
            store.check()
            store.events(limit=MOST_EVENTS)
            store.all(Progress)
            return store, []
        except LabError as error:
            why = f"is damaged: {' '.join(error.wrong.split())[:200]}"
            for part in path.parent.glob(f"{path.name}*"):
                part.unlink()
    told = f"{STORE} {why}: only what repositories and registry show is graded, and not who did it (skips)"
    return Store(path), [told]


def _edited(folder: Path) -> list[str]:
    """Points in notebooks that are not the catalogue's: the catalogue's count."""
    told = []
    for path in sorted(folder.glob("*.ipynb")):
        try:
            cells = json.loads(path.read_bytes())["cells"]
            marks = [mark for cell in cells for mark in (cell["metadata"], *cell["metadata"].values())]
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
            told.append(f"{path.name} is no notebook that can be read")
            continue
        for mark in marks:
            words = (
                " ".join(str(mark.get(key, "")) for key in ("id", "grade_id", "exercise"))
                if isinstance(mark, dict)
                else ""
            )
            named = re.search(r"\b[a-z]+-\d+\b", words)
            known = catalogue().get(named[0]) if named else None
            if known and "points" in mark and mark["points"] != known.points:
                told.append(
                    f"{path.name} gives {str(mark['points'])[:9]} points for {known.id}; {known.points} count"
                )
    return told


# ---- looking
def record_of(lab: Lab, remarks: list[str]) -> Record:
    """All that is told of a hand-in besides the checks."""
    events = lab.store.events(limit=MOST_EVENTS)
    produced = next((event.id for event in events if event.kind in IN_PRODUCTION), 0)
    progress = lab.store.all(Progress)
    touched = {each.exercise for each in progress} | {event.subject.partition(":")[2] for event in events}
    branches = _branches(lab)
    drills = [DrillTimes(drill.fault, **drill.seconds) for drill in lab.operate.drills()]
    return Record(
        lab=identity(lab.root) if (lab.root / MARKER).exists() else "",
        learner=lab.settings.learner,
        lacks=os.environ.get(LACKS, ""),
        remarks=remarks,
        progress=progress,
        predictions=lab.store.all(Prediction),
        drills=drills,
        events=[event for event in events if event.kind.startswith("exercise.")],
        prints=[fingerprint(event) for event in events],
        begun=[name for name, branch in RUN_CODE.items() if name in touched or branch in branches],
        gone=events[-1].id - events[0].id + 1 - len(events) if events else 0,
        newest=max((event.t for event in events), default=0.0),
        produced=produced,
    )


def _branches(lab: Lab) -> list[str]:
    with suppress(LabError):
        return lab.code.branches()
    return []


def lines(folder: Path, archive: Path, names: list[str]) -> Iterator[Line]:
    """The record of a hand-in, and what all checks say that run no code of the learner's; or one alone."""
    lab, told = opened(folder, archive)
    if not names:
        yield Line(record=record_of(lab, told))
    for name in names or [name for name in catalogue() if name not in RUN_CODE]:
        found = exercise(lab, name).look()
        yield Line(found=Found(name, found.state, found.seen[:1000]))


def main(folder: str, archive: str, *names: str) -> None:
    """Print every line at once: what comes after it may be ended."""
    for line in lines(Path(folder), Path(archive), list(names)):
        sys.stdout.buffer.write(msgspec.json.encode(line) + b"\n")
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    main(*sys.argv[1:])
