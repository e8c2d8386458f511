"""What Monitor's alert rules may judge, and how each figure is read from the store's samples."""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean, linear_regression, median

from devops_lab.errors import BadInput
from devops_lab.model import AlertRule
from devops_lab.platform.settings import choice
from devops_lab.platform.store import Store

STALE_SECONDS = 5.0  # the agent measures every second: five missed in a row is no coincidence
FORGOTTEN_SECONDS = 120.0  # what has been quiet for longer was switched off
GAUGE_SECONDS = 5.0  # a gauge is judged by its mean over this window, so that one odd second fires nothing
FEWEST_REQUESTS = 10  # to an endpoint in that window; a percentile of fewer is the bad luck of one of them
RARE_SECONDS = 20.0  # the window of an endpoint that too few ask for in the other one
FEWEST_ERRORS = 3  # one failed request of two is half of them, and no alert
TREND_SECONDS = 10.0  # no trend is read from less

Point = tuple[float, float]
Sample = tuple[float, str, str, str, float]  # t, replica, release, endpoint, value
Series = tuple[str, str, str]  # replica, release, endpoint


@dataclass(frozen=True)
class Reading:
    """What a rule's metric is now: its worst value, and whose value that is."""

    value: float
    subject: str
    release: str = ""


NO_REQUESTS = Reading(math.nan, "production")


@dataclass(frozen=True)
class Metric:
    """A figure that rules may use: what it says, in which unit, and how it comes from stored samples."""

    what: str
    unit: str
    samples: str  # the stored metric that it is made from; "" = from events
    window_seconds: float
    combine: Callable[[list[Point]], float | None]


def mean(points: list[Point]) -> float | None:
    return fmean(v for _, v in points)


def middle(points: list[Point]) -> float | None:
    """The median of the seconds: a single slow request makes one slow second, whatever it waited."""
    return median(v for _, v in points)


def newest(points: list[Point]) -> float | None:
    return points[-1][1]


def increase_per_minute(points: list[Point]) -> float | None:
    """Growth of a counter; after a restart it counts from zero again (Prometheus' `increase`)."""
    seconds = points[-1][0] - points[0][0]
    if seconds <= 0:
        return None
    pairs = pairwise(points)
    grown = sum(later - before if later >= before else later for (_, before), (_, later) in pairs)
    return grown / seconds * 60


def slope_per_minute(points: list[Point]) -> float | None:
    """Trend of a gauge by least squares; None until it was watched for TREND_SECONDS."""
    start = points[0][0]
    if points[-1][0] - start < TREND_SECONDS:
        return None
    return linear_regression([t - start for t, _ in points], [v for _, v in points]).slope * 60


METRICS = {
    "memory_bytes": Metric("memory of the largest replica", "bytes", "memory_bytes", GAUGE_SECONDS, mean),
    "memory_bytes_per_minute": Metric("how fast it grows", "bytes/min", "memory_bytes", 20, slope_per_minute),
    "cpu_percent": Metric("CPU of the busiest replica, of one core", "%", "cpu_percent", GAUGE_SECONDS, mean),
    "p50_ms": Metric("half of the requests are slower", "ms", "p50_ms", GAUGE_SECONDS, middle),
    "p95_ms": Metric("one request in twenty is slower", "ms", "p95_ms", GAUGE_SECONDS, middle),
    "p99_ms": Metric("one request in a hundred is slower", "ms", "p99_ms", GAUGE_SECONDS, middle),
    "in_flight": Metric("requests that a replica is answering", "requests", "in_flight", GAUGE_SECONDS, mean),
    "error_ratio": Metric("share of requests that fail", "0..1", "requests_per_second", GAUGE_SECONDS, mean),
    "log_bytes_per_minute": Metric("log of a replica", "bytes/min", "log_bytes", 10, increase_per_minute),
    "disk_bytes": Metric("disk that production takes", "bytes", "disk_bytes", GAUGE_SECONDS, newest),
    "replicas_down": Metric("replicas that don't answer", "replicas", "up", GAUGE_SECONDS, newest),
    "deaths_per_minute": Metric("replicas that died in the last minute", "1/min", "", 60, newest),
}
OF_ENDPOINTS = ("p50_ms", "p95_ms", "p99_ms", "error_ratio")  # the others belong to a whole replica

