"""Canary analysis: does the new version serve its few customers as well as the old one serves the others?

At each share of the traffic one look: the latency of each endpoint by Mann-Whitney's U test, as Kayenta does,
and failed requests by Fisher's exact test. A version is turned away only for a difference that is both hard
to explain by chance and large enough for a customer to feel.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from statistics import mean

from devops_lab.errors import DeployRefused
from devops_lab.model import Analysis, CanaryVerdict, Check, Outcome
from devops_lab.phases.rollout import Rollout
from devops_lab.phases.significance import fisher, mann_whitney
from devops_lab.store import Store
from devops_lab.traffic.load import failed
from devops_lab.waits import pause

LEVEL = 0.05  # how often chance may turn a good version away: in a whole rollout, over all its looks
MIN_REQUESTS = 40  # of each version in a look; fewer miss one failure in five too often
PATIENCE_SECONDS = 15.0  # for so many to come
MIN_OF_ENDPOINT = 5  # answers of each version
SLOWER_FACTOR, SLOWER_SECONDS = 2.0, 0.025  # a mean answer below either is no reason, however sure it is
MORE_ERRORS = 0.02  # share of failed requests above the stable version's; less is no reason
PROBES = ("/metrics", "/healthz", "/readyz")


def judge(canary: Sequence[Outcome], stable: Sequence[Outcome], level: float = LEVEL) -> list[Check]:
    """Hold one version's requests against the other's, the worst first.

    The level is shared out among the tests (Bonferroni), so that many tests find no more by chance than one.

    Args:
        level: how often chance may speak against the canary, 0..1.
    """
    waits, stable_waits = _waits(canary), _waits(stable)
    endpoints = [
        name
        for name in sorted(waits.keys() & stable_waits.keys())
        if min(len(waits[name]), len(stable_waits[name])) >= MIN_OF_ENDPOINT
    ]
    share = level / (len(endpoints) + 1)
    checks = [_latency(name, waits[name], stable_waits[name], share) for name in endpoints]
    checks.append(_errors(canary, stable, share))
    return sorted(checks, key=lambda check: (not check.bad, check.p))


def _waits(outcomes: Iterable[Outcome]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if not failed(outcome):
            found.setdefault(outcome.endpoint, []).append(outcome.seconds)
    return found


def _latency(endpoint: str, canary: list[float], stable: list[float], level: float) -> Check:
    new, old, p = mean(canary), mean(stable), mann_whitney(canary, stable)
    felt = new > old * SLOWER_FACTOR and new > old + SLOWER_SECONDS
    name = "Mann-Whitney U"
    return Check(endpoint, name, new, old, len(canary), len(stable), p, level, felt and p < level)


def _errors(canary: Sequence[Outcome], stable: Sequence[Outcome], level: float) -> Check:
    counts = [(sum(map(failed, rows)), len(rows)) for rows in (canary, stable)]
    (bad, count), (other_bad, other_count) = counts
    new, old = (part / whole if whole else 0.0 for part, whole in counts)
    p = fisher(bad, count, other_bad, other_count)
    return Check(
        "errors", "Fisher's exact test", new, old, count, other_count, p, level,
        new > old + MORE_ERRORS and p < level,
    )  # fmt: skip


def told(check: Check) -> str:
    """One check in words, with all its numbers."""
    if check.what == "errors":
        seen = f"{check.canary:.1%} of its requests fail against {check.stable:.1%}"
    else:
        means = f"{check.canary * 1000:.0f} ms on the mean against {check.stable * 1000:.0f} ms"
        seen = f"{check.what} takes {means}"
    return (
        f"{seen} ({check.canary_count} and {check.stable_count} requests, {check.test}: "
        f"p = {check.p:.2g}, level {check.level:.2g})"
    )


def problem(checks: Sequence[Check]) -> str:
    """What speaks against the version, in words; nothing when it may go on."""
    return "; ".join(told(check) for check in checks if check.bad)


def served(store: Store, since: float, until: float = 1e12) -> dict[str, list[Outcome]]:
    """Each release's requests, as its customers measured them; from the replicas' logs where none did."""
    rows = store.requests(since=since, until=until)
    if not any(row.release for row in rows):
        lines = store.logs(since=since, until=until, limit=100_000)
        asked = [line for line in lines if line.status and line.endpoint not in ("", *PROBES)]
        rows = [Outcome(x.t, x.endpoint, x.status, x.seconds, x.release) for x in asked]
    found: dict[str, list[Outcome]] = {}
    for row in rows:
        found.setdefault(row.release, []).append(row)
    return found


def compare(rollout: Rollout, share: int, seconds: float, looks: int = 1) -> str:
    """Watch the canary at one share of the traffic; return the evidence that lets it go on.

    It is judged once, when the time is over and there is enough to judge: who looks again and again, and
    stops at the first bad look, finds a reason sooner or later.

    Args:
        share: percent of the traffic that it takes.
        seconds: how long to watch at least; when there are few requests, up to eight times that.
        looks: how many there are in this rollout; they share the level.

    Raises:
        DeployRefused: it is worse than the stable version, or too few customers came to tell.
    """
    old, new, store = rollout.old, rollout.new, rollout.world.store
    assert old
    began = time.time()
    while True:
        pause(0.1)  # customers are being served and measured meanwhile
        rollout.check_new_replicas()
        watched = time.time() - began
        if watched < seconds:
            continue
        found = served(store, began)
        canary, stable = found.get(new.release, []), found.get(old.release, [])
        enough = min(len(canary), len(stable)) >= MIN_REQUESTS
        if enough or watched > max(8 * seconds, PATIENCE_SECONDS):
            break
    checks = judge(canary, stable, LEVEL / looks) if enough else []
    worse = problem(checks)
    verdict: CanaryVerdict = "too little data" if not enough else "worse" if worse else "goes on"
    store.put(Analysis(rollout.record.id, share, time.time(), new.release, old.release, verdict, checks))
    if not enough:
        raise DeployRefused(
            f"The canary at {share} % saw {len(canary)} requests in {watched:.1f} s, and {old.release} "
            f"{len(stable)}: too few to tell.",
            expected=f"{MIN_REQUESTS} of each at least",
            next_step="Let customers in first (lab.operate.load(rate=100, seconds=60)), then try again.",
        )
    if worse:
        raise rollout.refused(f"The canary at {share} % is worse: {worse}.")
    return (
        f"{len(canary)} requests of {new.release}, {len(stable)} of {old.release}; nearest: {told(checks[0])}"
    )
