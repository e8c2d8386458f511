"""The real Prometheus beside ours: it scrapes a live lab under load, and what it says must be what we say."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import time
import urllib.parse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from devops_lab.errors import AgentDown, BadInput
from devops_lab.model import AlertRule, Slo
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.operate import Operate
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import Control
from devops_lab.platform.histograms import BOUNDS_SECONDS
from devops_lab.platform.monitoring.export import FILES, export
from devops_lab.platform.monitoring.rules import METRICS, OF_ENDPOINTS
from devops_lab.platform.processes import HOST, free_port
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from tests.patience import until
from tests.phases.production import production
from tests.production import get

SHARES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
Vector = dict[tuple[str, ...], float]


@dataclass
class Prometheus:
    url: str

    def ask(self, path: str, **query: str) -> Any:
        answer = json.loads(get(f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        assert answer["status"] == "success", answer
        return answer["data"]

    def vector(self, expr: str, labels: tuple[str, ...] = (), at: float = 0.0) -> Vector:
        """An instant query: label values -> value."""
        found = self.ask("query", query=expr, time=str(at or time.time()))["result"]
        return {tuple(r["metric"].get(x, "") for x in labels): float(r["value"][1]) for r in found}

    def ticks(self, seconds: int) -> list[tuple[float, float]]:
        """(time of a scrape, tick of the lab that it saw), oldest first; each tick once."""
        found = self.ask("query", query=f"devops_lab_observed_timestamp_seconds[{seconds}s]")["result"]
        ticks: dict[float, float] = {}
        for at, tick in found[0]["values"] if found else []:
            ticks.setdefault(float(tick), float(at))
        return sorted((at, tick) for tick, at in ticks.items())

    def fires(self, name: str) -> bool:
        return bool(self.vector(f'ALERTS{{alertname="{name}",alertstate="firing"}}'))


@contextmanager
def started(config: Path, data: Path) -> Iterator[Prometheus]:
    """A Prometheus on a free port, for as long as the test runs."""
    port = free_port()
    command = ["prometheus", f"--config.file={config}", f"--storage.tsdb.path={data}", "--log.level=warn"]
    with (data.parent / "prometheus.log").open("wb") as log:
        command.append(f"--web.listen-address={HOST}:{port}")
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    found = Prometheus(f"http://{HOST}:{port}")

    def ready() -> bool:
        assert process.poll() is None, (data.parent / "prometheus.log").read_text()
        try:
            return "Ready" in get(f"{found.url}/-/ready")
        except OSError:
            return False

    try:
        until(ready, "Prometheus")
        yield found
    finally:
        process.terminate()
        process.wait(60)


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture
def live(tmp_path: Path) -> Iterator[tuple[LabContext, Prometheus]]:
    """Release 1.1.0 in production, with objectives, scraped by Prometheus as `export` configured it."""
    with production(tmp_path / "lab", "1.1.0", "1.2.0") as world:
        world.control.ensure()
        Deploy(world).run("1.1.0")
        monitor = Monitor(world)
        monitor.slo.add(Slo("availability", 0.99))
        monitor.slo.add(Slo("quick", 0.95, within_seconds=0.25, endpoint="/api/search"))
        config = export(world, "prometheus", tmp_path / "prometheus")[0]
        promtool("check", "config", str(config))
        with started(config, tmp_path / "data") as prometheus:
            yield world, prometheus


def bucket_width_ms(value_ms: float) -> float:
    """How wide the bucket is that this value lies in: as exact as a percentile of a histogram can be."""
    bounds = [0.0, *(1000 * bound for bound in BOUNDS_SECONDS)]
    upper = next((n for n, bound in enumerate(bounds) if bound >= value_ms and n), len(bounds) - 1)
    return bounds[upper] - bounds[upper - 1]


def percentile_ms(share: float, by: str, first: float, last: float) -> str:
    """PromQL: a percentile of what was counted between two scrapes.

    Not of `rate()`: it extrapolates to its window's edges, and less where a counter is young, so that buckets
    of one histogram grow by different factors and a rank that lies at a bucket's very edge tips over.
    """
    name = "http_request_duration_seconds_bucket"
    return (
        f"1000 * histogram_quantile({share}, sum by (le, {by}) ({name} @ {last:.3f} - {name} @ {first:.3f}))"
    )


@pytest.mark.slow
@pytest.mark.prometheus
def test_its_figures_are_ours(live: tuple[LabContext, Prometheus]) -> None:
    world, prometheus = live
    monitor = Monitor(world)
    customers = Operate(world).load(rate=60, seconds=40)
    until(lambda: len(prometheus.ticks(60)) >= 26, "Prometheus to scrape")
    ticks = prometheus.ticks(60)[-22:]
    worst, compared = 0.0, 0

    # Every second by itself, every replica and endpoint: the same scrapes, so the same figures.
    for (before, start), (at, tick) in pairwise(ticks):
        if tick - start > 1.5:  # Prometheus missed a tick; the next pair is whole again
            continue
        for metric, share in SHARES.items():
            expr = percentile_ms(share, "replica, endpoint", before, at)
            theirs = prometheus.vector(expr, ("replica", "endpoint"), at)
            rows = monitor.store.samples(metric, since=tick - 0.2, until=tick + 0.2)
            ours: Vector = {(replica, endpoint): value for _, replica, _, endpoint, value in rows if endpoint}
            told = {key: v for key, v in theirs.items() if not math.isnan(v) and key[1].startswith("/api")}
            assert told.keys() <= ours.keys()
            for key, value in told.items():
                error = abs(ours[key] - value)
                worst, compared = max(worst, error / bucket_width_ms(value)), compared + 1
                assert error <= bucket_width_ms(value), (metric, key, ours[key], value)
    assert compared > 100

    # The whole window, as a reader sees it: rates and percentiles of each endpoint, over all replicas.
    (first, start), (last, end) = ticks[0], ticks[-1]
    window, at = f"{1000 * (last - first) + 300:.0f}ms", last + 0.001
    rows_of = {row.endpoint: row for row in monitor.endpoints(start + 0.01, end + 0.01)}
    by = ("endpoint",)
    asked = prometheus.vector(f"sum by (endpoint) (rate(http_requests_total[{window}]))", by, at)
    assert {name for (name,), rate in asked.items() if rate and name.startswith("/api")} <= rows_of.keys()
    for endpoint, row in rows_of.items():
        assert row.requests_per_second == pytest.approx(asked[endpoint,], rel=0.1)
    for metric, share in SHARES.items():
        rates = f"sum by (le, endpoint) (rate(http_request_duration_seconds_bucket[{window}]))"
        shown = prometheus.vector(f"1000 * histogram_quantile({share}, {rates})", by, at)
        counted = prometheus.vector(percentile_ms(share, "endpoint", first, last), by, last)
        for endpoint, row in rows_of.items():
            ours_ms = getattr(row, metric)
            for theirs_ms in (shown[endpoint,], counted[endpoint,]):
                assert abs(ours_ms - theirs_ms) <= bucket_width_ms(theirs_ms), (
                    metric,
                    endpoint,
                    ours_ms,
                    theirs_ms,
                )
            worst = max(worst, abs(ours_ms - counted[endpoint,]) / bucket_width_ms(counted[endpoint,]))
    assert worst < 0.05  # the same counters, so far better than a bucket
    print(f"{compared} percentiles of single seconds compared; worst error {worst:.4f} of a bucket")

    # Recording rules and dashboard: every expression is understood and has something to show.
    dashboard = json.loads((world.root.parent / "prometheus" / "dashboard.json").read_text())
    empty = [
        target["expr"]
        for panel in dashboard["panels"]
        for target in panel["targets"]
        if not prometheus.vector(target["expr"])
    ]
    assert empty == ["devops_lab_alert_firing"]
    customers.stop()


@pytest.mark.slow
@pytest.mark.prometheus
def test_its_alerts_fire_and_resolve_when_ours_do_and_the_dead_are_gone(
    live: tuple[LabContext, Prometheus],
) -> None:
    world, prometheus = live
    monitor, deploy = Monitor(world), Deploy(world)
    watched = ("errors", "availability/fast")

    def ours() -> set[str]:
        return {alert.rule for alert in monitor.alerts("firing")} & {*watched}

    customers = Operate(world).load(rate=60, seconds=120)
    rules = {rule["name"]: rule for g in prometheus.ask("rules")["groups"] for rule in g["rules"]}
    assert {*watched, "agent-down", "endpoint:http_wait_ms:p95"} <= rules.keys()
    old = {r["id"] for r in world.control.status()["replicas"]}
    deploy.run("1.2.0")
    until(lambda: ours() == {*watched}, "our alerts")
    until(lambda: all(map(prometheus.fires, watched)), "Prometheus' alerts")
    until(
        lambda: bool(prometheus.vector('devops_lab_alert_firing{rule="errors"}')), "ours, in there", seconds=5
    )
    gone = prometheus.vector("devops_lab_replica_up", ("replica",))
    assert not {(name,) for name in old} & gone.keys()  # stale at once, not after five minutes
    deploy.rollback(why="errors")
    until(lambda: not ours(), "our alerts to resolve")
    until(lambda: not any(map(prometheus.fires, watched)), "Prometheus' alerts to resolve")
    assert not prometheus.fires("agent-down")
    customers.stop()
    assert all(not rule.get("lastError") for rule in rules.values())


# ---- what is written, and what is refused
@pytest.fixture
def quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> LabContext:
    """A lab whose agent is only said to run."""
    monkeypatch.setattr(Control, "status", lambda _: {"scrape_url": f"http://{HOST}:9/metrics"})
    return LabContext(tmp_path / "lab", Settings(), Store(tmp_path / "lab.db"))


@pytest.mark.prometheus
def test_every_rule_that_a_lab_can_have_is_valid_promql(quiet: LabContext, tmp_path: Path) -> None:
    monitor = Monitor(quiet)
    for metric in METRICS:
        name = metric.replace("_", "-")
        monitor.add_rule(AlertRule(name, metric, above=0.5, resolve=0.25, summary='It says "no" {{ here }}.'))
        if metric in OF_ENDPOINTS:
            monitor.add_rule(AlertRule(f"{name}-each", metric, 0.5, 2, endpoint="*"))
            monitor.add_rule(AlertRule(f"{name}-one", metric, 0.5, 2.5, endpoint='/api/orders/{id}"\\'))
    for bound in BOUNDS_SECONDS:
        monitor.slo.add(Slo(f"within-{bound:g}".replace(".", "-"), 0.95, bound, "/api/search"))
    config = export(quiet, "prometheus", tmp_path / "out")[0]
    assert shutil.which("promtool")
    promtool("check", "config", str(config))
    promtool("check", "rules", *(str(tmp_path / "out" / name) for name in FILES[1:3]))


def test_an_export_replaces_an_export_and_nothing_else(quiet: LabContext, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert [path.name for path in export(quiet, "prometheus", out)] == [*FILES]
    export(quiet, "prometheus", out)
    (out / "holiday.jpg").write_text("mine")
    with pytest.raises(BadInput, match=r"holds other things: holiday\.jpg"):
        export(quiet, "prometheus", out)
    other = tmp_path / "etc"
    other.mkdir()
    (other / "prometheus.yml").write_text("global: {}\n")
    with pytest.raises(BadInput, match=r"holds other things: prometheus\.yml"):
        export(quiet, "prometheus", other)
    assert [path.name for path in other.iterdir()] == ["prometheus.yml"]
    with pytest.raises(BadInput, match="is no folder"):
        export(quiet, "prometheus", other / "prometheus.yml")
    with pytest.raises(BadInput, match="Did you mean 'prometheus'"):
        export(quiet, "prometeus", tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_without_an_agent_nothing_is_written(tmp_path: Path) -> None:
    world = LabContext(tmp_path / "lab", Settings(), Store(tmp_path / "lab.db"))
    with pytest.raises(AgentDown):
        export(world, "prometheus", tmp_path / "out")
    assert not (tmp_path / "out").exists()
