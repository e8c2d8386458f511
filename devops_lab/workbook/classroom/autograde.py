"""What nbgrader calls around each hand-in that it runs: a lab of its own, with nothing left of it afterwards.

With nbgrader's defaults all hand-ins would be run in one lab, and all get its marks. nbgrader goes on where
one of these functions fails; then no lab can be opened, so that nobody gets another's.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from devops_lab import lab as labs
from devops_lab.platform import settings

VARIABLE = "DEVOPS_LAB_DIR"
_now: list[Path] = []  # the folder of the lab in which a hand-in runs


def begin(**_told: Any) -> None:
    """Give the hand-in that comes next a place for its lab, outside of nbgrader's folders."""
    end()
    _now.append(Path(tempfile.mkdtemp(prefix="hand-in-")))
    os.environ[VARIABLE] = str(_now[-1] / "lab")


def end(**_told: Any) -> None:
    """End what runs in the lab of the last hand-in, and remove it."""
    os.environ[VARIABLE] = os.devnull
    while _now:
        folder = _now.pop()
        if (folder / "lab" / settings.MARKER).exists():
            labs.clean(folder / "lab")
        shutil.rmtree(folder, ignore_errors=True)


atexit.register(lambda: end() if _now else None)  # where nbgrader gives up a hand-in, it does not call `end`
