"""nbval on the committed notebooks: every cell runs, and what is marked as deterministic is compared."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devops_lab.lab import clean
from devops_lab.platform import variables

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]-*.ipynb"))
ALONE = [
    path for path in NOTEBOOKS if path.stem in ("00-welcome", "01-plan", "02-code", "03-build", "05-release")
]


@pytest.mark.notebook
@pytest.mark.timeout(600)
@pytest.mark.skipif(not NOTEBOOKS, reason="there are no notebooks yet")
def test_the_committed_notebooks_pass_nbval(tmp_path: Path) -> None:
    """Those that need no long load, in one lab; papermill runs all of them."""
    env = variables.command() | {"DEVOPS_LAB_DIR": str(tmp_path / "lab"), "DEVOPS_LAB_VIEW": "static"}
    env |= {"IPYTHONDIR": str(tmp_path / "ipython"), "PYDEVD_DISABLE_FILE_VALIDATION": "1"}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "--nbval-lax",
        "--nbval-current-env",
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    options = ["-p", "no:xdist", "--nbval-cell-timeout=120", "-o", "addopts=", "-o", "timeout=600"]
    try:
        done = subprocess.run(
            [*command, *options, *map(str, ALONE)],
            env=env,
            cwd=NOTEBOOKS[0].parents[1],
            capture_output=True,
            text=True,
            timeout=540,
            check=False,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-1000:]
    finally:
        if (tmp_path / "lab/lab.toml").exists():
            clean(tmp_path / "lab")
