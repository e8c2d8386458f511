"""`Lab`: opens one learner's directory and holds its parts; the one object that a notebook needs."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from devops_lab.delivery.image import bring_along
from devops_lab.errors import BadInput, DiskFull, LabError, NotALab, TimedOut
from devops_lab.lab import clean_up, snapshots, story
from devops_lab.lab.parts import Parts
from devops_lab.lab.removal import (
    MAKING,
    PARTS,
    RUN_VARIABLE,
    clean,
    end_production,
    held,
    memory,
    remove_leftovers,
    take_lock,
)
from devops_lab.model import Release
from devops_lab.platform import git, identity, locks, places, relocation
from devops_lab.platform import settings as configuration
from devops_lab.platform.cells import opened_anew
from devops_lab.platform.clock import steady
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines import chosen
from devops_lab.platform.processes import process_of
from devops_lab.platform.settings import MARKER, Settings, is_own_notebooks
from devops_lab.platform.store import Store
from devops_lab.platform.variables import past_proxies
from devops_lab.platform.waits import until
from devops_lab.production import drills
from devops_lab.shop import found_repository

FOUNDING = ".founding"  # its lock
FREE_BYTES_NEEDED = 300_000_000


class Lab(Parts):
    """One learner's world: the shop's repository, its registry, its production, and the memory of it all.

    Use `Lab.open(...)`; works as a context manager. Production outlives the Lab object and the notebook.
    """

    def __init__(self, world: LabContext, lock: int | None) -> None:
        super().__init__(world)
        self._lock = lock

    # ---- opening and closing
    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str] | None = None,
        *,
        engine: str | None = None,
        pace: str | None = None,
        learner: str | None = None,
    ) -> Lab:
        """Open the lab at `path`, founding it when there is none yet.

        Args:
            path: the lab directory; default as from `settings.default_lab_dir`.
            engine: "process", "docker", "swarm" or "auto"; None keeps what the lab has, and gives a new one
                `$DEVOPS_LAB_ENGINE`, else "process".
            pace: "quick" or "class"; None keeps what the lab has.
            learner: the name that the trail shows; None keeps what the lab has.

        Raises:
            NotALab: the directory holds something else, or a lab of a newer format.
            LabInUse: a run of the whole workbook holds it.
            BadInput: an unknown engine or pace, or another engine than the lab's releases were made for.
            DiskFull: too little room to work in.
        """
        os.environ.update(past_proxies())  # a cell that asks the shop by itself doesn't ask a proxy
        root = Path(path).expanduser().resolve() if path else configuration.default_lab_dir().resolve()
        wishes = {"engine": engine, "pace": pace, "learner": learner}
        wanted = {name: value for name, value in wishes.items() if value is not None}
        fresh = replace(configuration.standard(), **wanted)  # type: ignore[arg-type]  # validates before anything is made
        if is_new := not (root / MARKER).is_file() or (root / MAKING).exists():
            _found(root, fresh)
        configuration.read(root)  # refuses before anything is touched
        ran = (root / "run" / "agent.json").exists()
        moved, lock = _enter(root)
        opened_anew(root)
        try:
            lab = cls(_world(root, wanted), lock)
        except LabError:
            if lock is not None:
                os.close(lock)
            raise
        if is_new:
            print(*[f"{line}\n" for line in remove_leftovers(lab.world)], sep="", end="")
        lab._put_right(moved, ran)
        if not os.environ.get(RUN_VARIABLE):
            snapshots.keep(root)
        return lab

    def _put_right(self, moved: str, ran: bool) -> None:
        """What may have changed since the lab was opened last: where it lies, and what was left half done."""
        if self.pipeline.hook.exists():
            self.pipeline.write_hook()  # this package, or its Python, may have moved since
        if moved == "copied":
            with suppress(LabError):  # a release that can't come along is refused when it is deployed
                bring_along(self.world, self.release.registry())
        if moved == "moved" and ran:
            self.world.control.ensure()  # production goes on, here
        self._wake()
        if (self.root / "run" / "drill.json").exists():  # a drill must not outlive the kernel that began it
            with suppress(LabError):  # what can't be undone now is tried again the next time
                drills.settle(self.world)

    def _wake(self) -> None:
        """Start production again where it sleeps, or is about to: see `platform.agent.rest`."""
        note, control, began = self.root / "run" / configuration.ASLEEP, self.world.control, steady()
        if not note.exists():
            return

        def is_decided() -> bool:  # an agent that was killed on its way to sleep has left its note
            who = control.identity()
            return not note.exists() or who is None or process_of(*who) is None

        with suppress(TimedOut):  # one that is stopped: `ensure` takes its place
            until(is_decided, "the lab's agent to be asleep, or to stay")
        if note.exists():
            how = "has nothing to serve"
            try:
                if self.deploy.pools():
                    self.world.engine.wake()
                    control.ensure()
                    control.wait_settled()
                    how = f"serves again after {steady() - began:.1f} s"
            except LabError as error:  # the reader gets in nevertheless, and can mend it
                how = f"can't serve again: {error.wrong}"
            note.unlink(missing_ok=True)
            self.store.event("operate", "lab.awake", "lab", f"production slept, and {how}", who="the lab")
            print(f"Nobody was here for a while: production slept, and {how}.")

    def __enter__(self) -> Lab:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the lab; production goes on. `clean()` ends and removes everything."""
        self.store.close()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def clean(self) -> None:
        """End every process of this lab and remove its directory."""
        self.close()
        clean(self.root)

    # ---- parts
    @property
    def engine(self) -> str:
        """What production runs on, in words; for "auto" with the reason."""
        choice = chosen(self.root, self.settings)
        return f"{choice.engine} ({choice.why})" if self.settings.engine != "process" else choice.engine

    # ---- the story
    def catch_up(self, phase: str) -> list[str]:
        """Do, quickly and for real, what the phases before `phase` have not done yet in this lab.

        Returns:
            What was done, one line each; empty when nothing was missing.
        """
        return story.catch_up(self, phase)

    def tidy(self, notebook: str) -> list[str]:
        """Put right what is not as a notebook's end has it; return what was changed. See `clean_up.tidy`."""
        return clean_up.tidy(self, notebook)

    def status(self) -> dict[str, Any]:
        """The lab in figures: settings, main's head, releases, production."""
        return story.status(self)

    def trail(self, version: str) -> list[tuple[str, str, str, float]]:
        """The provenance of a version, nearest first: (child, relation, parent, time)."""
        self.release.find(version)
        deployments = [d for d in self.deploy.history() if d.version == version]
        rows = [row for d in deployments for row in self.store.trail(f"deployment:{d.id}")]
        return rows or self.store.trail(f"release:{version}")


