"""A container's log, followed into a file: no line is lost or doubled, also when the follower is killed."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from devops_lab.errors import LabError
from devops_lab.platform.engines.docker import Docker, Gone

AGAIN_SECONDS = 0.5  # until the next try, when the engine hung up while the container runs
POSITION_BYTES = 64


class Follower:
    """Copies what a container says into a file, in a thread of its own, until the container has ended.

    Beside the file lies its position: the time stamp of the last line taken (the engine stamps each line to
    the nanosecond), how many have that, and how long the file was then. One write replaces it, so whoever
    follows next cuts off what came after it and goes on from there.

    Args:
        docker: the engine.
        container: its id.
        path: the file; it may be emptied by others, since we only append.
    """

    def __init__(self, docker: Docker, container: str, path: Path) -> None:
        self.docker, self.container, self.path = docker, container, path
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self._run, name=f"log of {path.stem}", daemon=True)
        self.thread.start()

    def join(self, seconds: float) -> None:
        """Wait until everything that an ended container said is in the file."""
        self.thread.join(seconds)

    def _run(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        mark = os.open(position_of(self.path), os.O_RDWR | os.O_CREAT, 0o600)
        with self.path.open("ab") as out, os.fdopen(mark):
            while not self.stopped.is_set():
                try:
                    self._copy(out.fileno(), mark)
                    if not self.docker.is_running(self.container):
                        return
                except Gone:
                    return
                except LabError:  # the engine is away: the container may well go on without it
                    pass
                self.stopped.wait(AGAIN_SECONDS)

    def _copy(self, out: int, mark: int) -> None:
        """Take what comes, from where the position says, until the container ends or the engine hangs up."""
        last, count = resume(out, mark)
        known, taken = count, bool(last)  # what the file has already, until its last line has come again
        set_back = last[:19] > datetime.now(UTC).isoformat()  # then stamps tell nothing of what came later
        since = "" if set_back else last  # which the engine rounds down
        with self.docker.calls("follow a log"):
            for stamp, text in self.docker.log_lines(self.container, since):
                if taken and (set_back or stamp < last or (stamp == last and known > 0)):
                    known -= stamp == last
                    taken = known > 0
                    continue
                taken, count, last = False, count + 1 if stamp == last else 1, stamp
                os.write(out, text)
                note = f"{stamp} {count} {os.fstat(out).st_size}"
                os.pwrite(mark, note.ljust(POSITION_BYTES).encode(), 0)


def position_of(path: Path) -> Path:
    """Where the position of a log that is followed into `path` is kept."""
    return path.with_name(f".{path.name}.position")


def resume(out: int, mark: int) -> tuple[str, int]:
    """Bring a log file to the length that its position tells.

    Returns:
        The last time stamp in it, and how many pieces have that (a very long line comes in several).
    """
    stamp, count, size = (os.pread(mark, POSITION_BYTES, 0).decode().split() or ["", "0", "0"])[:3]
    if os.fstat(out).st_size > int(size):
        os.ftruncate(out, int(size))
    return stamp, int(count)


def forget(path: Path) -> None:
    """Remove the position of a log that nobody follows any more."""
    with suppress(FileNotFoundError):
        position_of(path).unlink()
