"""What a notebook's cell started ends with it: when the cell fails, is interrupted, or is run again.

A cell that ends well may leave customers to a later one (`customers = lab.operate.load(...)`). Nothing here
is needed for the kernel's own end: what it started notices that by itself.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Ending:
    """Something that runs on after the call that started it.

    Args:
        root: the lab that it belongs to.
        end: ends it and says so in a few words; "" when it has ended already.
        again: whether it also ends when its cell is run again, or the lab is opened anew in this kernel.
    """

    root: Path
    end: Callable[[], str]
    again: bool = True


_fresh: list[Ending] = []  # of the cell that runs now
_left: dict[str, list[Ending]] = {}  # cell -> what it left running when it ended well
_watched: list[Any] = []  # shells whose cells are watched already


def ends_with_cell(root: Path, end: Callable[[], str], *, again: bool = True) -> None:
    """Have something ended with the cell that runs now; outside of a notebook this does nothing."""
    if watch():
        _fresh.append(Ending(root, end, again))


def opened_anew(root: Path) -> None:
    """A notebook that is run from its top again begins with an empty shop."""
    watch()
    for key, endings in list(_left.items()):
        _left[key] = [one for one in endings if one.root != root or not one.again]
        _end([one for one in endings if one not in _left[key]], "The notebook begins anew")


def watch() -> bool:
    """Listen to the shell's cells, once; False where there is none."""
    shell = _shell()
    if shell is not None and shell not in _watched:
        _watched.append(shell)
        shell.events.register("pre_run_cell", _begins)
        shell.events.register("post_run_cell", _ended)
    return shell is not None


def _shell() -> Any:
    ipython = sys.modules.get("IPython")  # imported by whoever runs cells, never by us
    return ipython.get_ipython() if ipython else None


def _key(info: Any) -> str:
    """Which cell it is; a front end that doesn't say sends at least the same text again."""
    return str(getattr(info, "cell_id", None) or info.raw_cell)


def _begins(info: Any) -> None:
    _fresh.clear()
    left = _left.pop(_key(info), [])
    _end([one for one in left if one.again], "This cell runs again")


def _ended(result: Any) -> None:
    endings = _fresh.copy()
    _fresh.clear()
    if result is not None and result.success:
        _left[_key(result.info)] = endings
        return
    interrupted = result is None or isinstance(result.error_in_exec, KeyboardInterrupt)
    _end(endings, "The cell was interrupted" if interrupted else "The cell failed")


def _end(endings: list[Ending], why: str) -> None:
    for one in reversed(endings):  # the last that came may stand on those before
        if said := one.end():
            print(f"{why}: {said}")


def whereabouts() -> str:
    """Who calls, for the record: the notebook, its cell and kernel; else the command and its process."""
    if name := notebook():
        return f"{name}, cell [{number()}], kernel {os.getpid()}"
    return f"{Path(sys.argv[0] or 'python').name}, process {os.getpid()}"


def notebook() -> str:
    """The notebook that this kernel runs, as its front end names it; empty outside of one."""
    shell = _shell()
    if shell is None:
        return ""
    path = os.environ.get("JPY_SESSION_NAME") or str(shell.user_ns.get("__vsc_ipynb_file__") or "a notebook")
    return Path(path).stem


def number() -> int:
    """The cell that runs now, or ran last; 0 outside of a notebook."""
    shell = _shell()  # its execution_count is one ahead in newer IPythons
    return len(shell.history_manager.input_hist_parsed) - 1 if shell else 0