def _enter(root: Path) -> tuple[str, int | None]:
    """See what has become of a lab since it was opened last, and take its lock."""
    try:
        moved = relocation.settle(root)
        return moved, None if os.environ.get(RUN_VARIABLE) else take_lock(root, exclusive=False)
    except OSError as error:
        raise LabError(
            f"The lab {root} can't be written to: {error.strerror}.",
            expected="a folder of your own, on a file system that can be written to",
            next_step="Copy it to such a folder, and name that (--lab DIR).",
        ) from error


def _world(root: Path, wanted: dict[str, str]) -> LabContext:
    """The lab's settings, with what is wished for in place of what it has, and its store."""
    found = configuration.read(root)
    current, store = replace(found, **wanted), memory(root)  # type: ignore[arg-type]
    if current.engine != found.engine:
        try:
            _may_move(root, found, current, store)
        except LabError:
            store.close()
            raise
    if current != found:
        configuration.write(root, current)
    return LabContext(root, current, store)


# ---- founding
def _found(root: Path, settings: Settings) -> None:
    """Make a new lab; one that was broken off is begun again."""
    git.version()  # refuses an old one, before anything is made
    is_new = not root.exists()
    check_place(root)
    if why := places.lacking(root):
        raise BadInput(
            f"Can't make a lab at {root}: {why}",
            next_step="Name a directory that you can write to, on a local disk (--lab, or DEVOPS_LAB_DIR).",
        )
    try:
        root.mkdir(parents=True, exist_ok=True)
        with _alone(root):
            if not (root / MARKER).is_file() or (root / MAKING).exists():
                _furnish(root, settings)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise _too_little_room(root) from error
        raise LabError(
            f"Can't make a lab at {root}: {error}", next_step="Name a directory that you can write to."
        ) from error
    finally:
        if is_new:
            with suppress(OSError):  # it stays when something is in it
                root.rmdir()


