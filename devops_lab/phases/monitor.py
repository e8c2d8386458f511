"""Monitor: see what happens in production without access to it. Everything here is read from the lab's store.

The agent measures and writes; this module reads, summarises and judges (alert rules). It never opens
production's folder, a process or a port.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

from devops_lab.errors import BadInput
from devops_lab.model import Alert, AlertRule, LogLine, Outcome
from devops_lab.phases import World
from devops_lab.phases.alerting import (
    DEFAULT_RULES,
    METRICS,
    Point,
    Reading,
    by_series,
    check,
    read,
    samples,
    slope_per_minute,
)
from devops_lab.settings import choice

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
STATES = ("pending", "firing", "resolved")


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint over a window; percentiles are the means of each second's, weighted by its requests."""

    endpoint: str
    requests_per_second: float
    errors_per_second: float
    error_ratio: float
    p50_ms: float | None  # None: not measured in the window
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class UsageRow:
    """What one replica took over a window."""

    replica: str
    release: str
    cpu_percent: float
    memory_bytes: float
    memory_bytes_per_minute: float | None
    log_bytes: float


@dataclass(frozen=True)
class Trace:
    """One request, found again by its id: the customer's side and the replica's."""

    request_id: str
    lines: list[LogLine]
    customer: Outcome | None


