"""The real nbgrader, in an environment of its own: it needs packages that the workbook does not."""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import subprocess
import tempfile
import tomllib
from pathlib import Path

import uv

from devops_lab.platform import variables

ROOT = Path(__file__).resolve().parents[2]
_FOLDER: list[Path] = []


@functools.cache
def missing() -> str:
    """Make the environment, once a process; tells why it can't be made here, or nothing."""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    folder = Path(tempfile.mkdtemp(prefix="nbgrader-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    _FOLDER.append(folder)
    python = str(folder / "bin/python")
    # copies: nbgrader changes modes through links, and the cache's files would be these
    install = [
        "pip",
        "install",
        "--link-mode",
        "copy",
        "--python",
        python,
        "-r",
        str(ROOT / "requirements.lock"),
    ]
    wish = [*wanted["classroom"], "nbgitpuller"]  # the second brings newer revisions to learners
    for call in (["venv", str(folder), "--allow-existing"], [*install, *wish]):
        line = [uv.find_uv_bin(), "--quiet", *call]
        done = subprocess.run(line, env=variables.fetcher(), capture_output=True, text=True, check=False)
        if done.returncode:
            return f"nbgrader can't be installed: {' '.join(done.stderr.split())[-300:]}"
    return ""


def call(folder: Path, *arguments: str) -> str:
    """Run a module of that environment in a folder, with a lab beside that; return what it said."""
    env = variables.command(
        PATH=f"{_FOLDER[0] / 'bin'}{os.pathsep}{os.environ['PATH']}",
        DEVOPS_LAB_DIR=str(folder.with_name(f"{folder.name}-lab")),
    )
    line = [str(_FOLDER[0] / "bin/python"), "-m", *arguments]
    done = subprocess.run(line, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr
