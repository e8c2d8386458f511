"""What ignored advice of Plan does to production, measured: the change comes, is felt, and goes again."""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

from devops_lab.errors import DeployRefused
from devops_lab.model import LoadSummary
from devops_lab.story import ship

if TYPE_CHECKING:
    from devops_lab.lab import Lab


@dataclass(frozen=True)
class Consequence:
    """What one change did to production: figure > before, and with it; or why it never got that far."""

    change: str
    figures: dict[str, tuple[float, float]]
    refused: str = ""

    def __str__(self) -> str:
        if self.refused:
            return f"{self.change} never reached a customer: {self.refused}"
        told = [f"  {name:32}{old:8.1f} > {new:.1f}" for name, (old, new) in self.figures.items()]
        return "\n".join([self.change, *told])


def come_back(lab: Lab, change: str, rate: float, seconds: float) -> Consequence:
    """Ship what operations advised against, measure what it does to production, and go back.

    Args:
        change: the id of the change.
        rate: requests per second, of the same customers before and with the change.
        seconds: how long they come.

    Returns:
        The figures, with p95 of the endpoint where it grew most.
    """
    why = "against the advice of operations"
    release = ship(lab, change, why=why, merge=False)
    before, usual = _felt(lab, rate, seconds)
    try:
        lab.deploy.run(release.version, why=why)
    except DeployRefused as refusal:
        return Consequence(change, {}, refusal.wrong.splitlines()[0])
    try:
        after, now = _felt(lab, rate, seconds)
    finally:
        lab.deploy.rollback(why=f"what {change} does to production")
    both = usual.by_endpoint.keys() & now.by_endpoint.keys()
    grown = {name: now.by_endpoint[name]["p95"] / (usual.by_endpoint[name]["p95"] or 1) for name in both}
    figures = {name: (before[name], after[name]) for name in before}
    if grown:
        worst = max(grown, key=lambda name: grown[name])
        waits = [1000 * run.by_endpoint[worst]["p95"] for run in (usual, now)]
        figures = {f"p95 of {worst}, ms": (waits[0], waits[1]), **figures}
    return Consequence(change, figures)


def _felt(lab: Lab, rate: float, seconds: float) -> tuple[dict[str, float], LoadSummary]:
    """What customers and the platform feel while customers come."""
    began = time.time()
    run = lab.operate.load(rate=rate, seconds=seconds).wait()
    logs: dict[str, list[float]] = {}
    for _, replica, _, _, size in lab.store.samples("log_bytes", since=began):
        logs.setdefault(replica, []).append(size)
    memory = [row[-1] for row in lab.store.samples("memory_bytes", since=began)]
    figures = {
        "failed, %": 100 * run.failed / max(run.requests, 1),
        "wrong bills": float(run.orders_wrong),
        "replicas that died": float(len(lab.store.events(kind="replica.died", since=began))),
        "memory of a replica, MB": max(memory, default=0.0) / 1e6,
        "log of a replica, MB a minute": 60 / seconds * max(map(_growth, logs.values()), default=0.0) / 1e6,
    }
    return figures, run


def _growth(sizes: list[float]) -> float:
    """What a log grew by, also when it was emptied meanwhile."""
    return sum(max(after - before, 0.0) for before, after in pairwise(sizes))
