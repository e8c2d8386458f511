"""`Lab`: opens one learner's directory and holds its parts; the one object that a notebook needs."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

from devops_lab import settings as configuration
from devops_lab import story
from devops_lab.control import teardown
from devops_lab.engines import chosen
from devops_lab.errors import BadInput, DiskFull, LabError, LabInUse, NotALab
from devops_lab.model import Release, Replica
from devops_lab.phases import World
from devops_lab.phases.build import Build
from devops_lab.phases.code import Code
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.imaging import drop_images
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.operate import Operate
from devops_lab.phases.plan import Plan
from devops_lab.phases.release import Releasing
from devops_lab.phases.test import Test
from devops_lab.pipeline import Pipeline
from devops_lab.settings import MARKER, Settings
from devops_lab.shop import found_repository
from devops_lab.store import Store
from devops_lab.waits import until

MAKING = ".making"  # lies in a lab while it is being founded, so that a broken founding is noticed
FREE_BYTES_NEEDED = 300_000_000
RUN_VARIABLE = "DEVOPS_LAB_RUN"  # set for the kernels of a run that already holds the lab's lock


class Lab:
    """One learner's world: the shop's repository, its registry, its production, and the memory of it all.

    Use `Lab.open(...)`; works as a context manager. Production outlives the Lab object and the notebook.
    """

    def __init__(self, world: World, lock: int | None) -> None:
        self.world, self._lock = world, lock
        self.plan, self.code, self.build, self.test = Plan(world), Code(world), Build(world), Test(world)
        self.release, self.deploy = Releasing(world), Deploy(world)
        self.operate, self.monitor, self.pipeline = Operate(world), Monitor(world), Pipeline(world)

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
            path: the lab directory; default `$DEVOPS_LAB_DIR`, else `my-lab` beside the notebooks.
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
        root = Path(path).expanduser().resolve() if path else configuration.default_lab_dir().resolve()
        wishes = {"engine": engine, "pace": pace, "learner": learner}
        wanted = {name: value for name, value in wishes.items() if value is not None}
        fresh = replace(Settings(engine=configuration.default_engine()), **wanted)  # type: ignore[arg-type]  # validates before anything is made
        if not (root / MARKER).is_file() or (root / MAKING).exists():
            _found(root, fresh)
        found = configuration.read(root)  # refuses before anything is touched
        lock = None if os.environ.get(RUN_VARIABLE) else _take_lock(root, exclusive=False)
        current, store = replace(found, **wanted), Store(root / "lab.db")  # type: ignore[arg-type]
        if current.engine != found.engine:
            try:
                _may_move(root, found, current, store)
            except LabError:
                cls(World(root, found, store), lock).close()
                raise
        if current != found:
            configuration.write(root, current)
        lab = cls(World(root, current, store), lock)
        if (root / "run" / "drill.json").exists():  # a drill must not outlive the kernel that began it
            from devops_lab.phases.drills import settle

            with suppress(LabError):  # what can't be undone now is tried again the next time
                settle(lab.world)
        return lab

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
    def root(self) -> Path:
        return self.world.root

    @property
    def settings(self) -> Settings:
        return self.world.settings

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def url(self) -> str:
        """Where customers reach the shop; empty while there is no production."""
        return self.world.control.url() if self.world.control.alive() else ""

    def replicas(self) -> list[Replica]:
        """What runs in production right now, as the agent last saw it."""
        if not self.world.control.alive():
            return []
        return [r for r in self.store.all(Replica) if r.state != "dead"]

    # ---- the story
    def catch_up(self, phase: str) -> list[str]:
        """Do, quickly and for real, what the phases before `phase` have not done yet in this lab.

        Returns:
            What was done, one line each; empty when nothing was missing.
        """
        return story.catch_up(self, phase)

    def status(self) -> dict[str, Any]:
        """The lab in figures: settings, main's head, releases, production."""
        return story.status(self)

    def trail(self, version: str) -> list[tuple[str, str, str, float]]:
        """The provenance of a version, nearest first: (child, relation, parent, time)."""
        self.release.find(version)
        deployments = [d for d in self.deploy.history() if d.version == version]
        rows = [row for d in deployments for row in self.store.trail(f"deployment:{d.id}")]
        return rows or self.store.trail(f"release:{version}")


# ---- founding, locking, cleaning
def _found(root: Path, settings: Settings) -> None:
    """Make a new lab; one that was broken off is begun again."""
    if root.exists() and not root.is_dir():
        raise NotALab(f"{root} is a file.", expected="a directory", next_step="Name another directory.")
    is_new = not root.exists()
    if not is_new and any(root.iterdir()) and not (root / MAKING).exists():
        configuration.read(root)  # raises NotALab with what to do
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
        for name in ("registry", "production", "work", "run"):
            (root / name).mkdir()
        (root / "run").chmod(0o700)
        found_repository(root / "origin.git", root / "shop", date.today())
        configuration.write(root, settings)
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
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()


def _too_little_room(root: Path) -> DiskFull:
    free = shutil.disk_usage(root).free / 1e6
    return DiskFull(f"Only {free:.0f} MB are free at {root}.", expected=f"{FREE_BYTES_NEEDED / 1e6:.0f} MB")


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Hold a directory while a lab is founded in it: two notebooks may be opened at the same moment."""
    handle = os.open(root, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _take_lock(root: Path, *, exclusive: bool) -> int:
    """Notebooks share a lab; a run of the whole workbook has it to itself."""
    (root / "run").mkdir(exist_ok=True)
    handle = os.open(root / "run" / "lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
    except OSError as error:
        os.close(handle)
        raise LabInUse(
            f"The lab {root} is in use by another {'notebook or run' if exclusive else 'run'}.",
            next_step="Wait until it ends, shut down its kernels, or use another directory (--lab).",
        ) from error
    return handle


@contextmanager
def held(root: Path) -> Iterator[None]:
    """Hold a lab exclusively for a run; the run's own kernels are let in by `RUN_VARIABLE`.

    Raises:
        LabInUse: a notebook or another run has it.
    """
    handle = _take_lock(root, exclusive=True)
    try:
        yield
    finally:
        os.close(handle)


def clean(root: Path) -> None:
    """End every process of the lab at `root`, also after its agent was killed, and remove the directory.

    Raises:
        NotALab: the directory is not a lab; nothing is touched.
        LabInUse: a run of the whole workbook holds it.
        LabError: something could not be removed.
    """
    root = root.expanduser().resolve()
    if not (root / MAKING).exists():
        configuration.read(root)
        if not os.environ.get(RUN_VARIABLE):
            os.close(_take_lock(root, exclusive=False))
    end_production(root)

    def removed() -> bool:
        shutil.rmtree(root, onerror=_make_writable)
        return not root.exists()

    until(removed, f"{root} to be removed", next_step="See who still writes there, then clean again.")


def end_production(root: Path) -> None:
    """End and remove all that runs for the lab at `root`, in its engine too; its files stay.

    Raises:
        EngineUnavailable: production runs in an engine that does not answer now; its processes are ended.
    """
    teardown(root)
    if (root / MARKER).is_file() and not (root / MAKING).exists():
        world = World(root, configuration.read(root), Store(root / "lab.db"))
        if len(world.store.events(limit=2)) > 1:  # founded and no more: no engine was ever asked for anything
            world.engine.teardown()
            drop_images(world)


def _make_writable(_: Any, path: str, __: object) -> None:
    # Released artifacts are read-only on purpose; that must not stop us now: the next try gets them.
    for protected in (os.path.dirname(path), path):
        with suppress(OSError):
            os.chmod(protected, 0o700)
