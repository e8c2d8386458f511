"""The faults that a drill may inject: what each does, what shows it, and whether this lab can have it."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec
import yaml

from devops_lab.git import run
from devops_lab.model import Replica
from devops_lab.phases import World
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.release import Releasing
from devops_lab.settings import choice
from devops_lab.shop import Change, changes

Mend = Literal["rollback", "settle", "configuration", "end process", "replace replica"]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong in production; see faults.yaml for the meaning of each field."""

    name: str
    customers: str
    signal: str
    mend: Mend
    action: str
    alerts: list[str] = field(default_factory=list)
    sign: Literal["", "customers", "clock"] = ""
    change: str = ""
    half_way: bool = False
    rate: float = 40.0
    env: dict[str, str] = field(default_factory=dict)
    job: Literal["", "lock", "kitchen", "delay", "retry"] = ""


@cache
def catalogue() -> dict[str, Fault]:
    """All faults by name."""
    rows = yaml.safe_load(Path(__file__).with_name("faults.yaml").read_text("utf-8"))
    return {fault.name: fault for fault in msgspec.convert(rows, list[Fault])}


def find(name: str) -> Fault:
    """A fault by its name.

    Raises:
        BadInput: there is none of this name; the message names the closest one.
    """
    return catalogue()[choice("fault", name, tuple(catalogue()))]


def why_not(world: World, fault: Fault) -> str:
    """Why this lab can't have a fault, in plain words; empty when it can."""
    contained = any(replica.handle for replica in world.store.all(Replica))
    if fault.job == "lock" and not world.engine.database_url().startswith("sqlite:"):
        return "The lock is held by a process of this machine, which can't reach the engine's own database."
    if fault.job == "kitchen" and contained:
        return "The dependency listens on this machine's loopback, where a container can't reach it."
    if fault.change and has(world, change_of(fault).subject):
        return f"The version in production has {fault.change!r} already, and perhaps its mend."
    return ""


def change_of(fault: Fault) -> Change:
    return next(change for change in changes() if change.id == fault.change)


def has(world: World, subject: str) -> bool:
    """Whether the version in production contains a commit with this subject."""
    release = Releasing(world).find(Deploy(world).current())
    log = run(world.origin, "log", "--format=%s", release.commit)
    return subject in log.stdout.splitlines()


def pick(world: World, seed: object, met: list[str]) -> Fault:
    """A fault by chance: the same for the same seed, and none twice before all were met."""
    dice = random.Random(f"{world.settings.learner}:{seed}")
    possible = [fault for fault in catalogue().values() if not why_not(world, fault)]
    fresh = [fault for fault in possible if fault.name not in met]
    return dice.choice(fresh or possible)
