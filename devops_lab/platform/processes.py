"""Processes of a lab: known by number *and* start (numbers are used again), and by a mark they carry."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from devops_lab.platform import commands, variables
from devops_lab.platform.clock import Awake, this_boot
from devops_lab.platform.identity import identity, mark

OWNER = "DEVOPS_LAB_PROCESS_OF"  # each process that a lab starts carries its lab's mark under this name
HOST = "127.0.0.1"
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
SET_PTRACER = 0x59616D61  # prctl's PR_SET_PTRACER,
ANYBODY = ctypes.c_ulong(-1)  # and PR_SET_PTRACER_ANY
Identity = tuple[int, str]  # process number, and its start as `created_at` tells it


def lets_profilers_in() -> Callable[[], object] | None:
    """What a child calls before it becomes its program, so that py-spy may look into it; None: no need.

    Where Linux' Yama lets a process trace its own children only (`ptrace_scope` 1, as Ubuntu has it), a
    process may say itself who else may: here any of the same user. The kernel keeps that until it ends.

    Source: PR_SET_PTRACER(2const), and the kernel's Documentation/admin-guide/LSM/Yama.rst.
    """
    try:
        restricted = YAMA.read_text().strip() == "1"
    except OSError:  # no Yama here
        return None
    if not restricted:
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: between fork and exec as little as possible may happen
    return functools.partial(prctl, SET_PTRACER, ANYBODY, 0, 0, 0)


def companion(root: Path, module: str, *arguments: str, **streams: Any) -> subprocess.Popen[bytes]:
    """Start a module of this package in a process that ends with this one, however that happens.

    Args:
        root: of the lab that it belongs to.
        module: its whole name; it calls `outlive_nobody`.
        arguments: of its command line.
        streams: `stdout` and `stderr`, as `subprocess.Popen` takes them.
    """
    return commands.start(
        [sys.executable, "-m", module, *arguments],
        stdin=subprocess.PIPE,  # closes when this process ends: the sign to go
        cwd=variables.HOME,
        env=variables.child(**{OWNER: mark(root)}),
        start_new_session=True,
        **streams,
    )


def outlive_nobody(then: Callable[[], object] = lambda: os._exit(0)) -> None:
    """In a `companion`: do something once the process that started this one is gone; by default, end."""

    def wait() -> None:
        while os.read(0, 64):  # sys.stdin's lock would hold up this process's end
            pass
        then()

    threading.Thread(target=wait, daemon=True).start()


def created_at(pid: int) -> str:
    """When a process started, in words that no clock moves: which boot, and ticks since; "" when it is gone.

    `psutil.Process.create_time` is no such thing: it follows the wall clock, for living processes too.
    """
    try:
        words = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
        return f"{this_boot()}:{int(words[19])}"  # field 22; what stands in brackets before may hold anything
    except OSError:
        pass
    try:
        return f"{this_boot()}:{hash(psutil.Process(pid))}"  # psutil's own identity, where there is no /proc
    except psutil.Error:
        return ""


def process_of(pid: int, created: str) -> psutil.Process | None:
    """The running process with this number and start; a zombie or a stranger is none."""
    try:
        process = psutil.Process(pid)  # signals only whom it found here, whatever the clocks do
        same = created_at(pid) == created and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return process if same else None


def end(who: Iterable[Identity], grace_seconds: float) -> None:
    """Ask processes to end, all at once, and make them end after the grace; strangers are left alone."""
    left = list(who)
    for number, seconds in ((signal.SIGTERM, grace_seconds), (signal.SIGKILL, 5.0)):
        for pid, created in left:
            if process := process_of(pid, created):
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)
                    commands.signalled(pid, number)
        waited = Awake()  # a grace that is slept through is none
        while (left := [one for one in left if process_of(*one)]) and waited() < seconds:
            time.sleep(0.01)
        if not left:
            return


def processes_of(root: Path) -> list[psutil.Process]:
    """Every running process that the lab at `root` started, also one that no record names."""
    wanted, found = identity(root), []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            carried = process.environ().get(OWNER, "").partition(" ")[0]
            if carried == wanted and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def in_session(leader: int) -> list[psutil.Process]:
    """What the leader of a session has started, and theirs; who began a session of its own is not seen."""
    found = []
    for pid in psutil.pids():
        with suppress(OSError, psutil.Error):
            if pid != leader and os.getsid(pid) == leader:
                found.append(psutil.Process(pid))
    return found


def free_port(wanted: int = 0) -> int:
    """`wanted` if it can be had, else another port that is free now (who finds it taken later asks again)."""
    with suppress(OSError, OverflowError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, wanted))
        return int(probe.getsockname()[1])
    return free_port()


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all, by a rename in its folder."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
