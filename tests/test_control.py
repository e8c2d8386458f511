"""The line to the agent: starting it, talking to it, and what is said when nobody answers."""

from __future__ import annotations

import stat
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from devops_lab.errors import AgentDown, LabError, TimedOut
from devops_lab.model import Pool
from devops_lab.platform import settings
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import AgentNote, Control, teardown
from devops_lab.platform.processes import processes_of
from devops_lab.platform.store import Store
from tests.patience import until
from tests.production import torn_down


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LabContext]:
    settings.write(tmp_path, settings.Settings())
    with torn_down(LabContext(tmp_path, settings.Settings(), Store(tmp_path / "lab.db"))) as made:
        yield made


def test_nobody_there_is_told_with_what_to_do(world: LabContext) -> None:
    assert not world.control.alive()
    with pytest.raises(AgentDown, match=r"(?s)does not answer.*Lab\.open"):
        world.control.status()
    world.control.stop()  # nothing to stop is no error
    assert teardown(world.root) == 0


def test_ensure_starts_one_agent_however_often_and_by_whom_it_is_called(world: LabContext) -> None:
    callers = [threading.Thread(target=Control(world.root).ensure) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    world.control.ensure()
    pid = world.control.status()["agent"]["pid"]
    until(lambda: agents(world) == [pid], "the agents that came second to leave")


def agents(world: LabContext) -> list[int]:
    found = []
    for process in processes_of(world.root):
        with suppress(psutil.Error):
            if "devops_lab.platform.agent" in process.cmdline():
                found.append(process.pid)
    return found


def noted(world: LabContext) -> AgentNote:
    note = world.control.noted()
    assert note
    return note


def test_the_line_is_private(world: LabContext) -> None:
    world.control.ensure()
    assert stat.S_IMODE(Path(noted(world).socket).stat().st_mode) == 0o600


def test_a_long_path_gets_its_socket_elsewhere_and_it_is_removed(tmp_path: Path) -> None:
    root = tmp_path / ("a long name " * 10)
    root.mkdir()
    settings.write(root, settings.Settings())
    with torn_down(LabContext(root, settings.Settings(), Store(root / "lab.db"))) as world:
        world.control.ensure()
        where = Path(noted(world).socket)
        assert stat.S_IMODE(where.parent.stat().st_mode) == 0o700
        assert world.control.alive()
        world.control.stop(production=True)
        assert not where.parent.exists()


def test_a_command_that_is_none_is_refused_and_the_agent_goes_on(world: LabContext) -> None:
    world.control.ensure()
    with pytest.raises(LabError, match="expected ping"):
        world.control.call("dance")
    assert world.control.alive()


def test_stop_with_production_leaves_no_process(world: LabContext) -> None:
    world.control.ensure()
    assert len(processes_of(world.root)) == 2  # the agent and Envoy
    world.control.stop(production=True)
    assert processes_of(world.root) == []


def test_an_agent_that_can_not_start_is_told_in_its_own_words(world: LabContext) -> None:
    (world.root / settings.MARKER).write_text("format = 99\n")
    with pytest.raises(AgentDown, match="newer version"):
        world.control.ensure()


def test_waiting_in_vain_tells_what_each_pool_has(world: LabContext) -> None:
    world.control.ensure()
    world.store.put(Pool("v1", "9.9.9", 1, 100))
    with pytest.raises(TimedOut, match="pool v1: 0 of 1 healthy"):
        world.control.wait_settled(0.5)
    assert "9.9.9 is not installed" in world.store.events(kind="replica.failed")[0].message
