"""Environments: right contents, rebuilt when the wheel changes, safe for parallel callers."""

from __future__ import annotations

import errno
import os
import subprocess
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devops_lab.errors import BuildFailed, DiskFull
from devops_lab.platform.engines import environments
from devops_lab.platform.engines.environments import environment, uv


def wheel(folder: Path, says: str) -> Path:
    path = folder / "tiny-1.0.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("tiny/__init__.py", f"SAYS = {says!r}\n")
        archive.writestr(
            "tiny-1.0.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1.0.0\n"
        )
        archive.writestr(
            "tiny-1.0.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        archive.writestr("tiny-1.0.0.dist-info/entry_points.txt", "[console_scripts]\ntiny = tiny:main\n")
        archive.writestr("tiny-1.0.0.dist-info/RECORD", "")
    return path


def lock(folder: Path, text: str = "idna==3.20\n") -> Path:
    path = folder / "requirements.lock"
    path.write_text(text)
    return path


def says(python: Path) -> str:
    code = "import tiny, idna; print(tiny.SAYS)"
    return subprocess.run([python, "-c", code], check=True, capture_output=True, text=True).stdout.strip()


def test_it_holds_the_locked_packages_and_the_wheel(tmp_path: Path) -> None:
    root = tmp_path / "läb one"
    python = environment(root, lock(tmp_path), wheel(tmp_path, "one"), root / "envs" / "1.0.0")
    assert python == root / "envs" / "1.0.0" / "bin" / "python"
    assert says(python) == "one"
    assert list(python.parents[1].glob("lib/*/site-packages/tiny/__pycache__/*.pyc")), "byte code is there"
    assert list((root / "envs").iterdir()) == [root / "envs" / "1.0.0"], "nothing is left beside it"


def test_the_same_again_is_found_and_a_new_wheel_replaces_it(tmp_path: Path) -> None:
    into, locked = tmp_path / "env", lock(tmp_path)
    first = wheel(tmp_path, "one")
    python = environment(tmp_path, locked, first, into)
    before = into.stat().st_ino
    environment(tmp_path, locked, first, into)
    assert into.stat().st_ino == before
    assert says(environment(tmp_path, locked, wheel(tmp_path, "two"), into)) == "two"
    assert says(python) == "two"


def test_one_template_serves_two_environments(tmp_path: Path) -> None:
    locked = lock(tmp_path)
    one = environment(tmp_path, locked, wheel(tmp_path, "one"), tmp_path / "one")
    two = environment(tmp_path, locked, wheel(tmp_path, "two"), tmp_path / "two")
    assert (says(one), says(two)) == ("one", "two")
    assert len(list((tmp_path / "work" / "templates").iterdir())) == 1


def test_parallel_callers_get_one_whole_environment(tmp_path: Path) -> None:
    locked, built = lock(tmp_path), wheel(tmp_path, "one")
    with ThreadPoolExecutor(3) as pool:
        made = [pool.submit(environment, tmp_path, locked, built, tmp_path / "env") for _ in range(3)]
    assert {says(one.result()) for one in made} == {"one"}
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".env")] == []


def test_a_full_disk_is_told_and_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(environments, "compile_new", full)
    with pytest.raises(DiskFull, match="No space left"):
        environment(tmp_path, lock(tmp_path), wheel(tmp_path, "one"), tmp_path / "env")
    assert not (tmp_path / "env").exists()
    assert list((tmp_path / "work" / "templates").iterdir()) == []


def test_what_can_not_be_installed_is_told_in_uvs_words(tmp_path: Path) -> None:
    broken = tmp_path / "tiny-1.0.0-py3-none-any.whl"
    broken.write_bytes(b"not a wheel")
    with pytest.raises(BuildFailed, match="tiny"):
        environment(tmp_path, lock(tmp_path), broken, tmp_path / "env")
    assert not (tmp_path / "env").exists()
    with pytest.raises(BuildFailed, match="uv"):
        uv(["no-such-command"])
