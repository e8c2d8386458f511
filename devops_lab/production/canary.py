"""Canary analysis: does the new version serve its few customers as well as the old one serves the others?

At each share of the traffic one look: the latency of each endpoint by Mann-Whitney's U test, as Kayenta does,
and failed requests by Fisher's exact test. A version is turned away only for a difference that is both hard
to explain by chance and large enough for a customer to feel.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import groupby
from operator import itemgetter
from statistics import mean

from devops_lab.errors import Inconclusive
from devops_lab.model import Analysis, CanaryVerdict, Comparison, Request
from devops_lab.platform.clock import Awake
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import failed
from devops_lab.platform.waits import pause
from devops_lab.production.rollout import Rollout

LEVEL = 0.05  # how often chance may turn a good version away: in a whole rollout, over all its looks
MIN_REQUESTS = 40  # of each version in a look; fewer miss one failure in five too often
PATIENCE_SECONDS = 15.0  # for so many to come
MIN_OF_ENDPOINT = 5  # answers of each version
SLOWER_FACTOR, SLOWER_SECONDS = 2.0, 0.015  # a mean answer below either is no reason, however sure it is
MORE_ERRORS = 0.02  # share of failed requests above the stable version's; less is no reason
PROBES = ("/metrics", "/healthz", "/readyz")


def judge(canary: Sequence[Request], stable: Sequence[Request], level: float = LEVEL) -> list[Comparison]:
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
    checks.append(more_errors(canary, stable, share))
    return sorted(checks, key=lambda check: (not check.bad, check.p))


def _waits(outcomes: Iterable[Request]) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for outcome in outcomes:
        if not failed(outcome):
            found.setdefault(outcome.endpoint, []).append(outcome.seconds)
    return found


def slower(new: float, old: float, seconds: float = SLOWER_SECONDS) -> bool:
    """Whether a wait is so much longer than another that a customer feels it."""
    return new > old * SLOWER_FACTOR and new > old + seconds


def _latency(endpoint: str, canary: list[float], stable: list[float], level: float) -> Comparison:
    new, old, p = mean(canary), mean(stable), mann_whitney(canary, stable)
    felt = slower(new, old)
    name = "Mann-Whitney U"
    return Comparison(endpoint, name, new, old, len(canary), len(stable), p, level, felt and p < level)


def more_errors(canary: Sequence[Request], stable: Sequence[Request], level: float = LEVEL) -> Comparison:
    counts = [(sum(map(failed, rows)), len(rows)) for rows in (canary, stable)]
    (bad, count), (other_bad, other_count) = counts
    new, old = (part / whole if whole else 0.0 for part, whole in counts)
    p = fisher(bad, count, other_bad, other_count)
    return Comparison(
        "errors", "Fisher's exact test", new, old, count, other_count, p, level,
        new > old + MORE_ERRORS and p < level,
    )  # fmt: skip


def told(check: Comparison) -> str:
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


def problem(checks: Sequence[Comparison]) -> str:
    """What speaks against the version, in words; nothing when it may go on."""
    return "; ".join(told(check) for check in checks if check.bad)


def served(store: Store, since: float) -> dict[str, list[Request]]:
    """Each release's requests, as its customers measured them; from the replicas' logs where none did."""
    rows = store.requests(since=since)
    if not any(row.release for row in rows):
        lines = store.logs(since=since, limit=100_000)
        asked = [line for line in lines if line.status and line.endpoint not in ("", *PROBES)]
        rows = [Request(x.t, x.endpoint, x.status, x.seconds, x.release) for x in asked]
    found: dict[str, list[Request]] = {}
    for row in rows:
        found.setdefault(row.release, []).append(row)
    return found


def compare(rollout: Rollout, share: int, seconds: float, looks: int = 1) -> str:
    """Watch the canary at one share of the traffic; return the evidence that lets it go on.

    It is judged once, when the time is over and there is enough to judge: who looks again and again, and
    stops at the first bad look, finds a reason sooner or later. Only where it is slow it is looked at once
    more, on new requests: a process that just began opens connections and fills caches, and a few waits of
    the same second are not independent of each other, as the test takes them to be.

    Args:
        share: percent of the traffic that it takes.
        seconds: how long to watch at least; when there are few requests, up to eight times that; twice as
            long when half of them came by then.
        looks: how many there are in this rollout; they share the level.

    Raises:
        DeployRefused: it is worse than the stable version.
        Inconclusive: too few customers came to tell.
    """
    old, new, store = rollout.old, rollout.new, rollout.world.store
    assert old
    doubted: set[str] = set()
    while True:
        canary, stable = _watch(rollout, old.release, seconds)
        enough = min(len(canary), len(stable)) >= MIN_REQUESTS
        checks = judge(canary, stable, LEVEL / looks) if enough else []
        slow = {check.what for check in checks if check.bad}
        if not slow or doubted or "errors" in slow:
            break
        doubted = slow
    if doubted:  # only what is so again speaks against it
        checks = [replace(check, bad=check.bad and check.what in (*doubted, "errors")) for check in checks]
    worse = problem(checks)
    verdict: CanaryVerdict = "inconclusive" if not enough else "worse" if worse else "goes on"
    store.put(Analysis(rollout.record.id, share, store.now(), new.release, old.release, verdict, checks))
    if not enough:
        before = f" again whether it is slow ({', '.join(sorted(doubted))})" if doubted else ""
        raise Inconclusive(
            f"The canary at {share} % saw {len(canary)} requests, and {old.release} {len(stable)}: "
            f"too few to tell{before}.",
            expected=f"{MIN_REQUESTS} of each at least",
            next_step="Let customers in first (lab.operate.load(rate=100, seconds=60)), then try again.",
        )
    if worse:
        raise rollout.refused(f"The canary at {share} % is worse: {worse}.")
    seen = f"{len(canary)} requests of {new.release}, {len(stable)} of {old.release}"
    once = f"; slow at first, and not again: {', '.join(sorted(doubted))}" if doubted else ""
    return f"{seen}; nearest: {told(checks[0])}{once}"


def _watch(rollout: Rollout, old: str, seconds: float) -> tuple[list[Request], list[Request]]:
    """What the canary and the stable version answer from now on, when there is enough, or no more to come."""
    store = rollout.world.store
    began, awake, patience = store.now(), Awake(), max(8 * seconds, PATIENCE_SECONDS)
    while True:
        pause(0.1)  # customers are being served and measured meanwhile
        well, watched = rollout.check_new_replicas(), awake()
        if watched < seconds or not well:
            continue
        found = served(store, began)
        canary, stable = found.get(rollout.new.release, []), found.get(old, [])
        fewer = min(len(canary), len(stable))
        half = fewer >= MIN_REQUESTS / 2  # the rest is coming
        if fewer >= MIN_REQUESTS or watched > (2 * patience if half else patience):
            return canary, stable


# ---- two statistical tests in plain Python: is a difference more than chance?
def mann_whitney(first: Sequence[float], second: Sequence[float]) -> float:
    """p of "the first tend to be larger", by the ranks of all values; their distribution doesn't matter.

    By the normal approximation, with the corrections for ties and for continuity.

    Source: Mann & Whitney, On a Test of Whether one of Two Random Variables is Stochastically Larger than
    the Other (1947). Kayenta, the canary judge of Netflix and Google, compares latencies with it.
    """
    count, of_first = len(first) + len(second), len(first)
    rank_sum, ties, below = 0.0, 0.0, 0
    marked = [(value, 1) for value in first] + [(value, 0) for value in second]
    for _, group in groupby(sorted(marked), key=itemgetter(0)):
        same = [mark for _, mark in group]  # equal values share the mean of their ranks
        rank_sum += sum(same) * (below + (len(same) + 1) / 2)
        ties += len(same) ** 3 - len(same)
        below += len(same)
    expected = of_first * (count + 1) / 2
    variance = of_first * len(second) / 12 * (count + 1 - ties / max(count * (count - 1), 1))
    if variance <= 0:  # nothing to compare, or all values are equal
        return 1.0
    return _upper_tail((rank_sum - expected - 0.5) / math.sqrt(variance))


def fisher(bad: int, count: int, other_bad: int, other_count: int) -> float:
    """p of "a larger share of the first is bad": Fisher's exact test, one-sided.

    The chance that at least `bad` of all bad ones fall among the first, when they fall at random.

    Source: Fisher, Statistical Methods for Research Workers (1934), section 21.02.
    """
    whole, all_bad = count + other_count, bad + other_bad
    ways = [
        _log_choose(count, k) + _log_choose(other_count, all_bad - k)
        for k in range(max(bad, all_bad - other_count), min(count, all_bad) + 1)
    ]
    return min(sum(math.exp(way - _log_choose(whole, all_bad)) for way in ways), 1.0)


def _upper_tail(z: float) -> float:
    return math.erfc(z / math.sqrt(2)) / 2


def _log_choose(n: int, k: int) -> float:
    return math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)
