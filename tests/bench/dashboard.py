"""What Monitor shows of a minute, over a store that holds a million samples and a million log lines."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from matplotlib.figure import Figure

from devops_lab import views
from devops_lab.model import LogLine
from devops_lab.phases.monitor import Monitor
from devops_lab.platform import histograms
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store

ENDPOINTS = ("", "/", "/api/menu", "/api/search", "/api/orders", "/api/orders/{id}")
OF_ENDPOINTS = ("requests_per_second", "errors_per_second", "p50_ms", "p95_ms", "p99_ms")
OF_REPLICAS = ("up", "cpu_percent", "memory_bytes", "in_flight", "log_bytes")
REPLICAS = ("r1", "r2", "r3", "r4")
NOW = 1_750_000_000.0
MINUTE = 60.0


@dataclass(frozen=True)
class Times:
    """CPU seconds of one dashboard, medians.

    Args:
        minute: a minute, over all that is stored.
        alone: the same minute, in a store that holds nothing else.
        longer: ten minutes, over all.
        bare: a picture of as many panels and lines by matplotlib alone, which tells how fast this machine is.
    """

    minute: float
    alone: float
    longer: float
    bare: float


def measure(folder: Path, count: int, times: int) -> Times:
    """Draw dashboards by turns.

    Args:
        folder: where two stores are made.
        count: of samples, and of log lines.
        times: of each drawing.
    """
    full = filled(folder / "full.db", count, count)
    seconds = len(REPLICAS) * len(names())
    lines = int(count * MINUTE / max(count / seconds, MINUTE))
    alone = filled(folder / "minute.db", int(MINUTE * seconds), lines)
    draws: list[Callable[[], None]] = [
        lambda: dashboard(full, NOW - MINUTE, NOW),
        lambda: dashboard(alone, NOW - MINUTE, NOW),
        lambda: dashboard(full, NOW - 10 * MINUTE, NOW),
        bare_picture,
    ]
    found: list[list[float]] = [[] for _ in draws]
    for _ in range(times + 1):
        for kept, draw in zip(found, draws, strict=True):
            began = time.process_time()
            draw()
            kept.append(time.process_time() - began)
    return Times(*(statistics.median(kept[1:]) for kept in found))  # the first of each filled the caches


def dashboard(monitor: Monitor, since: float, until: float) -> None:
    """All that a reader looks at together: the four signals, the endpoints, the newest lines, a search."""
    views.golden_signals(monitor.store, since, until)
    views.endpoints(monitor.endpoints(since, until))
    views.logs(monitor.logs(since=since, until=until, limit=20))
    views.logs([hit.line for hit in monitor.search("orders 500", since=since, until=until, limit=20)])


def bare_picture() -> None:
    """Four panels, two lines of sixty points in each, as PNG."""
    figure = Figure(figsize=(9, 4.5), dpi=100)
    for axes in figure.subplots(2, 2).flat:
        for factor in (1, 2):
            axes.plot(range(60), [factor * (n % 7) for n in range(60)], label=str(factor))
        axes.set_title("a panel")
        axes.legend()
    figure.savefig(BytesIO(), format="png")


def names() -> list[tuple[str, str]]:
    """(metric, endpoint) of the series that one replica has, as the agent keeps them."""
    kept = [*OF_ENDPOINTS, *map(histograms.metric, histograms.BOUNDS_SECONDS[1:5])]
    found = [(metric, endpoint) for metric in kept for endpoint in ENDPOINTS]
    return found + [(metric, "") for metric in OF_REPLICAS]


def filled(path: Path, samples: int, lines: int) -> Monitor:
    """A store with made-up figures up to NOW, a second apart, and log lines spread over the same time."""
    store, series = Store(path), names()
    seconds = samples // (len(REPLICAS) * len(series))
    for first in range(0, seconds, 100):
        store.add_samples(
            (NOW - seconds + second, metric, replica, "1.1.0", endpoint, float(second % 50))
            for second in range(first + 1, min(first + 100, seconds) + 1)
            for replica in REPLICAS
            for metric, endpoint in series
        )
    for first in range(0, lines, 20_000):
        store.add_logs(
            _line(n, NOW - seconds * (1 - n / lines)) for n in range(first, min(first + 20_000, lines))
        )
    return Monitor(LabContext(path.parent, Settings(), store))


def _line(number: int, t: float) -> LogLine:
    endpoint, status = ENDPOINTS[1 + number % 5], 500 if number % 97 == 0 else 200
    message, level = f"GET {endpoint} {status}", "ERROR" if status == 500 else "INFO"
    replica = REPLICAS[number % 4]
    return LogLine(t, level, message, replica, "1.1.0", endpoint, f"{number:016x}", status, 0.01)
