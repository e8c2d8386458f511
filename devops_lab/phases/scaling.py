"""Scale out at peak and in off-peak, after the Kubernetes Horizontal Pod Autoscaler."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from devops_lab.errors import BadInput
from devops_lab.model import Pool, Replica, ScalingPolicy
from devops_lab.phases import World
from devops_lab.phases.notify import notify
from devops_lab.phases.rollout import try_exclusive

MAX_REPLICAS = 8
WINDOW_SECONDS = 3.0  # how far back a replica's measurements are averaged
FRESH_SECONDS = 3.0  # an older measurement says nothing about now


@dataclass(frozen=True)
class Recommendations:
    """What the autoscaler wanted lately: (time, replicas); a scale-in follows the highest of them."""

    made: list[tuple[float, int]] = field(default_factory=list)

    key = "autoscaler"


def check_policy(policy: ScalingPolicy) -> None:
    """Limits must not contradict each other.

    Raises:
        BadInput: they do; names which.
    """
    wrong = ""
    if not 1 <= policy.min_replicas <= policy.max_replicas <= MAX_REPLICAS:
        wrong = f"between {policy.min_replicas} and {policy.max_replicas} replicas"
    elif not policy.target > 0 or math.isinf(policy.target):
        wrong = f"a target of {policy.target:g}"
    elif not 0 <= policy.tolerance < 1 or policy.scale_in_seconds < 0:
        wrong = f"a tolerance of {policy.tolerance:g}, {policy.scale_in_seconds:g} s before scale-in"
    elif policy.metric not in ("requests_per_second", "cpu_percent", "p95_ms"):
        wrong = f"the metric {policy.metric!r}"
    if wrong:
        raise BadInput(
            f"Nobody can scale to {wrong}.",
            expected=f"1 <= min_replicas <= max_replicas <= {MAX_REPLICAS}, a target above 0 of "
            "requests_per_second, cpu_percent or p95_ms, a tolerance from 0 to 1",
        )


def desired_replicas(values: list[float], now: int, policy: ScalingPolicy) -> int:
    """How many replicas the measurements ask for: ceil(now * value / target), within the policy's limits.

    A ratio within the tolerance changes nothing. Replicas that have no measurement count as idle when that
    would mean scaling out, and as busy (at target) when it would mean scaling in, so that a gap in
    the figures never makes things worse.

    Args:
        values: one measurement for each replica that has one.
        now: replicas that there are.

    Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/#algorithm-details
    """
    bounded = min(max(now, policy.min_replicas), policy.max_replicas)
    if not values or not now:
        return bounded
    ratio = sum(values) / len(values) / policy.target
    if missing := now - len(values):
        assumed = 0.0 if ratio > 1 else policy.target
        careful = (sum(values) + missing * assumed) / now / policy.target
        if (careful > 1) != (ratio > 1):
            return bounded
        ratio = careful
    if abs(ratio - 1) <= policy.tolerance:
        return bounded
    return min(max(math.ceil(round(now * ratio, 6)), policy.min_replicas), policy.max_replicas)


def stabilised(wanted: int, now: int, recent: Iterable[int]) -> int:
    """Scale out at once, but in only as far as the highest recommendation of the stabilisation window."""
    return wanted if wanted >= now else min(now, max((wanted, *recent)))


def autoscale_step(world: World, now: float) -> int | None:
    """Measure, decide, and write the new number of replicas; the agent carries it out.

    Returns:
        The new number of replicas, or None when nothing changed (no policy, a rollout runs, no traffic).
    """
    policy = world.store.last(ScalingPolicy)
    if policy is None:
        return None
    with try_exclusive(world) as free:  # a rollout changes the pools itself
        serving = [pool for pool in world.store.all(Pool) if pool.weight > 0]
        if not free or len(serving) != 1:
            return None
        pool = serving[0]
        values = measure(world, policy.metric, pool, now)
        wanted = desired_replicas(values, pool.replicas, policy)
        recent = world.store.get(Recommendations, Recommendations.key) or Recommendations()
        kept = [(t, n) for t, n in recent.made if now - policy.scale_in_seconds <= t <= now]
        world.store.put(Recommendations([*kept, (now, wanted)]))
        chosen = stabilised(wanted, pool.replicas, [n for _, n in kept])
        began = recent.made[0][0] if recent.made else now
        if chosen == pool.replicas or (chosen < pool.replicas and now - began < policy.scale_in_seconds):
            return None
        world.store.put(replace(pool, replicas=chosen))
    mean = sum(values) / len(values) if values else 0.0
    why = f"{policy.metric} is {mean:.1f} a replica, target {policy.target:g}"
    event = world.store.event(
        "operate",
        "operate.scaled",
        f"pool:{pool.name}",
        f"{pool.replicas} > {chosen} replicas",
        who="autoscaler",
        why=why,
        before=pool.replicas,
        after=chosen,
        value=mean,
    )
    notify(world, event)
    return chosen


def measure(world: World, metric: str, pool: Pool, now: float) -> list[float]:
    """The mean of each healthy replica's measurements in the last seconds; stale replicas are left out."""
    healthy = {r.id for r in world.store.all(Replica) if r.pool == pool.name and r.state == "healthy"}
    found: dict[str, list[tuple[float, float]]] = {}
    rows = world.store.samples(metric, since=now - WINDOW_SECONDS - FRESH_SECONDS, until=now)
    for t, replica, _, endpoint, value in rows:
        if replica in healthy and not endpoint:
            found.setdefault(replica, []).append((t, value))
    means = []
    for points in found.values():
        recent = [value for t, value in points if t >= now - WINDOW_SECONDS]
        if now - points[-1][0] <= FRESH_SECONDS and recent:
            means.append(sum(recent) / len(recent))
    return means
