"""What installs the project says the same thing everywhere, carries everything, and starts light."""

from __future__ import annotations

import ast
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
import uv
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import devops_lab
from devops_lab.commands import setup_venv

ROOT = Path(__file__).resolve().parent.parent
SHOP = ROOT / "devops_lab" / "shop" / "template"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
LOCKS = [folder / name for folder in (ROOT, SHOP) for name in ("requirements.lock", "requirements-test.lock")]
ASKED = [
    *[(Requirement(line), LOCKS[0]) for line in PROJECT["dependencies"]],
    *[(Requirement(line), LOCKS[1]) for line in PROJECT["optional-dependencies"]["test"]],
]
HEAVY = {"IPython", "ipykernel", "ipywidgets", "jupyterlab", "papermill", "nbconvert", "matplotlib", "docker"}


def pins(lock: Path) -> dict[str, set[str]]:
    """Each package of a lock with its versions (a platform or an older Python can have one of its own)."""
    found: dict[str, set[str]] = {}
    for line in lock.read_text("utf-8").splitlines():
        if line and not line.startswith("#"):
            pin = Requirement(line)
            found.setdefault(canonicalize_name(pin.name), set()).add(str(pin.specifier).removeprefix("=="))
    return found


@pytest.mark.smoke
@pytest.mark.parametrize(("wanted", "lock"), ASKED, ids=lambda value: value.name)
def test_the_lock_pins_what_the_project_asks_for(wanted: Requirement, lock: Path) -> None:
    versions = pins(lock).get(canonicalize_name(wanted.name), set())
    assert versions, "not in the lock; renew it with: python3 .ci/lock"
    assert all(wanted.specifier.contains(version) for version in versions)


def test_what_only_the_tests_need_is_no_part_of_a_learners_download() -> None:
    assert pins(LOCKS[0]).keys() & pins(LOCKS[1]).keys() == set()
    assert int(setup_venv.download().removesuffix(" MB")) <= 235


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: str(lock.relative_to(ROOT)))
def test_a_lock_names_versions_and_no_hosts(lock: Path) -> None:
    lines = [line for line in lock.read_text("utf-8").splitlines() if not line.startswith("#")]
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9-]+==[\w.]+( ; [^:/]+)?", line)] == []
    assert "://" not in lock.read_text("utf-8")


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-test.lock"])
def test_the_shop_runs_the_versions_of_the_lab(name: str) -> None:
    lab = pins(ROOT / "requirements.lock")
    shop = pins(SHOP / name)
    assert {package: versions for package, versions in shop.items() if not versions <= lab[package]} == {}


def test_the_shops_locks_cover_what_it_asks_for() -> None:
    shop = tomllib.loads((SHOP / "pyproject.toml").read_text("utf-8"))
    for name, lines in (
        ("requirements.lock", shop["project"]["dependencies"]),
        ("requirements-test.lock", shop["dependency-groups"]["test"]),
    ):
        for wanted in map(Requirement, lines):
            versions = pins(SHOP / name)[canonicalize_name(wanted.name)]
            assert all(wanted.specifier.contains(version) for version in versions), (name, str(wanted))


def test_conda_installs_from_the_lock() -> None:
    environment = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))
    *conda, from_pip = environment["dependencies"]
    assert from_pip == {"pip": ["-r requirements.lock", "-e ."]}
    python = next(line for line in conda if line.startswith("python="))
    assert Requirement(f"python{PROJECT['requires-python']}").specifier.contains(
        python.removeprefix("python=")
    )
    assert "pip" in conda


@pytest.mark.parametrize("lock", LOCKS[:2], ids=lambda lock: lock.name)
def test_the_size_of_the_download_is_told_from_the_lock(lock: Path) -> None:
    assert re.fullmatch(r"\d{2,3} MB", setup_venv.download(lock))


def test_the_version_is_one() -> None:
    assert devops_lab.__version__ == PROJECT["version"]


def test_the_command_exists() -> None:
    module, _, function = PROJECT["scripts"]["devops-lab"].partition(":")
    assert callable(getattr(importlib.import_module(module), function))


@pytest.mark.smoke
@pytest.mark.parametrize("module", ["devops_lab", "devops_lab.commands.cli", "devops_lab.lab"])
def test_an_import_is_light(module: str) -> None:
    code = f"import json, sys, {module}; print(json.dumps(sorted(sys.modules.keys() & {HEAVY})))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True)
    assert json.loads(done.stdout) == []


def imported_packages() -> set[str]:
    """The top-level names of third parties that the package imports, at whatever depth."""
    names: set[str] = set()
    for path in (ROOT / "devops_lab").rglob("*.py"):
        if ROOT / "devops_lab" / "shop" / "template" not in path.parents:
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                if isinstance(node, ast.Import):
                    names |= {alias.name.partition(".")[0] for alias in node.names}
                elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"devops_lab"}


def test_every_import_is_asked_for() -> None:
    asked = {canonicalize_name(Requirement(line).name) for line in PROJECT["dependencies"]}
    owners = packages_distributions()
    found = {
        name: {canonicalize_name(owner) for owner in owners.get(name, [name])} for name in imported_packages()
    }
    assert {name: owner for name, owner in found.items() if not owner & asked} == {}


def listed(*arguments: str) -> list[str]:
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, check=False, encoding="utf-8")
    return done.stdout.splitlines()


def test_the_wheel_carries_every_file_of_the_package(tmp_path: Path) -> None:
    wanted = {
        name
        for name in listed("-c", "core.quotePath=off", "ls-files", "devops_lab")
        if (ROOT / name).exists()
    }
    build = [uv.find_uv_bin(), "build", "--wheel", "--quiet", "--out-dir", str(tmp_path), str(ROOT)]
    subprocess.run(build, check=True, env={**os.environ, "UV_NO_PROGRESS": "1"})
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        assert wanted - set(wheel.namelist()) == set()


def test_git_ignores_what_the_lab_leaves() -> None:
    leavings = [
        *(".venv/x", ".venv.lock", "my-lab/lab.db", "out/summary.json", "tests/__pycache__/x.pyc"),
        *(".mypy_cache/x", ".ruff_cache/x", ".pytest_cache/x", "notebooks/.ipynb_checkpoints/x"),
    ]
    assert listed("check-ignore", *leavings) == leavings
    assert listed("check-ignore", "devops_lab/phases/build.py", "requirements.lock") == []
