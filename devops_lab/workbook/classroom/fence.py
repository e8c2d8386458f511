"""A fence around a process that works on what somebody else handed in.

Where Linux lets a user make namespaces, it sees no process but its own, no network beyond loopback, all files
read-only but for one folder in memory; elsewhere only limits and a time hold it. Nothing outlives it.

| limit | of |
| --- | --- |
| time | a fenced process with all that it starts; of the processor each |
| processes, memory | all of them together, looked at `LOOKS_A_SECOND` times a second; the folder in memory |
| size of a file | each |
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from devops_lab.errors import LabError
from devops_lab.platform import commands, variables
from devops_lab.platform.waits import pause

PROCESSES, MEMORY_BYTES, FOLDER_BYTES, FILE_BYTES = 64, 1_500_000_000, 400_000_000, 200_000_000
ADDRESSES_BYTES = 16_000_000_000  # Node.js reserves much more than it uses
LOOKS_A_SECOND, CPU_SECONDS = 50, 120
MOST_SAID = 20_000_000  # bytes of its output
MARK, LACKS = "DEVOPS_LAB_FENCE", "DEVOPS_LAB_FENCE_LACKS"
ENDED = {
    91: f"it started more than {PROCESSES} processes",
    92: f"it took more than {MEMORY_BYTES / 1e9:g} GB",
}
# <linux/sched.h>, <linux/mount.h>, <linux/prctl.h>
NEW_USER, NEW_PIDS, NEW_NET, NEW_MOUNTS, NEW_IPC = 0x10000000, 0x20000000, 0x40000000, 0x20000, 0x8000000
BIND, RECURSIVE, PRIVATE, NO_SETUID, NO_DEVICES = 4096, 16384, 1 << 18, 2, 4
MOUNT_SETATTR, HERE, ALL_BELOW, READ_ONLY = 442, -100, 0x8000, 1
DIE_WITH_PARENT, NO_NEW_RIGHTS, DROP_CAPABILITY = 1, 38, 24
INTERFACE_FLAGS, UP = 0x8914, 1  # <linux/sockios.h>, <net/if.h>


class Said(NamedTuple):
    """What a fenced process printed, and why it was ended; "" where it came to its end."""

    out: bytes
    why: str


# ---- outside
def fenced(module: str, *arguments: str, seconds: float) -> Said:
    """Run a module of this package inside the fence, and wait for its end.

    Args:
        module: its whole name; it gets the folder that it may write to, then the arguments.
        arguments: of its command line.
        seconds: that it may take.

    Raises:
        LabError: the fence can't be put up for root on this machine.
    """
    with tempfile.TemporaryDirectory(prefix="hand-in-") as folder, tempfile.TemporaryFile() as out:
        home = str(Path(folder).resolve())
        own = {
            "HOME": home,
            "TMPDIR": home,
            "DEVOPS_LAB_DIR": f"{home}/lab",
            MARK: home,
            "PYTHONSAFEPATH": "1",
        }
        env = {n: value for n, value in variables.child().items() if not n.startswith(("XDG_", "UV_"))}
        process = commands.start(
            [sys.executable, "-m", __name__, home, module, *arguments],
            env=env | variables.import_path() | own,
            cwd=home,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
            why = ENDED.get(code, f"it ended with code {code}" if code else "")
        except subprocess.TimeoutExpired:
            why = f"it took more than {seconds:g} s"
        finally:
            _end(process, home)
        out.seek(0)
        said = out.read(MOST_SAID)
    if said == b"ROOT":
        raise LabError(
            "This machine has no namespaces for root, so what hand-ins run would be root as well.",
            next_step="Grade as a user without rights, on a machine of its own.",
        )
    return Said(said, why)


def _end(process: subprocess.Popen[bytes], home: str) -> None:
    """End all of a fence: its first process takes its namespace along; else all that carry its mark."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    while left := [each for each in psutil.process_iter() if _is_marked(each, home)]:
        for each in left:
            with suppress(psutil.Error):
                each.kill()
        pause(0.02)


def _is_marked(process: psutil.Process, home: str) -> bool:
    with suppress(psutil.Error, OSError):
        return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(MARK) == home
    return False


