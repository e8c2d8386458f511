"""Kind 5, the agent: whoever waits for production sees to it that it lives, and a full disk is survived."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

from devops_lab.errors import AgentDown, DiskFull, TimedOut
from devops_lab.model import Pool, Replica, Request
from devops_lab.phases.deploy import Deploy
from devops_lab.platform import settings
from devops_lab.platform.agent.observer import Observer
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import Control
from devops_lab.platform.processes import processes_of
from devops_lab.platform.store import Store
from tests.patience import until
from tests.production import make_templates, new_world, tiny_release, torn_down, with_agent

V1 = Pool("v1", "1.0.0", 2, 100)


@contextmanager
def serving(root: Path, templates: Path) -> Iterator[LabContext]:
    with torn_down(new_world(root, templates)) as world:
        control = with_agent(world, "1.0.0")
        world.store.put(V1)
        control.wait_settled(60)
        yield world


@pytest.fixture(scope="module")
def lasting(tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[LabContext]:
    """One production for all tests that end with it as it was."""
    with serving(tmp_path_factory.mktemp("labs") / "my läb", templates) as world:
        yield world


@pytest.fixture
def world(tmp_path: Path, templates: Path) -> Iterator[LabContext]:
    with serving(tmp_path / "lab", templates) as made:
        yield made


def agents(world: LabContext) -> list[psutil.Process]:
    found = []
    for process in processes_of(world.root):
        with suppress(psutil.Error):  # it has just ended
            if "devops_lab.platform.agent" in process.cmdline():
                found.append(process)
    return found


def pids(world: LabContext) -> list[int]:
    return sorted(replica.pid for replica in world.store.all(Replica))


def kill_agent(world: LabContext, number: int = signal.SIGKILL) -> None:
    for process in agents(world):
        process.send_signal(number)


@contextmanager
def customers(world: LabContext, *versions: str) -> Iterator[None]:
    """Requests of each version as customers would have measured them: a canary is judged by these."""
    over = threading.Event()

    def come() -> None:
        while not over.wait(0.05):
            now = world.store.now()
            world.store.add_requests([Request(now, "/", 200, 0.01, v) for v in versions for _ in range(10)])
        world.store.close()

    thread = threading.Thread(target=come)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


# ---- 5b: killed in a deployment
@pytest.mark.parametrize("strategy", ["rolling", "blue/green", "canary"])
def test_an_agent_that_is_killed_in_a_deployment_is_started_again_and_the_deployment_goes_on(
    world: LabContext, strategy: str
) -> None:
    """5b: nobody started it for 15 to 25 s, then the version was blamed, and refused."""
    release, deploy = tiny_release(world, "1.1.0"), Deploy(world)
    world.store.put(release)
    killed: list[str] = []

    def after(step: object) -> None:
        killed.append(str(step))
        kill_agent(world)

    timer = threading.Timer(0.3, kill_agent, [world])
    timer.start()
    with customers(world, "1.0.0", "1.1.0"):
        done = deploy.run(release, strategy, on_step=after)
    timer.join()
    assert (done.state, deploy.current(), len(killed) > 3) == ("done", "1.1.0", True)
    assert world.store.events(kind="deploy.refused") == []
    world.control.wait_settled(60)
    assert {r.release for r in world.store.all(Replica)} == {"1.1.0"}
    assert len(agents(world)) == 1


def test_an_agent_that_is_killed_while_its_new_replica_starts_is_missed_by_who_waits(
    world: LabContext,
) -> None:
    """Nobody asks the agent anything meanwhile: the deployment looks at what it has recorded."""
    release = tiny_release(world, "1.1.0")
    world.store.put(release)

    def kill_once() -> None:
        def new() -> list[Replica]:
            return [r for r in world.store.all(Replica) if r.release == "1.1.0"]

        until(new, "the new replica to start", every_seconds=0.002)
        kill_agent(world)
        world.store.close()

    killer = threading.Thread(target=kill_once)
    killer.start()
    done = Deploy(world).run(release)
    killer.join()
    assert (done.state, len(world.store.events(kind="agent.restarted"))) == ("done", 1)


def test_a_rollback_and_scaling_go_on_without_the_agent_that_began(world: LabContext) -> None:
    releases = [tiny_release(world, version) for version in ("1.0.0", "1.1.0")]
    world.store.put(*releases)
    deploy = Deploy(world)
    deploy.run(releases[1])
    before = next(r for r in releases if r.version == "1.0.0")
    back = deploy.run(before, "blue/green", on_step=lambda _: kill_agent(world))
    assert (back.state, deploy.current()) == ("done", "1.0.0")
    timer = threading.Timer(0.1, kill_agent, [world])
    timer.start()
    deploy.scale(3)
    timer.join()
    world.control.wait_settled(60)
    assert len(pids(world)) == 3


def test_whoever_asks_finds_a_killed_agent_again(lasting: LabContext) -> None:
    before = pids(lasting)
    kill_agent(lasting)
    assert lasting.control.status()["settled"] in (True, False)
    lasting.control.wait_settled(60)
    assert pids(lasting) == before
    assert lasting.store.events(kind="agent.restarted")


def test_another_notebook_starts_a_killed_agent_too(lasting: LabContext) -> None:
    kill_agent(lasting)
    other = Control(lasting.root)  # which never started one
    assert other.wait_settled(60)["settled"]


def test_an_agent_that_was_told_to_end_is_not_started_by_a_question(lasting: LabContext) -> None:
    lasting.control.stop()
    with pytest.raises(AgentDown, match="does not answer"):
        lasting.control.status()
    assert agents(lasting) == []
    lasting.control.ensure()
    lasting.control.wait_settled(60)


# ---- it hangs
def test_an_agent_that_was_stopped_by_a_signal_is_replaced(lasting: LabContext) -> None:
    before, (old,) = pids(lasting), agents(lasting)
    old.send_signal(signal.SIGSTOP)
    until(lambda: old.status() == psutil.STATUS_STOPPED, "the agent to be stopped")
    lasting.control.wait_settled(60)
    assert pids(lasting) == before
    assert [process.pid for process in agents(lasting)] != [old.pid]
    assert "stopped by a signal" in (lasting.root / "run" / "agent.log").read_text()


def test_an_agent_that_hangs_is_named_with_the_way_out(tmp_path: Path) -> None:
    settings.write(tmp_path, settings.Settings())
    world = LabContext(tmp_path, settings.read(tmp_path), Store(tmp_path / "lab.db"))
    (tmp_path / "run").mkdir()
    hangs = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.flock(f, 2); print(flush=True); input()"
    command = [sys.executable, "-c", hangs, str(tmp_path / "run" / "agent.lock")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout
        holder.stdout.readline()
        try:
            with pytest.raises(TimedOut, match=r"end it .* the next call starts another"):
                world.control.ensure(seconds=1)
        finally:
            holder.kill()
    with torn_down(world):
        world.control.ensure()  # the lock went with its holder


def test_an_agent_that_can_not_start_says_why_at_once(tmp_path: Path) -> None:
    settings.write(tmp_path, settings.Settings())
    world = LabContext(tmp_path, settings.read(tmp_path), Store(tmp_path / "lab.db"))
    world.store.close()
    (tmp_path / "lab.db").write_bytes(os.urandom(20_000))
    for file in tmp_path.glob("lab.db-*"):
        file.unlink()
    with pytest.raises(AgentDown, match=r"lab\.db is damaged"):
        world.control.ensure()


# ---- 5c: what it is found by is taken away
def remove_socket(run: Path) -> None:
    (run / "agent.sock").unlink()


def replace_socket(run: Path) -> None:
    remove_socket(run)
    (run / "agent.sock").write_text("no socket")


def remove_run(run: Path) -> None:
    shutil.rmtree(run)


def remove_note(run: Path) -> None:
    (run / "agent.json").unlink()


def empty_list(run: Path) -> None:
    (run / "agent.json").write_text("[]")


def wrong_type(run: Path) -> None:
    (run / "agent.json").write_text('{"pid": "x", "socket_folder": "/"}')


def remove_lock(run: Path) -> None:
    (run / "agent.lock").unlink()


def shut(run: Path) -> None:
    run.chmod(0)


TAKEN = [remove_socket, replace_socket, remove_run, remove_note, empty_list, wrong_type, remove_lock, shut]


@pytest.mark.parametrize("taken", TAKEN)
def test_what_the_agent_is_found_by_comes_back(lasting: LabContext, taken: Callable[[Path], None]) -> None:
    """5c: every call failed after 20 s, "another agent works", until `clean`."""
    (before,), replicas, run = agents(lasting), pids(lasting), lasting.root / "run"
    taken(run)
    lasting.control.wait_settled(60)
    noted = until(lasting.control.noted, "the note")
    assert noted
    assert noted.pid == before.pid
    assert ([agent.pid for agent in agents(lasting)], pids(lasting)) == ([before.pid], replicas)
    until(lambda: (run / "agent.lock").exists(), "the lock")
    second = subprocess.run(
        [sys.executable, "-m", "devops_lab.platform.agent", str(lasting.root)], capture_output=True
    )
    assert b"another agent" in second.stderr
    assert oct(run.stat().st_mode)[-3:] == "700"


def test_a_socket_in_a_folder_of_its_own_comes_back(tmp_path: Path) -> None:
    """As when something cleans /tmp."""
    root = tmp_path / ("a long name " * 10)
    root.mkdir()
    settings.write(root, settings.Settings())
    with torn_down(LabContext(root, settings.Settings(), Store(root / "lab.db"))) as world:
        world.control.ensure()
        noted = world.control.noted()
        assert noted
        where = Path(noted.socket).parent
        shutil.rmtree(where)
        assert world.control.status()["agent"]["pid"] == noted.pid
        world.control.stop(production=True)
        assert not where.exists()


# ---- 5a: a full disk
def fill(folder: Path) -> Path:
    """Take all the room that there is, to the last byte."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(4096)):
            pass
    return filler


