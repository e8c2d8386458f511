"""What runs for a lab on this machine, as `top` and `lsof` would tell; and how to end what should not."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import psutil

from devops_lab.errors import BadInput
from devops_lab.model import Replica
from devops_lab.phases import World
from devops_lab.processes import end, processes_of


@dataclass(frozen=True)
class Beside:
    """One process of the lab.

    Args:
        what: agent, proxy, a replica's id, customers, or "other".
        started: POSIX seconds.
        opens: files of production that it has open.
    """

    pid: int
    what: str
    command: str
    started: float
    cpu_seconds: float
    opens: list[str] = field(default_factory=list)


def processes(world: World) -> list[Beside]:
    """Every process of this lab, oldest first."""
    replicas = {replica.pid: replica.id for replica in world.store.all(Replica) if replica.pid}
    found = []
    for process in processes_of(world.root):
        try:
            found.append(_described(process, world.production.resolve(), replicas))
        except psutil.Error:  # it has just ended, or is nobody's business
            continue
    return sorted(found, key=lambda each: each.started)


def _described(process: psutil.Process, production: Path, replicas: dict[int, str]) -> Beside:
    command = process.cmdline()
    files = {Path(file.path) for file in process.open_files()}
    opens = sorted(str(path.relative_to(production)) for path in files if path.is_relative_to(production))
    what = replicas.get(process.pid, "")
    if not what:
        known = {"devops_lab.agent": "agent", "devops_lab.traffic.customers": "customers"}
        what = next((name for part, name in known.items() if part in command), "other")
        what = "proxy" if process.name() == "envoy" else what
    times = process.cpu_times()
    started = process.create_time()
    words = " ".join(Path(part).name if part.startswith("/") else part for part in command[:4])
    return Beside(process.pid, what, words, started, times.user + times.system, opens)


def end_process(world: World, pid: int, why: str = "") -> Beside:
    """End a process of the lab that is no part of production itself (SIGTERM, then SIGKILL).

    Raises:
        BadInput: this lab has no such process, or production can't do without it.
    """
    known = {each.pid: each for each in processes(world)}
    others = ", ".join(str(each.pid) for each in known.values() if each.what == "other")
    if pid not in known:
        raise BadInput(f"This lab has no process {pid}.", expected=others or "there is no other process")
    if (found := known[pid]).what != "other":
        raise BadInput(
            f"Process {pid} is {found.what}, and belongs to production.",
            expected=others or "there is no other process",
            next_step="A replica is replaced with lab.operate.kill(ID); load is stopped by its own .stop().",
        )
    end([(pid, found.started)], 2.0)
    who = world.settings.learner
    world.store.event("operate", "process.ended", f"process:{pid}", found.command, who=who, why=why)
    return found