class Monitor:
    """The reader's window on production.

    Args:
        world: the lab that is watched.
    """

    METRICS = METRICS

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store

    # ---- what is seen
    def signals(
        self, since: float | None = None, until: float | None = None, endpoint: str = ""
    ) -> dict[str, dict[str, list[Point]]]:
        """The four golden signals (Google, Site Reliability Engineering, chapter 6), second by second.

        Args:
            since, until: the window, POSIX seconds; the last minute when not given.
            endpoint: whose latency, traffic and errors; "" = all together. Saturation has no endpoint.

        Returns:
            {"latency": {"p50_ms": [(t, value), …], …}, "traffic": …, "errors": …, "saturation": …}. Over
            replicas, traffic, errors and requests in flight are summed; of the others the worst is shown.
        """
        until = time.time() if until is None else until
        since = until - 60 if since is None else since

        def series(metric: str, merge: Callable[[list[float]], float], of: str = "") -> list[Point]:
            seconds: dict[int, list[float]] = defaultdict(list)
            for t, _, _, _, value in samples(self.store, metric, since, until, of):
                seconds[int(t)].append(value)
            return [(float(second), merge(values)) for second, values in sorted(seconds.items())]

        return {
            "latency": {m: series(m, max, endpoint) for m in ("p50_ms", "p95_ms", "p99_ms")},
            "traffic": {"requests_per_second": series("requests_per_second", sum, endpoint)},
            "errors": {"errors_per_second": series("errors_per_second", sum, endpoint)},
            "saturation": {
                "cpu_percent": series("cpu_percent", max),
                "memory_bytes": series("memory_bytes", max),
                "in_flight": series("in_flight", sum),
            },
        }

    def endpoints(self, since: float | None = None, until: float | None = None) -> list[EndpointRow]:
        """Rate, errors and response times of each endpoint, slowest p95 first; the last minute by default."""
        until = time.time() if until is None else until
        since = until - 60 if since is None else since
        weight: dict[tuple[int, str, str], float] = {}
        rates, errors = (defaultdict(list), defaultdict(list))  # type: dict[str, list[float]], dict[str, list[float]]
        times: dict[tuple[str, str], list[Point]] = defaultdict(list)
        for t, replica, _, name, value in samples(self.store, "requests_per_second", since, until, "*"):
            weight[int(t), replica, name] = value
            rates[name].append(value)
        for _, _, _, name, value in samples(self.store, "errors_per_second", since, until, "*"):
            errors[name].append(value)
        for metric in ("p50_ms", "p95_ms", "p99_ms"):
            for t, replica, _, name, value in samples(self.store, metric, since, until, "*"):
                times[name, metric].append((weight.get((int(t), replica, name), 0), value))
        seconds = max(len({second for second, _, _ in weight}), 1)

        def row(name: str) -> EndpointRow:
            rate, wrong = sum(rates[name]) / seconds, sum(errors[name]) / seconds
            p50, p95, p99 = (_weighted(times[name, metric]) for metric in ("p50_ms", "p95_ms", "p99_ms"))
            return EndpointRow(name, rate, wrong, wrong / rate if rate else 0.0, p50, p95, p99)

        return sorted((row(name) for name in rates if any(rates[name])), key=lambda r: -(r.p95_ms or 0))

    def usage(self, since: float | None = None) -> list[UsageRow]:
        """CPU (mean), memory (newest, trend) and log size of each replica; by default of the last minute."""
        until = time.time()
        since = until - 60 if since is None else since
        found = {
            m: by_series(samples(self.store, m, since, until))
            for m in ("cpu_percent", "memory_bytes", "log_bytes")
        }
        rows = []
        for (replica, release, _), memory in sorted(found["memory_bytes"].items()):
            cpu = found["cpu_percent"].get((replica, release, ""), [])
            logs = found["log_bytes"].get((replica, release, ""), [])
            busy = fmean(v for _, v in cpu) if cpu else 0.0
            trend = slope_per_minute(memory)
            rows.append(UsageRow(replica, release, busy, memory[-1][1], trend, logs[-1][1] if logs else 0.0))
        return rows

    def disk(self, since: float | None = None) -> list[Point]:
        """Bytes that production's folder takes, over time; the last minute by default."""
        until = time.time()
        found = samples(self.store, "disk_bytes", until - 60 if since is None else since, until)
        return [(t, value) for t, _, _, _, value in found]

    def logs(
        self,
        *,
        level: str = "",
        endpoint: str = "",
        request_id: str = "",
        release: str = "",
        replica: str = "",
        text: str = "",
        since: float = 0.0,
        until: float = 1e12,
        limit: int = 100,
    ) -> list[LogLine]:
        """The newest `limit` log lines that match all that is given, newest first; `text` is in the message.

        Raises:
            BadInput: there is no such level.
        """
        level = choice("log level", level.upper(), LEVELS) if level else ""
        return self.store.logs(
            level=level, endpoint=endpoint, request_id=request_id, release=release, replica=replica,
            text=text, since=since, until=until, limit=limit,
        )  # fmt: skip

    def trace(self, request_id: str) -> Trace:
        """Follow one request: what its replica logged (oldest first) and what the customer saw.

        Raises:
            BadInput: no log line carries this id.
        """
        lines = self.store.logs(request_id=request_id, limit=1000)[::-1]
        if not lines:
            raise BadInput(
                f"No log line carries the request id {request_id!r}.",
                expected="an id from X-Request-Id, or from the request_id of a log line",
                next_step="Look for one with monitor.logs(level='ERROR').",
            )
        around = self.store.requests(since=lines[0].t - 60, until=lines[-1].t + 60)
        return Trace(request_id, lines, next((o for o in around if o.request_id == request_id), None))

    # ---- rules
    def rules(self) -> list[AlertRule]:
        """The rules that are in force; a new lab starts with DEFAULT_RULES."""
        found = self.store.all(AlertRule)
        if not found and not self.store.events(kind="monitor.rules", limit=1):
            self.store.put(*DEFAULT_RULES)
            self.store.event(
                "monitor", "monitor.rules", "rules", f"{len(DEFAULT_RULES)} alert rules to start with"
            )
            found = self.store.all(AlertRule)
        return found

    def add_rule(self, rule: AlertRule) -> AlertRule:
        """Keep a rule, in place of one with the same name.

        Raises:
            BadInput: unknown metric, a threshold that makes no sense, or a `resolve` above it.
        """
        self.rules()  # so that the defaults are there before the reader's first rule
        self.store.put(check(rule))
        return rule

    def remove_rule(self, name: str) -> None:
        """Drop a rule; what it has open is closed, because nothing watches it any more."""
        choice("alert rule", name, tuple(rule.name for rule in self.rules()))
        for alert in self._open():
            if alert.rule == name and alert.state == "firing":
                self._resolve(alert, time.time(), "its rule was removed")
            elif alert.rule == name:
                self.store.remove(Alert, alert.key)
        self.store.remove(AlertRule, name)

    def alerts(self, state: str = "") -> list[Alert]:
        """All alerts, oldest first, or those in one state: pending, firing, resolved."""
        if state:
            choice("alert state", state, STATES)
        found = sorted(self.store.all(Alert), key=lambda a: a.since)
        return [a for a in found if not state or a.state == state]

    # ---- the agent calls this every second
    def evaluate(self, now: float | None = None) -> list[Alert]:
        """Judge every rule: pending > firing (held for `for_seconds`) > resolved (at or below `resolve`).

        A metric that stopped arriving is stale, never zero: its firing alerts stay, and that is said once.

        Returns:
            the alerts that changed their state now.
        """
        now = time.time() if now is None else now
        unfinished = {alert.rule: alert for alert in self._open()}
        changed = (self._judge(rule, unfinished.get(rule.name), now) for rule in self.rules())
        return [alert for alert in changed if alert]

    def _judge(self, rule: AlertRule, alert: Alert | None, now: float) -> Alert | None:
        reading = read(self.store, rule, now)
        limit = rule.above if rule.resolve is None else rule.resolve
        if reading is None or (alert and alert.state == "pending" and reading.value <= rule.above):
            if alert and alert.state == "pending":  # it has to hold without a gap
                self.store.remove(Alert, alert.key)
            return None
        if alert is None and reading.value > rule.above:
            alert = Alert(rule.name, "pending", now, reading.value, reading.subject)
            return self._fire(rule, alert, reading) if rule.for_seconds <= 0 else self._keep(alert)
        if alert is None:
            return None
        if alert.state == "pending":
            return self._fire(rule, alert, reading) if now - alert.since >= rule.for_seconds else None
        if reading.value <= limit:
            return self._resolve(alert, now, f"{rule.metric} is {reading.value:.4g}")
        if reading.value > alert.value:  # a firing alert carries its peak
            self.store.put(replace(alert, value=reading.value))
        return None

    def _keep(self, alert: Alert) -> Alert:
        self.store.put(alert)
        return alert

    def _fire(self, rule: AlertRule, alert: Alert, seen: Reading) -> Alert:
        """Record the alert with its evidence: whose value, which release, and requests that show it."""
        subject = f"alert:{rule.name}"
        proof = [seen.subject, *([f"release:{seen.release}"] if seen.release else [])]
        if seen.subject.startswith("endpoint:"):
            lines = self.store.logs(endpoint=seen.subject.removeprefix("endpoint:"), since=alert.since - 10)
            slowest = sorted(lines, key=lambda line: -line.seconds)[:3]
            proof += [f"request:{line.request_id}" for line in slowest if line.request_id]
        elif rule.metric == "error_ratio":
            lines = self.store.logs(since=alert.since - 10, level="ERROR", limit=3)
            proof += [f"request:{line.request_id}" for line in lines if line.request_id]
        for origin in proof:
            self.store.link(subject, "seen on", origin)
        message = f"{rule.summary} {rule.metric} is {seen.value:.4g} on {seen.subject}.".strip()
        data: dict[str, Any] = {
            "value": seen.value,
            "above": rule.above,
            "metric": rule.metric,
            "evidence": proof,
        }
        self.store.event("monitor", "alert.firing", subject, message, **data)
        return self._keep(
            replace(alert, state="firing", value=seen.value, subject=seen.subject, evidence=proof)
        )

    def _resolve(self, alert: Alert, now: float, why: str) -> Alert:
        seconds = now - alert.since
        message = f"After {seconds:.0f} s: {why}."
        self.store.event(
            "monitor", "alert.resolved", f"alert:{alert.rule}", message, value=alert.value, seconds=seconds
        )
        return self._keep(replace(alert, state="resolved", resolved=now))

    def _open(self) -> list[Alert]:
        return [alert for alert in self.store.all(Alert) if alert.state != "resolved"]


def _weighted(points: list[tuple[float, float]]) -> float | None:
    """The mean of (weight, value) pairs; the plain mean when nothing has a weight."""
    total = sum(weight for weight, _ in points)
    if total:
        return sum(weight * value for weight, value in points) / total
    return fmean(value for _, value in points) if points else None
