"""The reference way back from each fault, by the calls that a reader has."""

from __future__ import annotations

from collections.abc import Callable

from devops_lab.errors import LabError
from devops_lab.model import Replica
from devops_lab.phases import World
from devops_lab.phases.beside import end_process, processes
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.drills.faults import Fault, Mend
from devops_lab.phases.drills.note import DrillRun
from devops_lab.phases.drills.signs import lost_on_the_way

WAYS: dict[Mend, str] = {
    "rollback": "lab.deploy.rollback(): back to the version before; the cause can wait.",
    "settle": "lab.deploy.settle(): undo the rollout that stands still.",
    "configuration": "lab.deploy.run(lab.deploy.current(), env={}): roll out the right configuration.",
    "end process": "lab.operate.processes() tells who has the database open; lab.operate.end_process(pid).",
    "replace replica": "lab.operate.lost_on_the_way() names the replica; lab.operate.kill(it) replaces it.",
}


def mend(world: World, fault: Fault, run: DrillRun) -> None:
    """Mend a fault as the reference solution does.

    Raises:
        LabError: it is not there any more, or a step was refused.
    """
    why = f"incident {run.id}: {fault.name}"
    deploy = Deploy(world)
    ways: dict[Mend, Callable[[], object]] = {
        "rollback": lambda: deploy.rollback(why=why),
        "settle": deploy.settle,
        "configuration": lambda: deploy.run(deploy.current(), env={}, why=why),
        "end process": lambda: end_process(world, _holder(world), why),
        "replace replica": lambda: _replace_late(world, run),
    }
    ways[fault.mend]()


def _holder(world: World) -> int:
    """Who beside production has the database open."""
    for each in processes(world):
        if each.what == "other" and any(file.startswith("data/") for file in each.opens):
            return each.pid
    raise LabError("Nobody beside the replicas has the database open.")


def _replace_late(world: World, run: DrillRun) -> None:
    """End the replica on whose way most time is lost; its replacement has another address."""
    late = next(iter(lost_on_the_way(world, run.injected)))
    replica = next(each for each in world.store.all(Replica) if each.id == late)
    world.engine.kill(replica)
