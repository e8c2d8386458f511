"""Clocks step and machines sleep: nobody is taken for dead, nothing is decided by a time that moved."""

from __future__ import annotations

import itertools
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psutil
import pytest

from devops_lab.errors import TimedOut
from devops_lab.model import Alert, Artifact, Pool, Replica, ScalingPolicy, Slo
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.operate import Operate
from devops_lab.phases.test import KEPT
from devops_lab.phases.test import Test as Suite
from devops_lab.pipeline.hook import Trigger
from devops_lab.platform import clock, waits
from devops_lab.platform.agent.notices import GAP_SECONDS, SETTLE_SECONDS, Gaps
from devops_lab.platform.agent.reconciler import Reconciler
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import Control, teardown
from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.engines.log_follower import Follower
from devops_lab.platform.processes import created_at, end, process_of, processes_of, replace_file
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import LoadRun
from devops_lab.platform.waits import pause
from tests.patience import until
from tests.phases.production import production
from tests.production import ENGINES, engine_lab, running, with_agent
from tests.traffic.test_load import TinyShop, make_spec

V1 = Pool("v1", "1.0.0", 2, 100)
STEPS = (1.0, -1.0, 3600.0, -3600.0)


@pytest.fixture(params=ENGINES)
def world(request: pytest.FixtureRequest, tmp_path: Path, templates: Path) -> Iterator[LabContext]:
    yield from engine_lab(request, tmp_path / "my läb", templates)


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the wall clock of this process by so many seconds: what Python and psutil tell of it."""
    wall, boot = time.time, psutil._pslinux.boot_time

    def by(seconds: float) -> None:
        monkeypatch.setattr(time, "time", lambda: wall() + seconds)
        monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot() + seconds)

    return by


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process to know again."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield child
        child.kill()


# ---- who is who
@pytest.mark.parametrize("seconds", STEPS)
def test_a_process_is_the_same_after_a_step(
    sleeper: subprocess.Popen[bytes], step: Callable[[float], None], seconds: float
) -> None:
    """3a, 3b: `create_time` follows the clock, so a living process was a stranger, and got no signal."""
    born = created_at(sleeper.pid)
    found = process_of(sleeper.pid, born)
    step(seconds)
    assert created_at(sleeper.pid) == born
    assert process_of(sleeper.pid, born)
    assert found
    assert found.is_running()
    end([(sleeper.pid, born)], 5.0)
    assert sleeper.wait(60) == -signal.SIGTERM


def test_a_process_of_another_boot_is_a_stranger(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """After a reboot, number and ticks may both come again."""
    me, born = os.getpid(), created_at(os.getpid())
    monkeypatch.setattr(clock, "BOOT_ID", tmp_path / "boot_id")
    clock.BOOT_ID.write_text("0123456789abcdef\n")
    clock.this_boot.cache_clear()
    try:
        assert process_of(me, born) is None
        assert process_of(me, created_at(me))
    finally:
        clock.this_boot.cache_clear()


def test_one_that_has_ended_is_none(sleeper: subprocess.Popen[bytes]) -> None:
    born = created_at(sleeper.pid)
    sleeper.kill()
    until(lambda: psutil.Process(sleeper.pid).status() == psutil.STATUS_ZOMBIE, "a zombie")
    assert process_of(sleeper.pid, born) is None
    sleeper.wait()
    assert (created_at(sleeper.pid), process_of(sleeper.pid, born)) == ("", None)
    assert process_of(sleeper.pid, "") is None  # whose start nobody knew


def test_records_of_an_older_version_are_read_and_name_nobody(tmp_path: Path) -> None:
    store = Store(tmp_path / "lab.db")
    store.put(Trigger("delivery", os.getpid(), created_at(os.getpid())))
    with store._write() as db:
        old = f'{{"mode":"delivery","pid":{os.getpid()},"created":1790000000.25,"key":"push"}}'
        db.execute("update records set data = ? where kind = 'Trigger'", (old,))
    trigger = store.last(Trigger)
    assert trigger
    assert not trigger.armed


# ---- production, over a restart of its agent
@pytest.mark.parametrize("seconds", [2.0, -3600.0])
def test_an_agent_that_comes_after_a_step_takes_over_what_runs(
    world: LabContext, step: Callable[[float], None], seconds: float
) -> None:
    """3a: living replicas "died", two new ones came, two were orphans until `clean`."""
    control = with_agent(world, "1.0.0")
    world.store.put(V1)
    control.wait_settled(60)
    before, ran = {r.id: r.pid for r in world.store.all(Replica)}, len(running(world))
    agent = control.identity()
    assert agent
    os.kill(agent[0], signal.SIGKILL)
    until(lambda: process_of(*agent) is None, "the agent to be gone")
    step(seconds)
    loop = Reconciler(world)
    loop.reconcile()
    assert {r.id: r.pid for r in loop.replicas.values()} == before
    assert not world.store.events(kind="replica.died")
    assert loop.envoy.alive()
    assert len(running(world)) == ran - 1  # the agent's own


# ---- asleep
@pytest.mark.alone
def test_customers_who_slept_go_on_where_they_were(tmp_path: Path) -> None:
    """3d: the whole backlog came in one burst, and the sleep counted as waiting."""
    shop = TinyShop()
    rate, asleep = 50.0, 3.0
    spec = make_spec(shop, tmp_path, curve=[(0.0, rate), (3.0, rate)], even=True)
    try:
        with LoadRun(spec, tmp_path) as run:
            until(lambda: len(run.store.requests(run=run.id)) > rate / 2, "customers")
            os.kill(run.process.pid, signal.SIGSTOP)
            pause(asleep)
            os.kill(run.process.pid, signal.SIGCONT)
            summary = run.wait()
    finally:
        shop.close()
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    assert summary.p99 < 0.5
    assert spec.planned() - 3 <= summary.requests <= spec.planned() + 1  # less who was under way
    assert summary.rate == pytest.approx(rate, rel=0.2)  # of the time awake
    times = [outcome.t for outcome in run.store.requests(run=run.id)]
    assert max(later - t for t, later in pairwise(times)) > asleep
    busiest = max(sum(t <= other < t + 0.5 for other in times) for t in times)
    assert busiest <= rate  # of 25 that are due in half a second
    assert [event.kind for event in run.store.events(kind="load.gap")] == ["load.gap"]


def test_a_deadline_does_not_pass_in_a_sleep(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(clock, "steady", lambda: now[0])
    monkeypatch.setattr(
        "devops_lab.platform.waits.time.sleep", lambda seconds: now.__setitem__(0, now[0] + seconds)
    )

    def asleep_once() -> bool:
        if now[0] < 100:
            now[0] += 600.0  # ten minutes, in the middle of the first look
        return now[0] > 604

    assert waits.until(asleep_once, "the morning", seconds=10.0)
    with pytest.raises(TimedOut):
        waits.until(lambda: False, "a thing that never comes", seconds=10.0)
    assert now[0] == pytest.approx(614, abs=1)


def test_a_question_to_the_agent_that_both_slept_over_is_asked_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment was rolled back because its machine had been asleep while it asked."""
    now, asked = [0.0], list[bytes]()

    def serve(server: socket.socket) -> None:
        for answer in (b"", *[b'{"ok": true}\n'] * 2):  # the first time, it sleeps
            line, _ = server.accept()
            asked.append(line.recv(100))
            if answer:
                line.sendall(answer)
            else:
                now[0] += 600.0
                lines.append(line)

    (tmp_path / "run").mkdir()
    lines: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "run" / "agent.sock"))
        server.listen()
        threading.Thread(target=serve, args=(server,), daemon=True).start()
        monkeypatch.setattr("devops_lab.platform.control.steady", lambda: now[0])
        assert Control(tmp_path).call("reconcile", seconds=0.3) == {"ok": True}
    assert [line.split(b'"')[3] for line in asked] == [b"ping", b"ping", b"reconcile"]
    lines[0].close()


