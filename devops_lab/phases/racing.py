"""Scaling policies raced against each other: each gets the same day, with the same customers."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from itertools import pairwise

from devops_lab.errors import BadInput
from devops_lab.model import Race, ScalingPolicy
from devops_lab.phases import World
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.scaling import check_policy
from devops_lab.traffic.load import LoadRun

Autoscale = Callable[[ScalingPolicy | None], object]


def race(
    world: World,
    policies: Mapping[str, ScalingPolicy | int],
    autoscale: Autoscale,
    day: Callable[[], LoadRun],
) -> list[Race]:
    """Play one day for each policy, one after the other, each from its least number of replicas.

    Args:
        policies: by name; a number stands for so many replicas, all day long.
        autoscale: sets a policy, or (None) none.
        day: sends the day's customers, the same each time.

    Raises:
        BadInput: no policies, or one whose limits contradict each other; nothing was played.
    """
    if not policies:
        raise BadInput("There is nobody to race.", expected="policies by name")
    for policy in policies.values():
        if isinstance(policy, ScalingPolicy):
            check_policy(policy)
    before = sum(pool.replicas for pool in Deploy(world).pools())
    try:
        return [_play(world, name, policy, autoscale, day) for name, policy in policies.items()]
    finally:
        autoscale(None)
        Deploy(world).scale(before, why="the race is over")


def _play(
    world: World, name: str, policy: ScalingPolicy | int, autoscale: Autoscale, day: Callable[[], LoadRun]
) -> Race:
    autoscale(None)
    least = policy if isinstance(policy, int) else policy.min_replicas
    Deploy(world).scale(least, why=f"start of the race of {name}")
    if isinstance(policy, ScalingPolicy):
        autoscale(policy)
    began = time.time()
    with day() as run:
        summary = run.wait()
    ended = began + run.spec.seconds  # checking the orders afterwards is no part of the day
    counts = [(t, value) for t, *_, value in world.store.samples("replicas", since=began, until=ended)]
    edges = [(began, counts[0][1] if counts else float(least)), *counts, (ended, 0.0)]
    changes = world.store.events(kind="operate.scaled", since=began)
    return Race(
        name, summary.run, began, ended, summary.requests, summary.failed, summary.p95, summary.p99,
        most_replicas=int(max(count for _, count in edges)),
        replica_seconds=sum(count * (later - t) for (t, count), (later, _) in pairwise(edges)),
        changes=sum(event.who == "autoscaler" and event.t <= ended for event in changes),
    )  # fmt: skip
