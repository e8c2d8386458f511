"""The bench: bars are judged, CPU is measured; its whole way runs as a smoke test."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devops_lab import bench
from devops_lab.bench import Row, cpu_seconds, dashboard, run_bench
from devops_lab.phases.monitor import Monitor


def test_a_bar_is_missed_above_it_only() -> None:
    assert Row("a", 1.5, "x", 1.5).ok
    assert not Row("a", 1.51, "x", 1.5).ok
    assert Row("for information", 1e9, "s").ok


def test_cpu_time_is_of_the_child() -> None:
    busy = cpu_seconds(["-c", "sum(i for i in range(3_000_000))"], 1)
    assert busy > cpu_seconds(["-c", "import time; time.sleep(0.2)"], 1)
    with pytest.raises(RuntimeError, match="ended with 3"):
        cpu_seconds(["-c", "raise SystemExit(3)"], 1)


def test_the_exit_code_tells_of_missed_bars(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    rows = [Row("a", 1.0, "s", 2.0), Row("b", 3.0, "s", 2.0)]

    def measured(smoke: bool = False, tell: object = None) -> list[Row]:
        return rows

    monkeypatch.setattr(bench, "run_bench", measured)
    assert bench.main(as_json=True) == 1
    assert [row["ok"] for row in json.loads(capsys.readouterr().out)] == [True, False]
    assert bench.main(smoke=True) == 0
    del rows[1]
    assert bench.main() == 0


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


@pytest.mark.alone
@pytest.mark.slow
def test_smoke() -> None:
    told: list[Row] = []
    rows = run_bench(smoke=True, tell=told.append)
    assert rows == told
    assert {"git push > serves, lab / raw", "one idle lab, resident"} <= {row.name for row in rows}
    assert all(row.value > 0 for row in rows)
