"""The agent, for real: it makes production what is wanted, heals it, and loses nothing on the way."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from devops_lab.model import Event, EventKind, Pool, Replica
from devops_lab.phases.operate import Operate
from devops_lab.platform.agent.launcher import Vacancy
from devops_lab.platform.agent.observer import Observer
from devops_lab.platform.agent.reconciler import answers
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import LOCK_HELD, Control, teardown
from devops_lab.platform.processes import process_of, processes_of
from tests.patience import until
from tests.production import ENGINES, engine_lab, get, running, with_agent

of_processes = pytest.mark.parametrize("world", ["process"], indirect=True)
V1, V2 = Pool("v1", "1.0.0", 2, 100), Pool("v2", "1.1.0", 2, 0)


@pytest.fixture(params=ENGINES)
def world(request: pytest.FixtureRequest, tmp_path: Path, templates: Path) -> Iterator[LabContext]:
    yield from engine_lab(request, tmp_path / "my läb", templates)


@pytest.fixture
def control(world: LabContext) -> Control:
    """An agent with two replicas of release 1.0.0 in service."""
    made = with_agent(world, "1.0.0")
    world.store.put(V1)
    made.wait_settled(60)
    return made


def release_of(control: Control) -> str:
    return str(json.loads(get(control.url() + "/api/info"))["release"])


def pids(control: Control) -> list[int]:
    return sorted(replica["pid"] for replica in control.status()["replicas"])


def event(world: LabContext, kind: EventKind, seconds: float = 20) -> Event:
    return until(lambda: world.store.events(kind=kind), f"the event {kind}", seconds=seconds)[-1]


async def customers(url: str, rate: float, seconds: float) -> list[int]:
    """An open loop: each request is sent at its time, whatever became of those before; 0 is no answer."""

    async def one(session: aiohttp.ClientSession, at: float) -> int:
        await asyncio.sleep(at - loop.time())
        try:
            async with session.get(url + "/api/info") as answer:
                await answer.read()
                return answer.status
        except (aiohttp.ClientError, OSError):
            return 0

    loop = asyncio.get_running_loop()
    start, timeout = loop.time(), aiohttp.ClientTimeout(total=20)
    async with aiohttp.ClientSession(timeout=timeout) as session:
        times = [start + n / rate for n in range(int(rate * seconds))]
        return list(await asyncio.gather(*(one(session, at) for at in times)))


async def under_load(url: str, work: Any, rate: float = 100) -> list[int]:
    """Run `work` while customers come, from a little before until a little after."""
    done, seen = asyncio.Event(), list[int]()

    async def keep_coming() -> None:
        while not done.is_set():
            seen.extend(await customers(url, rate, 0.5))

    coming = asyncio.create_task(keep_coming())
    try:
        await asyncio.to_thread(work)
    finally:
        done.set()
        await coming
    return seen


# ---- desired against actual
def test_it_brings_up_what_is_wanted_and_routes_to_it(control: Control, world: LabContext) -> None:
    status = control.status()
    assert release_of(control) == "1.0.0"
    assert [replica["state"] for replica in status["replicas"]] == ["healthy"] * 2
    assert status["pools"][0] | {"healthy": 2, "wanted": 2, "routed": 100} == status["pools"][0]
    assert [r.state for r in world.store.all(Replica)] == ["healthy"] * 2


def test_scaling_under_load_loses_no_request(control: Control, world: LabContext) -> None:
    def scale() -> None:
        for wanted in (1, 3, 1):
            world.store.put(replace(V1, replicas=wanted))
            control.wait_settled(60)

    seen = asyncio.run(under_load(control.url(), scale))
    assert len(seen) >= 50
    assert set(seen) == {200}
    assert len(control.status()["replicas"]) == 1
    stopped = world.store.events(kind="replica.stopped")
    assert len(stopped) == 3


def test_a_new_release_takes_over_under_load_without_a_lost_request(world: LabContext) -> None:
    control = with_agent(world, "1.0.0", "1.1.0")
    world.store.put(V1)
    control.wait_settled(60)

    def deploy() -> None:
        for wanted in ([V1, V2], [replace(V1, weight=50), replace(V2, weight=50)], [replace(V2, weight=100)]):
            world.store.replace_all(Pool, wanted)
            control.wait_settled(60)

    seen = asyncio.run(under_load(control.url(), deploy))
    assert set(seen) == {200}
    assert release_of(control) == "1.1.0"
    assert {r.release for r in world.store.all(Replica)} == {"1.1.0"}


def test_traffic_stays_where_it_was_while_nothing_that_is_wanted_is_healthy(world: LabContext) -> None:
    control = with_agent(world, "1.0.0", "1.1.0")
    world.store.put(V1)
    control.wait_settled(60)
    world.store.replace_all(Pool, [replace(V2, weight=100, env={"TINY": "never ready"})])
    control.poke()
    until(lambda: len(control.status()["replicas"]) == 4, "the new replicas to start")
    until(lambda: all_answer(control), "all to answer, if only that they are not ready")
    assert release_of(control) == "1.0.0"
    assert {r["state"] for r in control.status()["replicas"] if r["pool"] == "v2"} <= {
        "starting",
        "unhealthy",
    }
    world.store.replace_all(Pool, [replace(V2, weight=100)])
    unready = event(world, "replica.unhealthy", 30)
    assert "not ready after" in unready.message
    assert release_of(control) == "1.0.0"


def all_answer(control: Control) -> bool:
    return all(answers(r["host"], r["port"]) for r in control.status()["replicas"])


@of_processes
def test_nothing_wanted_answers_503_and_runs_nothing(control: Control, world: LabContext) -> None:
    world.store.replace_all(Pool, [])
    control.wait_settled(60)
    with pytest.raises(OSError, match="503"):
        get(control.url() + "/api/info")
    assert control.status()["replicas"] == []


# ---- healing
def test_a_killed_replica_is_replaced_and_no_read_is_lost(control: Control, world: LabContext) -> None:
    victim = control.status()["replicas"][0]

    def kill() -> None:
        os.kill(victim["pid"], signal.SIGKILL)
        event(world, "replica.replaced")
        control.wait_settled(60)

    seen = asyncio.run(under_load(control.url(), kill))
    assert set(seen) == {200}
    died = event(world, "replica.died")
    assert (died.subject, died.data["how"]) == (f"replica:{victim['id']}", "SIGKILL")
    replicas = control.status()["replicas"]
    assert len(replicas) == 2
    assert victim["id"] not in {replica["id"] for replica in replicas}
    assert max(replica["restarts"] for replica in replicas) == 1


def test_a_replica_that_keeps_crashing_is_told_once_and_waits_longer_each_time(world: LabContext) -> None:
    control = with_agent(world, "1.0.0")
    world.store.put(replace(V1, replicas=1, env={"TINY": "crash"}))
    control.poke()
    loop = event(world, "replica.crash_loop")
    assert "no such setting: BENTO_SAUCE" in loop.data["last_lines"]
    assert len(world.store.events(kind="replica.crash_loop")) == 1
    with pytest.raises(OSError, match="503"):
        get(control.url() + "/api/info")


def test_back_off_starts_at_once_and_doubles_up_to_ten_seconds() -> None:
    now = time.monotonic()
    waits = [Vacancy.after("r1", 1, crashes).due - now for crashes in range(1, 9)]
    assert [round(wait, 1) for wait in waits] == [0, 0.5, 1, 2, 4, 8, 10, 10]


def test_a_dead_envoy_comes_back_on_the_same_port(control: Control, world: LabContext) -> None:
    before = control.status()
    os.kill(before["envoy"]["pid"], signal.SIGKILL)
    event(world, "envoy.restarted")
    until(lambda: control.status()["envoy"]["pid"] != before["envoy"]["pid"], "a new Envoy")
    control.wait_settled(60)
    assert control.url() == before["url"]
    until(lambda: serves(control), "an answer through the new Envoy")
    assert pids(control) == sorted(r["pid"] for r in before["replicas"])


def serves(control: Control) -> bool:
    try:
        return release_of(control) == "1.0.0"
    except OSError:
        return False


def test_a_killed_agent_is_replaced_and_adopts_what_runs(control: Control, world: LabContext) -> None:
    before, url = pids(control), control.url()
    envoy = control.status()["envoy"]["pid"]
    os.kill(control.status()["agent"]["pid"], signal.SIGKILL)
    until(lambda: not control.alive(), "the agent to be gone")
    assert json.loads(get(url + "/api/info"))["release"] == "1.0.0", "production goes on without its agent"
    control.ensure()
    control.wait_settled(60)
    assert (pids(control), control.url()) == (before, url)
    found = {process.pid for process in processes_of(world.root)}
    if world.engine.name == "docker":
        found |= {r.pid for r in world.store.all(Replica) if world.engine.alive(r)}
        assert len(running(world)) == 6, "agent, proxy, two replicas, registry, database"
    assert found == {*before, envoy, control.status()["agent"]["pid"]}
    assert event(world, "agent.restarted").message.endswith("takes over 2 replicas")
    os.kill(before[0], signal.SIGKILL)  # an adopted replica is watched like one of its own
    event(world, "replica.replaced")
    control.wait_settled(60)
    assert len({r["id"] for r in control.status()["replicas"]}) == 2


def test_what_died_while_no_agent_looked_is_replaced_by_the_next(control: Control, world: LabContext) -> None:
    replicas = control.status()["replicas"]
    os.kill(control.status()["agent"]["pid"], signal.SIGKILL)
    until(lambda: not control.alive(), "the agent to be gone")
    os.kill(replicas[0]["pid"], signal.SIGKILL)
    until(lambda: process_of(replicas[0]["pid"], replicas[0]["born"]) is None, "the replica to be gone")
    control.ensure()
    control.wait_settled(60)
    assert len(set(pids(control)) & {r["pid"] for r in replicas}) == 1


# ---- one agent, ended cleanly
@of_processes
def test_a_second_agent_is_refused(control: Control, world: LabContext) -> None:
    second = subprocess.run(
        [sys.executable, "-m", "devops_lab.platform.agent", str(world.root)], capture_output=True
    )
    assert second.returncode == LOCK_HELD
    assert b"another agent" in second.stderr
    assert control.alive()


def test_sigterm_ends_the_agent_and_leaves_production(control: Control, world: LabContext) -> None:
    url, agent = control.url(), control.status()["agent"]["pid"]
    os.kill(agent, signal.SIGTERM)
    until(lambda: agent not in {process.pid for process in processes_of(world.root)}, "the agent to end")
    assert json.loads(get(url + "/api/info"))["release"] == "1.0.0"
    assert not (world.root / "run" / "agent.json").exists()


@of_processes
def test_nothing_is_left_after_kernel_and_agent_were_killed(control: Control, world: LabContext) -> None:
    status = control.status()
    os.kill(status["agent"]["pid"], signal.SIGKILL)
    assert teardown(world.root) == 3
    assert processes_of(world.root) == []
    ports = {status["port"], status["admin_port"], *(r["port"] for r in status["replicas"])}
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=2)


@of_processes
def test_a_lab_whose_folder_was_removed_leaves_nothing(control: Control, world: LabContext) -> None:
    assert len(processes_of(world.root)) == 4

    def removed() -> bool:  # the agent may just be writing there
        shutil.rmtree(world.root, ignore_errors=True)
        return not world.root.exists()

    until(removed, "the folder to be gone")
    until(lambda: processes_of(world.root) == [], "the production of no lab to end")
    assert not world.root.exists()


# ---- what it costs, and what it sees
@of_processes
def test_an_idle_lab_is_small(control: Control, world: LabContext) -> None:
    rows = [p.memory_info().rss for p in processes_of(world.root)]
    assert len(rows) == 4
    assert sum(rows) < 220_000_000
    assert control.status()["agent"]["memory_bytes"] < 60_000_000


def test_samples_and_logs_reach_the_store(control: Control, world: LabContext) -> None:
    url, begun = control.url(), time.time()
    asyncio.run(customers(url, 40, 2.5))

    def rate() -> float:
        return max([row[4] for row in world.store.samples("requests_per_second", since=begun)], default=0.0)

    until(lambda: rate() > 5, "the rate to be measured")
    for metric in ("cpu_percent", "memory_bytes", "up", "log_bytes", "disk_bytes", "replicas", "in_flight"):
        assert world.store.samples(metric, since=begun), metric
    assert world.store.samples("replicas", since=begun)[-1][4] == 2
    assert any(row[4] > 0 for row in world.store.samples("p95_ms", since=begun, endpoint="/api/info"))
    lines = until(lambda: world.store.logs(text="serving"), "the logs")
    assert {line.release for line in lines} == {"1.0.0"}


def test_a_log_flood_is_sampled_counted_and_cut(world: LabContext) -> None:
    control = with_agent(world, "1.0.0")
    world.store.put(replace(V1, replicas=1, env={"TINY": "flood"}))
    control.wait_settled(60)

    def flooded() -> bool:
        for _ in range(10):
            get(control.url() + "/api/info")
        return bool(world.store.events(kind="log.truncated"))

    until(flooded, "the log to be cut")
    assert until(lambda: world.store.logs(text="log flood"), "the count of what was dropped")
    log = world.production / "logs" / f"{control.status()['replicas'][0]['id']}.log"
    until(lambda: log.stat().st_size <= world.settings.log_quota_bytes, "the log to be below its quota")
    assert control.status()["settled"]


@of_processes
def test_what_fails_while_observing_is_told_and_does_not_stop_the_rest(world: LabContext) -> None:
    told: list[str] = []
    observer = Observer(world, list, lambda where, error: told.append(f"{where}: {error}"))

    def broken(now: float) -> None:
        raise RuntimeError("no figures")

    observer.measure = broken  # type: ignore[method-assign]
    log = world.production / "logs" / "r1.log"
    log.parent.mkdir(parents=True)
    log.write_text("Traceback: not JSON\n")
    (log.parent / "r0.log").mkdir()  # one that can't be read
    observer.tick()
    assert "scrape: no figures" in told
    assert any(text.startswith("logs: ") and "r0.log" in text for text in told)
    assert [line.message for line in world.store.logs()] == ["Traceback: not JSON"]


@of_processes
def test_only_key_events_are_passed_on(world: LabContext) -> None:
    observer = Observer(world, list, lambda where, error: None)
    kinds: list[Any] = [
        "deploy.started",
        "deploy.step",
        "replica.draining",
        "alert.pending",
        "story.told",
        "replica.died",
    ]
    for kind in kinds:
        world.store.event("operate", kind, "replica:r1", kind)
    observer.notify()
    assert [event.kind for event in Operate(world).inbox()] == ["deploy.started", "replica.died"]
