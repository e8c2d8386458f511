"""What Swarm is told about a pool, and how its answers are read; no cluster is needed."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from devops_lab.errors import EngineUnavailable
from devops_lab.model import Pool
from devops_lab.platform.engines import swarm
from devops_lab.platform.engines.cluster import (
    Cluster,
    Machine,
    how_task_ended,
    lines_in,
    machine_of,
    manager_of,
    port_of,
)
from devops_lab.platform.engines.service import (
    NAME,
    in_words,
    moment,
    name_of,
    running,
    specification,
    went_back,
)
from devops_lab.platform.engines.swarm import SwarmEngine
from devops_lab.platform.processes import created_at


def told(release: str = "1.0.0", replicas: int = 2, **env: str) -> dict[str, Any]:
    pool = Pool("shop-1", release, replicas, 100, env)
    return specification(
        Path("/lab"),
        "lab-x-shop-1",
        pool,
        image=f"registry/bento@sha256:{release}",
        network="lab-x",
        environment={"BENTO_RELEASE": release, **env},
        grace_seconds=10.0,
    )


def task(state: str = "running", **status: Any) -> dict[str, Any]:
    env = told()["TaskTemplate"]["ContainerSpec"]["Env"]
    return {
        "ID": "abcdefgh",
        "Slot": 3,
        "Spec": {"ContainerSpec": {"Env": env}},
        "Status": {"State": state, **status},
    }


def test_an_update_starts_first_and_goes_back_when_it_fails() -> None:
    update = told()["UpdateConfig"]
    assert (update["Order"], update["Parallelism"], update["FailureAction"]) == ("start-first", 1, "rollback")


def test_only_their_number_is_no_other_task() -> None:
    assert running(told()) == running(told(replicas=5))
    assert running(told()) != running(told("1.1.0"))
    assert running(told()) != running(told(TINY="flood"))


def test_a_replica_has_time_to_drain_and_to_finish() -> None:
    assert told()["TaskTemplate"]["ContainerSpec"]["StopGracePeriod"] == 11.5e9


def test_a_replica_is_called_by_its_place_and_its_task() -> None:
    assert name_of(task()) == "r3-abcd"
    given = task()
    given["Spec"]["ContainerSpec"]["Env"] = ["BENTO_REPLICA=r1"]
    assert name_of(given) == "r1"
    assert f"BENTO_REPLICA={NAME}" in task()["Spec"]["ContainerSpec"]["Env"]


@pytest.mark.parametrize(
    ("status", "words", "back"),
    [
        ({}, "steady", False),
        ({"State": "updating"}, "updating", False),
        ({"State": "completed", "Message": "update completed"}, "steady", False),
        ({"State": "rollback_started", "Message": "task x failed"}, "rolling back: task x failed", True),
        ({"State": "paused", "Message": "task x failed"}, "paused: task x failed", True),
    ],
)
def test_the_state_of_an_update_in_words(status: dict[str, str], words: str, back: bool) -> None:
    service = {"UpdateStatus": status}
    assert (in_words(service), went_back(service)) == (words, back)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ({"ContainerStatus": {"ExitCode": 137}, "Err": "task: non-zero exit (137)"}, "SIGKILL"),
        ({"ContainerStatus": {"ExitCode": 3}, "Err": "task: non-zero exit (3)"}, "exit code 3"),
        ({"Err": "No such image: x"}, "No such image: x"),
    ],
)
def test_how_a_task_ended(status: dict[str, Any], words: str) -> None:
    assert how_task_ended(task("failed", **status)) == words


def test_a_port_is_there_once_the_task_is_well() -> None:
    assert port_of(task()) == 0
    assert port_of(task(PortStatus={"Ports": [{"PublishedPort": 32768}]})) == 32768


def test_docker_writes_times_with_more_digits_than_python_reads() -> None:
    assert moment("1970-01-01T00:00:01.250000001Z") == pytest.approx(1.25)
    assert moment("1970-01-01T00:00:02Z") == 2.0


def test_log_lines_come_cut_anywhere() -> None:
    def head(text: bytes) -> bytes:
        return b"\x01\0\0\0" + len(text).to_bytes(4, "big") + text

    sent = head(b"2026-01-01T00:00:00Z one\n") + head(b"2026-01-01T00:00:01Z two words\n")
    for size in (1, 7, 8, 50, 1000):
        pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
        assert [text for _, text in lines_in(pieces)] == [b"one\n", b"two words\n"]


def test_only_a_manager_can_be_told() -> None:
    with pytest.raises(EngineUnavailable, match="belongs to no swarm"):
        manager_of({"Swarm": {"LocalNodeState": "inactive"}})
    worker = {"LocalNodeState": "active", "RemoteManagers": [{"Addr": "10.0.0.1:2377"}]}
    with pytest.raises(EngineUnavailable, match=r"(?s)worker.*10\.0\.0\.1"):
        manager_of({"Swarm": worker})


def test_a_manager_that_does_not_know_its_address() -> None:
    node = {
        "ID": "x", "Description": {"Hostname": "n1"}, "Status": {"State": "ready", "Addr": "0.0.0.0"},
        "ManagerStatus": {"Addr": "10.0.0.1:2377"},
    }  # fmt: skip
    assert machine_of(node).address == "10.0.0.1"


def test_a_tasks_process_is_known_on_its_own_node_and_once_it_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, asked = [False, True], list[str]()

    def inspect(container: str) -> dict[str, Any]:
        asked.append(container)
        return {"State": {"Running": begun[len(asked) - 1], "Pid": os.getpid()}}

    api = SimpleNamespace(inspect_container=inspect)
    here = Machine("node-1", "n1", "10.0.0.1", True)
    line = SimpleNamespace(here=here, calls=lambda _: nullcontext(), client=SimpleNamespace(api=api))
    engine = SwarmEngine.__new__(SwarmEngine)
    engine.cluster, engine._processes = cast(Cluster, line), {}
    monkeypatch.setattr(swarm, "visible", lambda pid, container: pid)
    mine = {"NodeID": "node-1", "Status": {"ContainerStatus": {"ContainerID": "abc"}}}
    assert engine._process(mine | {"NodeID": "node-2"}) == (0, "")
    assert engine._process(mine) == (0, "")  # it only starts
    known = (os.getpid(), created_at(os.getpid()))
    assert [engine._process(mine), engine._process(mine)] == [known, known]
    assert asked == ["abc", "abc"]  # once it runs, it need not be asked for again
