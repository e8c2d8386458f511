"""Checks of the exercises of Deploy; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, close, could_not, not_yet, number, right
from devops_lab.model import Pool, Replica

if TYPE_CHECKING:
    from devops_lab.lab import Lab

WANTED = 3


def rolling_seconds(lab: Lab, said: Said) -> Verdict:
    number(said)
    done = [d for d in lab.deploy.history() if d.strategy == "rolling" and d.state == "done"]
    later = [d for d in done if d.started > said.t]
    if not later:
        return not_yet("Kept. There was no rolling deployment since your prediction: do one, then check.")
    return close(said, later[-1].seconds, 2, "s")


def three_replicas(lab: Lab, said: Said) -> Verdict:
    pools = [pool for pool in lab.store.all(Pool) if pool.weight > 0]
    if not pools:
        return could_not("Production is empty: deploy a release first.")
    if len(pools) > 1:
        return not_yet(f"{len(pools)} pools share the traffic; finish the deployment first.")
    healthy = [r for r in lab.store.all(Replica) if r.pool == pools[0].name and r.state == "healthy"]
    if pools[0].replicas != WANTED or len(healthy) != WANTED:
        return not_yet(
            f"{pools[0].replicas} replicas are wanted and {len(healthy)} healthy; {WANTED} are asked for."
        )
    return right(f"{WANTED} replicas of {pools[0].release} are healthy and share the traffic.")