def written(world: LabContext) -> bool:
    try:
        world.store.event("operate", "profile.done", "lab", "x" * 50_000)
    except DiskFull:
        return False
    return True


def test_a_full_disk_is_survived_and_production_heals_when_there_is_room(
    mounted: Callable[[str], Path],
) -> None:
    """5a: the agent was gone within 2 s, stayed gone with room again, and left no word."""
    folder = mounted("mode=755")
    with serving(folder / "lab", make_templates(folder / "packages")) as world:
        (agent,), (victim, other) = agents(world), world.store.all(Replica)
        filler = fill(folder)
        until(lambda: not written(world), "the store to find no room")
        os.kill(victim.pid, signal.SIGKILL)
        until(
            lambda: victim.id not in {r["id"] for r in world.control.status()["replicas"]},
            "the agent to see that a replica died",
        )
        with pytest.raises(DiskFull, match="Free some space"):
            world.store.event("operate", "profile.done", "lab", "x" * 50_000)
        assert agents(world) == [agent]
        filler.unlink()
        world.control.wait_settled(60)
        assert agents(world) == [agent]
        assert [pool.replicas for pool in world.store.all(Pool)] == [2]
        assert other.pid in pids(world)
        assert victim.pid not in pids(world)
        died = until(lambda: world.store.events(kind="replica.died"), "what happened meanwhile to be told")
        assert died[0].subject == f"replica:{victim.id}"
        (said,) = until(lambda: world.store.events(kind="agent.error"), "the full disk to be said")
        assert "the disk was full" in said.message