# Most figures are of several seconds already, so one more is enough: a fault is told of soon, and starts,
# drains and replacements fire nothing (tests/phases/test_drills.py).
DEFAULT_RULES = (
    AlertRule("memory", "memory_bytes", 96e6, 3, 80e6, summary="A replica takes more memory than it should."),
    # warming up takes a few megabytes once; a leak takes one a second, and goes on
    AlertRule("memory-growth", "memory_bytes_per_minute", 20e6, 3, 8e6, summary="Memory keeps growing."),
    AlertRule("slow", "p95_ms", 250, 1, 150, endpoint="*", summary="Customers wait for an endpoint."),
    AlertRule("errors", "error_ratio", 0.05, 1, 0.01, summary="Requests fail."),
    AlertRule("log-flood", "log_bytes_per_minute", 10e6, 1, 5e6, summary="Logs eat the disk."),
    AlertRule("disk", "disk_bytes", 500e6, 5, 450e6, summary="Production takes much disk."),
    AlertRule("replica-down", "replicas_down", 0.5, 5, summary="A replica doesn't answer."),
    AlertRule("crash-loop", "deaths_per_minute", 2.5, 0, 0.5, summary="Replicas keep dying."),
)


def check(rule: AlertRule) -> AlertRule:
    """Return the rule if it can be judged.

    Raises:
        BadInput: unknown metric, a threshold that makes no sense, or a `resolve` above it.
    """
    metric = METRICS[choice("metric", rule.metric, tuple(METRICS))]
    top = 1.0 if metric.unit == "0..1" else math.inf
    resolve = rule.above if rule.resolve is None else rule.resolve
    wrong = expected = ""
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]*", rule.name):
        wrong, expected = f"name = {rule.name!r}", "small letters, digits and hyphens"
    elif not (math.isfinite(rule.above) and 0 <= rule.above < top):
        wrong, expected = f"above = {rule.above}", f"a number from 0, in {metric.unit}"
    elif not 0 <= resolve <= rule.above:
        wrong, expected = f"resolve = {resolve}", f"from 0 to the threshold, {rule.above}"
    elif not 0 <= rule.for_seconds <= 3600:
        wrong, expected = f"for_seconds = {rule.for_seconds}", "0 to 3600"
    elif rule.endpoint and rule.metric not in OF_ENDPOINTS:
        wrong, expected = (
            f"endpoint = {rule.endpoint!r}",
            f"none: {rule.metric} is not measured for each endpoint",
        )
    if wrong:
        message = f"The alert rule {rule.name!r} can't work: {wrong}."
        raise BadInput(message, expected=expected, next_step="Mend the rule and add it again.")
    return rule


def samples(store: Store, metric: str, since: float, until: float, endpoint: str = "") -> list[Sample]:
    """A metric's samples; endpoint "" is the figure for all together, "*" each endpoint by itself."""
    found = store.samples(metric, since=since, until=until, endpoint="" if endpoint == "*" else endpoint)
    wanted = bool(endpoint)
    return [row for row in found if row[4] is not None and bool(row[3]) == wanted]


def by_series(rows: list[Sample]) -> dict[Series, list[Point]]:
    """Samples of each series, oldest first; replica "" stands for all together."""
    found: dict[Series, list[Point]] = defaultdict(list)
    for t, replica, release, endpoint, value in rows:
        found[replica, release, endpoint].append((t, value))
    return found


def read(store: Store, rule: AlertRule, now: float) -> Reading | None:
    """What the rule's metric is now, by the series that is worst; None when it can't be told.

    Where replicas are up and nobody asks them, a figure of requests is NaN, as in Prometheus. A metric that
    stopped arriving is stale, which is an event (once) and never a zero.
    """
    metric = METRICS[rule.metric]
    if not metric.samples:
        return _deaths(store, now, metric.window_seconds)
    series = _fresh(store, rule, metric.window_seconds, now)
    if not series:
        measured = samples(store, "up", now - STALE_SECONDS, now)
        if rule.metric in OF_ENDPOINTS and any(up for *_, up in measured):
            return NO_REQUESTS
        _say_stale(store, metric.samples, now)
        return None
    if rule.metric == "error_ratio":
        return _error_ratio(store, rule, metric, series, now)
    if rule.metric == "replicas_down":
        latest = max(points[-1][0] for points in series.values())  # who is not in it has gone meanwhile
        down = sorted(name for name, points in series.items() if points[-1] == (latest, 0))
        replica, release, _ = down[0] if down else ("", "", "")
        return Reading(float(len(down)), f"replica:{replica}" if down else "production", release)
    if rule.metric in OF_ENDPOINTS:
        rare = _too_few(store, rule, metric.window_seconds, now)
        judged = rare - _too_few(store, rule, RARE_SECONDS, now) if rare else set()
        longer = _fresh(store, rule, RARE_SECONDS, now) if judged else {}
        series = {name: points for name, points in series.items() if name[2] not in rare}
        series |= {name: points for name, points in longer.items() if name[2] in judged}
        return _of_all(series, metric)
    values = [
        (value, name) for name, points in series.items() if (value := metric.combine(points)) is not None
    ]
    return _named(*max(values)) if values else None


