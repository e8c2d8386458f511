"""The lab's scrape endpoint: all that is known passes through, and what is not known is not there."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from devops_lab.model import Alert, LogLine, Pool, Replica, Usage
from devops_lab.phases.monitor import Monitor
from devops_lab.platform.agent.exposition import Exposition, Observation, Seen
from devops_lab.platform.agent.observer import Observer
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.envoy import Envoy
from tests.patience import until
from tests.production import get, make_templates, new_world, torn_down, with_agent

Found = dict[str, dict[str, float]]  # metric -> replica -> value


def scraped(text: str) -> Found:
    found: Found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            of = found.setdefault(sample.name, {})
            of[sample.labels.get("replica", "")] = of.get(sample.labels.get("replica", ""), 0) + sample.value
    return found


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LabContext]:
    templates = make_templates(tmp_path / "templates")
    with torn_down(new_world(tmp_path / "lab", templates)) as made:
        yield made


def test_live_every_replica_with_its_own_figures_and_the_port_is_kept(world: LabContext) -> None:
    control = with_agent(world, "1.0.0")
    world.store.put(Pool("v1", "1.0.0", 2, 100))
    control.wait_settled(60)
    url = Monitor(world).scrape_url
    for _ in range(20):
        get(control.url() + "/api/info")

    def seen() -> Found:
        return scraped(get(url))

    def answered() -> float:
        return sum(seen().get("http_requests_total", {}).values())

    until(lambda: answered() == 20, "both replicas' counters to add up")
    found = seen()
    first, second = sorted(found["devops_lab_replica_up"])
    assert found["devops_lab_replica_up"] == {first: 1, second: 1}
    assert found["devops_lab_replica_memory_bytes"][first] > 1e6
    assert sum(found["devops_lab_envoy_rq_total"].values()) == 20
    assert (found["devops_lab_pool_wanted"], found["devops_lab_pool_healthy"]) == ({"": 2}, {"": 2})
    assert found["devops_lab_disk_bytes"][""] > 0
    if psutil.LINUX:
        assert found["process_resident_memory_bytes"][""] > 1e6  # the agent's own

    pid = next(r["pid"] for r in control.status()["replicas"] if r["id"] == first)
    os.kill(pid, signal.SIGSTOP)
    until(
        lambda: seen()["devops_lab_replica_up"].get(first) == 0, "the frozen replica to be told", seconds=15
    )
    assert [name for name, of in seen().items() if first in of] == ["devops_lab_replica_up"]
    os.kill(pid, signal.SIGKILL)
    until(lambda: len(seen()["devops_lab_replica_up"]) == 2 and first not in str(seen()), "it to be gone")
    assert seen()["devops_lab_replica_deaths_total"] == {"": 1}

    control.stop()
    control.ensure()
    assert Monitor(world).scrape_url == url
    assert seen()["devops_lab_replica_deaths_total"] == {"": 1}  # a counter that outlives the agent


def exposition(tmp_path: Path, observation: Observation) -> Found:
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    found: Found = {}
    for family in Exposition(world, Envoy(tmp_path / "envoy"), lambda: observation).collect():
        for sample in family.samples:
            found.setdefault(sample.name, {})[sample.labels.get("replica", "")] = sample.value
    return found


def test_what_was_seen_too_long_ago_is_not_told(tmp_path: Path) -> None:
    replica = Replica("r1", "v1", "1.0.0", "127.0.0.1", 9, 0, "", "healthy")
    seen = [Seen(replica, "http_requests_total 5\n", Usage(1.0, 1000), 10)]
    assert exposition(tmp_path, Observation(time.time(), seen, 7))["http_requests_total"] == {"r1": 5}
    old = exposition(tmp_path, Observation(time.time() - 6, seen, 7))
    assert not {"http_requests_total", "devops_lab_replica_up", "devops_lab_disk_bytes"} & {*old}


def test_a_replica_that_talks_nonsense_takes_no_other_with_it(tmp_path: Path) -> None:
    replicas = [Replica(f"r{n}", "v1", "1.0.0", "127.0.0.1", 9, 0, "", "healthy") for n in (1, 2)]
    texts = ["http_requests_total{ 5 oops\n", "http_requests_total 5\n"]
    seen = [Seen(replica, text, None, 0) for replica, text in zip(replicas, texts, strict=True)]
    found = exposition(tmp_path, Observation(time.time(), seen))
    assert found["http_requests_total"] == {"r2": 5}
    assert found["devops_lab_replica_up"] == {"r1": 1, "r2": 1}


def test_the_observer_forgets_alerts_that_ended_long_ago(tmp_path: Path) -> None:
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    now = time.time()
    world.store.put(
        Alert("old", "resolved", now - 30_000, 1.0, resolved=now - 25_000),
        Alert("late", "resolved", now - 30_000, 1.0, resolved=now - 60),
        Alert("long", "firing", now - 30_000, 1.0),
    )
    world.store.add_logs([LogLine(now - 25_000, "INFO", "old"), LogLine(now, "INFO", "new")])
    observer = Observer(world, list, lambda where, error: pytest.fail(f"{where}: {error}"))
    for _ in range(30):
        observer.forget(now)
    assert sorted(alert.rule for alert in world.store.all(Alert)) == ["late", "long"]
    assert [line.message for line in world.store.logs()] == ["new"]
