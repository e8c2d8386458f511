"""Monitor: see what happens in production without access to it. Everything here is read from the lab's store.

The agent measures and writes; this module reads, summarises and judges (alert rules). It never opens
production's folder, a process or a port.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from devops_lab.errors import BadInput
from devops_lab.model import EndpointRow, LogLine, Request
from devops_lab.platform import histograms
from devops_lab.platform.monitoring.alerts import Alerting
from devops_lab.platform.monitoring.rules import Point, by_series, samples, slope_per_minute
from devops_lab.platform.settings import choice

LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


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
    customer: Request | None


@dataclass(frozen=True)
class Hit:
    """A log line that was searched for, and the customer's side of the same request, where one is known."""

    line: LogLine
    customer: Request | None


class Monitor(Alerting):
    """The reader's window on production.

    Args:
        world: the lab that is watched.
    """

    @property
    def scrape_url(self) -> str:
        """Where Prometheus, or anybody, can scrape all of the lab."""
        return str(self.world.control.status()["scrape_url"])

    # ---- what is seen
    def endpoints(self, since: float | None = None, until: float | None = None) -> list[EndpointRow]:
        """Rate, errors and response times of each endpoint, slowest p95 first; the last minute by default."""
        since, until = self._window(since, until)
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
        found = {m: by_series(samples(self.store, m, *self._window(since))) for m in metrics}
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
        return [(t, value) for t, *_, value in samples(self.store, "disk_bytes", *self._window(None))]

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

    def _window(self, since: float | None, until: float | None = None) -> Point:
        """The last minute, where nothing else is asked for."""
        end = self.store.now() if until is None else until
        return end - 60 if since is None else since, end