def test_an_agent_that_dies_on_a_full_disk_is_started_when_there_is_room(
    mounted: Callable[[str], Path],
) -> None:
    folder = mounted("mode=755")
    with serving(folder / "lab", make_templates(folder / "packages")) as world:
        before, filler = pids(world), fill(folder)
        until(lambda: not written(world), "the store to find no room")
        kill_agent(world)
        with pytest.raises(DiskFull, match="no room left"):
            world.control.wait_settled(5)
        filler.unlink()
        world.control.wait_settled(60)
        assert pids(world) == before


# ---- 5d: a phase that can't be imported
def test_a_phase_that_can_not_be_imported_is_said_once_and_the_others_go_on(
    lasting: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """5d: the words were swallowed, and alerting would have been off in silence."""
    told, scaled = list[str](), list[float]()
    observer = Observer(lasting, list, lambda where, error: told.append(f"{where}: {error}"))

    def broken(now: float) -> None:
        raise ImportError("cannot import name 'Monitor' from 'devops_lab.phases.monitor'")

    observer.alerting.evaluate = broken  # type: ignore[method-assign,assignment]
    step = "devops_lab.platform.agent.observer.autoscale_step"
    monkeypatch.setattr(step, lambda _, now: scaled.append(now))
    observer.tick()
    assert [line for line in told if line.startswith("alerts: ")] == [
        "alerts: cannot import name 'Monitor' from 'devops_lab.phases.monitor'"
    ]
    assert len(scaled) == 1