def check_place(root: Path) -> None:
    """Refuse a place that holds something else than a lab, or than a founding that was broken off.

    Raises:
        NotALab: it does, or holds a lab of a newer format.
        BadInput: a setting of the lab there is unknown.
    """
    if root.exists() and not root.is_dir():
        raise NotALab(f"{root} is a file.", expected="a directory", next_step="Name another directory.")
    fleeting = (FOUNDING, places.PROBE)  # of another notebook that founds this lab at this moment
    found = [path for path in root.glob("*") if not path.name.startswith(fleeting)]
    if not all(map(is_own_notebooks, found)) and not (root / MAKING).exists():
        configuration.read(root)  # raises NotALab with what to do


def _may_move(root: Path, found: Settings, wanted: Settings, store: Store) -> None:
    """Refuse another engine once something was released: the old one's production would be left behind."""
    before, after = chosen(root, found), chosen(root, wanted)
    if before.engine != after.engine and store.last(Release):
        raise BadInput(
            f"This lab's releases were made for the engine {before.engine}, not for {after.engine}.",
            expected=f'engine="{before.engine}", or None, which keeps what the lab has',
            next_step="Take another directory (--lab DIR), or begin anew: devops-lab clean.",
        )


def _furnish(root: Path, settings: Settings) -> None:
    if shutil.disk_usage(root).free < FREE_BYTES_NEEDED:
        raise _too_little_room(root)
    _empty(root)
    (root / MAKING).touch()
    try:
        for name in PARTS[2:]:
            (root / name).mkdir()
        (root / "run").chmod(0o700)
        found_repository(root / "origin.git", root / "shop", date.today())
        configuration.write(root, replace(settings, id=identity.new(), home=str(identity.home(root))))
        store = Store(root / "lab.db")
        store.event("welcome", "lab.founded", "lab", "A new lab.", who=settings.learner)
        store.close()
        (root / MAKING).unlink()
    finally:
        _empty(root)


def _empty(root: Path) -> None:
    """Remove what a broken founding left; `MAKING` last, since it says that nothing here is precious."""
    if (root / MAKING).exists():
        for leftover in sorted(root.iterdir(), key=lambda path: path.name == MAKING):
            if leftover.name != FOUNDING and not is_own_notebooks(leftover):
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _too_little_room(root: Path) -> DiskFull:
    free = shutil.disk_usage(root).free / 1e6
    return DiskFull(f"Only {free:.0f} MB are free at {root}.", expected=f"{FREE_BYTES_NEEDED / 1e6:.0f} MB")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold a directory while a lab is founded in it: two notebooks may be opened at the same moment."""
    while True:
        with locks.held(root / FOUNDING) as handle:
            if os.fstat(handle).st_nlink:  # else its holder is done, and has taken it away
                try:
                    yield
                finally:
                    (root / FOUNDING).unlink(missing_ok=True)
                return


__all__ = ["MAKING", "RUN_VARIABLE", "Lab", "check_place", "clean", "end_production", "held"]
