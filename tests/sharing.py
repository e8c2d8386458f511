"""How tests share one machine when several run at a time (`pytest -n 2 --dist loadfile`).

A test that measures under load is marked `alone`: it waits until the others are done, and they wait for it.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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
