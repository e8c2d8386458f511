"""What a hub made is gone when its maker is, however that ended; killed, too.

A program of its own: it waits until its standard input closes, then ends what runs in a folder and what the
accounts with a home there run, and removes both.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil

SHARED = {tempfile.gettempdir(), "/tmp", "/var/tmp", "/dev/shm"}  # where everybody may leave files


def accounts(folder: Path, names: list[str]) -> list[pwd.struct_passwd]:
    """Those of the names that have a home in this folder: none of anybody else's."""
    return [each for each in pwd.getpwall() if each.pw_name in names and folder in Path(each.pw_dir).parents]


def running(folder: Path, users: set[int]) -> Iterator[psutil.Process]:
    """What these users run, and what anybody runs in this folder."""
    for process in psutil.process_iter(["status", "uids", "cwd"]):
        if process.info["status"] == psutil.STATUS_ZOMBIE:
            continue  # ended; in some containers nobody collects it
        uids, place = process.info["uids"], process.info["cwd"] or ""
        if (uids and uids.real in users) or place.startswith(f"{folder}/"):
            yield process


def left_by(users: set[int]) -> Iterator[Path]:
    """Their files outside of their homes."""
    for shared in filter(os.path.isdir, SHARED):
        for entry in os.scandir(shared):
            with suppress(FileNotFoundError):  # somebody else's, gone in the meantime
                if entry.stat(follow_symlinks=False).st_uid in users:
                    yield Path(entry.path)


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clean(folder: Path, names: list[str]) -> None:
    """End, then remove."""
    made = accounts(folder, names)
    users = {each.pw_uid for each in made}
    while found := list(running(folder, users)):
        for process in found:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        psutil.wait_procs(found, timeout=10)
    for path in left_by(users):
        remove(path)
    for each in made:
        subprocess.run(["userdel", "--force", each.pw_name], check=True, capture_output=True)
    remove(folder)


if __name__ == "__main__":
    sys.stdin.read()
    clean(Path(sys.argv[1]), sys.argv[2:])
