"""The bench's own parts: bars are judged, CPU is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from devops_lab.phases.monitor import Monitor
from tests.bench import dashboard
from tests.bench.measures import Row, cpu_seconds


def test_a_bar_is_missed_above_it_only() -> None:
    assert Row("a", 1.5, "x", 1.5).ok
    assert not Row("a", 1.51, "x", 1.5).ok
    assert str(Row("a", 1.51, "x", 1.5)).endswith("bar 1.5: MISSED")
    assert Row("for information", 1e9, "s").ok


def test_cpu_time_is_of_the_child() -> None:
    busy = cpu_seconds(["-c", "sum(i for i in range(3_000_000))"], 1)
    assert busy > cpu_seconds(["-c", "import time; time.sleep(0.2)"], 1)
    with pytest.raises(RuntimeError, match="ended with 3"):
        cpu_seconds(["-c", "raise SystemExit(3)"], 1)


def test_a_dashboard_costs_what_its_window_holds_not_what_is_stored(tmp_path: Path) -> None:
    """Counted in steps of SQLite's machine, which are the same on every computer."""

    def steps(monitor: Monitor, window: float) -> int:
        taken = 0

        def count() -> int:
            nonlocal taken
            taken += 1
            return 0

        monitor.store.db.set_progress_handler(count, 100)
        dashboard.dashboard(monitor, dashboard.NOW - window, dashboard.NOW)
        monitor.store.db.set_progress_handler(None, 0)
        return taken

    series = len(dashboard.REPLICAS) * len(dashboard.names())
    alone = dashboard.filled(tmp_path / "alone.db", 60 * series, 6_000)
    full = dashboard.filled(tmp_path / "full.db", 600 * series, 60_000)
    minute = steps(full, 60)
    assert minute < 1.2 * steps(alone, 60)
    assert steps(full, 600) < 10 * minute
