"""Two statistical tests in plain Python: is a difference more than chance?

Both answer with p: how often chance alone would speak as strongly against the first sample, if nothing
differed. Small p: hard to explain by chance. It says nothing on how large the difference is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby
from operator import itemgetter


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
