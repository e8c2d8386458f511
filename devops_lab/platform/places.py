"""Folders: whether a lab can lie in one, and which of the reader's can be used. Standard library only.

What a file system can do is tried, for its name tells little: vfat has no symbolic links and no sockets,
drvfs no sockets, NFS may not lock, and any may be mounted `noexec` or read-only.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from devops_lab.platform import locks

HERE = Path(__file__).resolve().parents[2]  # where this package is imported from
PROBE = ".probe-"  # begins the name of what is tried with
OWN = ".caches"  # in it: what tools keep where the reader's home can't be used
TEMPORARY = ("TMPDIR", "TEMP", "TMP")
ROOM_BYTES = 20_000_000  # in a folder for temporary files
SOCKET_PATH_BYTES = 100  # what every system takes
UNPRINTABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")  # also bytes that are no UTF-8


def lacking(folder: Path) -> str:
    """Why a lab can't lie in a folder, in one sentence; empty: it can. Nothing is left there."""
    if UNPRINTABLE.search(str(folder)):
        return f"The path {str(folder)!r} holds a control character, or bytes that are no UTF-8."
    above = next(each for each in (folder, *folder.parents) if os.path.exists(each))
    try:
        with tempfile.TemporaryDirectory(dir=above, prefix=PROBE) as name:
            return next((f"{above} is on a file system {lack}." for lack in _tried(Path(name))), "")
    except OSError as error:
        if error.errno == errno.ENOSPC:  # how much is needed, others say better
            return ""
        return f"{above} can't be written to: {error.strerror}."


def _tried(folder: Path) -> Iterator[str]:
    """What does not work in a folder, as it goes on after "a file system "."""
    import sqlite3

    program = folder / "program"
    program.touch()
    program.chmod(0o700)
    if not os.access(program, os.X_OK):
        yield "from which no program may be started (mounted noexec)"
    try:
        (folder / "link").symlink_to(program.name)
    except OSError:
        yield "without symbolic links"
    try:
        os.close(locks.take(folder / "locked", wait=False))
    except OSError:
        yield "on which no file can be locked"
    base = sqlite3.connect(folder / "base.db")
    try:
        base.execute("pragma journal_mode = wal")
        base.execute("create table one (two)")
    except sqlite3.Error:
        yield "on which several programs can't share an SQLite database (no WAL)"
    finally:
        base.close()


def takes_sockets(folder: Path) -> bool:
    """Can a Unix socket be opened in a folder? Not on vfat and drvfs, nor below a very long path."""
    path = folder / f"{PROBE}{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as probe, suppress(OSError):
        if len(os.fsencode(path)) <= SOCKET_PATH_BYTES:
            probe.bind(str(path))
            path.unlink()
            return True
    return False


def folder_for_socket() -> str:
    """Make a private folder in which a Unix socket can be opened.

    Raises:
        OSError: there is none.
    """
    for place in (tempfile.gettempdir(), os.environ.get("XDG_RUNTIME_DIR"), "/tmp", "/var/tmp"):
        if place and os.access(place, os.W_OK):
            made = tempfile.mkdtemp(prefix="devops-lab-", dir=place)
            if takes_sockets(Path(made)):
                return made
            shutil.rmtree(made)
    raise OSError("No folder takes a Unix socket: set TMPDIR to a short one on a local file system.")


# ---- the reader's folders, for every child process
def usable() -> dict[str, str]:
    """Variables that name other folders, where the reader's home or TMPDIR can't be used; else nothing."""
    if os.name != "posix":
        return {}
    return _temporary() | _caches()


def _temporary() -> dict[str, str]:
    named = next(filter(None, map(os.environ.get, TEMPORARY)), "")
    places = (named or "/tmp", "/tmp", "/var/tmp", str(HERE))
    chosen = next((place for place in places if why_not_temporary(place) == ""), places[0])
    return {} if chosen == places[0] else dict.fromkeys(TEMPORARY, chosen)


def why_not_temporary(folder: str) -> str:
    """Why no temporary files can lie in a folder, or nothing."""
    try:
        about = os.statvfs(folder)
    except OSError as error:
        return str(error.strerror).lower()
    if about.f_flag & getattr(os, "ST_NOEXEC", 0):
        return "mounted noexec"
    if about.f_bavail * about.f_frsize < ROOM_BYTES:
        return "full"
    return "" if os.access(folder, os.W_OK | os.X_OK) else "can't be written to"


def _caches() -> dict[str, str]:
    home = os.path.expanduser("~")
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(home, ".cache")
    data = os.environ.get("XDG_DATA_HOME") or os.path.join(home, ".local", "share")
    kept = (os.environ.get("UV_CACHE_DIR") or os.path.join(cache, "uv"), os.path.join(data, "jupyter"))
    if all(map(is_writable, kept)):
        return {}
    own = str(HERE / OWN)
    if not is_writable(own):  # nobody else may have laid one out in a folder that all share
        own = os.path.join(tempfile.gettempdir(), f"devops-lab-{os.getuid()}")
        if os.path.lexists(own) and os.lstat(own).st_uid != os.getuid():
            return {}
    tools = {"UV_CACHE_DIR": "uv", "MPLCONFIGDIR": "matplotlib", "IPYTHONDIR": "ipython"}
    tools["JUPYTER_CONFIG_DIR"] = "jupyter"
    folders = {name: os.path.join(own, tool) for name, tool in tools.items()}
    return {"XDG_CACHE_HOME": own, "XDG_DATA_HOME": own} | folders


def is_writable(path: str) -> bool:
    """Can something be made there? Asked of the nearest folder above that exists."""
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return os.path.isdir(path) and os.access(path, os.W_OK | os.X_OK)
