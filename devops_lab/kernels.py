"""One notebook through papermill, in a kernel of this very Python and a clean environment."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets import default

from devops_lab.jupyter import import_path

OWN_PYTHON = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class OwnKernel(AsyncKernelManager):
    """A kernel of this Python, whatever other "python3" kernel is installed on the machine."""

    @default("transport_encryption")
    def _encrypted(self) -> str:
        return "auto"

    @property
    def kernel_spec(self) -> KernelSpec:
        encrypted = {"supported_encryption": ["curve"]}  # ipykernel warns where nothing is offered
        return KernelSpec(
            argv=OWN_PYTHON, display_name="Python 3 (ipykernel)", language="python", metadata=encrypted
        )


class LabEngine(NBClientEngine):  # type: ignore[misc] # papermill has no types
    """papermill's own engine, less the choice of kernel, plus the kernel's environment."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        env: dict[str, str],
        on_cell: Callable[[int], None],
        log: Path,
        **_: Any,
    ) -> Any:
        client = PapermillNotebookClient(
            nb_man,
            kernel_manager_class=OwnKernel,
            kernel_name=kernel_name,
            startup_timeout=60,
            timeout=None,
            store_widget_state=False,
            on_cell_start=lambda cell, cell_index: on_cell(cell_index),
        )
        # At its end a kernel is interrupted first, and may say so; that belongs into a log, not on the page.
        with log.open("ab") as errors:
            return client.execute(env=env, stderr=errors)


papermill_engines.register("devops-lab", LabEngine)


def execute(
    source: Path, target: Path, parameters: dict[str, Any], ipython: Path, on_cell: Callable[[int], None]
) -> None:
    """Execute one notebook in a kernel of its own, and save it with its outputs.

    Args:
        source: the notebook.
        target: where the executed one goes; written also when a cell fails.
        parameters: for its parameters cell.
        ipython: a folder for IPython's files, so that nobody's start-up files play a part.
        on_cell: called with the index of each cell before it runs.

    Raises:
        papermill.exceptions.PapermillExecutionError: a cell failed.
    """
    papermill.execute_notebook(
        source,
        target,
        parameters,
        engine_name="devops-lab",
        kernel_name="python3",
        language="python",
        cwd=source.parent,
        progress_bar=False,
        request_save_on_cell_execute=False,
        env=environment(ipython),
        log=target.parent / "kernels.log",
        on_cell=on_cell,
    )


def environment(ipython: Path) -> dict[str, str]:
    """The environment of a kernel: this one, less what would change what the notebooks do."""
    unwanted = ("PYTHONDONTWRITEBYTECODE", "PYTHONSTARTUP", "PYTHONWARNINGS", "MPLBACKEND", "DEVOPS_LAB_DIR")
    env = {name: value for name, value in os.environ.items() if name not in unwanted}
    env["IPYTHONDIR"] = str(ipython)
    env["DEVOPS_LAB_VIEW"] = "static"
    env["PYDEVD_DISABLE_FILE_VALIDATION"] = "1"  # ipykernel's debugger warns about frozen modules otherwise
    bin_folder = str(Path(sys.executable).parent)
    env["PATH"] = f"{bin_folder}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env | import_path()
