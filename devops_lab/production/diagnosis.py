"""Find out why production is slow: look into a live replica, and at what runs beside it."""

from __future__ import annotations

import re
import shutil
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from devops_lab.errors import BadInput, LabError, MissingTool
from devops_lab.model import Profile, Replica
from devops_lab.platform import commands, variables
from devops_lab.platform.context import LabContext
from devops_lab.platform.processes import created_at, end, processes_of

SAMPLES_PER_SECOND = 200
# What a thread is in while it has nothing to do; py-spy leaves idle threads out, but can't in a container.
WAITING = re.compile(
    r"\bwait \((.*/)?threading\.py|\bselect \((.*/)?selectors\.py|\b_worker \((.*/)?futures/thread\.py"
)
APPLICATION = re.compile(r"\((?:.*/)?bento/[^)]*\)")  # a frame of the shop's own code, not of its libraries


@dataclass(frozen=True)
class LabProcess:
    """One process of the lab.

    Args:
        what: agent, proxy, a replica's id, customers, or "other".
        started: POSIX seconds.
        opens: files of production that it has open.
        born: tells it from others of its number.
    """

    pid: int
    what: str
    command: str
    started: float
    cpu_seconds: float
    opens: list[str] = field(default_factory=list)
    born: str = ""


class Diagnosis:
    """What a reader can look into: replicas by py-spy, processes as `top` and `lsof` would tell.

    Args:
        world: the lab to work on.
    """

    def __init__(self, world: LabContext) -> None:
        self.world, self.store = world, world.store

    def profile(self, replica: str = "", seconds: float = 2.0) -> Profile:
        """Look into a live replica with py-spy, without stopping it: which functions take the time.

        Args:
            replica: its id; the busiest one when empty.
            seconds: how long to look.

        Raises:
            BadInput: there is no such replica, or none at all.
            MissingTool: py-spy is not there, or this machine does not let it look.
        """
        store, target = self.store, find_replica(self.world, replica)
        raw = self.world.root / "run" / f"profile-{target.id}.txt"
        options = ["--rate", str(SAMPLES_PER_SECOND), "--format", "raw", "--function", "--output", str(raw)]
        started, whole = store.now(), max(1, round(seconds))
        _spy("record", target, "--duration", str(whole), *options, seconds=seconds)
        figures = parse(raw.read_text(encoding="utf-8"))
        raw.unlink()
        result = Profile(target.id, target.release, started, whole, *figures)
        store.put(result)
        share = next(iter(result.application.values()), 0.0)
        top = f"{result.cause} takes {share:.0%}" if result.cause else "idle"
        store.event("operate", "profile.done", f"replica:{target.id}", f"{result.samples} samples: {top}")
        store.link(f"profile:{result.key}", "of", f"release:{target.release}")
        return result

    def why_no_profile(self) -> str:
        """Why no replica can be profiled on this machine, in plain words; empty when one can: it is tried."""
        try:
            _spy("dump", find_replica(self.world, ""))
        except LabError as error:
            return error.wrong
        return ""

    def processes(self) -> list[LabProcess]:
        """What this lab runs on this machine, oldest first, and which of production's files it has open."""
        replicas = {replica.pid: replica.id for replica in self.store.all(Replica) if replica.pid}
        running = []
        for process in processes_of(self.world.root):
            try:
                running.append(_described(process, self.world.production.resolve(), replicas))
            except psutil.Error:  # it has just ended, or is nobody's business
                continue
        return sorted(running, key=lambda each: each.started)

    def end_process(self, pid: int, why: str = "") -> LabProcess:
        """End a process of the lab that is no part of production itself (SIGTERM, then SIGKILL).

        Raises:
            BadInput: this lab has no such process, or production can't do without it.
        """
        known = {each.pid: each for each in self.processes()}
        others = ", ".join(str(each.pid) for each in known.values() if each.what == "other")
        if pid not in known:
            raise BadInput(f"This lab has no process {pid}.", expected=others or "there is no other process")
        if (victim := known[pid]).what != "other":
            raise BadInput(
                f"Process {pid} is {victim.what}, and belongs to production.",
                expected=others or "there is no other process",
                next_step="lab.operate.kill(ID) has a replica replaced; "
                "lab.operate.send_home() ends customers.",
            )
        end([(pid, victim.born)], 2.0)
        who = self.world.settings.learner
        self.store.event("operate", "process.ended", f"process:{pid}", victim.command, who=who, why=why)
        return victim


