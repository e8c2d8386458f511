"""`Lab`: opens one learner's directory and holds its parts; the one object that a notebook needs."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devops_lab import settings as configuration
from devops_lab.errors import DiskFull, LabError, LabInUse, NotALab
from devops_lab.model import Replica
from devops_lab.phases import World
from devops_lab.settings import MARKER, Settings
from devops_lab.store import Store

if TYPE_CHECKING:
    from devops_lab.phases.build import Build
    from devops_lab.phases.code import Code
    from devops_lab.phases.deploy import Deploy
    from devops_lab.phases.monitor import Monitor
    from devops_lab.phases.operate import Operate
    from devops_lab.phases.plan import Plan
    from devops_lab.phases.release import Releasing
    from devops_lab.phases.test import Test
    from devops_lab.pipeline import Pipeline

MAKING = ".making"  # lies in a lab while it is being founded, so that a broken founding is noticed
FREE_BYTES_NEEDED = 300_000_000
RUN_VARIABLE = "DEVOPS_LAB_RUN"  # set for the kernels of a run that already holds the lab's lock


class Lab:
    """One learner's world: the shop's repository, its registry, its production, and the memory of it all.

    Use `Lab.open(...)`; works as a context manager. Production outlives the Lab object and the notebook.
    """

    def __init__(self, world: World, lock: int | None) -> None:
        self.world = world
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
            path: the lab directory; default `$DEVOPS_LAB_DIR`, else `my-lab` beside the notebooks.
            engine: "process", "docker", "swarm" or "auto"; None keeps what the lab has.
            pace: "quick" or "class"; None keeps what the lab has.
            learner: the name that the trail shows; None keeps what the lab has.

        Raises:
            NotALab: the directory holds something else, or a lab of a newer format.
            LabInUse: a run of the whole workbook holds it.
            BadInput: an unknown engine or pace.
            DiskFull: too little room to work in.
        """
        root = Path(path).expanduser().resolve() if path else configuration.default_lab_dir().resolve()
        wishes = {"engine": engine, "pace": pace, "learner": learner}
        wanted = {name: value for name, value in wishes.items() if value is not None}
        fresh = replace(Settings(), **wanted)  # type: ignore[arg-type]  # validates before anything is made
        if not (root / MARKER).is_file() or (root / MAKING).exists():
            _found(root, fresh)
        lock = None if os.environ.get(RUN_VARIABLE) else _take_lock(root, exclusive=False)
        found = configuration.read(root)
        current = replace(found, **wanted)  # type: ignore[arg-type]
        if current != found:
            configuration.write(root, current)
        return cls(World(root, current, Store(root / "lab.db")), lock)

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

    @cached_property
    def plan(self) -> Plan:
        from devops_lab.phases.plan import Plan

        return Plan(self.world)

    @cached_property
    def code(self) -> Code:
        from devops_lab.phases.code import Code

        return Code(self.world)

    @cached_property
    def build(self) -> Build:
        from devops_lab.phases.build import Build

        return Build(self.world)

    @cached_property
    def test(self) -> Test:
        from devops_lab.phases.test import Test

        return Test(self.world)

    @cached_property
    def release(self) -> Releasing:
        from devops_lab.phases.release import Releasing

        return Releasing(self.world)

    @cached_property
    def deploy(self) -> Deploy:
        from devops_lab.phases.deploy import Deploy

        return Deploy(self.world)

    @cached_property
    def operate(self) -> Operate:
        from devops_lab.phases.operate import Operate

        return Operate(self.world)

    @cached_property
    def monitor(self) -> Monitor:
        from devops_lab.phases.monitor import Monitor

        return Monitor(self.world)

    @cached_property
    def pipeline(self) -> Pipeline:
        from devops_lab.pipeline import Pipeline

        return Pipeline(self.world)

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
        from devops_lab.story import catch_up

        return catch_up(self, phase)

    def status(self) -> dict[str, Any]:
        """The lab in figures: settings, main's head, releases, production."""
        from devops_lab.story import status

        return status(self)

    def trail(self, version: str) -> list[tuple[str, str, str, float]]:
        """The provenance of a version, nearest first: (child, relation, parent, time)."""
        self.release.find(version)
        deployments = [d for d in self.deploy.history() if d.version == version]
        rows = [row for d in deployments for row in self.store.trail(f"deployment:{d.id}")]
        return rows or self.store.trail(f"release:{version}")


# ---- founding, locking, cleaning
def _found(root: Path, settings: Settings) -> None:
    """Make a new lab; `MAKING` is removed last, so that an interrupted founding is begun again."""
    from devops_lab.shop import found_repository

    if root.exists() and not root.is_dir():
        raise NotALab(f"{root} is a file.", expected="a directory", next_step="Name another directory.")
    if root.exists() and any(root.iterdir()) and not (root / MAKING).exists():
        configuration.read(root)  # raises NotALab with what to do
    try:
        root.mkdir(parents=True, exist_ok=True)
        if shutil.disk_usage(root).free < FREE_BYTES_NEEDED:
            raise DiskFull(
                f"Only {shutil.disk_usage(root).free / 1e6:.0f} MB are free at {root}.",
                expected=f"{FREE_BYTES_NEEDED / 1e6:.0f} MB",
                next_step="Free some space, or name a directory on another disk.",
            )
        for leftover in [p for p in root.iterdir() if p.name != MAKING]:
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        (root / MAKING).touch()
        for name in ("registry", "production", "work", "run"):
            (root / name).mkdir()
        (root / "run").chmod(0o700)
        found_repository(root / "origin.git", root / "shop", date.today())
        configuration.write(root, settings)
        Store(root / "lab.db").event("lab", "lab.founded", "lab", "A new lab.", who=settings.learner)
        (root / MAKING).unlink()
    except OSError as error:
        raise LabError(
            f"Can't make a lab at {root}: {error}", next_step="Name a directory that you can write to."
        ) from error


def _take_lock(root: Path, *, exclusive: bool) -> int:
    """Notebooks share a lab; a run of the whole workbook has it to itself."""
    import fcntl

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
        LabError: something could not be removed.
    """
    from devops_lab.control import teardown

    root = root.expanduser().resolve()
    if not (root / MAKING).exists():
        configuration.read(root)
    teardown(root)
    deadline = time.monotonic() + 5
    while root.exists():
        shutil.rmtree(root, onerror=_make_writable)
        if time.monotonic() > deadline:
            raise LabError(f"{root} could not be removed.", next_step="See what still holds files there.")


def _make_writable(function: Any, path: str, _: object) -> None:
    # Released artifacts are read-only on purpose; on the way out that must not stop us.
    try:
        os.chmod(os.path.dirname(path), 0o700)
        os.chmod(path, 0o700)
        function(path)
    except FileNotFoundError:
        pass
