"""What was run: every program, every call of an engine, and each file that Python itself put in place.

Kept in this process, the newest `KEPT`; what the pipeline's hook and the agent run goes into a file of the
lab, too. `views.commands(lab)` shows it as lines for a shell.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import msgspec

from devops_lab.model import Command
from devops_lab.platform import cells
from devops_lab.platform.clock import steady, this_boot
from devops_lab.platform.identity import MARKER

KEPT = 5000  # commands in memory,
FILE_BYTES = 1_000_000  # and in the lab's file, before it begins anew
FILE = "run/commands.{}.jsonl"  # one a boot, since its times count from there
SHOWN = {  # what decides the outcome and is nobody's secret; all else that a child gets stays out
    *("SOURCE_DATE_EPOCH", "GIT_INDEX_FILE", "BENTO_RELEASE", "BENTO_REPLICA", "DATABASE_URL"),
    *(f"GIT_{who}_{what}" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL", "DATE")),
}
PASSWORD = re.compile("://[^/@\\s]*@")
LOOKING = {  # git's commands that only look, always or with one of these words
    **dict.fromkeys(
        ("rev-parse", "status", "log", "show", "diff", "ls-tree", "cat-file", "merge-base", "for-each-ref"),
        (),
    ),
    **dict.fromkeys(("rev-list", "describe", "check-ref-format", "ls-files", "--version"), ()),
    "branch": ("--list", "--show-current", "--format"),
    "tag": ("--list", "--points-at"),
    "config": ("--get", "--get-regexp"),
    "remote": ("get-url",),
}
_newest: deque[Command] = deque(maxlen=KEPT)
_sealed = threading.local()
_process: dict[str, Any] = {"who": "", "file": None, "shown": 0.0}


class Running:
    """A command on its way; who runs it says how it ended."""

    exit_code: int | None = None


@contextmanager
def ran(
    args: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    **more: Any,
) -> Iterator[Running]:
    """Around whatever runs a command: record it, with its time, also when it fails.

    Args:
        args: the program and its arguments.
        folder: where it runs, if that matters.
        env: all of its environment; of it only `SHOWN` is recorded.
        more: further fields of the record.
    """
    running, t, began = Running(), steady(), time.perf_counter()
    try:
        yield running
    finally:
        took = time.perf_counter() - began
        record(args, folder, env, t=t, seconds=took, exit_code=running.exit_code, **more)


def run(args: Sequence[str], *, env: Mapping[str, str], **options: Any) -> subprocess.CompletedProcess[str]:
    """`subprocess.run` of what speaks text, recorded; nobody inherits an environment by mistake."""
    fields = {name: options.pop(name) for name in ("given", "passed", "looks") if name in options}
    with ran(args, options.get("cwd"), env, **fields) as running:
        done = subprocess.run(args, env=env, **options)
        running.exit_code = done.returncode
    return done


def start(args: Sequence[str], *, env: Mapping[str, str], **options: Any) -> subprocess.Popen[Any]:
    """`subprocess.Popen` of what is left running, recorded."""
    process = subprocess.Popen(args, env=env, **options)
    name = getattr(options.get("stdout"), "name", "")
    log = name if isinstance(name, str) else ""  # a file without a name has a number
    record(args, options.get("cwd"), env, exit_code=None, pid=process.pid, log=log)
    return process


def did(*args: str | os.PathLike[str], folder: str | os.PathLike[str] | None = None, **more: Any) -> None:
    """Record what Python has just done itself, as the line of shell that does the same."""
    record(args, folder, by="python", **more)


def signalled(pid: int, number: int) -> None:
    """Record that Python has sent a signal to a process (to its group where the number is negative)."""
    did("kill", f"-{signal.Signals(number).name.removeprefix('SIG')}", *["--"] * (pid < 0), str(pid))


def told(words: str) -> None:
    """Record in words what no single line of shell does."""
    record([words], by="note")


@contextmanager
def sealed() -> Iterator[None]:
    """While this thread does what a reader is to find out, only that is recorded: something was done."""
    told("What is done to production here is sealed: it is for you to find out.")
    _sealed.on = True
    try:
        yield
    finally:
        _sealed.on = False


def record(
    args: Sequence[str | os.PathLike[str]],
    folder: str | os.PathLike[str] | None = None,
    env: Mapping[str, str] | None = None,
    *,
    t: float = 0.0,
    by: Literal["program", "python", "engine", "note"] = "program",
    **more: Any,
) -> None:
    """Keep one command."""
    if getattr(_sealed, "on", False):
        return
    words = [PASSWORD.sub("://***@", os.fspath(word)) for word in args]
    looks = more.pop("looks", False) or _looks(words)
    kept = SHOWN & env.keys() if env and not looks else ()
    command = Command(
        words,
        os.fspath(folder or ""),
        t or steady(),
        environment={name: PASSWORD.sub("://***@", env[name]) for name in kept} if env else {},
        by=by,
        looks=looks,
        cell=cells.number(),
        who=_process["who"],
        **more,
    )
    _newest.append(command)
    if _process["file"] and not looks:
        _write(_process["file"], command)


def _looks(words: list[str]) -> bool:
    if words[0] != "git" or len(words) < 2:
        return False
    if (marks := LOOKING.get(words[1])) is None:
        return False
    return not marks or len(words) == 2 or any(word.partition("=")[0] in marks for word in words[2:])


def _write(file: Path, command: Command) -> None:
    with suppress(OSError):  # a full disk must not keep anybody from what the disk has room for
        too_long = file.exists() and file.stat().st_size > FILE_BYTES
        with file.open("wb" if too_long else "ab") as out:
            out.write(msgspec.json.encode(command) + b"\n")


def speak_as(who: str, root: Path) -> None:
    """Have all that this process runs written into the lab's file, too."""
    _process.update(who=who, file=_file(root))


def _file(root: Path) -> Path:
    return root / FILE.format(this_boot())


# ---- reading
def of_last_call(root: Path) -> list[Command]:
    """What ran in this cell before now; else in the newest cell that ran something.

    Outside of a notebook: what ran since this was asked last.
    """
    root, cell = root.resolve(), cells.number()
    mine = [command for command in list(_newest) if _belongs(command, root)]
    if cell:
        newest = max((command.cell for command in mine), default=0)
        mine = [command for command in mine if command.cell == newest]
        since = mine[0].t if mine else steady()
    else:
        since, _process["shown"] = _process["shown"], steady()
        mine = [command for command in mine if command.t >= since]
    others = [command for command in _written(root) if command.t >= since]
    return sorted([*mine, *others], key=lambda command: command.t)


def _belongs(command: Command, root: Path) -> bool:
    """Whether it is no other lab's: its folder, and the files that it names, tell."""
    named = [Path(word) for word in (command.folder, *command.args) if word.startswith("/")]
    return next((up for path in named for up in (path, *path.parents) if _is_lab(up)), root) == root


def _is_lab(folder: Path) -> bool:
    with suppress(OSError, ValueError):  # a word that is no path, after all
        return (folder / MARKER).is_file()
    return False


def _written(root: Path) -> Iterator[Command]:
    with suppress(OSError):
        for line in _file(root).read_bytes().splitlines():
            with suppress(msgspec.MsgspecError):  # a line that is being written
                command = msgspec.json.decode(line, type=Command)
                if command.who != _process["who"]:
                    yield replace(command, cell=0)
