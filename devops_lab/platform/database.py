"""One SQLite file: connections, transactions, errors in words, the lab's clock, and records by key."""

from __future__ import annotations

import shutil
import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from devops_lab.errors import Damaged, DiskFull, LabError
from devops_lab.platform.clock import steady, this_boot
from devops_lab.platform.records import decoded

LOST = (
    "Put a copy of it back, if you have one. Else begin anew: `devops-lab clean` works also now. "
    "What it knew is lost then: plan, deployments, exercises, measurements. shop/ and registry/ are whole."
)
ROOM_BYTES = 200_000  # less is none: SQLite's write-ahead log grows by pages, its index by 32 kB


SCHEMA = """
create table if not exists records (kind text, key text, t real, data text, primary key (kind, key));
create table if not exists clock (boot text primary key, ahead real);
"""


class Keyed(Protocol):
    @property
    def key(self) -> str: ...


R = TypeVar("R", bound=Keyed)


class Database:
    """Several processes may read and write side by side (WAL mode); each thread has its own connection."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is None:
            with self._errors_in_words():
                found = sqlite3.connect(self.path, timeout=15, isolation_level="IMMEDIATE")
                found.execute("pragma journal_mode = wal")
                found.execute("pragma synchronous = normal")
            self._local.db = found
        return found

    def close(self) -> None:
        """Close this thread's connection."""
        found: sqlite3.Connection | None = self._local.__dict__.pop("db", None)
        if found is not None:
            found.close()

    def check(self) -> None:
        """Read the whole file.

        Raises:
            Damaged: a part of it is not what was written there.
        """
        ((answer,),) = self._rows("pragma quick_check(1)")
        if answer != "ok":
            raise self._damaged(answer)

    # ---- the lab's clock
    def now(self) -> float:
        """The lab's time in POSIX seconds, for all that is recorded and for every window of it.

        The wall clock's as the lab first met it since the machine was started, and on from there: a step of
        the wall clock is none of this one, whichever of the lab's processes asks. It never goes back.
        """
        rows = self._rows("select ahead from clock where boot = ?", (this_boot(),))
        return steady() + rows[0][0] if rows and this_boot() else time.time()

    def wind_clock(self) -> None:
        """Take the wall clock's time again, if it is ahead; only while nothing is being measured."""
        ahead = time.time() - steady()
        with self._write() as db:
            db.execute("update clock set ahead = max(ahead, ?) where boot = ?", (ahead, this_boot()))

    # ---- records: the latest state of each keyed thing
    def put(self, *records: Keyed) -> None:
        """Keep records, replacing those of the same kind and key."""
        with self._write() as db:
            self._put(db, records)

    def replace_all(self, kind: type[R], records: Iterable[R]) -> None:
        """Make `records` the only ones of their kind, in one transaction."""
        with self._write() as db:
            db.execute("delete from records where kind = ?", (kind.__name__,))
            self._put(db, records)

    def _put(self, db: sqlite3.Connection, records: Iterable[Keyed]) -> None:
        now = self.now()
        rows = [(type(r).__name__, r.key, now, msgspec.json.encode(r).decode()) for r in records]
        db.executemany("insert or replace into records values (?, ?, ?, ?)", rows)

    def remove(self, kind: type[Keyed], key: str) -> None:
        with self._write() as db:
            db.execute("delete from records where kind = ? and key = ?", (kind.__name__, key))

    def get(self, kind: type[R], key: str) -> R | None:
        found = self._records(kind, "and key = ?", key)
        return found[0] if found else None

    def all(self, kind: type[R]) -> list[R]:
        """All records of a kind, oldest write first."""
        return self._records(kind, "order by rowid")

    def last(self, kind: type[R]) -> R | None:
        found = self._records(kind, "order by rowid desc limit 1")
        return found[0] if found else None

    def _records(self, kind: type[R], rest: str, *values: str) -> list[R]:
        rows = self._rows(f"select data from records where kind = ? {rest}", (kind.__name__, *values))
        return [decoded(data, kind, f"A record {kind.__name__} in {self.path}", LOST) for (data,) in rows]

    def _rows(self, sql: str, values: Sequence[object] = ()) -> list[Any]:
        """What a query finds."""
        with self._errors_in_words():
            return self.db.execute(sql, values).fetchall()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """A transaction: it holds the file from its first change on, and is undone where its block raises."""
        db = self.db
        with self._errors_in_words(), db:
            yield db

    def _damaged(self, words: object) -> Damaged:
        return Damaged(f"{self.path} is damaged, or not a lab's store: {words}.", next_step=LOST)

    @contextmanager
    def _errors_in_words(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise self._in_words(error) from error

    def _in_words(self, error: sqlite3.Error) -> Exception:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # without the detail in the upper bytes
        foreign = any(words in str(error) for words in ("no such table", "no such column", "has no column"))
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or foreign:
            return self._damaged(error)
        unusable = code in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY)
        if code == sqlite3.SQLITE_FULL or (unusable and self._is_full()):
            return DiskFull(f"No room left to write {self.path}.")
        if unusable:
            step = f"See that {self.path} is a file that you may write, on a disk that works."
            return LabError(f"{self.path} can't be used: {error}.", next_step=step)
        if code == sqlite3.SQLITE_BUSY:
            return LabError(f"{self.path} is held by another process: {error}.", next_step="Try again.")
        return error

    def _is_full(self) -> bool:
        try:
            return shutil.disk_usage(self.path.parent).free < ROOM_BYTES
        except OSError:
            return False
