"""Jupyter's part: a notebook through papermill in a kernel of this very Python; JupyterLab for a person."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import nbformat
import papermill
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines

from devops_lab import settings
from devops_lab.errors import BadInput, PortTaken

OWN_PYTHON = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class OwnKernel(AsyncKernelManager):
    """A kernel of this Python, whatever other "python3" kernel is installed on the machine."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(argv=OWN_PYTHON, display_name="Python 3 (ipykernel)", language="python")


class LabEngine(NBClientEngine):  # type: ignore[misc] # papermill has no types
    """papermill's own engine, less the choice of kernel, plus the kernel's environment."""

    @classmethod
    def execute_managed_notebook(
        cls, nb_man: Any, kernel_name: str, *, env: dict[str, str], on_cell: Callable[[int], None], **_: Any
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
        return client.execute(env=env)


papermill_engines.register("devops-lab", LabEngine)


def execute(
    source: Path, target: Path, parameters: dict[str, Any], ipython: Path, on_cell: Callable[[int], None]
) -> nbformat.NotebookNode:
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
    executed: nbformat.NotebookNode = papermill.execute_notebook(
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
        on_cell=on_cell,
    )
    executed.metadata.pop("widgets", None)
    return executed


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


def import_path() -> dict[str, str]:
    """PYTHONPATH where this package is used from its checkout without being installed; else nothing."""
    try:
        distribution("devops-lab")
        return {}
    except PackageNotFoundError:
        before = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), before]))}


def open_jupyter(lab: Path | None, port: int, browser: bool) -> int:
    """Run JupyterLab on the loopback address, its token on, until the reader stops it; return its exit code.

    Args:
        lab: the lab's directory, handed to the notebooks; None = their default.
        port: to listen on; 0 = the first free one from 8888 on.
        browser: open a window?

    Raises:
        PortTaken: the port that was asked for is in use.
        BadInput: no such port.
    """
    root = settings.project_root()
    start = "lab/tree/notebooks/00-welcome.ipynb"
    command = [
        sys.executable,
        "-m",
        "jupyter",
        "lab",
        "--ServerApp.ip=127.0.0.1",
        f"--ServerApp.root_dir={root}",
    ]
    command += [f"--ServerApp.open_browser={browser}", "--LabApp.news_url=None"]
    if (root / "notebooks" / "00-welcome.ipynb").exists():
        command.append(f"--LabApp.default_url=/{start}")
    if port:
        check_port(port)
        command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0"]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is nobody else
    env = os.environ | import_path() | {"JUPYTER_PREFER_ENV_PATH": "1", "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    if lab is not None:
        env["DEVOPS_LAB_DIR"] = str(lab.expanduser().resolve())
    if os.name != "nt":
        sys.stdout.flush()
        os.execve(command[0], command, env)  # so that Ctrl-C and signals reach it directly
    return subprocess.run(command, env=env, check=False).returncode


def check_port(port: int) -> None:
    """Refuse a port that is out of range or in use."""
    if not 1 <= port <= 65535:
        raise BadInput(
            f"There is no port {port}.", expected="1 to 65535", next_step="Leave --port out for a free one."
        )
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise PortTaken(
                f"Port {port} can't be used: {error.strerror}.",
                expected="a free port",
                next_step="Name another one, or leave --port out and the next free one is taken.",
            ) from error
