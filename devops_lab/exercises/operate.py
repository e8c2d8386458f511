"""Exercises of Operate."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Quiz, Said, Verdict, could_not, not_yet, right, text
from devops_lab.model import ScalingPolicy

if TYPE_CHECKING:
    from devops_lab.lab import Lab


def slowest_endpoint(lab: Lab, said: Said) -> Verdict:
    answered = text(said)
    rows = lab.operate.slowest(by_release=False)
    if not rows:
        return could_not("No customer was here yet: run some load first.")
    if answered == rows[0].endpoint:
        return right(
            f"{rows[0].endpoint}: one request in twenty takes more than {rows[0].p95 * 1000:.0f} ms."
        )
    known = {row.endpoint: row for row in rows}
    if answered not in known:
        return not_yet(f"{answered!r} is no endpoint that customers used: {', '.join(known)}.")
    return not_yet(f"{answered} has a p95 of {known[answered].p95 * 1000:.0f} ms; another one is slower.")


def latency_policy(lab: Lab, said: Said) -> Verdict:
    policy = lab.store.last(ScalingPolicy)
    if policy is None:
        return not_yet("Production is scaled by hand: there is no policy.")
    if policy.metric != "p95_ms":
        return not_yet(f"The policy watches {policy.metric}; customers feel response times.")
    if policy.min_replicas < 2 or policy.max_replicas > 4 or policy.max_replicas <= policy.min_replicas:
        return not_yet(
            f"It allows {policy.min_replicas} to {policy.max_replicas} replicas; asked for are 2 to 4."
        )
    if not 1 <= policy.target <= 500:
        return not_yet(f"A target of {policy.target:g} ms is none that a customer would notice, or too late.")
    return right(f"The agent keeps p95 at {policy.target:g} ms with 2 to 4 replicas.")


EXERCISES = (
    Exercise(
        "operate-1",
        "find",
        "Where do customers wait?",
        "Over all that customers measured in this lab: which endpoint has the worst p95? Answer with "
        "its name.",
        (
            "A mean hides what the unlucky ones wait; look at the slow end.",
            "`lab.operate.slowest()` has a row an endpoint and release.",
            "`lab.operate.slowest(by_release=False)[0].endpoint`.",
        ),
        slowest_endpoint,
    ),
    Exercise(
        "operate-2",
        "change",
        "Scale by what customers feel",
        "Let the agent scale by response time: a policy on `p95_ms` with 2 to 4 replicas, and a "
        "target that you can defend. "
        "Leave it on until you have checked.",
        (
            "A policy names a metric, a target for each replica, and limits.",
            "It is a `ScalingPolicy`; `lab.operate.autoscale` takes it.",
            '`lab.operate.autoscale(ScalingPolicy("p95_ms", target=50, min_replicas=2, max_replicas=4))`.',
        ),
        latency_policy,
        points=2,
    ),
)
QUIZ = Quiz(
    "operate",
    "Load doubles, and replicas are added at once. Why are they removed only after a while?",
    (
        "because stopping a replica is slow",
        "because load comes in waves: removing too early means starting again a moment later",
        "because a replica must serve some minimum of requests",
    ),
    "b",
    "A stabilisation window keeps the number from swinging; too many for a minute costs less than too few.",
)