def _of_all(series: dict[Series, list[Point]], metric: Metric) -> Reading | None:
    """The worst endpoint's percentile, of all replicas together; the release is the slowest replica's."""
    found = [
        (value, name) for name, points in series.items() if (value := metric.combine(points)) is not None
    ]
    if not (whole := [(value, name) for value, name in found if not name[0]]):
        return None
    value, (_, _, endpoint) = max(whole)
    slowest = max((row for row in found if row[1][0] and row[1][2] == endpoint), default=(0.0, ("", "", "")))
    return _named(value, ("", slowest[1][1], endpoint))


def _fresh(store: Store, rule: AlertRule, seconds: float, now: float) -> dict[Series, list[Point]]:
    """The series of the last seconds, but for those that ended: they belong to a replica that is gone."""
    found = by_series(samples(store, METRICS[rule.metric].samples, now - seconds, now, rule.endpoint))
    return {name: points for name, points in found.items() if now - points[-1][0] <= STALE_SECONDS}


def _too_few(store: Store, rule: AlertRule, seconds: float, now: float) -> set[str]:
    """The endpoints that had fewer requests in the last seconds, of all replicas, than a percentile needs."""
    asked: dict[str, float] = defaultdict(float)
    for *_, endpoint, value in samples(store, "requests_per_second", now - seconds, now, rule.endpoint):
        asked[endpoint] += value
    return {endpoint for endpoint, count in asked.items() if count < FEWEST_REQUESTS}


def _named(value: float, name: Series) -> Reading:
    replica, release, endpoint = name
    subject = f"endpoint:{endpoint}" if endpoint else f"replica:{replica}" if replica else "production"
    return Reading(value, subject, release)


def _error_ratio(
    store: Store, rule: AlertRule, metric: Metric, series: dict[Series, list[Point]], now: float
) -> Reading | None:
    """The worst share of failed requests, of an endpoint or of all together; None for too few to tell."""
    failed = by_series(samples(store, "errors_per_second", now - metric.window_seconds, now, rule.endpoint))
    asked: dict[str, float] = defaultdict(float)
    wrong: dict[str, float] = defaultdict(float)
    worst: dict[str, tuple[float, str]] = {}
    for name, points in series.items():
        errors = sum(v for _, v in failed.get(name, []))
        asked[name[2]] += sum(v for _, v in points)
        wrong[name[2]] += errors
        worst[name[2]] = max(worst.get(name[2], (-1.0, "")), (errors, name[1]))
    ratios = [(wrong[endpoint] / requests, endpoint) for endpoint, requests in asked.items() if requests > 0]
    if not ratios:
        return NO_REQUESTS
    calm = rule.above if rule.resolve is None else rule.resolve
    ratios = [one for one in ratios if one[0] <= calm or wrong[one[1]] >= FEWEST_ERRORS]
    if not ratios:
        return None
    ratio, endpoint = max(ratios)
    return Reading(ratio, f"endpoint:{endpoint}" if endpoint else "production", worst[endpoint][1])


def _deaths(store: Store, now: float, window_seconds: float) -> Reading:
    died = [e for e in store.events(kind="replica.died", since=now - window_seconds, limit=100) if e.t <= now]
    return Reading(float(len(died)), died[-1].subject if died else "production")


def _say_stale(store: Store, stored: str, now: float) -> None:
    """Record, once for each gap, that a metric stopped arriving."""
    known = store.samples(stored, since=now - FORGOTTEN_SECONDS, until=now)
    subject = f"metric:{stored}"
    if known and not store.events(kind="alert.stale", subject=subject, since=known[-1][0], limit=1):
        seconds = now - known[-1][0]
        message = f"{stored} has not arrived for {seconds:.0f} s: unknown, not zero; what fires stays firing."
        store.event("monitor", "alert.stale", subject, message, who="agent", seconds=seconds)
