"""Which lab a folder is: by an identity of its own it is found again when it was moved, or copied."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
import re
import uuid
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

MARKER = "lab.toml"
LINE = r'(?m)^{} = ("[^"\n]*")\s*$'


@dataclass(frozen=True)
class Home:
    """Where a lab lay when it was opened last.

    Args:
        machine: which one, see `machine`.
        folder: device and inode, which a renamed folder keeps and a copied one doesn't.
        path: as it was then.
    """

    machine: str
    folder: str
    path: str

    def __str__(self) -> str:
        return f"{self.machine} {self.folder} {self.path}"


def new() -> str:
    return uuid.uuid4().hex[:12]


def identity(root: Path) -> str:
    """The identity of the lab at `root`: twelve hexadecimal digits of `lab.toml`.

    One that an older version made has none yet; what that called its things followed from the path.
    """
    found = _line(root, "id")
    if re.fullmatch("[0-9a-f]{8,32}", found):
        return found
    return hashlib.sha256(os.fsencode(root.resolve())).hexdigest()[:8]


def mark(root: Path) -> str:
    """What a process of the lab carries in its environment: which lab's it is, and where that was."""
    return f"{identity(root)} {root.resolve()}"


def home(root: Path) -> Home:
    """Where a folder is now."""
    about = root.stat()
    return Home(machine(), f"{about.st_dev}:{about.st_ino}", str(root.resolve()))


def noted_home(root: Path) -> Home | None:
    """Where the lab at `root` was opened last, as `lab.toml` has it."""
    parts = _line(root, "home").split(" ", 2)
    return Home(*parts) if len(parts) == 3 else None


def holds(path: Path, wanted: str) -> bool:
    """Whether the lab of this identity lies at a path."""
    return (path / MARKER).is_file() and identity(path) == wanted


@functools.cache
def machine() -> str:
    """What tells this machine, or container, from others that talk to the same Docker engine."""
    about = platform.node()
    with suppress(OSError):
        about += Path("/etc/machine-id").read_text()
    return hashlib.sha256(about.encode()).hexdigest()[:12]


def _line(root: Path, name: str) -> str:
    """A text of `lab.toml`, also where the rest of that is damaged."""
    with suppress(OSError, ValueError):
        text = (root / MARKER).read_text(encoding="utf-8", errors="replace")
        if found := re.search(LINE.format(name), text):
            return str(json.loads(found[1]))
    return ""
