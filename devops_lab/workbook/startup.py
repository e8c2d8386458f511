"""Run by each kernel that `open` starts, before its first cell: who begins in the middle is told so."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

HINT = (
    "This notebook's first cells make what the others use, and they have not run in this kernel: "
    "run them first (in JupyterLab: Run > Run All Above Selected Cell)."
)


def explain(shell: Any, kind: type[NameError], error: NameError, trace: TracebackType, **_: Any) -> None:
    """Show a NameError as ever, with a hint where the set-up cell has not run."""
    if "lab" not in shell.user_ns:
        error.add_note(HINT)
    shell.showtraceback((kind, error, trace))


if (ipython := sys.modules.get("IPython")) and (shell := ipython.get_ipython()):
    shell.set_custom_exc((NameError,), explain)
