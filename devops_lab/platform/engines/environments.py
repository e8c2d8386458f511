"""A Python environment of its own for each release, in a tenth of a second.

Packages come from a lock that rarely changes, the wheel changes with each commit. So the packages are
installed and byte-compiled once a lock, into a template; an environment is that, hard-linked, plus the wheel.
"""

from __future__ import annotations

import compileall
import csv
import errno
import hashlib
import os
import shutil
import sys
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devops_lab.errors import BuildFailed, DiskFull, MissingTool, RegistryRefused
from devops_lab.model import Artifact, Release
from devops_lab.platform import commands, variables

UNKNOWN = ("was not found in the package registry", "there is no version of")  # uv's words, from the index
STAMP = "made-from"  # inside an environment: which lock and which wheel it holds


def environment(root: Path, lock: Path, wheel: Path, into: Path, tools: Path | None = None) -> Path:
    """Make (or find) an environment that holds the packages of a lock and one wheel.

    Safe to call from several processes at once: it is built aside and put into place by one rename.

    Args:
        root: the lab directory; templates are kept in its `work/templates`.
        lock: pinned requirements.
        wheel: the built artifact, installed without its dependencies.
        into: where the environment shall lie.
        tools: pinned requirements that only tests need, installed on top.

    Returns:
        The environment's Python.

    Raises:
        BuildFailed: the packages or the wheel can't be installed; carries uv's own words.
        DiskFull: there is no room; nothing half made is left.
    """
    stamp = f"{sha256(lock)} {sha256(wheel)}{f' {sha256(tools)}' if tools else ''}"
    python = into / "bin" / "python"
    if is_whole(into, stamp):
        return python
    template = template_for(root, lock, tools)
    with built_aside(into, stamp) as aside:
        clone(template, aside)
        add_wheel(aside, template, wheel)
        compile_new(aside)
    return python


def template_for(root: Path, lock: Path, tools: Path | None = None) -> Path:
    """The template environment of a lock (and of test tools on top), made when it is first asked for."""
    stamp = hashlib.sha256(f"{sha256(lock)} {sha256(tools)}".encode()).hexdigest() if tools else sha256(lock)
    into = root / "work" / "templates" / stamp[:16]
    if is_whole(into, stamp):
        return into
    below = template_for(root, lock) if tools else None
    with built_aside(into, stamp) as aside:
        if below:
            clone(below, aside)
        else:
            base = getattr(sys, "_base_executable", None) or sys.executable
            uv(["venv", "--quiet", "--relocatable", "--python", base, str(aside)])
        wanted = ["--no-deps", "-r", str(tools or lock)]
        try:
            install(aside, ["--offline", *wanted], fetch=True)
        except BuildFailed:  # the cache lacks something: ask the index, which costs a quarter of a second
            install(aside, wanted, fetch=True)
        compile_new(aside)
        if tools:
            check_together(aside)
    return into


def check_together(env: Path) -> None:
    """Insist that test tools are content with the versions that production pins.

    Raises:
        BuildFailed: they are not; names the packages.
    """
    try:
        uv(["pip", "check", "--quiet", "--no-config", "--python", str(env / "bin" / "python")])
    except BuildFailed as error:
        raise BuildFailed(
            f"The test tools don't go with what production installs:\n{error.wrong.partition(chr(10))[2]}",
            expected="tools for the versions in requirements.lock, which are the ones to test with",
            next_step="Renew requirements-test.lock (its first lines say how), commit, and build again.",
        ) from error


def is_whole(env: Path, stamp: str) -> bool:
    """Whether an environment was made from just this, and each file is as its package's RECORD has it.

    One that is damaged loses its stamp, so that another takes its place. Its files are those of its template,
    too (hard links). Source: packaging.python.org, "Recording installed projects".
    """
    if read_stamp(env) != stamp:
        return False
    for record in env.glob("lib/python*/site-packages/*.dist-info/RECORD"):
        with record.open(encoding="utf-8", newline="") as lines:
            for name, digest, _ in csv.reader(lines):
                path = record.parent.parent / name
                if digest.startswith("sha256=") and not is_recorded(path, digest.removeprefix("sha256=")):
                    (env / STAMP).unlink(missing_ok=True)
                    return False
    return (env / "bin" / "python").exists()