def _described(process: psutil.Process, production: Path, replicas: dict[int, str]) -> LabProcess:
    command = process.cmdline()
    files = {Path(file.path) for file in process.open_files()}
    opens = sorted(str(path.relative_to(production)) for path in files if path.is_relative_to(production))
    what = replicas.get(process.pid, "")
    if not what:
        known = {"devops_lab.platform.agent": "agent", "devops_lab.platform.traffic.customers": "customers"}
        what = next((name for part, name in known.items() if part in command), "other")
        what = "proxy" if process.name() == "envoy" else what
    times = process.cpu_times()
    started, born = process.create_time(), created_at(process.pid)
    words = " ".join(Path(part).name if part.startswith("/") else part for part in command[:4])
    return LabProcess(process.pid, what, words, started, times.user + times.system, opens, born)


def _spy(do: str, replica: Replica, *options: str, seconds: float = 0.0) -> None:
    command = [py_spy(), do, "--pid", str(replica.pid), *options]
    done = commands.run(command, env=variables.child(), capture_output=True, text=True, timeout=seconds + 30)
    if done.returncode:
        raise explain(done.stderr, replica)


def parse(raw: str) -> tuple[int, dict[str, float], dict[str, float], dict[str, int], int]:
    """Read py-spy's raw format ("outer;inner 12" a line) into a profile's figures, from `samples` on."""
    stacks: Counter[str] = Counter()
    functions: Counter[str] = Counter()
    application: Counter[str] = Counter()
    waiting = 0
    for line in raw.splitlines():
        stack, _, count = line.rpartition(" ")
        if not stack:
            continue
        frames = stack.split(";")
        if WAITING.search(frames[-1]):
            waiting += int(count)
            continue
        stacks[stack] += int(count)
        functions[frames[-1]] += int(count)
        if own := [frame for frame in frames if APPLICATION.search(frame)]:
            application[own[-1]] += int(count)
    total = stacks.total()

    def shares(counted: Counter[str]) -> dict[str, float]:
        return {name: count / total for name, count in counted.most_common()}

    return total, shares(functions), shares(application), dict(stacks.most_common()), waiting


def find_replica(world: LabContext, replica_id: str) -> Replica:
    """The replica that is asked for, or the one that uses most CPU, of those whose process is visible here.

    Raises:
        BadInput: there is no such replica, or none at all.
        MissingTool: nobody may look into this engine's replicas, or none runs on this machine.
    """
    live = {r.id: r for r in world.store.all(Replica) if r.state in ("healthy", "unhealthy")}
    if replica_id not in live and (replica_id or not live):
        raise BadInput(
            f"There is no replica {replica_id!r} to look into."
            if replica_id
            else "Nothing runs in production.",
            expected=", ".join(live) or "a running replica",
            next_step="Leave the name out to take the busiest one." if live else "Deploy a version first.",
        )
    wanted = [live[replica_id]] if replica_id else list(live.values())
    refused = world.engine.capabilities().why_not.get("profiles", "")
    seen = [] if refused else [replica for replica in wanted if replica.pid]
    if not seen:
        where = ", ".join(f"{replica.id} on {replica.node or 'another machine'}" for replica in wanted)
        raise MissingTool(
            refused or f"py-spy looks into processes of this machine, and there are only {where}.",
            expected="a process of this machine that this user may trace",
            next_step="The endpoint figures work without it, and so does the release's diff.",
        )
    cpu = {row[1]: row[4] for row in world.store.samples("cpu_percent", since=world.store.now() - 5)}
    return max(seen, key=lambda r: cpu.get(r.id, 0.0))


def py_spy() -> str:
    """The profiler's program: beside this Python, or on the path."""
    beside = Path(sys.executable).parent / "py-spy"
    found = str(beside) if beside.is_file() else shutil.which("py-spy")
    if not found:
        raise MissingTool("py-spy is not here.", next_step="Install it: pip install py-spy")
    return found


def explain(stderr: str, replica: Replica) -> LabError:
    """What py-spy's refusal means, and what to do."""
    said = stderr.strip()[-300:]
    if "ermission" in said or "ptrace" in said or "root" in said:
        return MissingTool(
            f"This machine does not let py-spy look into replica {replica.id}: {said}",
            expected="the right to trace processes of one's own (ptrace)",
            next_step="Linux: `sudo sysctl kernel.yama.ptrace_scope=0`, or in a container "
            "`--cap-add SYS_PTRACE`; macOS: start the lab as root. The endpoint figures work without it.",
        )
    return LabError(f"py-spy could not look into replica {replica.id}: {said}", next_step="Try it again.")
