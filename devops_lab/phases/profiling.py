"""Look into a live replica with py-spy: which functions take the time."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from devops_lab.errors import BadInput, LabError, MissingTool
from devops_lab.model import Replica
from devops_lab.phases import World

SAMPLES_PER_SECOND = 200
# What a thread is in while it has nothing to do; py-spy leaves idle threads out, but can't in a container.
WAITING = re.compile(
    r"\bwait \((.*/)?threading\.py|\bselect \((.*/)?selectors\.py|\b_worker \((.*/)?futures/thread\.py"
)
APPLICATION = re.compile(r"\((?:.*/)?bento/[^)]*\)")  # a frame of the shop's own code, not of its libraries


@dataclass(frozen=True)
class Profile:
    """Where a live replica's time went, by py-spy's samples.

    Args:
        functions: share (0..1) of the samples in which a function was the one that ran.
        application: share in which a function of the shop's own code was the innermost such one.
        stacks: whole stacks, outermost first and joined by ";", with their number of samples.
        waiting: samples of threads that had nothing to do; they count in none of the others.
    """

    replica: str
    release: str
    t: float
    seconds: float
    samples: int
    functions: dict[str, float]
    application: dict[str, float]
    stacks: dict[str, int]
    waiting: int = 0

    @property
    def key(self) -> str:
        return f"{self.replica}@{self.t:.3f}"

    @property
    def cause(self) -> str:
        """The function of the shop that takes the most time; empty when none was seen."""
        return next(iter(self.application), "")


def why_not(world: World) -> str:
    """Why no replica can be looked into here, in plain words; empty when one can: it is tried."""
    try:
        _spy("dump", find_replica(world, ""))
    except LabError as error:
        return error.wrong
    return ""


def profile(world: World, replica_id: str, seconds: float) -> Profile:
    """Sample one live replica; see `Operate.profile`."""
    replica = find_replica(world, replica_id)
    target = world.root / "run" / f"profile-{replica.id}.txt"
    options = ["--rate", str(SAMPLES_PER_SECOND), "--format", "raw", "--function", "--output", str(target)]
    started = time.time()
    _spy("record", replica, "--duration", str(max(1, round(seconds))), *options, seconds=seconds)
    found = parse(target.read_text(encoding="utf-8"))
    target.unlink()
    result = Profile(replica.id, replica.release, started, max(1, round(seconds)), *found)
    world.store.put(result)
    top = f"{result.cause} takes {next(iter(result.application.values())):.0%}" if result.cause else "idle"
    world.store.event("operate", "profile.done", f"replica:{replica.id}", f"{result.samples} samples: {top}")
    world.store.link(f"profile:{result.key}", "of", f"release:{replica.release}")
    return result


def _spy(do: str, replica: Replica, *options: str, seconds: float = 0.0) -> None:
    command = [py_spy(), do, "--pid", str(replica.pid), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=seconds + 30)
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


def find_replica(world: World, replica_id: str) -> Replica:
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
    cpu = {row[1]: row[4] for row in world.store.samples("cpu_percent", since=time.time() - 5)}
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
