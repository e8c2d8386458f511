"""Clocks that no hand moves: what is decided by time goes by these, never by the wall clock, which steps."""

from __future__ import annotations

import functools
import subprocess
import time
from pathlib import Path

BOOT_ID, UPTIME = Path("/proc/sys/kernel/random/boot_id"), Path("/proc/uptime")
# Both go on while the machine sleeps: Linux' own, and what macOS calls monotonic.
SINCE_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
ASTRAY_SECONDS = 0.5  # the file tells hundredths
GAP_SECONDS = 2.0  # who gets no processor for so long was stopped, or slept with the machine


@functools.cache
def this_boot() -> str:
    """What tells this run of the machine from the ones before; nothing where the system has no such name."""
    try:
        return BOOT_ID.read_text()[:8]
    except OSError:
        pass
    try:  # macOS
        return subprocess.check_output(["sysctl", "-n", "kern.bootsessionuuid"], text=True)[:8].strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


@functools.cache
def _astray() -> float:
    """How far this process's own clock is off the machine's: `faketime` moves every clock of a program."""
    try:
        apart = float(UPTIME.read_text().split()[0]) - time.clock_gettime(SINCE_BOOT)
    except OSError:
        return 0.0
    return apart if abs(apart) > ASTRAY_SECONDS else 0.0


def steady() -> float:
    """Seconds since the machine was started, also asleep: no step moves them, all processes see the same."""
    return time.clock_gettime(SINCE_BOOT) + _astray()


class Awake:
    """Counts the seconds that this process was awake; ask more often than every `GAP_SECONDS`.

    Stopped (SIGSTOP), or asleep with its machine, it could do nothing: that time counts as the length of a
    gap at most, so that no deadline passes in it.
    """

    def __init__(self) -> None:
        self._seconds, self._asked = 0.0, steady()

    def __call__(self) -> float:
        """Seconds awake until now."""
        now = steady()
        self._seconds += min(now - self._asked, GAP_SECONDS)
        self._asked = now
        return self._seconds
