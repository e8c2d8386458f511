"""A file's lock: alone or shared, waited for or not, at most as long as its holder lives."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from devops_lab.platform import locks

TAKE = "import sys; from pathlib import Path; from devops_lab.platform import locks; "


def elsewhere(path: Path, call: str) -> subprocess.Popen[str]:
    """The same lock, asked for by another process, which says when it has it."""
    code = f"{TAKE}path = Path(sys.argv[1]); {call}; print('has it', flush=True); input()"
    command = [sys.executable, "-c", code, str(path)]
    streams = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen(command, text=True, **streams)  # type: ignore[call-overload,no-any-return]


def test_one_alone_or_several_who_share(tmp_path: Path) -> None:
    path = tmp_path / "made" / "lock"
    with elsewhere(path, "locks.take(path, shared=True)") as other:
        assert other.stdout
        assert other.stdout.readline() == "has it\n"
        os.close(locks.take(path, shared=True, wait=False))
        with pytest.raises(BlockingIOError), locks.held(path, wait=False):
            pass
        other.kill()
        other.wait()
        with locks.held(path, wait=False), pytest.raises(BlockingIOError):
            locks.take(path, shared=True, wait=False)


def test_who_has_to_wait_is_told(tmp_path: Path) -> None:
    with locks.held(tmp_path / "lock") as held:
        other = elsewhere(tmp_path / "lock", "locks.take(path, told='Busy.')")
        assert other.stdout
        assert other.stdout.readline() == "Busy.\n"
        child = subprocess.Popen(["sleep", "60"], pass_fds=[held])
    with pytest.raises(BlockingIOError):  # a child that inherits the file holds the lock, too
        locks.take(tmp_path / "lock", wait=False)
    child.kill()
    child.wait()
    assert other.stdout.readline() == "has it\n"
    other.communicate("")


def test_no_lock_where_none_can_be(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        locks.take(tmp_path / "no" / "folder" / "lock", wait=False)
