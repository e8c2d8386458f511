"""When a lab may sleep: nobody has it open, and nobody has asked its shop for anything, for so long.

A JupyterHub's culler, or a closed laptop, ends kernels, but not what they leave running.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from devops_lab.platform import locks, settings
from devops_lab.platform.clock import Awake
from devops_lab.platform.processes import replace_file


class Rest:
    """Tells one lab's agent when it may end production, and itself.

    Args:
        run: the lab's folder of running things.
        seconds: without a notebook or customers; 0 = never.
        requests: asked for how many requests were let through to replicas so far.
    """

    def __init__(self, run: Path, seconds: float, requests: Callable[[], int]) -> None:
        self.run, self.seconds, self.requests = run, seconds, requests
        self.awake = Awake()  # a machine that slept has not waited for anybody
        self.busy_until, self.counted = self.awake(), requests()

    def is_due(self) -> bool:
        """Whether the lab may sleep now; then a note says so to who opens it next.

        A notebook that has the lab open is looked for once a period, since that takes the lab's lock for a
        moment: so production sleeps one to two periods after the last one has closed.
        """
        now, counted = self.awake(), self.requests()
        if counted != self.counted:
            self.busy_until, self.counted = now, counted
        if not self.seconds or now - self.busy_until < self.seconds:
            return False
        note = self.run / settings.ASLEEP
        replace_file(note, time.strftime("%Y-%m-%d %H:%M"))  # before the look: who opens the lab then sees it
        try:
            os.close(locks.take(self.run / "lock", wait=False))
        except OSError:  # BlockingIOError: it is open
            note.unlink(missing_ok=True)
            self.busy_until = now
            return False
        return True
