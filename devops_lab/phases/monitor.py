"""Monitor: see what happens in production without access to it. Everything here is read from the lab's store.

The agent measures and writes; this module reads, summarises and judges (alert rules). It never opens
production's folder, a process or a port.
"""

from __future__ import annotations

import time
from collections import defaultdict
from dataclasses import dataclass, replace
from functools import cached_property
from math import isnan
from statistics import fmean
from typing import TYPE_CHECKING, Any

from devops_lab.errors import BadInput
from devops_lab.model import Alert, AlertRule, LogLine, Outcome
from devops_lab.phases import World, histograms
from devops_lab.phases.alerting import (
    DEFAULT_RULES,
    Point,
    Reading,
    by_series,
    check,
    read,
    samples,
    slope_per_minute,
)
from devops_lab.settings import choice

if TYPE_CHECKING:
    from devops_lab.phases.slo import Objectives

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")
STATES = ("pending", "firing", "resolved")
JITTER_SECONDS = 0.1  # ticks are a second apart, give or take: who holds "for 2 s" holds for two of them


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint over a window; percentiles are as exact as the shop's buckets."""

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


@dataclass(frozen=True)
class Hit:
    """A log line that was searched for, and the customer's side of the same request, where one is known."""

    line: LogLine
    customer: Outcome | None


