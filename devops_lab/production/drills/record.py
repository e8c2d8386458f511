"""What a drill writes down: a record for everybody, and a sealed note for whoever has to undo it."""

from __future__ import annotations

import hashlib
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec

from devops_lab.errors import BadInput
from devops_lab.platform import records
from devops_lab.platform.context import LabContext
from devops_lab.platform.processes import Identity, created_at, process_of

State = Literal["running", "restored", "given up", "undone"]


@dataclass(frozen=True)
class DrillRun:
    """One incident drill as everybody may see it.

    Args:
        sealed: a hash over the fault's name, so that the answer can't change afterwards.
        fault: its name, once it is known.
        injected: when the first customer could meet it (POSIX seconds, as all times here).
        baseline_p95: of the customers before, in seconds.
    """

    id: int
    sealed: str
    blind: bool
    injected: float
    baseline_p95: float
    state: State = "running"
    fault: str = ""
    detected: float = 0.0
    detected_by: str = ""
    diagnosed: float = 0.0
    guesses: list[str] = field(default_factory=list)
    restored: float = 0.0
    ended: float = 0.0

    @property
    def key(self) -> str:
        return f"{self.id:06d}"

    @property
    def seconds(self) -> dict[str, float]:
        """Seconds from the injection to each thing that has happened: detected, diagnosed, restored."""
        times = {"detected": self.detected, "diagnosed": self.diagnosed, "restored": self.restored}
        return {name: t - self.injected for name, t in times.items() if t}


@dataclass(frozen=True)
class Note:
    """The answer and what is to be undone, in a file that no view shows.

    Args:
        owner: process and start time of who runs the drill.
        env: the replicas' configuration before.
        faulty: the version that the drill brings; empty when it brings none.
        fired: the alerts that fired before.
    """

    drill: int
    fault: str
    env: dict[str, str]
    faulty: str
    fired: list[str]
    owner: Identity = field(default_factory=lambda: (os.getpid(), created_at(os.getpid())))
    salt: str = field(default_factory=lambda: os.urandom(16).hex())

    @property
    def seal(self) -> str:
        return hashlib.sha256(f"{self.salt}:{self.fault}".encode()).hexdigest()

    @property
    def owned(self) -> bool:
        """Whether the process that runs this drill still lives."""
        return process_of(*self.owner) is not None


def path_of(world: LabContext) -> Path:
    return world.root / "run" / "drill.json"


def read(world: LabContext) -> Note | None:
    """The note of the drill that has not been undone yet, if there is one."""
    with suppress(FileNotFoundError):
        step = "Remove it, and roll back (lab.deploy.rollback()) if production is not well."
        return records.read(path_of(world), Note, step)
    return None


def claim(world: LabContext, note: Note | None) -> None:
    """Begin a drill, if there is none; without a note, only ask.

    Raises:
        BadInput: another one runs.
    """
    try:
        if note is None and path_of(world).exists():
            raise FileExistsError
        if note:
            handle = os.open(path_of(world), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(handle, "wb") as file:
                file.write(msgspec.json.encode(note))
    except FileExistsError:
        raise BadInput(
            "A drill runs already.",
            expected="one incident at a time",
            next_step="Go on with it (lab.operate.current_drill()), or end it with .give_up().",
        ) from None
