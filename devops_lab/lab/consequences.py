"""What ignored advice of Plan does to production, measured: the change comes, is felt, and goes again."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

from devops_lab.errors import DeployRefused
from devops_lab.lab.parts import Parts
from devops_lab.lab.story import ship
from devops_lab.model import LoadSummary
from devops_lab.platform import web

ENOUGH_REQUESTS = 5  # of an endpoint in each run: the median of so many is not one request's bad luck
MIX = {
    "page": 1.0,
    "menu": 2.0,
    "search": 2.0,
    "order": 4.0,
    "status": 6.0,
}  # customers who follow their orders


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


def come_back(lab: Parts, change: str, rate: float, seconds: float) -> Consequence:
    """Ship what operations advised against, measure what it does to production, and go back.

    Args:
        change: the id of the change.
        rate: requests per second, of the same customers before and with the change.
        seconds: how long they come.

    Returns:
        The figures, with the median wait (p50) of the endpoint where it grew most.
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
    both = [
        name
        for name in usual.by_endpoint.keys() & now.by_endpoint.keys()
        if min(run.by_endpoint[name]["requests"] for run in (usual, now)) >= ENOUGH_REQUESTS
    ]
    grown = {name: now.by_endpoint[name]["p50"] / (usual.by_endpoint[name]["p50"] or 1) for name in both}
    figures = {name: (before[name], after[name]) for name in before}
    if grown:
        worst = max(grown, key=lambda name: grown[name])
        waits = [1000 * run.by_endpoint[worst]["p50"] for run in (usual, now)]
        figures = {f"p50 of {worst}, ms": (waits[0], waits[1]), **figures}
    return Consequence(change, figures)


def _felt(lab: Parts, rate: float, seconds: float) -> tuple[dict[str, float], LoadSummary]:
    """What customers and the platform feel while customers come."""
    began = lab.store.now()
    run = lab.operate.load(rate=rate, seconds=seconds, mix=MIX).wait()
    logs: dict[str, list[float]] = {}
    for _, replica, _, _, size in lab.store.samples("log_bytes", since=began):
        logs.setdefault(replica, []).append(size)
    memory = [row[-1] for row in lab.store.samples("memory_bytes", since=began)]
    figures = {
        "the menu as it is sent, kB": len(web.ask(f"{lab.url}/api/menu").body) / 1000,
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
