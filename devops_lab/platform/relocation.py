"""A lab that was moved goes on where it is; one that was copied becomes a lab of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

import psutil

from devops_lab.errors import LabError
from devops_lab.model import Crowd, Detour, EventKind, Pool, Replica
from devops_lab.platform import locks, settings
from devops_lab.platform.control import teardown
from devops_lab.platform.git import git
from devops_lab.platform.identity import holds, home, identity, new, noted_home
from devops_lab.platform.processes import processes_of
from devops_lab.platform.store import Store

What = Literal["", "moved", "copied"]
KEPT = {"engine.json"}  # of run/, in a copy: all else tells of the original's processes


def settle(root: Path) -> What:
    """Notice that a lab was moved or copied since it was opened last, and make that right; safe to repeat.

    Returns:
        What had happened; nothing where it lies as it did.

    Raises:
        NotALab, BadInput: as from `settings.read`.
    """
    found = settings.read(root)
    if found.id and found.home == str(home(root)):
        return ""
    with locks.held(root / settings.MARKER):  # two notebooks may be opened at the same moment
        found, here, noted = settings.read(root), home(root), noted_home(root)
        what = whereabouts(root)
        if found.id and (found.home == str(here) or what == "elsewhere"):
            return ""
        known = found.id or identity(root)
        if what == "copied":
            _forget_the_original(root)
            known = new()
        elif what == "moved":
            _end_at_the_old_place(root)
        with suppress(LabError):  # no repository: whoever needs it says so
            git(root / "shop", "remote", "set-url", "origin", "../origin.git")
        settings.write(root, replace(found, id=known, home=str(here)))
    if what in ("moved", "copied"):
        was = noted.path if noted else "another folder"
        _tell(root, "lab.moved" if what == "moved" else "lab.copied", f"This lab was {what} from {was}.")
        return what
    return ""


def whereabouts(root: Path) -> Literal["", "moved", "copied", "elsewhere"]:
    """What happened to a lab since it was opened last; "elsewhere": the same folder, seen by another path."""
    was = noted_home(root)
    if was is None:
        return ""
    here = home(root)
    if (was.machine, was.path) == (here.machine, here.path):
        return ""
    if was.machine == here.machine and holds(Path(was.path), identity(root)):
        return "elsewhere" if Path(was.path).samefile(root) else "copied"
    if was.folder != here.folder and _works_elsewhere(root):
        return "copied"
    return "moved"


def _works_elsewhere(root: Path) -> bool:
    """Whether an agent of this identity works in another folder: the original, which was moved too."""
    for process in processes_of(root):
        with suppress(psutil.Error, OSError):
            if "devops_lab.platform.agent" in process.cmdline() and not Path(process.cwd()).samefile(root):
                return True
    return False


def _forget_the_original(root: Path) -> None:
    """Take away what leads to the original's processes; what was wanted and what happened stay."""
    for path in (root / "run").glob("*"):
        if path.name not in KEPT:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for folder in ("envoy", "images"):
        shutil.rmtree(root / "production" / folder, ignore_errors=True)
    drop_running(root, of_engines=True)
    if settings.read(root).engine != "process":  # no container runs for it, and no database is there yet
        with _records(root) as store:
            store.replace_all(Pool, [])


def _end_at_the_old_place(root: Path) -> None:
    """What still runs knows the old paths; it is started anew, here, when production is asked for."""
    teardown(root)
    drop_running(root, of_engines=False)


def drop_running(root: Path, of_engines: bool) -> None:
    """Remove the records of processes, and with `of_engines` also those of containers."""
    with _records(root) as store:
        gone = [r for r in store.all(Replica) if of_engines or r.engine == "process"]
        for kind, records in ((Replica, gone), (Detour, store.all(Detour)), (Crowd, store.all(Crowd))):
            for record in records:
                store.remove(kind, record.key)


def _tell(root: Path, kind: EventKind, text: str) -> None:
    with _records(root) as store:
        store.event("welcome", kind, "lab", text, who="the lab")


@contextmanager
def _records(root: Path) -> Iterator[Store]:
    """The lab's store; an empty one of nobody's where it is damaged, which is named by who opens the lab."""
    path = root / "lab.db"
    store = Store(path if path.is_file() and path.stat().st_size else Path(":memory:"))
    with closing(store), suppress(LabError):
        yield store
