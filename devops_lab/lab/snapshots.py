"""How a lab was when a notebook was first opened in it: kept then, in a moment, and gone back to on wish."""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

from devops_lab.delivery.image import RunsImages, bring_along
from devops_lab.errors import BadInput, DiskFull, LabError, is_full
from devops_lab.lab.parts import Parts
from devops_lab.lab.removal import memory, take_lock
from devops_lab.lab.story import revive
from devops_lab.platform import cells, settings
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import Control, teardown
from devops_lab.platform.relocation import drop_running
from devops_lab.production import drills

KEPT = "kept"  # a folder for each notebook: the lab as it was when that was first opened
BEFORE = "before"  # what the lab was until it was taken back, a folder each time
FOLDERS = ("origin.git", "shop", "registry")
STORE = ("lab.db", "lab.db-wal", "lab.db-shm")  # SQLite's log belongs to its file


def keep(root: Path) -> None:
    """Keep the lab as it is now, if this kernel's notebook is one of the workbook's, and new to the lab.

    Takes 50 ms and 1 to 3 MB: the repositories, the registry and the store.
    """
    notebook = cells.notebook()
    place = root / KEPT / notebook
    if not re.fullmatch(r"\d\d-[a-z]+", notebook) or place.exists():
        return
    aside = place.with_name(f".{notebook}.{os.getpid()}")
    try:
        for name in FOLDERS:
            shutil.copytree(root / name, aside / name, symlinks=True)
        with (
            closing(sqlite3.connect(root / "lab.db")) as db,
            closing(sqlite3.connect(aside / "lab.db")) as new,
        ):
            db.backup(new)
        os.replace(aside, place)
    except (OSError, shutil.Error, sqlite3.Error) as error:  # a reader without a way back can still go on
        if not place.exists():  # else another kernel of the same notebook was quicker
            print(f"The lab can't be kept as it is now, so there will be no way back to it: {error}")
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def kept(root: Path, notebooks: list[str]) -> str:
    """Which of these notebooks was opened first in this lab.

    Raises:
        BadInput: none of them was.
    """
    known = {name: _newest_event(root / KEPT / name) for name in notebooks if (root / KEPT / name).is_dir()}
    if not known:
        raise BadInput(
            f"How the lab was when {', '.join(notebooks)} was first opened is not kept.",
            expected="a notebook whose first cells have run in this lab, in Jupyter",
            next_step="Leave --with-lab out, or begin anew: devops-lab clean.",
        )
    return min(known, key=lambda name: (known[name], name))


def bring_back(root: Path, notebook: str) -> list[str]:
    """Take the lab back to how it was when a notebook was first opened.

    Production serves what it served then. Its data (the customers' orders) stay; all else is put aside.

    Returns:
        What was done, and where what was put aside lies, a line each.

    Raises:
        BadInput: that is not kept.
        LabInUse: a notebook has the lab open, or a run.
        DiskFull: there is no room; the lab is as it was, or asks to be taken back once more.
    """
    source = root / KEPT / kept(root, [notebook])
    handle = take_lock(root, exclusive=True)
    try:
        with _in_words():
            fresh = source.with_name(f".{notebook}.back")
            shutil.rmtree(fresh, ignore_errors=True)
            shutil.copytree(source, fresh, symlinks=True)
            aside = _place(root)
            _end_all(root)
            for name in (*FOLDERS, *STORE):
                if (root / name).exists():
                    os.replace(root / name, aside / name)
                if (fresh / name).exists():
                    os.replace(fresh / name, root / name)
            fresh.rmdir()
            _put_aside_later_ones(root, source, aside / KEPT)
            drop_running(root, of_engines=True)
    finally:
        os.close(handle)
    version = _serve(root, notebook)
    return [
        f"The lab is as it was when {notebook} was first opened: "
        + (f"version {version} serves." if version else "nothing serves yet."),
        f"What it was until now (repository, registry, store) is kept in {aside}; customers' orders stay.",
    ]


def _place(root: Path) -> Path:
    stem = time.strftime("%Y%m%d-%H%M%S")
    names = (f"{stem}{f'-{n}' if n else ''}" for n in range(10_000))
    place = next(root / BEFORE / name for name in names if not (root / BEFORE / name).exists())
    place.mkdir(parents=True)
    return place


def _end_all(root: Path) -> None:
    with suppress(LabError), closing(memory(root)) as store:  # a damaged store is one more reason to go back
        drills.settle(LabContext(root, settings.read(root), store))
    (root / "run" / "drill.json").unlink(missing_ok=True)
    control = Control(root)
    if settings.read(root).engine != "process":
        with suppress(LabError):  # who knows the containers; it may sleep since the machine was off
            control.ensure()
    control.stop(production=True)
    teardown(root)


def _put_aside_later_ones(root: Path, source: Path, aside: Path) -> None:
    """What was kept after this is of a time that has not come yet: the next opening keeps it anew."""
    now = _newest_event(source)
    for later in [each for each in (root / KEPT).glob("[0-9]*") if _newest_event(each) > now]:
        aside.mkdir(exist_ok=True)
        os.replace(later, aside / later.name)


def _newest_event(place: Path) -> int:
    with closing(sqlite3.connect(place / "lab.db")) as db:
        return int(db.execute("select coalesce(max(id), 0) from events").fetchone()[0])


def _serve(root: Path, notebook: str) -> str:
    """Have production run what the lab wants, and return the version."""
    with closing(memory(root)) as store:
        lab = Parts(LabContext(root, settings.read(root), store))
        lab.deploy.settle()
        if isinstance(engine := lab.world.engine, RunsImages):
            engine.images.registry.teardown()  # else it would have versions that nobody has released yet
            bring_along(lab.world, lab.release.registry())
        for pool in lab.deploy.pools():  # another wheel of that version may have been installed since
            lab.deploy.install(lab.release.find(pool.release))
        revive(lab)
        text = f"The lab was taken back to how it was when {notebook} was first opened."
        store.event("welcome", "lab.restored", "lab", text, who=lab.settings.learner)
        return lab.deploy.current()


@contextmanager
def _in_words() -> Iterator[None]:
    try:
        yield
    except (OSError, shutil.Error) as error:
        if is_full(error):
            raise DiskFull(f"The lab can't be taken back: {error}") from error
        raise LabError(
            f"The lab can't be taken back: {error}", next_step="See to that, then try again."
        ) from error
