"""Canary analysis: does the new version serve its few customers as well as the old one serves the others?"""

from __future__ import annotations

import time
from dataclasses import dataclass

from devops_lab.errors import DeployRefused
from devops_lab.phases.rollout import Rollout
from devops_lab.store import Store
from devops_lab.traffic.load import failed, percentile
from devops_lab.waits import pause

MIN_REQUESTS = 10  # fewer say nothing
MORE_ERRORS = 0.02  # share of failed requests above the stable version's
SLOWER_FACTOR, SLOWER_SECONDS = 2.0, 0.1  # p95 above both speaks against it


@dataclass(frozen=True)
class Served:
    """How one version served its customers in a window: requests, failed ones, p95 in seconds."""

    requests: float
    failed: float
    p95: float

    @property
    def error_share(self) -> float:
        return self.failed / self.requests if self.requests else 0.0

    def __str__(self) -> str:
        return f"{self.requests:.0f} requests, {self.error_share:.1%} failed, p95 {self.p95 * 1000:.0f} ms"


def judge(new: Served, stable: Served) -> str:
    """What speaks against the new version, in words; nothing when it may go on."""
    if new.failed >= 2 and new.error_share > stable.error_share + MORE_ERRORS:
        return f"more of its requests fail: {new.error_share:.1%} against {stable.error_share:.1%}"
    if stable.requests and new.p95 > max(stable.p95 * SLOWER_FACTOR, stable.p95 + SLOWER_SECONDS):
        return f"it is slower: p95 {new.p95 * 1000:.0f} ms against {stable.p95 * 1000:.0f} ms"
    return ""


def served(store: Store, release: str, since: float, until: float = 1e12) -> Served:
    """How a release served, as its customers measured it; from the agent's samples where no customer did."""
    rows = [o for o in store.requests(since=since, until=until) if o.release == release]
    if rows:
        return Served(len(rows), sum(map(failed, rows)), percentile([o.seconds for o in rows], 0.95))

    def values(metric: str) -> list[float]:
        found = store.samples(metric, since=since, until=until)
        return [value for _, _, version, endpoint, value in found if version == release and not endpoint]

    p95 = values("p95_ms")
    # a sample counts one second of one replica
    return Served(
        sum(values("requests_per_second")), sum(values("errors_per_second")), max(p95, default=0.0) / 1000
    )


def compare(rollout: Rollout, share: int, seconds: float) -> str:
    """Watch the canary at one share of the traffic; return the evidence that lets it go on.

    Args:
        share: percent of the traffic that it takes.
        seconds: how long to watch at least; up to eight times that when there are few requests.

    Raises:
        DeployRefused: it is worse than the stable version, or too few customers came to tell.
    """
    old, new, store = rollout.old, rollout.new, rollout.world.store
    assert old
    began = time.time()
    while True:
        pause(0.1)  # customers are being served and measured meanwhile
        rollout.check_new_replicas()
        canary, stable = served(store, new.release, began), served(store, old.release, began)
        evidence = f"canary {new.release}: {canary}; stable {old.release}: {stable}"
        enough = canary.requests >= MIN_REQUESTS
        if enough and (problem := judge(canary, stable)):
            raise rollout.refused(f"The canary at {share} % is worse: {problem}.\nEvidence: {evidence}")
        if enough and time.time() - began >= seconds:
            return evidence
        if time.time() - began > 8 * seconds:
            raise DeployRefused(
                f"The canary saw {canary.requests:.0f} requests in {time.time() - began:.1f} s.",
                expected=f"{MIN_REQUESTS} at least; fewer can't tell whether it is any good",
                next_step="Let customers in first (lab.operate.load(rate=100, seconds=60)), then try again.",
            )
