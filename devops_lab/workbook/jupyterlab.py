"""JupyterLab for a person: this machine only, the reader's own notebooks, kernels of this very Python."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from pathlib import Path

from devops_lab.errors import BadInput, PortTaken
from devops_lab.lab import check_place
from devops_lab.platform import settings, variables
from devops_lab.platform.processes import free_port
from devops_lab.platform.settings import NOTEBOOKS
from devops_lab.workbook import copies, options

CONFIGURATION = Path(__file__).with_name("jupyter")  # turns off the question about news, and the update check
PORTS = range(8888, 8988)


def open_jupyter(lab: Path | None, port: int, browser: bool, engine: str = "") -> int:
    """Run JupyterLab on the reader's own notebooks until the reader stops it; return its exit code.

    It listens on the loopback address alone, with a token.

    Args:
        lab: the lab's directory, in which the notebooks lie; None = the default one.
        port: to listen on; 0 = the first free one from 8888 on.
        browser: open a window?
        engine: what a new lab's production runs on; empty = the default.

    Raises:
        PortTaken: the port that was asked for is in use.
        BadInput: no such port, no such engine, or the notebooks can't be written.
        NotALab: the directory holds something else.
    """
    if port:
        check_port(port)
    else:
        port = next((each for each in PORTS if free_port(each) == each), 0) or free_port()
    root = (lab or settings.default_lab_dir()).expanduser().resolve()
    env = variables.reader(JUPYTER_PREFER_ENV_PATH="1", PYDEVD_DISABLE_FILE_VALIDATION="1")
    if engine:
        env["DEVOPS_LAB_ENGINE"] = settings.choice("engine", engine, settings.ENGINES)
    env["DEVOPS_LAB_DIR"] = str(root)  # so that each notebook opens this lab, wherever it lies itself
    env["PYTHONSTARTUP"] = str(Path(__file__).with_name("startup.py"))  # run before a kernel's first cell
    paths = [str(CONFIGURATION), *filter(None, [env.get("JUPYTER_CONFIG_PATH")])]
    env["JUPYTER_CONFIG_PATH"] = os.pathsep.join(paths)
    env.setdefault("JUPYTER_TOKEN", secrets.token_hex(24))
    check_place(root)
    notebooks = options.find_notebooks()
    for line in copies.refresh(notebooks, root / NOTEBOOKS):
        print(line)
    page = f"/lab/tree/{NOTEBOOKS}/{notebooks[0].name}"
    traits = {
        "ServerApp.ip": "127.0.0.1",
        "ServerApp.port": port,
        "ServerApp.port_retries": 0,
        "ServerApp.root_dir": root,
        "ServerApp.open_browser": browser,
        "ServerApp.answer_yes": True,  # Ctrl-C ends it, and asks nothing
        "Application.log_level": "WARN",
        "LabApp.default_url": page,
    }
    command = [sys.executable, "-m", "jupyter", "lab", *(f"--{name}={v}" for name, v in traits.items())]
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        command.append("--allow-root")  # in a container there is nobody else
    print(
        f"JupyterLab runs at http://127.0.0.1:{port}{page}?token={env['JUPYTER_TOKEN']} with your notebooks "
        f"in {root / NOTEBOOKS}: leave this window open, Ctrl-C in it ends JupyterLab (production goes on, "
        "and sleeps once nobody has used it for a while)."
    )
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
