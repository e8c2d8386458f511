"""The reader's own notebooks: made from the workbook's, renewed cell by cell, taken back to the start.

A copy is the workbook's notebook without its outputs. Beside it lies its base, the version that it was last
made from: what differs from that is the reader's. So a newer version renews the rest, and takes nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from devops_lab.errors import BadInput, Damaged, DiskFull, is_full
from devops_lab.platform import locks
from devops_lab.platform.settings import NOTEBOOKS_BASE as BASE

BEFORE = "before"  # beside the copies: the reader's versions that were put aside
GONE = ("execution_count", "outputs")  # what a start has none of

Json = dict[str, Any]


def refresh(notebooks: Iterable[Path], own: Path) -> list[str]:
    """Make the reader's copies, or renew what the reader has not touched in them.

    Args:
        notebooks: the workbook's.
        own: the folder of the copies; made when it is not there.

    Returns:
        What the reader has to know, a line each; mostly nothing.

    Raises:
        BadInput: the folder can't be written to; no copy is damaged by that.
        DiskFull: there is no room.
    """
    with _writing(own):
        return [line for path in notebooks for line in _renew(path, own / path.name)]


def restore(notebooks: Iterable[Path], own: Path) -> list[str]:
    """Take copies back to the start; the reader's versions are put aside.

    Returns:
        Where each now lies, a line each.

    Raises:
        BadInput, DiskFull: as from `refresh`.
    """
    said = []
    with _writing(own):
        for path in notebooks:
            new, copy, aside = start(path), own / path.name, ""
            if copy.exists() and copy.read_bytes() != _bytes(new):
                aside = f"; yours is kept as {put_aside(copy)}"
            _write(copy, new)
            _write(own / BASE / path.name, new)
            said.append(f"{copy.name} is as at the start{aside}.")
    return said


@contextmanager
def _writing(own: Path) -> Iterator[None]:
    """Have the folder of the copies to oneself, and say what can't be written in it."""
    try:
        (own / BASE).mkdir(parents=True, exist_ok=True)
        (own / ".gitignore").write_text("*\n")  # wherever the lab lies, no repository takes note of them
        with locks.held(own / BASE / "lock"):
            yield
    except OSError as error:
        if is_full(error):
            raise DiskFull(f"No room left for your notebooks in {own}.") from error
        raise BadInput(
            f"Your notebooks in {own} can't be written: {error.strerror}.",
            expected="a folder that you can write to",
            next_step="Name another lab (--lab DIR), or make this folder yours.",
        ) from error


def touched(path: Path, own: Path) -> str:
    """What the reader did to a copy, in words; empty: nothing, but perhaps running it."""
    try:
        mine, base = _cells(read(own / path.name)), _cells(read(own / BASE / path.name))
    except FileNotFoundError:
        return ""
    except Damaged:
        return "damaged"
    counts = {
        "changed": sum(not _same(cell, base[name]) for name, cell in mine.items() if name in base),
        "of your own": len(mine.keys() - base.keys()),
        "removed": len(base.keys() - mine.keys()),
    }
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def start(path: Path) -> Json:
    """A notebook of the workbook as a reader begins with it: without outputs, its ids kept."""
    found = read(path)
    return found | {"cells": [_blank(cell) for cell in found["cells"]]}


def read(path: Path) -> Json:
    """A notebook from its file.

    Raises:
        Damaged: it is none. A missing one is the caller's `FileNotFoundError`.
    """
    try:
        found: Json = json.loads(path.read_bytes())
    except ValueError as error:  # also bytes that are no UTF-8
        raise Damaged(f"{path} is no notebook: {error}.") from error
    cells = found.get("cells") if isinstance(found, dict) else None
    if not isinstance(cells, list) or not all(isinstance(c, dict) and "source" in c for c in cells):
        raise Damaged(f"{path} is no notebook: it has no list of cells.")
    return found


def put_aside(copy: Path) -> Path:
    """Move a copy to where earlier versions are kept, and return its new place."""
    folder = copy.parent / BEFORE
    folder.mkdir(exist_ok=True)
    stem = f"{copy.stem}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = (f"{stem}{f'-{n}' if n else ''}{copy.suffix}" for n in range(10_000))
    place = next(folder / name for name in names if not (folder / name).exists())
    os.replace(copy, place)
    return place


