"""How tests share one machine when several run at a time (`pytest -n 3 --dist loadfile`).

A test that measures under load is marked `alone`: it waits until the others are done, and they wait for it.
What many tests begin with, and takes long, is made once and copied.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# Files that take minutes, the longest first. Those with tests that run alone come later: the first file is
# mostly one test of five minutes, and they would wait for its end.
LONG = (
    "notebooks/test_papermill.py",
    "cases/test_moved.py",
    "phases/test_drills.py",
    "exercises/test_exercises.py",
    "phases/test_deploy.py",
    "cluster/test_swarm.py",
    "phases/test_imaging.py",
    "shop/test_suite.py",
    "cases/test_clocks.py",
    "contract/test_engine.py",
    "test_consequences.py",
    "notebooks/test_nbval.py",
)
PLACES = {Path(__file__).parent / name: place for place, name in enumerate(LONG)}


def place(file: Path) -> int:
    """Where a file of tests stands in the row; all that are not long stand together at the end."""
    return PLACES.get(file, len(PLACES))


def shared(factory: pytest.TempPathFactory) -> Path:
    """The folder that all processes of a run share."""
    own = factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@contextmanager
def turn(folder: Path, alone: bool) -> Iterator[None]:
    """Hold the machine: with others, or alone.

    Who wants it alone stands in the gate meanwhile, so that nobody overtakes.

    Args:
        folder: the same for all processes of a run.
    """
    with (folder / "gate.lock").open("a") as gate, (folder / "machine.lock").open("a") as machine:
        fcntl.flock(gate, fcntl.LOCK_EX)
        fcntl.flock(machine, fcntl.LOCK_EX if alone else fcntl.LOCK_SH)
        fcntl.flock(gate, fcntl.LOCK_UN)
        yield


def once(folder: Path, name: str, make: Callable[[Path], object]) -> Path:
    """The folder of that name, which the first who asks for it makes; the others wait.

    Args:
        folder: the same for all processes of a run.
        make: is given the folder to make; what it could not end is made again.
    """
    made, done = folder / name, folder / f"{name}.done"
    with (folder / f"{name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(made, ignore_errors=True)
            make(made)
            done.touch()
    return made