# ---- what is kept by time
class PretendedDocker:
    """An engine whose container has said these lines: (time stamp, text)."""

    def __init__(self, *lines: tuple[str, bytes]) -> None:
        self.lines = lines

    def log_lines(self, container: str, since: str) -> Iterator[tuple[str, bytes]]:
        return (line for line in self.lines if line[0] >= since)

    def calls(self, what: str) -> AbstractContextManager[None]:
        return nullcontext()

    def is_running(self, container: str) -> bool:
        return False


def test_the_log_of_a_container_goes_on_when_its_engine_s_clock_is_set_back(tmp_path: Path) -> None:
    """The engine stamps each line; all that came after a step back was taken for known, for an hour."""
    after, before = "2030-01-01T11:00:00.000000000Z", "2030-01-01T12:00:00.000000000Z"
    said = [(before, b"1\n"), (before, b"2\n"), (after, b"3\n")]
    path = tmp_path / "r1.log"
    for count in (2, 3):  # followed again from where the first was left
        Follower(cast(Docker, PretendedDocker(*said[:count])), "c", path).join(60)
    said += [(after, b"4\n"), (after, b"5\n")]
    Follower(cast(Docker, PretendedDocker(*said)), "c", path).join(60)
    assert path.read_bytes() == b"1\n2\n3\n4\n5\n"


