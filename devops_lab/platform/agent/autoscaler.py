"""Scale out at peak and in off-peak: the algorithm of the Kubernetes Horizontal Pod Autoscaler (HPA).

Measure > ratio to the target, with a tolerance > stabilisation windows > step limits > least and most.

Source: https://kubernetes.io/docs/tasks/run-application/horizontal-pod-autoscale/ ("Algorithm details",
"Configurable scaling behavior"); where the page is silent, Kubernetes' own replica calculator.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from devops_lab.errors import BadInput
from devops_lab.model import Behaviour, Pool, Replica, ScalingPolicy
from devops_lab.platform.context import LabContext, try_exclusive
from devops_lab.platform.monitoring.notify import notify

MAX_REPLICAS = 8
WINDOW_SECONDS = 3.0  # how far back a replica's measurements are averaged
FEWEST_SAMPLES = 2  # of a replica in that window; one odd second moves nothing
FRESH_SECONDS = 3.0  # an older measurement says nothing about now
METRICS = ("requests_per_second", "cpu_percent", "p95_ms")
LONGEST_WINDOW, LONGEST_PERIOD = 3600.0, 1800.0  # seconds, Kubernetes' own limits
History = Sequence[tuple[float, int]]


@dataclass(frozen=True)
class Memory:
    """What the autoscaler has wanted (time, replicas) and done (time, replicas more or less) lately."""

    wanted: list[tuple[float, int]] = field(default_factory=list)
    done: list[tuple[float, int]] = field(default_factory=list)
    blind: bool = False  # it has said that no measurement arrives

    key = "autoscaler"


def check_policy(policy: ScalingPolicy) -> None:
    """Limits must not contradict each other.

    Raises:
        BadInput: they do; names which.
    """
    wrong = ""
    if policy.metric not in METRICS:
        wrong = f"the metric {policy.metric!r}"
    elif not 1 <= policy.min_replicas <= policy.max_replicas <= MAX_REPLICAS:
        wrong = f"between {policy.min_replicas} and {policy.max_replicas} replicas"
    elif not 0 < policy.target < math.inf:
        wrong = f"a target of {policy.target:g}"
    elif not 0 <= policy.tolerance < 1:
        wrong = f"a tolerance of {policy.tolerance:g}"
    elif policy.scale_out.select == policy.scale_in.select == "disabled" and (
        policy.min_replicas < policy.max_replicas
    ):
        wrong = f"{policy.min_replicas} to {policy.max_replicas} replicas when both directions are disabled"
    else:
        wrong = _wrong(policy.scale_out, "out") or _wrong(policy.scale_in, "in")
    if wrong:
        raise BadInput(
            f"Nobody can scale to {wrong}.",
            expected=f"1 <= min_replicas <= max_replicas <= {MAX_REPLICAS}, a target above 0 of "
            f"{', '.join(METRICS)}, a tolerance from 0 to 1, windows up to {LONGEST_WINDOW:g} s, "
            f"step limits above 0 in periods up to {LONGEST_PERIOD:g} s",
            next_step="Mend that limit; the policy of before still holds.",
        )


def _wrong(behaviour: Behaviour, way: str) -> str:
    if behaviour.select not in ("max", "min", "disabled"):
        return f"{behaviour.select!r} of the limits of a scale-{way}"
    if not 0 <= behaviour.window_seconds <= LONGEST_WINDOW:
        return f"a window of {behaviour.window_seconds:g} s before a scale-{way}"
    if not behaviour.limits and behaviour.select != "disabled":
        return f"a scale-{way} that is allowed, but by no step limit"
    for limit in behaviour.limits:
        good = limit.kind in ("replicas", "percent") and 0 < limit.value < math.inf
        if not good or not 0 < limit.period_seconds <= LONGEST_PERIOD:
            return f"a scale-{way} of {limit.value:g} {limit.kind} in {limit.period_seconds:g} s"
    return ""


def desired_replicas(
    values: Sequence[float], now: int, policy: ScalingPolicy, missing: int = 0, starting: int = 0
) -> int:
    """How many replicas the measurements ask for, before any limit: ceil(replicas * mean / target).

    Who has no measurement counts as idle when that would mean scaling out, and as exactly at the target when
    it would mean scaling in; who still starts counts as idle when it would mean scaling out. If that turns
    the direction around, nothing changes: a gap in the figures never makes things worse.

    Args:
        values: one measurement for each replica that has one.
        now: replicas that are wanted now.
        missing: healthy replicas without a measurement.
        starting: replicas that are not healthy yet.
    """
    if not values:
        return now
    ratio = sum(values) / len(values) / policy.target
    counted = [*values, *[policy.target if ratio < 1 else 0.0] * missing]
    counted += [0.0] * (starting if ratio > 1 else 0)
    careful = sum(counted) / len(counted) / policy.target
    if abs(careful - 1) <= policy.tolerance or (careful > 1) != (ratio > 1):
        return now
    wanted = math.ceil(round(careful * len(counted), 6))  # 3 * (1 / 3) is not to become 2
    return now if (wanted > now) != (careful > 1) else wanted


def stabilised(wanted: int, now: int, recent: History, t: float, policy: ScalingPolicy) -> int:
    """Go out only as far as the lowest, and in as far as the highest, of what was wanted in the window."""
    lowest = min([wanted, *(n for at, n in recent if at > t - policy.scale_out.window_seconds)])
    highest = max([wanted, *(n for at, n in recent if at > t - policy.scale_in.window_seconds)])
    return min(max(now, lowest), highest)


def limited(wanted: int, now: int, done: History, t: float, policy: ScalingPolicy) -> int:
    """Go no further than the step limits and the least and most replicas allow."""
    if wanted > now:
        return min(wanted, max(_furthest(now, done, t, policy.scale_out, 1), now), policy.max_replicas)
    if wanted < now:
        return max(wanted, min(_furthest(now, done, t, policy.scale_in, -1), now), policy.min_replicas)
    return now


def _furthest(now: int, done: History, t: float, behaviour: Behaviour, way: int) -> int:
    """How many replicas there may be in the end, each limit counted from the start of its own period."""
    if behaviour.select == "disabled":
        return now
    ends = []
    for limit in behaviour.limits:
        start = now - sum(change for at, change in done if at > t - limit.period_seconds)
        step = limit.value if limit.kind == "replicas" else start * limit.value / 100
        end = round(start + way * step, 6)
        ends.append(math.ceil(end) if way > 0 else math.floor(end))
    return max(ends) if (way > 0) == (behaviour.select == "max") else min(ends)


def decide(
    values: Sequence[float], now: int, policy: ScalingPolicy, memory: Memory, t: float, starting: int = 0
) -> tuple[int, Memory]:
    """One decision of the autoscaler from all that it knows; nothing is read or written here.

    Returns:
        the number of replicas, and what to remember for the next decision.
    """
    wanted = desired_replicas(values, now, policy, max(now - starting - len(values), 0), starting)
    if not policy.min_replicas <= now <= policy.max_replicas:  # somebody else set it: back at once
        wanted = chosen = min(max(now, policy.min_replicas), policy.max_replicas)
    else:
        recent = memory.wanted or [(t, now)]  # nothing is known yet: what there is was wanted
        chosen = limited(stabilised(wanted, now, recent, t, policy), now, memory.done, t, policy)
    window = max(policy.scale_out.window_seconds, policy.scale_in.window_seconds)
    kept = [one for one in memory.wanted or [(t, now)] if one[0] > t - window]
    done = [one for one in memory.done if one[0] > t - LONGEST_PERIOD]
    done += [(t, chosen - now)] if chosen != now else []
    return chosen, Memory([*kept, (t, wanted)], done)


def autoscale_step(world: LabContext, now: float) -> int | None:
    """Measure, decide, and write the new number of replicas; the agent carries it out.

    Returns:
        The new number of replicas, or None when nothing changed (no policy, a rollout runs, no figures).
    """
    policy = world.store.last(ScalingPolicy)
    if policy is None:
        return None
    with try_exclusive(world) as free:  # a rollout changes the pools itself
        serving = [pool for pool in world.store.all(Pool) if pool.weight > 0]
        if not free or len(serving) != 1:
            return None
        pool = serving[0]
        healthy = {r.id for r in world.store.all(Replica) if r.pool == pool.name and r.state == "healthy"}
        values = measure(world, policy.metric, healthy, now)
        memory = world.store.get(Memory, Memory.key) or Memory()
        if not values and policy.min_replicas <= pool.replicas <= policy.max_replicas:
            _say_blind(world, memory, policy, pool)
            return None
        starting = max(pool.replicas - len(healthy), 0)
        chosen, memory = decide(values, pool.replicas, policy, memory, now, starting)
        world.store.put(memory)
        if chosen == pool.replicas:
            return None
        world.store.put(replace(pool, replicas=chosen))
    why = f"the policy allows {policy.min_replicas} to {policy.max_replicas}"
    if values:
        why = f"{policy.metric} is {sum(values) / len(values):.1f} a replica, target {policy.target:g}"
    event = world.store.event(
        "operate",
        "operate.scaled",
        f"pool:{pool.name}",
        f"{pool.replicas} > {chosen} replicas",
        who="autoscaler",
        why=why,
        before=pool.replicas,
        after=chosen,
    )
    notify(world, event)
    return chosen


def _say_blind(world: LabContext, memory: Memory, policy: ScalingPolicy, pool: Pool) -> None:
    """Tell once for each gap that nothing is decided; a metric that stopped arriving is unknown, not zero."""
    if memory.wanted and not memory.blind:
        world.store.put(replace(memory, blind=True))
        text = f"no {policy.metric} has arrived for {FRESH_SECONDS:g} s: unknown, not zero; no decision, "
        text += f"{pool.replicas} replicas stay"
        world.store.event("operate", "autoscaler.blind", f"pool:{pool.name}", text, who="autoscaler")


def measure(world: LabContext, metric: str, healthy: set[str], now: float) -> list[float]:
    """The mean of each healthy replica's measurements in the last seconds; who has too few is left out."""
    found: dict[str, list[tuple[float, float]]] = {}
    rows = world.store.samples(metric, since=now - WINDOW_SECONDS - FRESH_SECONDS, until=now)
    for t, replica, _, endpoint, value in rows:
        if replica in healthy and not endpoint:
            found.setdefault(replica, []).append((t, value))
    means = []
    for points in found.values():
        recent = [value for t, value in points if t >= now - WINDOW_SECONDS]
        if now - points[-1][0] <= FRESH_SECONDS and len(recent) >= FEWEST_SAMPLES:
            means.append(sum(recent) / len(recent))
    return means
