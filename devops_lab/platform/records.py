"""Records in files and rows: every field is checked where it is read, and named when it is wrong."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from devops_lab.errors import Damaged

T = TypeVar("T")


def decoded(raw: bytes | str, kind: type[T], where: str, next_step: str = "") -> T:
    """A record from its JSON.

    Args:
        raw: what was read.
        kind: the dataclass that it has to be.
        where: the file or row, for the message.
        next_step: what the reader can do when it is not.

    Raises:
        Damaged: it is no JSON, or no such record; names the field, and what was expected there.
    """
    try:
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Damaged(f"{where} is damaged: {told(error)}.", next_step=next_step) from error


def read(path: Path, kind: type[T], next_step: str = "") -> T:
    """A record from its file; a missing one is the caller's `FileNotFoundError`.

    Raises:
        Damaged: it can't be read, or is no such record.
    """
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise Damaged(f"{path} can't be read: {error.strerror}.", next_step=next_step) from error
    return decoded(raw, kind, str(path), next_step)


def noted(path: Path, kind: type[T]) -> T | None:
    """A note of something that can be found out again: None where it is missing, or damaged."""
    try:
        return read(path, kind)
    except (Damaged, FileNotFoundError):
        return None


def told(error: Exception) -> str:
    """msgspec's words, the field first."""
    what, _, place = str(error).replace("`", "").partition(" - at $.")
    return f"{place}: {what}" if place else what