def test_the_folder_in_use_stays_when_the_clock_is_set_back(tmp_path: Path) -> None:
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    for number in range(KEPT + 1):
        other = world.work / "tests" / f"other-{number}"
        other.mkdir(parents=True)
        os.utime(other, (4e9, 4e9))  # made before the step
    artifact = Artifact("c" * 40, "1.0.0", "x.whl", f"sha256:{'d' * 64}", 1, [], 0.0)
    assert Suite(world)._folder(artifact).is_dir()


def test_records_come_in_the_order_in_which_they_were_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store(tmp_path / "lab.db")
    wall = iter([5e9, 4e9, 6e9, 3e9, 2e9, *[1e9] * 100])
    monkeypatch.setattr(Store, "now", lambda self: next(wall))
    for name in "abcb":
        store.put(Pool(name, "1.0.0", 1, 100))
    assert [pool.name for pool in store.all(Pool)] == ["a", "c", "b"]
    assert store.last(Pool) == Pool("b", "1.0.0", 1, 100)
    store.replace_all(Pool, [Pool("z", "1.0.0", 1, 0), Pool("a", "1.0.0", 1, 0)])
    assert [pool.name for pool in store.all(Pool)] == ["z", "a"]


# ---- clocks step in a production with customers
STEPPED = """
import runpy, sys, time
from pathlib import Path
import psutil
wall, boot = time.time, psutil._pslinux.boot_time
def off():
    return float(Path({file!r}).read_text())
time.time = lambda: wall() + off()
psutil._pslinux.boot_time = lambda: boot() + off()
sys.argv[:] = sys.argv[2:]
runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
"""
RATE = 50.0


