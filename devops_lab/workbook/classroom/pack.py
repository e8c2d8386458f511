"""Packs a lab into one file to hand in: notebooks, records and repositories; nothing that runs, no secret.

hand_in(lab)  # in a notebook; also half done, also while production runs
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec

from devops_lab import __version__
from devops_lab.errors import BadInput, LabError
from devops_lab.model import HandIn
from devops_lab.platform import git, settings
from devops_lab.platform.identity import MARKER, identity

if TYPE_CHECKING:
    from devops_lab.lab import Lab

FORMAT = 1
MANIFEST, STORE, UNCOMMITTED = "manifest.json", "lab.db", "refs/hand-in/uncommitted"
MOST_BYTES = 5_000_000
KEPT_LINES = 10_000  # of each of the long tables, where a store is too large
OWN = re.compile(r"^(home|docker_host) = .*$", re.MULTILINE)  # lines of lab.toml about this machine
FOLDERS = ("registry", "work/mirror")


def hand_in(lab: Lab | Path, out: Path | None = None) -> Path:
    """Pack a lab into one file to hand in.

    Args:
        lab: the lab, or its directory; it may run, and may be damaged.
        out: the file to write; by default one in the current directory, named after learner and lab.

    Returns:
        The file.

    Raises:
        NotALab: the directory is no lab.
        BadInput: the file is none that can be written.
        LabError: what must be in it takes more than `MOST_BYTES`; names the largest parts.
    """
    root = lab.expanduser().resolve() if isinstance(lab, Path) else lab.root
    known = settings.salvage(root) if (root / STORE).exists() else settings.read(root)
    learner = re.sub(r"[^\w-]+", "-", known.learner).strip("-")
    target = (out or Path.cwd() / f"{learner}-{identity(root)[:6]}.zip").expanduser()
    left_out: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        parts = dict(_parts(root, Path(folder), left_out))
        packed = _zip(root, known.learner, parts, left_out)
        for shorten in (_without_outputs, _without_old_lines, _without_uncommitted):
            if len(packed) > MOST_BYTES:
                left_out += shorten(parts, Path(folder))
                packed = _zip(root, known.learner, parts, left_out)
    if len(packed) > MOST_BYTES:
        largest = sorted(parts, key=lambda name: -len(parts[name]))[:3]
        raise LabError(
            f"The hand-in takes {len(packed) / 1e6:.1f} MB; its largest parts: {', '.join(largest)}.",
            expected=f"{MOST_BYTES / 1e6:.0f} MB at most",
            next_step="Take large files out of the shop's repository, or hand in what you have another way.",
        )
    try:
        aside = target.with_name(f".{target.name}.{os.getpid()}")
        aside.write_bytes(packed)
        os.replace(aside, target)
    except OSError as error:
        raise BadInput(
            f"{target} can't be written: {error.strerror}.", next_step="Name another file (--out FILE)."
        ) from error
    return target


def _zip(root: Path, learner: str, parts: dict[str, bytes], left_out: list[str]) -> bytes:
    """The archive of these parts, with a manifest that has the digest of each."""
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in parts.items()}
    about = HandIn(FORMAT, __version__, identity(root), learner, digests, left_out)
    buffer = io.BytesIO()
    with ZipFile(buffer, "w", ZIP_DEFLATED, compresslevel=9) as archive:
        archive.writestr(MANIFEST, msgspec.json.encode(about))
        for name, content in parts.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def _parts(root: Path, folder: Path, left_out: list[str]) -> Iterator[tuple[str, bytes]]:
    """Each file of a hand-in, by name; what can't be read is named instead."""
    makers: dict[str, Callable[[], bytes]] = {
        MARKER: lambda: OWN.sub(r'\1 = ""', (root / MARKER).read_text("utf-8", "replace")).encode(),
        STORE: lambda: _backup(root / STORE, folder / STORE),
        "shop.bundle": lambda: _bundle(root / "shop", folder, with_tree=True),
        "origin.bundle": lambda: _bundle(root / "origin.git", folder),
    }
    found = [path for name in FOLDERS for path in (root / name).rglob("*")]
    found += [*(root / settings.NOTEBOOKS).glob("*.ipynb"), *_newest_wheel(root)]
    for path in sorted(found):
        if path.is_file() and not path.is_symlink():
            makers[path.relative_to(root).as_posix()] = path.read_bytes
    for name, make in makers.items():
        try:
            yield name, make()
        except (OSError, sqlite3.Error, LabError) as error:
            left_out.append(f"{name} can't be read: {' '.join(str(error).split())[:200]}")


