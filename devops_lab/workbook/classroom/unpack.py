"""Takes a hand-in apart, as far as it goes: bounded, into one folder, and nothing that is no part of one."""

from __future__ import annotations

import hashlib
import re
import stat
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import IO
from zipfile import BadZipFile, ZipFile, ZipInfo

import msgspec

from devops_lab.model import HandIn
from devops_lab.platform.identity import MARKER
from devops_lab.workbook.classroom.pack import FORMAT, MANIFEST, STORE

MOST_FILES, MOST_FILE_BYTES, MOST_BYTES = 2000, 60_000_000, 150_000_000
PARTS = re.compile(
    rf"{MANIFEST}|{re.escape(MARKER)}|{STORE}|(shop|origin)\.bundle"
    r"|registry/.+|work/mirror/[^/]+|work/.+\.whl|notebooks/[^/]+\.ipynb"
)
LOCAL = b"PK\x03\x04"  # APPNOTE.TXT, 4.3.7: what stands before each file
CHUNK = 1 << 16


class TooLarge(Exception):
    """Raised where an archive holds more than a hand-in may."""


def unpack(archive: Path, into: Path) -> list[str]:
    """Write the parts of a hand-in into a folder.

    Args:
        archive: the file that was handed in.
        into: an empty folder.

    Returns:
        What is amiss, one line each; also for what is no archive at all.
    """
    told: list[str] = []
    foreign: list[str] = []
    left = MOST_BYTES
    try:
        for count, (name, mode, content) in enumerate(_files(archive, told)):
            if count >= MOST_FILES:
                raise TooLarge(f"it holds more than {MOST_FILES} files")
            if why := _refused(name, mode):
                told.append(f"{name[:200]!r} {why}: refused")
            elif not PARTS.fullmatch(name):
                foreign.append(name[:200])
            else:
                try:
                    left -= _write(content, into / name, min(left, MOST_FILE_BYTES))
                except (OSError, EOFError, BadZipFile, zlib.error, RuntimeError) as error:
                    (into / name).unlink(missing_ok=True)
                    told.append(f"{name} can't be unpacked: {error}")
    except TooLarge as error:
        told.append(f"unpacking was ended: {error}")
    except (OSError, BadZipFile, NotImplementedError, ValueError) as error:
        told.append(f"it can't be read: {error}")
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        told.append(
            f"it carries what is no part of a hand-in, and was not looked at: {', '.join(foreign[:3])}{more}"
        )
    return told + _compared(into)


def _refused(name: str, mode: int) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\\" in name or ":" in name or "\0" in name:
        return "leads out of the hand-in"
    return "" if stat.S_IFMT(mode) in (0, stat.S_IFREG) else "is no plain file"


def _write(content: Iterator[bytes], path: Path, most: int) -> int:
    """Write one file, and return its bytes."""
    if path.exists():
        raise OSError("it is there twice")
    path.parent.mkdir(parents=True, exist_ok=True)
    size = 0
    with path.open("wb") as out:
        for piece in content:
            if (size := size + len(piece)) > most:
                path.unlink()
                raise TooLarge(f"{path.name} makes it larger than {most / 1e6:.0f} MB")
            out.write(piece)
    return size


def _files(archive: Path, told: list[str]) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """Name, mode and content of each file; of an archive that was cut off, of those that are whole."""
    try:
        with ZipFile(archive) as whole:
            for entry in whole.infolist():
                if not entry.is_dir():
                    yield entry.filename, entry.external_attr >> 16, _content(whole, entry)
    except BadZipFile as error:
        with archive.open("rb") as file:
            if file.read(4) != LOCAL:
                raise BadZipFile("it is no zip archive") from error
            told.append("it was cut off: what is whole of it is graded")
            file.seek(0)
            yield from _salvaged(file)


def _content(whole: ZipFile, entry: ZipInfo) -> Iterator[bytes]:
    with whole.open(entry) as file:
        while piece := file.read(CHUNK):
            yield piece


def _salvaged(file: IO[bytes]) -> Iterator[tuple[str, int, Iterator[bytes]]]:
    """The files of an archive without its list, from what stands before each."""
    while (head := file.read(30))[:4] == LOCAL and len(head) == 30:
        check, size, name_size, more = (
            int.from_bytes(head[a:b], "little") for a, b in ((14, 18), (18, 22), (26, 28), (28, 30))
        )
        name = file.read(name_size).decode("utf-8", "replace")
        file.seek(more, 1)
        data = file.read(min(size, MOST_BYTES))
        yield name, 0, _inflated(data, size, check, compressed=head[8] == 8)


def _inflated(data: bytes, size: int, check: int, compressed: bool) -> Iterator[bytes]:
    if len(data) < size:
        raise EOFError("it was cut off in it")
    found, inflate = 0, zlib.decompressobj(-15)
    while data:
        piece = inflate.decompress(data, CHUNK) if compressed else data
        data = inflate.unconsumed_tail if compressed else b""
        found = zlib.crc32(piece, found)
        yield piece
    if found != check:
        raise BadZipFile("its checksum is another")


def manifest(folder: Path) -> HandIn | None:
    """The manifest of what was unpacked, if it has one that can be read."""
    with suppress(OSError, msgspec.MsgspecError):
        return msgspec.json.decode((folder / MANIFEST).read_bytes(), type=HandIn)
    return None


def _compared(folder: Path) -> list[str]:
    """What the manifest says otherwise than the files."""
    about = manifest(folder)
    if about is None:
        return [f"it has no {MANIFEST} that can be read"]
    told = [f"packed without: {line[:300]}" for line in about.left_out[:20]]
    if about.format != FORMAT:
        told.append(
            f"its format is {about.format}, packed by version {about.workbook}; {FORMAT} is known here"
        )
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        name = path.relative_to(folder).as_posix()
        if about.files.get(name) != hashlib.sha256(path.read_bytes()).hexdigest():
            told.append(f"{name} was changed after it was packed")
    told += [
        f"{name} is missing" for name in about.files if PARTS.fullmatch(name) and not (folder / name).exists()
    ]
    return told
