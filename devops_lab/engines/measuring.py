"""What a container uses, as its engine accounts for it (cgroups), how it ended, who may look into it."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from devops_lab.engines.docker import Docker, Gone
from devops_lab.engines.hardening import MEMORY_BYTES
from devops_lab.errors import LabError
from devops_lab.model import Usage

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
    return Usage(cpu, held, threads=int(stats.get("pids_stats", {}).get("current", 0)))


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