class Monitor:
    """The reader's window on production.

    Args:
        world: the lab that is watched.
    """

    def __init__(self, world: World) -> None:
        self.world = world
        self.store = world.store

    @cached_property
    def slo(self) -> Objectives:
        """What customers were promised, and how much of the error budget is left."""
        from devops_lab.phases.slo import Objectives

        return Objectives(self)

    @property
    def scrape_url(self) -> str:
        """Where Prometheus, or anybody, can scrape all of the lab."""
        return str(self.world.control.status()["scrape_url"])

    # ---- what is seen
    def endpoints(self, since: float | None = None, until: float | None = None) -> list[EndpointRow]:
        """Rate, errors and response times of each endpoint, slowest p95 first; the last minute by default."""
        since, until = _window(since, until)
        asked = samples(self.store, "requests_per_second", since, until, "*")
        seconds = max(len({int(t) for t, *_ in asked}), 1)
        failed = self.store.totals("errors_per_second", since, until)
        took = histograms.histograms(self.store, since, until)
        rates: dict[str, float] = defaultdict(float)
        for *_, name, value in asked:
            rates[name] += value / seconds

        def row(name: str, rate: float) -> EndpointRow:
            wrong = failed.get(("errors_per_second", name), 0.0) / seconds
            p50, p95, p99 = (histograms.quantile_ms(q, took.get(name, {})) for q in (0.50, 0.95, 0.99))
            return EndpointRow(name, rate, wrong, wrong / rate, p50, p95, p99)

        return sorted(
            (row(name, rate) for name, rate in rates.items() if rate), key=lambda r: -(r.p95_ms or 0)
        )

    def usage(self, since: float | None = None) -> list[UsageRow]:
        """CPU (mean), memory (newest, trend) and log size of each replica; by default of the last minute."""
        metrics = ("cpu_percent", "memory_bytes", "log_bytes")
        found = {m: by_series(samples(self.store, m, *_window(since))) for m in metrics}
        rows = []
        for (replica, release, _), memory in sorted(found["memory_bytes"].items()):
            cpu = found["cpu_percent"].get((replica, release, ""), [])
            logs = found["log_bytes"].get((replica, release, ""), [])
            busy = fmean(v for _, v in cpu) if cpu else 0.0
            trend = slope_per_minute(memory)
            rows.append(UsageRow(replica, release, busy, memory[-1][1], trend, logs[-1][1] if logs else 0.0))
        return rows

    def disk(self) -> list[Point]:
        """Bytes that production's folder took over the last minute."""
        return [(t, value) for t, *_, value in samples(self.store, "disk_bytes", *_window(None))]

    def logs(self, level: str = "", **wanted: Any) -> list[LogLine]:
        """The newest log lines that match all that is given, newest first.

        Args:
            level: of `LEVELS`, in any case.
            wanted: endpoint, request_id, release, replica; text (a part of the message); since, until
                (POSIX seconds); limit (100).

        Raises:
            BadInput: there is no such level.
        """
        return self.store.logs(level=choice("log level", level.upper(), LEVELS) if level else "", **wanted)

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

    def search(self, words: str, **wanted: Any) -> list[Hit]:
        """The newest log lines that hold all words, each with what the customer saw of that request.

        Args:
            words: in any order and case; `order*` finds all that begins so.
            wanted: since, until (POSIX seconds); limit (100).
        """
        return [Hit(line, customer) for line, customer in self.store.search(words, **wanted)]

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
        self.close_alert(name)
        self.store.remove(AlertRule, name)

    def close_alert(self, name: str) -> None:
        """End what a rule that is not there any more has open."""
        for alert in self._open():
            if alert.rule == name and alert.state == "firing":
                self._resolve(alert, time.time(), "its rule was removed")
            elif alert.rule == name:
                self.store.remove(Alert, alert.key)

    def alerts(self, state: str = "") -> list[Alert]:
        """All alerts, oldest first, or those in one state: pending, firing, resolved."""
        if state:
            choice("alert state", state, STATES)
        found = sorted(self.store.all(Alert), key=lambda a: a.since)
        return [a for a in found if not state or a.state == state]

    # ---- the agent calls this every second
    def evaluate(self, now: float | None = None) -> list[Alert]:
        """Judge every rule: pending > firing (held for `for_seconds`) > resolved (at or below `resolve`).

        As in Prometheus, where nobody asks there is no percentile and no share of errors (NaN): the alert
        resolves. A metric that stopped arriving is stale, never zero: what fires stays, and it is said once.

        Returns:
            the alerts that changed their state now.
        """
        now = time.time() if now is None else now
        unfinished = {alert.rule: alert for alert in self._open()}
        read_now = [(rule, read(self.store, rule, now)) for rule in self.rules()]
        judged = [*read_now, *self.slo.readings(now)]
        changed = [self.judge(rule, seen, unfinished.get(rule.name), now) for rule, seen in judged]
        return [alert for alert in changed if alert]

    def judge(
        self, rule: AlertRule, reading: Reading | None, alert: Alert | None, now: float
    ) -> Alert | None:
        """Take a rule's unfinished alert one step on, by what was read; the alert, if its state changed."""
        above = reading is not None and reading.value > rule.above  # never of NaN: nothing to measure
        if alert and alert.state == "pending" and not above:
            self.store.remove(Alert, alert.key)  # it has to hold without a gap
            return None
        if reading is None:
            return None
        if alert is None or alert.state == "pending":
            if not above:
                return None
            known = alert or Alert(rule.name, "pending", now, reading.value, reading.subject)
            if now - known.since >= rule.for_seconds - JITTER_SECONDS:
                return self._fire(rule, known, reading)
            return None if alert else self._keep(known)
        if not reading.value > (rule.above if rule.resolve is None else rule.resolve):
            nothing = f"no requests any more, so there is no {rule.metric}"
            return self._resolve(
                alert, now, nothing if isnan(reading.value) else f"{rule.metric} is {reading.value:.4g}"
            )
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
        elif rule.metric in ("error_ratio", "burn_rate"):
            lines = self.store.logs(since=alert.since - 10, level="ERROR", limit=3)
            proof += [f"request:{line.request_id}" for line in lines if line.request_id]
        for origin in proof:
            self.store.link(subject, "seen on", origin)
        message = f"{rule.summary} {rule.metric} is {seen.value:.4g} on {seen.subject}.".strip()
        self.store.event(
            "monitor", "alert.firing", subject, message, who="agent",
            why=f"{rule.metric} above {rule.above:g} for {rule.for_seconds:g} s",
            value=seen.value, above=rule.above, metric=rule.metric, evidence=proof,
        )  # fmt: skip
        return self._keep(
            replace(alert, state="firing", value=seen.value, subject=seen.subject, evidence=proof)
        )

    def _resolve(self, alert: Alert, now: float, why: str) -> Alert:
        seconds = now - alert.since
        message = f"After {seconds:.0f} s: {why}."
        self.store.event(
            "monitor", "alert.resolved", f"alert:{alert.rule}", message, who="agent", why=why,
            value=alert.value, seconds=seconds,
        )  # fmt: skip
        return self._keep(replace(alert, state="resolved", resolved=now))

    def _open(self) -> list[Alert]:
        return [alert for alert in self.store.all(Alert) if alert.state != "resolved"]


def _window(since: float | None, until: float | None = None) -> Point:
    """The last minute, where nothing else is asked for."""
    end = time.time() if until is None else until
    return end - 60 if since is None else since, end
