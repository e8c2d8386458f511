"""A replica that runs away is ended, told of and replaced, and the others never notice; on every engine."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from devops_lab.model import Event, Replica
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.operate import Operate
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines import process
from devops_lab.platform.engines.process import ProcessEngine
from devops_lab.platform.processes import created_at, end
from tests.patience import until
from tests.phases.production import production
from tests.production import get

RUNAWAY = "1.9.0"
MANY = "import subprocess, sys, time\nfor _ in range(3): subprocess.Popen([sys.executable, '-c', 'input()'])"


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LabContext]:
    with production(tmp_path / "lab", RUNAWAY, engine=request.param) as made:
        yield made


@pytest.mark.slow
def test_one_that_takes_all_memory_is_ended_and_told_and_customers_are_served(world: LabContext) -> None:
    Deploy(world).run(RUNAWAY)
    victim, other = world.store.all(Replica)
    with Operate(world).load(20, 120) as run:
        until(lambda: len(world.store.requests(run=run.id)) > 20, "customers")
        with suppress(OSError):  # who asks for it gets no answer
            get(f"http://{victim.host}:{victim.port}/api/search?runaway=1")

        def died() -> list[Event]:
            return world.store.events(kind="replica.died", subject=f"replica:{victim.id}")

        until(died, "its end", seconds=30)
        assert "192 MB" in died()[0].message
        world.control.wait_settled()
        count = len(world.store.requests(run=run.id))
        until(lambda: len(world.store.requests(run=run.id)) > count + 20, "customers afterwards")
        summary = run.stop()
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    left = {replica.id for replica in world.store.all(Replica)}
    assert (len(left), victim.id in left, other.id in left) == (2, False, True)


@pytest.mark.parametrize("program", ["x = b'x' * 250_000_000\ninput()", MANY + "\ninput()"])
def test_memory_and_processes_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(process, "PROCESSES", 3)
    engine, running = (
        ProcessEngine(tmp_path),
        subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, start_new_session=True),
    )
    replica = Replica("r1", "p", "1.0.0", "127.0.0.1", 0, running.pid, created_at(running.pid))
    try:
        until(lambda: (engine.usage(replica), running.poll())[1] is not None, "its end", seconds=30)
        assert running.wait(5) == -9
        assert engine.ended(replica).startswith("SIGKILL, since it ")
        engine.forget(replica)
        assert engine.ended(replica) == "ended"
    finally:
        end([(replica.pid, replica.born)], 0.0)
        running.communicate()
