"""Locks on files: who holds one has it at most as long as its process lives. Standard library only."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def take(path: Path, *, shared: bool = False, wait: bool = True, told: str = "") -> int:
    """Lock a file, which is made when it is not there, with its folder; `os.close` gives the lock back.

    Args:
        path: the file.
        shared: beside others who share it, instead of alone.
        wait: until the lock can be had.
        told: what is printed to the one who has to wait.

    Returns:
        The open file. A child that inherits it holds the lock, too.

    Raises:
        BlockingIOError: another holds it, and nobody is to wait.
        OSError: no file can be made, or locked, there.
    """
    path.parent.mkdir(exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)  # NFS locks what is open for writing
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(handle, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)
            return handle
        import fcntl

        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(handle, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            if not wait:
                raise
            print(told, end="\n" if told else "", flush=True)
            fcntl.flock(handle, kind)
    except BaseException:  # also an interrupt, while it waits
        os.close(handle)
        raise
    return handle


@contextmanager
def held(path: Path, *, wait: bool = True, told: str = "") -> Iterator[int]:
    """Hold a file's lock alone for a while; arguments, result and errors are those of `take`."""
    handle = take(path, wait=wait, told=told)
    try:
        yield handle
    finally:
        os.close(handle)
