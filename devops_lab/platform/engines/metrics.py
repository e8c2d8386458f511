"""What replicas in containers use: by their engine's account (cgroups), or, on other nodes, by their own."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from devops_lab.errors import LabError
from devops_lab.model import Replica, Usage
from devops_lab.platform import web
from devops_lab.platform.engines.base import MEMORY_BYTES
from devops_lab.platform.engines.docker import Docker, Gone

AGAIN_SECONDS = 0.5


class Meter:
    """Keeps the newest figures of one container, in a thread of its own, until the container has ended.

    The engine measures once a second and makes everybody who asks wait for that; so we listen instead.
    """

    def __init__(self, docker: Docker, container: str) -> None:
        self.docker, self.container = docker, container
        self.last: Usage | None = None
        self.ended = threading.Event()
        threading.Thread(target=self._run, name=f"meter of {container[:12]}", daemon=True).start()

    def _run(self) -> None:
        while not self.ended.wait(AGAIN_SECONDS):
            try:
                with self.docker.calls("follow a container's figures"):
                    for stats in self.docker.client.api.stats(self.container, decode=True):
                        self.last = usage_in(stats)
                        if self.last is None:  # it has ended: the engine would go on with empty figures
                            return
            except Gone:
                return
            except LabError:  # the engine is away: the container may well go on without it
                pass


def measure(docker: Docker, container: str) -> Usage | None:
    """One container's figures now, which takes up to two seconds; None when it has ended."""
    try:
        with docker.calls("measure a container"):
            return usage_in(docker.client.api.stats(container, stream=False))
    except (Gone, LabError):
        return None


def usage_in(stats: dict[str, Any]) -> Usage | None:
    """The engine's figures as a record; None when there are none, because the container has ended."""
    memory = stats.get("memory_stats", {})
    if not memory.get("usage"):
        return None
    now, before = stats["cpu_stats"], stats["precpu_stats"]
    spent = now["cpu_usage"]["total_usage"] - before["cpu_usage"]["total_usage"]
    passed = now.get("system_cpu_usage", 0) - before.get("system_cpu_usage", 0)  # of all cores together
    known = before.get("system_cpu_usage", 0) > 0 and passed > 0
    cpu = 100.0 * spent / passed * now.get("online_cpus", 1) if known else 0.0
    # What programs hold, without the files that the kernel keeps at hand for all; cgroup v1 or v2 name it so.
    detail = memory.get("stats", {})
    held = int(detail.get("total_rss") or detail.get("anon") or memory["usage"])
    return Usage(cpu, held)


def how_it_ended(state: dict[str, Any]) -> str:
    """The end of a container in words, from its recorded state."""
    if state.get("OOMKilled"):
        limit = MEMORY_BYTES / 1e6
        return f"SIGKILL, by the kernel: out of memory, above its limit of {limit:.0f} MB"
    code = int(state.get("ExitCode", 0))
    if code > 128:
        try:
            return signal.Signals(code - 128).name
        except ValueError:
            pass
    return str(state.get("Error") or f"exit code {code}")


def visible(pid: int, container: str) -> int:
    """The container's first process as this machine numbers it; 0 where Docker runs on another kernel."""
    try:
        return pid if container in Path(f"/proc/{pid}/cgroup").read_text() else 0
    except OSError:
        return 0


def profiling_refused() -> str:
    """Why py-spy can't look into containers from here; empty when it can."""
    if not sys.platform.startswith("linux"):
        return "Containers run in a virtual machine here: py-spy can't see their processes."
    if os.geteuid():
        return "The processes of a container belong to another user: py-spy would need root."
    return ""


# ---- what a replica says of itself: for one on another machine, whose engine can't be asked
@dataclass(frozen=True)
class Told:
    """What a process said of itself at one time, by the metrics that Prometheus' clients add to each."""

    t: float
    cpu_seconds: float
    memory_bytes: int

    def usage(self, before: Told | None) -> Usage:
        """The figures since `before`; no CPU when there is nothing to compare with."""
        spent = (self.cpu_seconds - before.cpu_seconds) / max(self.t - before.t, 0.001) if before else 0.0
        return Usage(100.0 * max(spent, 0.0), self.memory_bytes)


def told_by(replica: Replica) -> Told | None:
    """A replica's own figures, from its /metrics; None when it does not answer, or leaves them out."""
    found: dict[str, float] = {}
    try:
        for line in web.ask(f"http://{replica.host}:{replica.port}/metrics", seconds=0.5).text.splitlines():
            if line.startswith(("process_cpu_seconds_total ", "process_resident_memory_bytes ")):
                name, _, value = line.partition(" ")
                found[name] = float(value)
    except (OSError, ValueError):
        return None
    if len(found) < 2:
        return None
    return Told(
        time.monotonic(), found["process_cpu_seconds_total"], int(found["process_resident_memory_bytes"])
    )
