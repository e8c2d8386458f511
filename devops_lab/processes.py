"""Processes of a lab: known by number *and* start time (numbers are used again), and by a mark they carry."""

from __future__ import annotations

import ctypes
import functools
import os
import signal
import socket
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path

import psutil

OWNER = "DEVOPS_LAB_PROCESS_OF"  # each process that a lab starts carries its lab's path under this name
HOST = "127.0.0.1"
YAMA = Path("/proc/sys/kernel/yama/ptrace_scope")
SET_PTRACER = 0x59616D61  # prctl's PR_SET_PTRACER,
ANYBODY = ctypes.c_ulong(-1)  # and PR_SET_PTRACER_ANY
Identity = tuple[int, float]  # process number, start time


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment, without what would leak its own Python into a child's."""
    dropped = {"PYTHONDONTWRITEBYTECODE", "PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "__PYVENV_LAUNCHER__"}
    return {k: v for k, v in os.environ.items() if k not in dropped} | more


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


def created_at(pid: int) -> float:
    """A process's start time; 0 when it is gone already."""
    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return 0.0


def process_of(pid: int, created: float) -> psutil.Process | None:
    """The running process with this number and start time; a zombie or a stranger is none."""
    try:
        process = psutil.Process(pid)
        same = abs(process.create_time() - created) < 0.05 and process.status() != psutil.STATUS_ZOMBIE
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
        deadline = time.monotonic() + seconds
        while (left := [one for one in left if process_of(*one)]) and time.monotonic() < deadline:
            time.sleep(0.01)
        if not left:
            return


def processes_of(root: Path) -> list[psutil.Process]:
    """Every running process that the lab at `root` started, also one that no record names."""
    wanted, found = str(root.resolve()), []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if process.environ().get(OWNER) == wanted and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def free_port(wanted: int = 0) -> int:
    """`wanted` if it can be had, else another port that is free now (who finds it taken later asks again)."""
    with suppress(OSError), socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((HOST, wanted))
        return int(probe.getsockname()[1])
    return free_port()


def replace_file(path: Path, text: str) -> None:
    """Write a file whole or not at all, by a rename in its folder."""
    aside = path.with_name(f".{path.name}.new")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