# ---- inside
def main(home: str, module: str, *arguments: str) -> None:
    """Put up the fence around this process, then become a module of this package in it."""
    libc = ctypes.CDLL(None, use_errno=True)
    lacks = _put_up(libc, Path(home))
    if not lacks:
        if first := os.fork():
            sys.exit(os.waitstatus_to_exitcode(os.waitpid(first, 0)[1]) % 256)
        libc.prctl(DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
        lacks = _inner_walls(libc, Path(home))
        if worker := os.fork():
            _watch(worker)
    if lacks and not os.geteuid():
        print("ROOT", end="")
        return
    _limit(lacks)
    for capability in range(64):
        libc.prctl(DROP_CAPABILITY, capability, 0, 0, 0)
    libc.prctl(NO_NEW_RIGHTS, 1, 0, 0, 0)
    os.environ[LACKS] = lacks
    os.execv(sys.executable, [sys.executable, "-m", module, home, *arguments])


def _put_up(libc: ctypes.CDLL, home: Path) -> str:
    """Leave the machine's namespaces; returns what is lacking."""
    user, group = os.getuid(), os.getgid()
    try:
        if libc.unshare(NEW_USER | NEW_PIDS | NEW_NET | NEW_MOUNTS | NEW_IPC):
            return f"no namespaces ({os.strerror(ctypes.get_errno())})"
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
            fcntl.ioctl(any_socket, INTERFACE_FLAGS, struct.pack("16sh14x", b"lo", UP))
    except (OSError, AttributeError) as error:  # no Linux: no `unshare`
        return f"no namespaces ({error})"
    return ""


def _inner_walls(libc: ctypes.CDLL, home: Path) -> str:
    """All files read-only, but for a folder in memory; its own list of processes; returns what is lacking."""
    safe = NO_SETUID | NO_DEVICES

    def mount(what: str, where: str, kind: str, flags: int, options: str = "") -> None:
        words = (text.encode() or None for text in (what, where, kind))
        if libc.mount(*words, flags, options.encode() or None):
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), where)

    def writable(where: str, allowed: bool, flags: int = 0) -> None:
        bits = struct.pack("QQQQ", *((0, READ_ONLY) if allowed else (READ_ONLY, 0)), 0, 0)
        if libc.syscall(MOUNT_SETATTR, HERE, where.encode(), flags, bits, len(bits)):
            raise OSError(ctypes.get_errno(), "mount_setattr", where)

    try:
        mount("none", "/", "", RECURSIVE | PRIVATE)
        mount("hand-in", str(home), "tmpfs", safe, f"size={FOLDER_BYTES},nr_inodes=50000,mode=700")
        mount("run", "/run", "tmpfs", safe, "size=1m")  # the sockets of Docker and of the desktop
        mount("proc", "/proc", "proc", safe)
        writable("/", False, ALL_BELOW)
        writable(str(home), True)
        os.chdir(home)
    except OSError as error:
        return f"no walls between files and processes ({error})"
    return ""


def _watch(worker: int) -> None:
    """What the first process of a namespace does: when it ends, all in it does."""
    page = resource.getpagesize()
    while True:
        ended, status = os.waitpid(-1, os.WNOHANG)
        if ended == worker:
            os._exit(os.waitstatus_to_exitcode(status) % 256)
        numbers = [name for name in os.listdir("/proc") if name.isdigit()]
        if len(numbers) > PROCESSES:
            os._exit(91)
        pages = 0
        for number in numbers:
            with suppress(OSError):
                pages += int(Path(f"/proc/{number}/statm").read_text().split()[1])
        if pages * page > MEMORY_BYTES:
            os._exit(92)
        if not ended:
            pause(1 / LOOKS_A_SECOND)


def _limit(lacks: str) -> None:
    """The limits of each single process."""
    others = sum(_is_mine(each) for each in psutil.process_iter()) if lacks else 0
    limits = {
        "CORE": 0,
        "CPU": CPU_SECONDS,
        "FSIZE": FILE_BYTES,
        "AS": ADDRESSES_BYTES,
        "NPROC": PROCESSES + others,
    }
    for name, value in limits.items():
        hard = resource.getrlimit(number := getattr(resource, f"RLIMIT_{name}"))[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        with suppress(OSError, ValueError):  # macOS knows no limit of addresses
            resource.setrlimit(number, (value, value))


def _is_mine(process: psutil.Process) -> bool:
    with suppress(psutil.Error):
        return process.uids().real == os.getuid()
    return False


if __name__ == "__main__":
    main(*sys.argv[1:])
