"""Service level objectives: what was promised to customers, and how fast the error budget burns.

An objective of 99 % leaves a budget of 1 % of the requests. A burn rate of 1 uses it up exactly at the end of
the window, one of 14.4 in a fraction of it. Alerts look at two windows at once: the long one says that it
matters, the short one that it still goes on (Google, The Site Reliability Workbook, chapter 5, "Alerting on
SLOs", table 5-8: multi-window, multi-burn-rate alerts).

The workbook counts in hours of a month; a lab has minutes. Here half a minute stands for one of its hours:

| workbook | lab | burn rate | budget gone |
| --- | --- | --- | --- |
| 30 days | 6 hours (what the store keeps) | 1 | 100 % |
| 1 hour and 5 minutes | 30 s and 2.5 s | 14.4 | 2 % |
| 6 hours and 30 minutes | 3 minutes and 15 s | 6 | 5 % |
| 3 days and 6 hours | 36 minutes and 3 minutes | 1 | 10 % |
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass

from devops_lab.errors import BadInput
from devops_lab.model import AlertRule, Budget, Burn, Slo
from devops_lab.platform.histograms import BOUNDS_SECONDS, metric
from devops_lab.platform.monitoring.rules import Reading
from devops_lab.platform.settings import choice
from devops_lab.platform.store import Store

HOUR_SECONDS = 30.0  # what one of the workbook's hours lasts in a lab
WINDOW_SECONDS = 30 * 24 * HOUR_SECONDS
Second = tuple[float, float, float]  # POSIX second, requests, bad ones
FEWEST_BAD = 3  # requests in the long window; of few customers, one failed request would wake somebody up
RESOLVE = 0.5  # of the burn rate that fires, so that one on the border does not ring all night


@dataclass(frozen=True)
class Windows:
    """A pair of windows in the workbook's hours, and the burn rate that both must exceed."""

    name: str
    factor: float
    long_hours: float
    short_hours: float
    severity: str

    @property
    def seconds(self) -> tuple[float, float]:
        return self.long_hours * HOUR_SECONDS, self.short_hours * HOUR_SECONDS


PAIRS = (
    Windows("fast", 14.4, 1, 1 / 12, "page"),
    Windows("slow", 6.0, 6, 1 / 2, "page"),
    Windows("trickle", 1.0, 72, 6, "ticket"),
)

LONGEST_SECONDS = max(pair.seconds[0] for pair in PAIRS)


def check(slo: Slo) -> Slo:
    """Return the objective if it can be kept watch over.

    Raises:
        BadInput: it promises all or nothing, or a time that no bucket can tell.
    """
    least = 1 - 1 / PAIRS[0].factor
    wrong = expected = ""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", slo.name):
        wrong, expected = f"name = {slo.name!r}", "small letters, digits and hyphens"
    elif slo.objective == 1:
        wrong, expected = "objective = 1 leaves no error budget: nothing may ever fail", "less than 1"
    elif not 0 < slo.objective < 1:
        wrong, expected = f"objective = {slo.objective}", "a share such as 0.99, not per cent"
    elif slo.objective <= least:
        wrong = (
            f"with objective = {slo.objective}, not even an outage burns {PAIRS[0].factor:g} times too fast"
        )
        expected = f"more than {least:.3f}"
    elif slo.within_seconds and slo.within_seconds not in BOUNDS_SECONDS:
        wrong = f"within_seconds = {slo.within_seconds} is none of the buckets that the shop counts in"
        expected = f"0 (any answer in time will do), or {', '.join(map(str, BOUNDS_SECONDS))}"
    if wrong:
        message = f"The objective {slo.name!r} can't work: {wrong}."
        raise BadInput(message, expected=expected, next_step="Mend the objective and add it again.")
    return slo


def rule_of(slo: Slo, pair: Windows) -> AlertRule:
    """A pair of windows as a rule that is judged like the others; its name is none that a reader can give."""
    summary = f"The error budget of {slo.name} burns too fast."
    resolve = pair.factor * RESOLVE
    return AlertRule(f"{slo.name}/{pair.name}", "burn_rate", pair.factor, 0, resolve, slo.endpoint, summary)