# ---- one copy
def _renew(path: Path, copy: Path) -> list[str]:
    new, base, said = start(path), Json(), list[str]()
    with suppress(FileNotFoundError, Damaged):  # then all that differs is taken for the reader's
        base = read(copy.parent / BASE / copy.name)
    try:
        mine = read(copy)
        if not base and not _cells(mine).keys() & _cells(new).keys():
            raise Damaged(f"{copy.name} is another notebook than the workbook's.")
    except FileNotFoundError:
        mine = new
    except Damaged as error:
        said.append(f"{error.wrong} It is kept as {put_aside(copy)}; this one is as at the start.")
        mine = new
    merged = mine if mine is new else merge(base, mine, new)
    if merged is new or merged != mine:
        _write(copy, merged)
    if base != new:  # last: should this end before, the next call does the same
        _write(copy.parent / BASE / copy.name, new)
    was, now = _cells(base), _cells(new)
    clashes = [
        name
        for name, cell in _cells(merged).items()
        if name in was and not (_same(was[name], now.get(name)) or _same(cell, now.get(name)))
    ]
    if clashes:
        said.append(
            f"{copy.name}: you changed {len(clashes)} cells that are others in the new version; yours stay."
        )
    return said


def _write(path: Path, notebook: Json) -> None:
    """Whole or not at all; an open editor sees one version or the other."""
    path = path.resolve()  # a link of the reader's stays one
    aside = path.with_name(f".{path.name}.new")
    with aside.open("wb") as file:
        file.write(_bytes(notebook))
        file.flush()
        os.fsync(file.fileno())
    if path.exists():
        shutil.copymode(path, aside)
    os.replace(aside, path)


def _bytes(notebook: Json) -> bytes:
    """As Jupyter itself writes notebooks."""
    return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()


# ---- three versions of a notebook: what it was made from, the reader's, the new one
def merge(base: Json, mine: Json, new: Json) -> Json:
    """Renew what the reader did not touch; keep each cell that is the reader's, or was changed or removed.

    Args:
        base: the version that `mine` was last made from.
        mine: the reader's.
        new: the workbook's newer version, without outputs.

    Returns:
        The new version with all that is the reader's in it, each own cell after the one that it followed.
    """
    was, now = _cells(base), _cells(new)
    kept = {name: cell for name, cell in _cells(mine).items() if _stays(name, cell, was, now)}
    renewed = {name: _renewed(cell, was.get(name), now.get(name)) for name, cell in kept.items()}
    come = {name: cell for name, cell in now.items() if name not in was and name not in kept}
    shared = [name for name in kept if name in was]
    if shared == [name for name in was if name in kept]:  # the reader moved none: the new order holds
        order, others = [n for n in now if n in kept or n in come], list(_cells(mine))
    else:
        order, others = list(kept), list(now)
    found = renewed | come
    last = -1
    for name in others:  # what `order` has not yet comes after what it follows
        if name in order:
            last = order.index(name)
        elif name in found:
            last += 1
            order.insert(last, name)
    about = _newer(base.get("metadata", {}), mine.get("metadata", {}), new["metadata"])
    versions = {key: max(mine.get(key, 0), new[key]) for key in ("nbformat", "nbformat_minor")}
    return mine | versions | {"metadata": about, "cells": [found[name] for name in order]}


def _stays(name: str, cell: Json, was: dict[str, Json], now: dict[str, Json]) -> bool:
    """Everything does, but what the new version took out and the reader never touched."""
    return name in now or name not in was or not _same(cell, was[name])


def _renewed(mine: Json, was: Json | None, now: Json | None) -> Json:
    """A cell with what the new version says of it, unless the reader wrote it; its outputs while they fit."""
    if now is None or not (_same(mine, was) or _same(mine, now)):
        return mine
    found = now | {"metadata": _newer((was or now)["metadata"], mine.get("metadata", {}), now["metadata"])}
    if _same(mine, now):
        found |= {key: mine[key] for key in GONE if key in mine}
    return found


def _newer(was: Json, mine: Json, now: Json) -> Json:
    """Metadata, key by key: the new version's where that changed it, else the reader's."""
    chosen = {key: (mine if now.get(key) == was.get(key) else now).get(key) for key in {**mine, **now}}
    return {key: value for key, value in chosen.items() if value is not None}


def _cells(notebook: Json) -> dict[str, Json]:
    """Its cells by id; one without, or a second one of the same id, is told by its place."""
    found: dict[str, Json] = {}
    for place, cell in enumerate(notebook.get("cells", [])):
        name = cell.get("id", "")
        found[name if name and name not in found else f"{name} at {place}"] = cell
    return found


def _same(one: Json, other: Json | None) -> bool:
    """Whether two cells say the same, whatever was put out."""
    return other is not None and _says(one) == _says(other)


def _says(cell: Json) -> tuple[Any, str]:
    return cell.get("cell_type"), "".join(cell["source"])


def _blank(cell: Json) -> Json:
    return cell | {"execution_count": None, "outputs": []} if cell.get("cell_type") == "code" else cell
