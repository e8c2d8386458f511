"""JupyterLab for a person: on this machine only, its token on, with the kernels of this very Python."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from devops_lab import settings
from devops_lab.errors import BadInput, PortTaken


def import_path() -> dict[str, str]:
    """PYTHONPATH where this package is used from its checkout without being installed; else nothing."""
    try:
        distribution("devops-lab")
        return {}
    except PackageNotFoundError:
        before = os.environ.get("PYTHONPATH")
        return {"PYTHONPATH": os.pathsep.join(filter(None, [str(Path(__file__).parents[1]), before]))}


def open_jupyter(lab: Path | None, port: int, browser: bool, engine: str = "") -> int:
    """Run JupyterLab on the loopback address, its token on, until the reader stops it; return its exit code.

    Args:
        lab: the lab's directory, handed to the notebooks; None = their default.
        port: to listen on; 0 = the first free one from 8888 on.
        browser: open a window?
        engine: what a new lab's production runs on; empty = the default.

    Raises:
        PortTaken: the port that was asked for is in use.
        BadInput: no such port, or no such engine.
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
    if engine:
        env["DEVOPS_LAB_ENGINE"] = settings.choice("engine", engine, settings.ENGINES)
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
