"""Monitor reads the store and nothing else; alerts go pending > firing > resolved; stale is never zero."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab.errors import BadInput
from devops_lab.model import Alert, AlertRule, LogLine, Request
from devops_lab.phases.monitor import Monitor
from devops_lab.platform.context import LabContext
from devops_lab.platform.monitoring.rules import DEFAULT_RULES, check
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store

MEMORY = AlertRule("big", "memory_bytes", 100.0, for_seconds=3, resolve=80.0)


@pytest.fixture
def monitor(tmp_path: Path) -> Monitor:
    return Monitor(LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db")))


@pytest.fixture
def only(monitor: Monitor) -> Monitor:
    """A monitor with no other rule than those that a test adds."""
    for rule in monitor.rules():
        monitor.remove_rule(rule.name)
    return monitor


def feed(m: Monitor, metric: str, t: float, value: float, replica: str = "r1", endpoint: str = "") -> None:
    m.store.add_samples([(t, metric, replica, "1.1.0", endpoint, value)])
    if metric.endswith("_ms"):  # of all replicas together, as the agent keeps it besides
        m.store.add_samples([(t, metric, "", "", endpoint, value)])


def run(m: Monitor, values: list[float | None], start: float, metric: str = "memory_bytes") -> list[str]:
    """Feed one value a second (None: nothing arrives), judge after each, and return the state after each."""
    states: list[str] = []
    for second, value in enumerate(values):
        if value is not None:
            feed(m, metric, start + second, value)
        m.evaluate(start + second)
        found = m.alerts()
        states.append(found[-1].state if found else "-")
    return states


def kinds(m: Monitor) -> list[str]:
    return [event.kind for event in m.store.events(kind="alert.*")]


def test_pending_then_firing_then_resolved_each_said_once(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, metric="replicas_down", above=0.5, resolve=0.0))  # newest value: no window
    now = time.time() - 30
    states = run(only, [1, 1, 0, 0, 0, 0, 1, 1, 1], now, metric="up")
    assert states == ["-", "-", "pending", "pending", "pending", "firing", "resolved", "resolved", "resolved"]
    assert kinds(only) == ["alert.firing", "alert.resolved"]
    firing = only.store.events(kind="alert.firing")[0]
    assert firing.data["value"] == 1
    assert only.alerts("resolved")[0].subject == "replica:r1"
    assert ("alert:big", "seen on", "release:1.1.0") in [row[:3] for row in only.store.trail("alert:big")]


def test_a_short_spike_never_fires(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, metric="replicas_down", above=0.5, resolve=0.0))
    states = run(only, [1, 0, 0, 1, 1], time.time() - 30, metric="up")
    assert states == ["-", "pending", "pending", "-", "-"]
    assert kinds(only) == []


def test_a_tick_that_comes_a_little_early_counts(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, metric="disk_bytes", for_seconds=2))
    start = time.time() - 30
    for late in (0.02, 1.0, 2.0):  # 1.98 s from the first to the third
        feed(only, "disk_bytes", start + late, 120)
        only.evaluate(start + late)
    assert only.alerts()[0].state == "firing"


def test_between_resolve_and_threshold_a_firing_alert_stays_and_a_new_one_does_not_begin(
    only: Monitor,
) -> None:
    only.add_rule(replace(MEMORY, metric="disk_bytes", for_seconds=0))
    assert run(only, [90, 120, 90, 110, 90, 79, 90], time.time() - 30, metric="disk_bytes") == [
        "-", "firing", "firing", "firing", "firing", "resolved", "resolved",
    ]  # fmt: skip
    assert only.alerts()[0].value == 120


def test_a_stale_metric_is_said_once_and_neither_resolves_nor_fires(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, metric="disk_bytes", for_seconds=0))
    start = time.time() - 15
    states = run(only, [120, 120, *[None] * 12], start, metric="disk_bytes")
    assert set(states) == {"firing"}
    assert kinds(only) == ["alert.firing", "alert.stale"]
    assert "not zero" in only.store.events(kind="alert.stale")[0].message
    feed(only, "disk_bytes", start + 20, 10)
    only.evaluate(start + 20)
    assert only.alerts()[0].state == "resolved"


def test_a_pending_alert_does_not_ripen_while_nothing_arrives(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, metric="disk_bytes", for_seconds=8))
    assert run(only, [120, *[None] * 11, 120], time.time() - 20, metric="disk_bytes")[-1] == "pending"
    assert "alert.firing" not in kinds(only)


def test_memory_of_a_replica_that_is_gone_does_not_keep_an_alert(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, for_seconds=0))
    start = time.time() - 30
    feed(only, "memory_bytes", start, 500, "leaky")
    only.evaluate(start)
    assert only.alerts("firing")[0].subject == "replica:leaky"
    for second in range(1, 8):
        feed(only, "memory_bytes", start + second, 50, "fresh")
        only.evaluate(start + second)
    assert only.alerts()[0].state == "resolved"


def test_a_leak_is_seen_by_its_slope_long_before_a_level(only: Monitor) -> None:
    only.add_rule(AlertRule("growth", "memory_bytes_per_minute", 1e6))
    start = time.time() - 30
    for second in range(20):
        feed(only, "memory_bytes", start + second, 5e7 + 1e5 * second, "leaky")  # 6 MB a minute
        feed(only, "memory_bytes", start + second, 6e7, "steady")
        fired = only.evaluate(start + second)
        if fired:
            break
    assert second == 10
    assert fired[0].subject == "replica:leaky"
    assert fired[0].value == pytest.approx(6e6)


def test_a_log_that_was_cut_counts_on_from_zero(only: Monitor) -> None:
    only.add_rule(AlertRule("flood", "log_bytes_per_minute", 1000))
    start = time.time() - 30
    for second, size in enumerate([0, 100, 200, 50, 150]):
        feed(only, "log_bytes", start + second, size)
    only.evaluate(start + 4)
    assert only.alerts("firing")[0].value == pytest.approx((200 + 50 + 100) / 4 * 60)


def test_the_slow_endpoint_is_named_with_requests_that_show_it(only: Monitor) -> None:
    only.add_rule(AlertRule("slow", "p95_ms", 250, endpoint="*"))
    now = time.time()
    feed(only, "p95_ms", now, 900)  # all together: not an endpoint
    feed(only, "p95_ms", now, 20, endpoint="/api/menu")
    feed(only, "p95_ms", now, 800, endpoint="/api/search")
    only.store.add_logs(
        [LogLine(now, "INFO", "GET", "r1", "1.1.0", "/api/search", f"q{n}", 200, n / 10) for n in range(6)]
    )
    alert = only.evaluate(now)[0]
    assert (alert.subject, alert.value) == ("endpoint:/api/search", 800)
    assert alert.evidence == [
        "endpoint:/api/search",
        "release:1.1.0",
        "request:q5",
        "request:q4",
        "request:q3",
    ]


def test_an_endpoint_that_few_ask_for_is_judged_over_longer(only: Monitor) -> None:
    """One request a second is too few for five seconds, and enough for twenty; one slow one is bad luck."""
    only.add_rule(AlertRule("slow", "p95_ms", 250, endpoint="*"))
    now = time.time() - 60
    told = []
    for second in range(16):
        for endpoint, asked, waits in (("/api/menu", 20, 10), ("/api/orders/{id}", 1, 900)):
            feed(only, "requests_per_second", now + second, asked, endpoint=endpoint)
            feed(only, "p95_ms", now + second, waits, endpoint=endpoint)
        only.evaluate(now + second)
        told.append([alert.subject for alert in only.alerts("firing")])
    assert (told[8], told[15]) == ([], ["endpoint:/api/orders/{id}"])


def test_no_traffic_is_neither_slow_nor_stale(only: Monitor) -> None:
    only.add_rule(AlertRule("slow", "p95_ms", 250))
    only.add_rule(AlertRule("errors", "error_ratio", 0.05))
    now = time.time()
    feed(only, "p95_ms", now - 20, 20)
    feed(only, "up", now, 1)
    assert only.evaluate(now) == []
    assert kinds(only) == []


@pytest.mark.parametrize("rate_goes_on", [True, False])
def test_when_customers_are_gone_a_figure_of_requests_resolves(only: Monitor, rate_goes_on: bool) -> None:
    only.add_rule(AlertRule("slow", "p95_ms", 250, resolve=100))
    only.add_rule(AlertRule("errors", "error_ratio", 0.05))
    start = time.time() - 30
    for second in range(14):
        busy = second < 2
        feed(only, "up", start + second, 1)
        if busy or rate_goes_on:
            feed(only, "requests_per_second", start + second, 50.0 * busy)
        if busy:
            feed(only, "p95_ms", start + second, 900)
            feed(only, "errors_per_second", start + second, 40)
        only.evaluate(start + second)
        states = {alert.state for alert in only.alerts()}
        assert states == {"firing"} if second < 6 else True
    assert states == {"resolved"}
    assert kinds(only) == ["alert.firing", "alert.firing", "alert.resolved", "alert.resolved"]
    assert "no requests any more" in only.store.events(kind="alert.resolved")[0].message


def test_the_error_ratio_is_over_all_replicas(only: Monitor) -> None:
    only.add_rule(AlertRule("errors", "error_ratio", 0.05))
    now = time.time()
    for replica, errors in (("r1", 0.0), ("r2", 12.0)):
        feed(only, "requests_per_second", now, 50, replica)
        feed(only, "errors_per_second", now, errors, replica)
    assert only.evaluate(now)[0].value == pytest.approx(0.12)


def test_a_crash_loop_is_read_from_events(only: Monitor) -> None:
    only.add_rule(AlertRule("crash-loop", "deaths_per_minute", 2.5))
    for n in range(3):
        assert only.evaluate() == []
        only.store.event("operate", "replica.died", f"replica:r{n}")
    assert only.evaluate()[0].subject == "replica:r2"


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (replace(MEMORY, metric="memory_byte"), "Did you mean 'memory_bytes'"),
        (replace(MEMORY, above=math.nan), "above = nan"),
        (replace(MEMORY, above=-1.0), "above = -1"),
        (replace(MEMORY, metric="error_ratio", above=5.0, resolve=None), "above = 5.0"),
        (replace(MEMORY, resolve=101.0), "resolve = 101.0"),
        (replace(MEMORY, for_seconds=-1), "for_seconds = -1"),
        (replace(MEMORY, name="a b"), "name = 'a b'"),
        (replace(MEMORY, endpoint="/api/menu"), "endpoint = '/api/menu'"),
    ],
)
def test_a_rule_that_can_not_work_is_refused(monitor: Monitor, rule: AlertRule, said: str) -> None:
    before = monitor.rules()
    with pytest.raises(BadInput, match=said):
        monitor.add_rule(rule)
    assert monitor.rules() == before


def test_default_rules_are_there_once_and_all_can_work(monitor: Monitor) -> None:
    assert [check(rule) for rule in DEFAULT_RULES] == list(DEFAULT_RULES)
    assert {rule.name for rule in monitor.rules()} == {rule.name for rule in DEFAULT_RULES}
    for rule in DEFAULT_RULES:
        monitor.remove_rule(rule.name)
    assert Monitor(monitor.world).rules() == []
    with pytest.raises(BadInput, match="no alert rule"):
        monitor.remove_rule("memory")


def test_removing_a_rule_closes_what_it_has_open(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, for_seconds=0))
    feed(only, "memory_bytes", time.time(), 500)
    only.evaluate()
    only.remove_rule("big")
    assert [a.state for a in only.alerts()] == ["resolved"]
    assert "removed" in only.store.events(kind="alert.resolved")[0].message


def test_endpoints_slowest_first(monitor: Monitor) -> None:
    now = float(int(time.time()))
    for second in (now - 2, now - 1):
        for endpoint, rate, bound in (("/api/menu", 10, 0.005), ("/api/search", 5, 0.5), ("/api/info", 0, 1)):
            feed(monitor, "requests_per_second", second, rate, endpoint=endpoint)
            if rate:
                feed(monitor, f"took_le_{bound}", second, rate, endpoint=endpoint)
    feed(monitor, "requests_per_second", now - 1, 2, endpoint="/api/orders")
    feed(monitor, "errors_per_second", now - 1, 1, endpoint="/api/search")
    rows = monitor.endpoints()
    assert [row.endpoint for row in rows] == ["/api/search", "/api/menu", "/api/orders"]
    assert (rows[0].requests_per_second, rows[0].error_ratio, rows[0].p50_ms) == (5, 0.1, 375.0)
    assert rows[2].p50_ms is None  # not measured


def test_a_percentile_is_that_of_all_requests_not_the_mean_of_each_seconds(monitor: Monitor) -> None:
    now = float(int(time.time()))
    for second, replica, bound, count in ((3, "r1", "0.01", 90), (2, "r2", "0.1", 9), (1, "r1", "5", 1)):
        feed(monitor, "requests_per_second", now - second, count, replica, "/api/menu")
        feed(monitor, f"took_le_{bound}", now - second, count, replica, "/api/menu")
    (row,) = monitor.endpoints(now - 10, now)
    assert (row.p50_ms, row.p95_ms, row.p99_ms) == pytest.approx((5 + 5 * 50 / 90, 50 + 50 * 5 / 9, 100.0))


def test_usage_of_each_replica_and_of_the_disk(monitor: Monitor) -> None:
    now = time.time()
    for second in range(12):
        feed(monitor, "memory_bytes", now - 12 + second, 1e6 + second * 1000)
        feed(monitor, "cpu_percent", now - 12 + second, second % 2 * 10)
    monitor.store.add_samples([(now - 1, "disk_bytes", "", "", "", 5000.0)])
    row = monitor.usage()[0]
    assert (row.replica, row.release, row.cpu_percent, row.memory_bytes) == ("r1", "1.1.0", 5.0, 1_011_000)
    assert row.memory_bytes_per_minute == pytest.approx(60_000)
    assert [value for _, value in monitor.disk()] == [5000.0]


def test_logs_by_level_text_and_request(monitor: Monitor) -> None:
    now = time.time()
    monitor.store.add_logs(
        [
            LogLine(now, "INFO", "GET /api/menu 200", "r1", "1.1.0", "/api/menu", "a", 200, 0.1),
            LogLine(now + 1, "ERROR", "request failed", "r2", "1.2.0", "/api/orders", "b", 500, 0.2),
            LogLine(now + 2, "INFO", "POST /api/orders 500", "r2", "1.2.0", "/api/orders", "b", 500, 0.2),
        ]
    )
    monitor.store.add_requests([Request(now, "/api/orders", 500, 0.3, request_id="b")])
    assert [line.request_id for line in monitor.logs(level="error")] == ["b"]
    assert [line.request_id for line in monitor.logs(text="MENU")] == ["a"]
    with pytest.raises(BadInput, match="Did you mean 'ERROR'"):
        monitor.logs(level="eror")
    traced = monitor.trace("b")
    assert [line.message for line in traced.lines] == ["request failed", "POST /api/orders 500"]
    assert traced.customer
    assert traced.customer.seconds == 0.3
    (hit,) = monitor.search("request failed", limit=5)
    assert (hit.line.request_id, hit.customer) == ("b", traced.customer)
    with pytest.raises(BadInput, match="No log line"):
        monitor.trace("nobody")


def test_it_works_without_production(monitor: Monitor) -> None:
    assert not monitor.world.production.exists()
    assert monitor.evaluate() == []
    assert (monitor.endpoints(), monitor.usage(), monitor.logs(), monitor.alerts("firing")) == (
        [],
        [],
        [],
        [],
    )
    assert not monitor.world.production.exists()


def test_judging_reads_a_bounded_window_however_long_the_history(monitor: Monitor) -> None:
    """The number of rows that one judgement fetches does not depend on what was stored before."""
    now = time.time()

    def fetched() -> int:
        seen = 0
        inner = monitor.store.samples

        def counting(*args: object, **keywords: object) -> object:
            nonlocal seen
            rows = inner(*args, **keywords)  # type: ignore[arg-type]
            seen += len(rows)
            return rows

        monitor.store.samples = counting  # type: ignore[method-assign, assignment]
        try:
            monitor.evaluate(now)
        finally:
            del monitor.store.samples
        return seen

    def history(start: float, end: float) -> None:
        metrics = (
            "memory_bytes",
            "cpu_percent",
            "log_bytes",
            "up",
            "requests_per_second",
            "p95_ms",
            "disk_bytes",
        )
        monitor.store.add_samples(
            (t, metric, "r1", "1", "", 1.0)
            for metric in metrics
            for t in (start + step for step in range(int(end - start)))
        )

    history(now - 130, now)
    short = fetched()
    history(now - 4000, now - 130)
    assert fetched() == short


def test_an_alert_keeps_its_key(only: Monitor) -> None:
    only.add_rule(MEMORY)
    now = time.time()
    for second in range(5):
        feed(only, "memory_bytes", now + second, 500)
        only.evaluate(now + second)
    assert len(only.store.all(Alert)) == 1


def test_the_trend_of_a_replica_that_is_gone_is_not_judged_any_more(only: Monitor) -> None:
    only.add_rule(AlertRule("growth", "memory_bytes_per_minute", 1e6))
    start = time.time() - 40
    for second in range(25):
        replica, value = ("leaky", 5e7 + 1e5 * second) if second < 12 else ("fresh", 5e7)
        feed(only, "memory_bytes", start + second, value, replica)
        only.evaluate(start + second)
    assert [alert.state for alert in only.alerts()] == ["resolved"]


def fired_after(m: Monitor, memory: list[float]) -> int:
    """Seconds until a default rule fires for a replica's memory, one value a second; -1 for never."""
    start = time.time() - 60
    for second, value in enumerate(memory):
        feed(m, "memory_bytes", start + second, value)
        if any(alert.state == "firing" for alert in m.evaluate(start + second)):
            return second
    return -1


def test_warming_up_is_no_leak(monitor: Monitor) -> None:
    assert fired_after(monitor, [36.3e6] * 12 + [38.9e6] * 20) == -1


@pytest.mark.parametrize("rate", [1.0e6, 2.0e6])
def test_a_leak_fires_within_fifteen_seconds(monitor: Monitor, rate: float) -> None:
    flat = [36.5e6] * 12
    found = fired_after(monitor, flat + [36.5e6 + rate * second for second in range(25)])
    assert 0 < found - len(flat) <= 15


def test_a_replica_that_was_replaced_is_not_down(only: Monitor) -> None:
    only.add_rule(replace(MEMORY, metric="replicas_down", above=0.5, resolve=0.0, for_seconds=2))
    start = time.time() - 10
    feed(only, "up", start, 0, "killed")
    for second in range(5):
        feed(only, "up", start + second, 1, "other")
        only.evaluate(start + second)
    assert kinds(only) == []