class Objectives:
    """The lab's objectives, kept in its store; a new lab has none: they are agreed on, not given.

    Args:
        store: the lab's.
        close_alert: ends what the rule of this name has open.
    """

    def __init__(self, store: Store, close_alert: Callable[[str], None]) -> None:
        self.store, self.close_alert = store, close_alert
        self.sums_of: dict[Slo, RunningSum] = {}

    def all(self) -> list[Slo]:
        return self.store.all(Slo)

    def add(self, slo: Slo) -> Slo:
        """Keep an objective, in place of one with the same name.

        Raises:
            BadInput: it contradicts itself.
        """
        self.store.put(check(slo))
        return slo

    def remove(self, name: str) -> None:
        """Drop an objective and close what its alerts have open."""
        slo = self.find(name)
        self.store.remove(Slo, name)
        for pair in PAIRS:
            self.close_alert(rule_of(slo, pair).name)

    def find(self, name: str) -> Slo:
        found = {slo.name: slo for slo in self.all()}
        return found[choice("objective", name, tuple(found))]

    # ---- what was asked, what was bad
    def seconds(self, slo: Slo, since: float, until: float) -> list[Second]:
        """Requests and bad ones of each second that had any, oldest first."""
        if slo.within_seconds:
            parts = {metric(bound): (1, bound > slo.within_seconds) for bound in (*BOUNDS_SECONDS, math.inf)}
        else:
            parts = {"requests_per_second": (1, False), "errors_per_second": (0, True)}
        found: dict[float, list[float]] = defaultdict(lambda: [0.0, 0.0])
        for name, (is_request, is_bad) in parts.items():
            for second, count in self.store.curve(name, since, until, slo.endpoint, points=10**9):
                found[second][0] += is_request * count
                found[second][1] += is_bad * count
        return [(second, total, bad) for second, (total, bad) in sorted(found.items())]

    def burn_rate(self, slo: Slo, seconds: float, now: float) -> float:
        """How many times too fast the budget burned in the last seconds; NaN without requests."""
        total, bad = self.asked(slo, seconds, now)
        return bad / total / (1 - slo.objective) if total else math.nan

    def asked(self, slo: Slo, seconds: float, now: float) -> tuple[float, float]:
        """Requests of the last seconds, and bad ones."""
        sums = self.sums_of.get(slo)
        if sums is None or now < sums.until:  # a clock that was set back begins anew
            sums = self.sums_of[slo] = RunningSum(now - LONGEST_SECONDS)
        if now > sums.until:
            sums.add(self.seconds(slo, math.nextafter(sums.until, now), now), now)
            sums.forget(now - LONGEST_SECONDS)
        return sums.between(now - seconds, now)

    def burns(self, slo: Slo, now: float) -> list[Burn]:
        """The burn rate over each pair of windows."""
        found = []
        for pair in PAIRS:
            long, short = (self.burn_rate(slo, seconds, now) for seconds in pair.seconds)
            found.append(Burn(pair.name, pair.factor, *pair.seconds, long, short))
        return found

    def readings(self, now: float) -> list[tuple[AlertRule, Reading | None]]:
        """What the agent judges every second: that both windows exceed a rate is that the lesser one does.

        None where it burns by too few requests to tell.
        """
        found: list[tuple[AlertRule, Reading | None]] = []
        for slo in self.all():
            subject = f"endpoint:{slo.endpoint}" if slo.endpoint else "production"
            for pair, burn in zip(PAIRS, self.burns(slo, now), strict=True):
                few = 0 < self.asked(slo, burn.long_seconds, now)[1] < FEWEST_BAD
                reading = None if few and burn.both > pair.factor * RESOLVE else Reading(burn.both, subject)
                found.append((rule_of(slo, pair), reading))
        return found

    def budget(self, name: str, since: float = 0.0, until: float = 0.0, steps: int = 60) -> Budget:
        """What is left of an objective's error budget, and how it went.

        Args:
            name: of the objective.
            since, until: POSIX seconds; the objective's whole window up to now when 0.
            steps: points of the way there.

        Raises:
            BadInput: there is no such objective.
        """
        slo, until = self.find(name), until or self.store.now()
        since = max(since, until - WINDOW_SECONDS)
        rows = self.seconds(slo, since, until)
        requests, bad = sum(row[1] for row in rows), sum(row[2] for row in rows)
        sums = RunningSum(since)
        sums.add(rows, until)
        points = [(since, 1.0)]
        for step in range(1, steps + 1):
            t = since + (until - since) * step / steps
            gone = sums.between(since - 1, t)[1]
            points.append((t, 1 - gone / requests / (1 - slo.objective) if requests else 1.0))
        return Budget(slo, requests, bad, points, self.burns(slo, until))


class RunningSum:
    """Requests and bad ones as running sums, so that any window is two look-ups.

    Args:
        until: POSIX seconds; nothing before is known.
    """

    def __init__(self, until: float) -> None:
        self.until = until
        self.t: list[float] = []
        self.sums = [(0.0, 0.0)]

    def add(self, rows: list[Second], until: float) -> None:
        """Take in what came after `self.until`, up to `until`."""
        for second, total, bad in rows:
            self.t.append(second)
            self.sums.append((self.sums[-1][0] + total, self.sums[-1][1] + bad))
        self.until = until

    def forget(self, before: float) -> None:
        """Drop what no window reaches any more, now and then."""
        if (old := bisect_right(self.t, before)) > 1000:
            del self.t[:old], self.sums[:old]

    def between(self, since: float, until: float) -> tuple[float, float]:
        """Requests and bad ones after `since`, up to `until`."""
        (total, bad), (later_total, later_bad) = (self.sums[bisect_right(self.t, t)] for t in (since, until))
        return later_total - total, later_bad - bad
