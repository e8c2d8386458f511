"""Waiting kept as a histogram: counts in buckets add up over replicas and seconds, percentiles don't.

The agent keeps, for each second and endpoint, how many answers fell into each of the shop's buckets. From
these sums any window's percentile can be told, as close as its bucket is wide: Prometheus does the same.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping
from itertools import accumulate

from devops_lab.platform.store import Store

BOUNDS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)  # the shop's
PREFIX = "took_le_"  # metric took_le_0.25: answers of this second above the bound below, and up to 0.25 s
PERCENTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
Counts = dict[float, float]  # upper bound in seconds -> answers in that bucket alone


def metric(bound: float) -> str:
    return f"{PREFIX}{bound:g}"


def histograms(store: Store, since: float, until: float) -> dict[str, Counts]:
    """Each endpoint's answers by bucket, of all replicas, in a window of POSIX seconds."""
    found: dict[str, Counts] = defaultdict(dict)
    for (name, endpoint), count in store.totals(f"{PREFIX}*", since, until).items():
        found[endpoint][float(name.removeprefix(PREFIX))] = count
    return found


def quantile_ms(quantile: float, counts: Counts) -> float | None:
    """A percentile in milliseconds; None when nothing was counted."""
    bounds = sorted({*counts, *BOUNDS_SECONDS, math.inf})  # an empty bucket bounds its neighbour
    below = accumulate(counts.get(bound, 0.0) for bound in bounds)
    seconds = histogram_quantile(quantile, dict(zip(bounds, below, strict=True)))
    return None if seconds is None else seconds * 1000


def percentiles_ms(
    store: Store, since: float, until: float, endpoint: str = "", steps: int = 400
) -> dict[str, list[tuple[float, float]]]:
    """How p50, p95 and p99 of all replicas together went: (POSIX seconds, milliseconds).

    Args:
        since, until: the window, POSIX seconds.
        endpoint: "" is all together.
        steps: at most about so many points; a step without answers has none.
    """
    step = max((until - since) // steps, 1.0)
    counted: dict[float, Counts] = defaultdict(lambda: defaultdict(float))
    for bound in (*BOUNDS_SECONDS, math.inf):
        for second, count in store.curve(metric(bound), since, until, endpoint, points=10**9):
            counted[second - (second - int(since)) % step][bound] += count
    return {
        name: [
            (t, ms) for t, counts in sorted(counted.items()) if (ms := quantile_ms(share, counts)) is not None
        ]
        for name, share in PERCENTILES.items()
    }


def histogram_quantile(quantile: float, buckets: Mapping[float, float]) -> float | None:
    """A quantile by linear interpolation within its bucket, as Prometheus's histogram_quantile does.

    Args:
        quantile: 0..1.
        buckets: upper bound -> cumulative count, the last bound infinite.

    Returns:
        Seconds, or None when nothing was counted.
    """
    bounds = sorted(buckets)
    if not bounds or buckets[bounds[-1]] <= 0:
        return None
    rank, low, below = quantile * buckets[bounds[-1]], 0.0, 0.0
    for bound in bounds:
        if buckets[bound] >= rank and buckets[bound] > below:
            if bound == math.inf:
                return low
            return low + (bound - low) * (rank - below) / (buckets[bound] - below)
        low, below = bound, buckets[bound]
    return low