def _backup(path: Path, target: Path) -> bytes:
    """SQLite's own copy of a store: the newest records are in its log, and others write to it meanwhile."""
    with (
        closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as db,
        closing(sqlite3.connect(target)) as new,
    ):
        db.backup(new)
        new.execute("pragma journal_mode = delete")
    return target.read_bytes()


def _newest_wheel(root: Path) -> list[Path]:
    """The wheel that was built last, which an exercise asks about."""
    try:
        with closing(sqlite3.connect(f"{(root / STORE).as_uri()}?mode=ro", uri=True)) as db:
            query = "select data from records where kind = 'Artifact' order by rowid desc limit 1"
            row = db.execute(query).fetchone()
        path = root / json.loads(row[0])["path"] if row else root
        return [path] if path.is_file() and path.resolve().is_relative_to(root) else []
    except (sqlite3.Error, ValueError, LookupError, TypeError, OSError):
        return []


def _bundle(repo: Path, folder: Path, with_tree: bool = False) -> bytes:
    """All of a repository's branches and tags in one file, and what is not committed as one commit more."""
    copy, bundle = folder / f"{repo.name}.copy", folder / f"{repo.name}.bundle"
    git.git(folder, "clone", "--quiet", "--mirror", "--shared", str(repo), str(copy))
    if with_tree:
        env = {"GIT_DIR": str(copy), "GIT_WORK_TREE": str(repo), "GIT_INDEX_FILE": str(folder / "index")}
        git.git(repo, "add", "--all", env=env)
        tree = git.git(repo, "write-tree", env=env)
        who = git.identity("Hand-in")
        commit = git.git(copy, "commit-tree", tree, "-p", "HEAD", "-m", "not committed", env=who)
        git.git(copy, "update-ref", UNCOMMITTED, commit)
    git.git(copy, "bundle", "create", "--quiet", str(bundle), "--all", "HEAD")
    return bundle.read_bytes()


# ---- what may be left out of a hand-in that is too large
def _without_outputs(parts: dict[str, bytes], folder: Path) -> list[str]:
    told = []
    for name in [name for name in parts if name.endswith(".ipynb")]:
        try:
            page = json.loads(parts[name])
            for cell in page["cells"]:
                cell |= {"outputs": []} if cell["cell_type"] == "code" else {}
            parts[name] = json.dumps(page).encode()
            told.append(f"{name}: without outputs")
        except (ValueError, LookupError, TypeError):
            del parts[name]
            told.append(f"{name}: no notebook, and left out")
    return told


def _without_old_lines(parts: dict[str, bytes], folder: Path) -> list[str]:
    if STORE not in parts:
        return []
    with closing(sqlite3.connect(folder / STORE)) as db:
        for table in ("logs", "requests"):
            newest = f"select id from {table} order by id desc limit {KEPT_LINES}"
            slowest = f"select id from {table} order by seconds desc limit 100"
            keep = f"select * from ({newest}) union select * from ({slowest})"
            db.execute(f"delete from {table} where id not in ({keep})")
        db.execute("delete from samples")
        db.commit()
        db.execute("vacuum")
    parts[STORE] = (folder / STORE).read_bytes()
    return [f"{STORE}: without samples, and with the newest {KEPT_LINES} log lines and requests"]


def _without_uncommitted(parts: dict[str, bytes], folder: Path) -> list[str]:
    copy, bundle = folder / "shop.copy", folder / "shop.bundle"
    if "shop.bundle" not in parts or not copy.exists():
        return []
    git.run(copy, "update-ref", "-d", UNCOMMITTED)
    git.git(copy, "bundle", "create", "--quiet", str(bundle), "--all", "HEAD")
    parts["shop.bundle"] = bundle.read_bytes()
    return ["shop: without what is not committed"]