def is_recorded(path: Path, digest: str) -> bool:
    try:
        return urlsafe_b64encode(bytes.fromhex(sha256(path))).decode().rstrip("=") == digest
    except OSError:
        return path.parent.name == "bin"  # scripts stay behind when a template is cloned


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
    commands.did("cp", "-al", template, into)  # its scripts too, which nobody calls


def add_wheel(env: Path, template: Path, wheel: Path) -> None:
    """Unpack a wheel into an environment.

    Done in the name of the template's Python, which uv knows already: asking a new one about itself takes
    longer than all the rest.
    """
    (packages,) = env.glob("lib/python*/site-packages")
    # By its name alone: uv reads a whole path as a requirement, in which ` ;`, `#` and `${X}` mean something.
    install(
        template,
        ["--no-deps", "--offline", "--target", str(packages), f"./{wheel.name}"],
        folder=wheel.parent,
    )
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
            commands.did("mv", aside, into)
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


def install(env: Path, what: list[str], fetch: bool = False, folder: Path | None = None) -> None:
    # Copies: by a link, what damages a file here would damage it in uv's cache, for all who take it there.
    options = ["--quiet", "--no-config", "--link-mode", "copy", "--python", str(env / "bin" / "python")]
    uv(["pip", "install", *options, *what], fetch, folder)


def uv(arguments: list[str], fetch: bool = False, folder: Path | None = None) -> str:
    """Run uv, in a folder, and return what it said; with `fetch` it may ask the reader's package index.

    Raises:
        BuildFailed: it ended with an error; the message is uv's own.
    """
    env = variables.fetcher() if fetch else variables.child()
    looks = "--dry-run" in arguments or arguments[:2] == ["pip", "check"]
    done = commands.run(
        [uv_program(), *arguments], env=env, cwd=folder, capture_output=True, text=True, looks=looks
    )
    if done.returncode:
        if os.strerror(errno.ENOSPC) in done.stderr:
            raise no_room(done.stderr.strip())
        blamed = variables.blamed(done.stderr) if fetch else ""
        advice = f"Mend or unset what your environment says about where packages come from: {blamed}"
        if any(words in done.stderr for words in UNKNOWN):
            unknown = "The package index has no such package or version: mend the lock file."
            advice = f"{unknown} Or: {advice}" if blamed else unknown
        elif not blamed:
            advice = "Check the network and the lock file, then try again."
        raise BuildFailed(f"uv {' '.join(arguments[:2])} failed:\n{done.stderr.strip()}", next_step=advice)
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


# ---- what was built is what is tested, and what was released is what runs: each file against its digest
def unchanged(root: Path, made: Artifact | Release, what: str = "", next_step: str = "") -> Path:
    """The wheel of a build or a release, if it and every file that goes with it are as they were made.

    Args:
        root: the lab directory.
        made: names the files, with their digests.
        what: what they have to be, for the message; a release's by default.
        next_step: what the reader can do.

    Raises:
        RegistryRefused: a file is missing, is only a link, or differs.
    """
    wheel = root / made.path
    # Builds and releases of older labs keep the wheel's digest alone.
    for name, digest in (made.files | {wheel.name: made.digest}).items():
        path = wheel.parent / name
        if path.is_symlink() or not path.is_file():
            wrong = f"{path.relative_to(root)} is missing: no file of that name belongs to it any more."
        elif (found := f"sha256:{sha256(path)}") != digest:
            what = what or f"what was released as {made.version}"
            wrong = f"{path.relative_to(root)} is not {what}: its digest is {found}."
        else:
            continue
        raise RegistryRefused(
            wrong,
            expected=digest,
            next_step=next_step
            or "Release a new version from a clean build; never repair a released file by hand.",
        )
    return wheel
