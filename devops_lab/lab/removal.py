"""Holding a lab, and ending it: also a damaged one, and what is left of labs whose folder is gone."""

from __future__ import annotations

import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from devops_lab.delivery.image import RunsImages, drop_images
from devops_lab.errors import Damaged, EngineUnavailable, LabError, LabInUse
from devops_lab.model import Image
from devops_lab.platform import locks
from devops_lab.platform import settings as configuration
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import teardown
from devops_lab.platform.database import LOST
from devops_lab.platform.identity import MARKER, holds
from devops_lab.platform.processes import OWNER, created_at, end
from devops_lab.platform.relocation import settle, whereabouts
from devops_lab.platform.settings import NOTEBOOKS, Settings
from devops_lab.platform.store import Store
from devops_lab.platform.waits import until

PARTS = ("shop", "origin.git", "registry", "production", "work", "run")  # the folders of a lab
MAKING = ".making"  # lies in a lab while it is being founded, so that a broken founding is noticed
RUN_VARIABLE = "DEVOPS_LAB_RUN"  # set for the kernels of a run that already holds the lab's lock


def take_lock(root: Path, *, exclusive: bool) -> int:
    """Notebooks share a lab; a run of the whole workbook has it to itself."""
    try:
        return locks.take(root / "run" / "lock", shared=not exclusive, wait=False)
    except BlockingIOError as error:
        raise LabInUse(
            f"The lab {root} is in use by another {'notebook or run' if exclusive else 'run'}.",
            next_step="Wait until it ends, shut down its kernels, or use another directory (--lab).",
        ) from error


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold a lab exclusively for a run; the run's own kernels are let in by `RUN_VARIABLE`.

    Raises:
        LabInUse: a notebook or another run has it.
    """
    handle = take_lock(root, exclusive=True)
    try:
        yield
    finally:
        os.close(handle)


def clean(root: Path) -> None:
    """End every process of the lab at `root`, also after its agent was killed, and remove the directory.

    The reader's own notebooks stay where they are.

    Raises:
        NotALab: the directory is not a lab; nothing is touched.
        LabInUse: a run of the whole workbook holds it.
        LabError: something could not be removed.
    """
    root = root.expanduser().resolve()
    if not (root / MAKING).exists():
        _known_settings(root)
        with suppress(LabError):  # a damaged one stays where it lay, but for what `end_production` sees
            settle(root)
        with suppress(OSError):  # a disk that is full, or an odd `run`, keeps nobody from cleaning
            if not os.environ.get(RUN_VARIABLE):
                os.close(take_lock(root, exclusive=False))
    end_production(root)

    own = root / NOTEBOOKS

    def removed() -> bool:
        doomed = [path for path in root.iterdir() if path != own] if own.is_dir() else [root]
        for path in doomed:
            _remove(path)
        return not any(map(os.path.lexists, doomed))

    until(removed, f"{root} to be removed", next_step="See who still writes there, then clean again.")


def end_production(root: Path) -> None:
    """End and remove all that runs for the lab at `root`, in its engine too; its files stay.

    Raises:
        EngineUnavailable: production runs in an engine that does not answer now; its processes are ended.
    """
    if whereabouts(root) == "copied":  # and nobody opened it since: all that runs is the original's
        return
    teardown(root)
    if (root / MAKING).exists() or not root.is_dir():
        return
    found = _known_settings(root)
    try:
        store = memory(root)
        untouched = len(store.events(limit=2)) == 1  # founded and no more: no engine was asked for anything
        with_images = store.last(Image) is not None
    except LabError:  # damaged: an engine may have been asked for anything
        store, untouched, with_images = Store(Path(":memory:")), False, True
    if not untouched:
        world = LabContext(root, found, store)
        world.engine.teardown()
        if with_images:
            drop_images(world)


def memory(root: Path) -> Store:
    """The store of a lab that was founded; an empty one would be taken for a lab in which nothing happened.

    Raises:
        Damaged: it is missing or empty; or damaged otherwise.
    """
    path = root / "lab.db"
    if not path.exists() or (path.is_file() and not path.stat().st_size):
        raise Damaged(f"{path} is {'empty' if path.exists() else 'missing'}.", next_step=LOST)
    return Store(path)


def _known_settings(root: Path) -> Settings:
    """A lab's settings; where `lab.toml` is damaged or gone, but this is a lab, as much as is known of them.

    Raises:
        NotALab: this is no lab, or one of a newer format.
    """
    try:
        return configuration.read(root)
    except LabError:
        if sum((root / part).exists() for part in PARTS) < 4:
            raise
        return configuration.salvage(root)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, onerror=_make_writable)
        return
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        _make_writable(None, str(path), (OSError, error, None))


def _make_writable(_: Any, path: str, found: tuple[object, BaseException, object]) -> None:
    if isinstance(error := found[1], OSError) and error.errno == errno.EROFS:
        raise LabError(
            f"{path} can't be removed: {error.strerror}.",
            next_step="All that ran for the lab is ended; remove its folder once that can be written to.",
        ) from error
    # Released artifacts are read-only on purpose; that must not stop us now: the next try gets them.
    for protected in (os.path.dirname(path), path):
        with suppress(OSError):
            os.chmod(protected, 0o700)


# ---- what labs that are gone have left on this machine: processes, and what the Docker engine holds for them
def remove_leftovers(world: LabContext) -> list[str]:
    """End and remove what belongs to labs that are gone from where they lay; others are left alone.

    A lab whose folder was only given another name, whose disk is not there, or whose agent works somewhere
    is not gone; nor is any of another machine, or container, that shares the engine.

    Args:
        world: the lab that is being founded; its engine is the one that is asked.

    Returns:
        A line for each lab that had left something.
    """
    told = []
    marked = _marked()
    for lab, path in {(lab, path) for lab, path, _ in marked}:
        found = [process for whose, _, process in marked if whose == lab]
        if not any(map(_is_agent, found)) and is_gone(lab, path):
            end([(process.pid, created_at(process.pid)) for process in found], 2.0)
            told.append(f"{len(found)} processes of a lab that is gone ({path}) were still here: ended")
    awake = {lab for lab, _, process in marked if _is_agent(process)}
    with suppress(EngineUnavailable):  # who needs it will say so
        docker = world.engine.images.docker if isinstance(world.engine, RunsImages) else None
        for lab, place in docker.labs().items() if docker else ():
            if docker and lab not in awake and is_gone(lab, Path(place)):
                docker.remove_all(lab)
                told.append(f"what the engine held for a lab that is gone ({place}) is removed")
    for line in told:
        world.store.event("welcome", "lab.leftovers", "lab", line, who="the lab")
    return told


def is_gone(lab: str, path: Path) -> bool:
    """Whether a lab lies no more where it was, nor beside that under another name."""
    with suppress(OSError):
        if path.is_dir() and any(path.iterdir()) and not (path / MARKER).exists():
            return False  # its files are there, only what names them is not: a damaged lab
        return not any(holds(folder, lab) for folder in path.parent.iterdir())
    return False  # all that is around it is away: perhaps a disk that comes back


def _marked() -> list[tuple[str, Path, psutil.Process]]:
    """The processes of all labs that can be seen from here: whose each is, where that was, the process."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            mark = re.fullmatch("([0-9a-f]{8,32}) (/.*)", process.environ().get(OWNER, ""))
            if mark and process.status() != psutil.STATUS_ZOMBIE:
                found.append((mark[1], Path(mark[2]), process))
    return found


def _is_agent(process: psutil.Process) -> bool:
    with suppress(psutil.Error, OSError):
        return "devops_lab.platform.agent" in process.cmdline()
    return False
