"""Checks of the exercises of Operate; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, could_not, not_yet, right, text
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