@pytest.fixture
def all_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the wall clock of this process, and of the agent and the customers that it starts."""
    file, script, program = (tmp_path / name for name in ("off", "stepped.py", "python"))
    file.write_text("0")
    script.write_text(STEPPED.format(file=str(file)))
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{script}" "$@"\n')
    program.chmod(0o755)
    pretended = SimpleNamespace(executable=str(program))
    monkeypatch.setattr("devops_lab.platform.control.sys", pretended)
    monkeypatch.setattr("devops_lab.platform.processes.sys", pretended)
    wall, boot = time.time, psutil._pslinux.boot_time
    monkeypatch.setattr(time, "time", lambda: wall() + float(file.read_text()))
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: boot() + float(file.read_text()))
    return lambda seconds: replace_file(file, str(seconds))


@pytest.fixture(params=ENGINES)
def shop(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LabContext]:
    """Production of the real shop in version 1.0.0; 1.1.0 waits."""
    with production(tmp_path / "lab", "1.0.0", "1.1.0", engine=request.param) as made:
        yield made


def alarms(world: LabContext) -> list[str]:
    """What must not happen because of a clock."""
    kinds = {"alert.firing", "alert.stale", "agent.error", "autoscaler.blind", "operate.scaled"}
    kinds |= {"envoy.restarted", "replica.died", "replica.hung", "replica.crash_loop", "replica.unhealthy"}
    return [f"{event.kind} {event.message}" for event in world.store.events() if event.kind in kinds]


@pytest.mark.alone
def test_no_step_of_the_clock_is_felt(shop: LabContext, all_step: Callable[[float], None]) -> None:
    """Idle, rolling and canary, each over steps of a second and of an hour, there and back."""
    deploy, steps = Deploy(shop), itertools.cycle(STEPS)
    deploy.run("1.0.0")

    def told() -> int:
        return len(shop.store.events(kind="agent.clock"))

    with Operate(shop).load(RATE, 170.0) as run:
        until(lambda: len(shop.store.requests(run=run.id)) > RATE, "customers")
        for seconds in STEPS:
            before = told()
            all_step(seconds)
            until(lambda: told() > before, "the agent to notice")  # noqa: B023
        deploy.run("1.1.0", "rolling", on_step=lambda _: all_step(next(steps)))
        assert deploy.rollback(on_step=lambda _: all_step(next(steps))).version == "1.0.0"
        deploy.run("1.1.0", "canary", canary_steps=(20, 50), on_step=lambda _: all_step(next(steps)))
        assert deploy.rollback(on_step=lambda _: all_step(next(steps))).version == "1.0.0"
        count = len(shop.store.requests(run=run.id))
        until(lambda: len(shop.store.requests(run=run.id)) > count + RATE, "customers afterwards")
        summary = run.stop()
    assert [d.state for d in deploy.history()] == ["done"] * 5
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    assert alarms(shop) == []


@pytest.mark.parametrize("shop", ["process"], indirect=True)
def test_after_a_step_in_a_rollout_signals_are_sent_and_the_hook_listens(
    shop: LabContext, all_step: Callable[[float], None]
) -> None:
    """3b: who was known by a time got no signal; the hook took the kernel for gone; `clean` ended nobody."""
    deploy = Deploy(shop)
    deploy.run("1.0.0")
    shop.store.put(Trigger("deployment", os.getpid(), created_at(os.getpid())))
    deploy.run("1.1.0", on_step=lambda _: all_step(2.0))
    trigger = shop.store.last(Trigger)
    assert trigger
    assert trigger.armed
    victim = Operate(shop).kill()
    until(lambda: shop.store.events(kind="replica.replaced"), f"the place of {victim.id} to be taken")
    shop.control.wait_settled(60)
    teardown(shop.root)
    assert running(shop) == []


@pytest.mark.skipif(not shutil.which("faketime"), reason="faketime is not on PATH")
@pytest.mark.parametrize("shop", ["process"], indirect=True)
def test_a_kernel_that_lives_in_the_past_rolls_back_to_what_was_before(shop: LabContext) -> None:
    """3c: what came last was told by wall time."""
    deploy = Deploy(shop)
    for version in ("1.0.0", "1.1.0"):
        deploy.run(version)
    script = (
        "import sys; from pathlib import Path\n"
        "from devops_lab.platform import settings\n"
        "from devops_lab.platform.context import LabContext\n"
        "from devops_lab.phases.deploy import Deploy\n"
        "from devops_lab.platform.store import Store\n"
        "root = Path(sys.argv[1]); world = LabContext(root, settings.read(root), Store(root / 'lab.db'))\n"
        "Deploy(world).run('1.0.0'); Deploy(world).rollback(); print(Deploy(world).current())\n"
    )
    command = ["faketime", "-f", "-1h", sys.executable, "-c", script, str(shop.root)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stdout.split(), done.stderr) == (0, ["1.1.0"], "")
    times = [event.t for event in shop.store.events()]
    # a program whose clocks are all faked reads the steady time in hundredths
    assert [pair for pair in pairwise(times) if pair[1] < pair[0] - 0.02] == []
    assert alarms(shop) == []


# ---- production sleeps
def all_processes(world: LabContext) -> list[int]:
    """Agent, proxy, replicas, customers."""
    pids = {process.pid for process in processes_of(world.root)}
    return sorted(pids | {replica.pid for replica in world.store.all(Replica)})


@contextmanager
def asleep(pids: list[int]) -> Iterator[None]:
    """Stop all, as a machine that sleeps does, and let them go on in no particular order."""
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        random.shuffle(pids)
        for pid in pids:
            os.kill(pid, signal.SIGCONT)


@pytest.mark.alone
def test_production_that_slept_goes_on_as_if_nothing_had_been(shop: LabContext) -> None:
    """3d: no alert storm, no scaling jump; the gap is called a gap."""
    operate = Operate(shop)
    Deploy(shop).run("1.0.0")
    operate.autoscale(ScalingPolicy("requests_per_second", RATE * 0.7, 1, 4))
    Monitor(shop).slo.add(Slo("answers", 0.99))
    with operate.load(RATE, 170.0) as run:
        until(lambda: len(shop.store.requests(run=run.id)) > 8 * RATE, "customers", seconds=30)
        before = {replica.id: replica.pid for replica in shop.store.all(Replica)}
        with asleep(all_processes(shop)):
            pause(GAP_SECONDS + 3)
        gap = until(lambda: shop.store.events(kind="agent.gap"), "the gap to be called one", seconds=20)
        awake = gap[0].t + SETTLE_SECONDS + 3
        until(lambda: shop.store.samples("p95_ms", since=awake), "figures", seconds=30)
        summary = run.stop()
    assert len(shop.store.events(kind="agent.gap")) == len(shop.store.events(kind="load.gap")) == 1
    assert {replica.id: replica.pid for replica in shop.store.all(Replica)} == before
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    assert alarms(shop) == []


# ---- a table of histories
@pytest.mark.parametrize(
    ("ticks", "walls", "gaps", "steps", "last_is_calm"),
    [
        ([1, 2, 3], [1, 2, 3], [], [], True),
        ([1, 2, 602], [1, 2, 602], [600], [], False),  # asleep for ten minutes
        ([1, 602, 603, 604, 605, 606], [1, 602, 603, 604, 605, 606], [601], [], False),
        ([1, 602, 603, 604, 605, 606, 607], [1, 602, 603, 604, 605, 606, 607], [601], [], True),
        ([1, 2, 3], [1, 3602, 3603], [], [3600], True),
        ([1, 2, 3], [1, -3598, -3597], [], [-3600], True),
        ([1, 2, 3, 4], [1, 3, 3, 4], [], [1, -1], True),
        ([1, 2, 602], [1, 2, 4202], [600], [3600], False),  # asleep, and set meanwhile
        ([1, 5, 9], [1, 5, 9], [], [], True),  # a busy machine
        ([1, 2, 602, 1202], [1, 2, 602, 1202], [600, 600], [], False),
    ],
)
def test_what_the_agent_makes_of_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ticks: list[float], walls: list[float], gaps: list[float], steps: list[float], last_is_calm: bool,
) -> None:  # fmt: skip
    """At these times of the lab, with these of the wall clock, it looks at production."""
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    world.store.put(Alert("slow", "pending", 0.5, 300.0), Alert("disk", "firing", 0.5, 5e8))
    wall = [0.0]
    monkeypatch.setattr("devops_lab.platform.agent.notices.time", SimpleNamespace(time=lambda: wall[0]))
    seen = Gaps(world, 0.0)
    for now, wall[0] in zip(ticks, walls, strict=True):
        calm = seen.look(now)
    assert calm == last_is_calm
    assert [event.data["seconds"] for event in world.store.events(kind="agent.gap")] == gaps
    assert [event.data["seconds"] for event in world.store.events(kind="agent.clock")] == steps
    assert {alert.rule for alert in world.store.all(Alert)} == ({"disk"} if gaps else {"slow", "disk"})


def test_the_wall_clock_is_only_shown() -> None:
    """Who asks it has a reason; what is decided or measured goes by the lab's clock, or the steady one."""
    package = Path(clock.__file__).parents[1]
    platform = {
        "database.py",
        "store.py",
        "agent/notices.py",
        "agent/observer.py",
        "engines/images.py",
        "git.py",
    }
    may = {"phases/build.py", *(f"platform/{name}" for name in platform)}
    asks = {
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "time.time()" in path.read_text("utf-8") and "template" not in path.parts
    }
    assert asks == may
