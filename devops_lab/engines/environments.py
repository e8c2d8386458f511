"""A Python environment of its own for each release, in a tenth of a second.

Packages come from a lock that rarely changes, the wheel changes with each commit. So the packages are
installed and byte-compiled once a lock, into a template; an environment is that, hard-linked, plus the wheel.
"""

from __future__ import annotations

import compileall
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devops_lab.errors import BuildFailed, DiskFull, MissingTool
from devops_lab.processes import clean_environment as clean_environment

STAMP = "made-from"  # inside an environment: which lock and which wheel it holds


def environment(root: Path, lock: Path, wheel: Path, into: Path) -> Path:
    """Make (or find) an environment that holds the packages of a lock and one wheel.

    Safe to call from several processes at once: it is built aside and put into place by one rename.

    Args:
        root: the lab directory; templates are kept in its `work/templates`.
        lock: pinned requirements.
        wheel: the built artifact, installed without its dependencies.
        into: where the environment shall lie.

    Returns:
        The environment's Python.

    Raises:
        BuildFailed: the packages or the wheel can't be installed; carries uv's own words.
        DiskFull: there is no room; nothing half made is left.
    """
    stamp = f"{sha256(lock)} {sha256(wheel)}"
    python = into / "bin" / "python"
    if read_stamp(into) == stamp:
        return python
    template = template_for(root, lock)
    with built_aside(into, stamp) as aside:
        clone(template, aside)
        add_wheel(aside, template, wheel)
        compile_new(aside)
    return python


def template_for(root: Path, lock: Path) -> Path:
    """The template environment of a lock, installed and byte-compiled when it is first asked for."""
    stamp = sha256(lock)
    into = root / "work" / "templates" / stamp[:16]
    if read_stamp(into) == stamp:
        return into
    with built_aside(into, stamp) as aside:
        base = getattr(sys, "_base_executable", None) or sys.executable
        uv(["venv", "--quiet", "--relocatable", "--python", base, str(aside)])
        try:
            install(aside, ["--offline", "--no-deps", "-r", str(lock)])
        except BuildFailed:  # the cache lacks something: ask the index, which costs a quarter of a second
            install(aside, ["--no-deps", "-r", str(lock)])
        compile_new(aside)
    return into


@contextmanager
def built_aside(into: Path, stamp: str) -> Iterator[Path]:
    """A folder to build in, beside `into`; renamed to it when whole, removed when anything fails."""
    aside = into.with_name(f".{into.name}.{uuid.uuid4().hex[:8]}")
    aside.parent.mkdir(parents=True, exist_ok=True)
    try:
        yield aside
        (aside / STAMP).write_text(stamp)
        put_into_place(aside, into, stamp)
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise no_room(str(error)) from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def clone(template: Path, into: Path) -> None:
    """Hard-link a template's files; its scripts stay behind, because they name the template's Python."""

    def link(source: str, target: str) -> None:
        try:
            os.link(source, target, follow_symlinks=False)
        except OSError:  # another file system, or one without hard links
            shutil.copy2(source, target, follow_symlinks=False)

    def scripts(folder: str, names: list[str]) -> list[str]:
        at_top = Path(folder) == template
        in_bin = Path(folder) == template / "bin"
        return [n for n in names if (in_bin and not n.startswith("python")) or (at_top and n == STAMP)]

    shutil.copytree(template, into, symlinks=True, copy_function=link, ignore=scripts)


def add_wheel(env: Path, template: Path, wheel: Path) -> None:
    """Unpack a wheel into an environment.

    Done in the name of the template's Python, which uv knows already: asking a new one about itself takes
    longer than all the rest.
    """
    (packages,) = env.glob("lib/python*/site-packages")
    install(template, ["--no-deps", "--offline", "--target", str(packages), str(wheel)])
    shutil.rmtree(packages / "bin", ignore_errors=True)  # scripts that would start the template's Python
    (packages / ".lock").unlink(missing_ok=True)


def compile_new(env: Path) -> None:
    """Byte-compile what has none yet; half of a replica's start would go into it otherwise."""
    for folder in env.glob("lib/python*/site-packages"):
        for entry in folder.iterdir():
            if entry.is_dir() and not (entry / "__pycache__").exists():
                compileall.compile_dir(str(entry), quiet=2)
            elif entry.suffix == ".py":
                compileall.compile_file(str(entry), quiet=2)


def put_into_place(aside: Path, into: Path, stamp: str) -> None:
    while True:
        try:
            os.replace(aside, into)
            return
        except OSError:
            if not into.exists():
                raise
        if read_stamp(into) == stamp:
            return  # another process was quicker, with the same contents
        old = into.with_name(f".{into.name}.{uuid.uuid4().hex[:8]}")
        try:
            os.replace(into, old)
        except FileNotFoundError:
            continue
        shutil.rmtree(old, ignore_errors=True)


def install(env: Path, what: list[str]) -> None:
    uv(["pip", "install", "--quiet", "--no-config", "--python", str(env / "bin" / "python"), *what])


def uv(arguments: list[str]) -> str:
    """Run uv and return what it said.

    Raises:
        BuildFailed: it ended with an error; the message is uv's own.
    """
    done = subprocess.run([uv_program(), *arguments], env=clean_environment(), capture_output=True, text=True)
    if done.returncode:
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise no_room(done.stderr.strip())
        raise BuildFailed(
            f"uv {' '.join(arguments[:2])} failed:\n{done.stderr.strip()}",
            next_step="Check the network and the lock file, then try again.",
        )
    return done.stdout


def no_room(words: str) -> DiskFull:
    return DiskFull(f"No room left: {words}")


def uv_program() -> str:
    try:
        from uv import find_uv_bin

        return str(find_uv_bin())
    except (ImportError, FileNotFoundError):
        if found := shutil.which("uv"):
            return found
    raise MissingTool("uv is not installed.", next_step="python3 -m pip install uv")


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_stamp(env: Path) -> str:
    try:
        return (env / STAMP).read_text()
    except OSError:
        return ""
