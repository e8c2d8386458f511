"""All the SQL of the lab: records, events, samples, log lines, customers' requests, and the trail.

One SQLite file a lab in WAL mode: the agent, the notebook and the load write to it side by side. Several
threads may share a Store; each gets a connection of its own.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from devops_lab import logbook
from devops_lab.errors import DiskFull, NotALab
from devops_lab.logbook import Logbook
from devops_lab.model import Event


class Keyed(Protocol):
    @property
    def key(self) -> str: ...


R = TypeVar("R", bound=Keyed)

SCHEMA = """
create table if not exists records (kind text, key text, t real, data text, primary key (kind, key));
create table if not exists events (id integer primary key, t real, phase text, kind text, subject text,
  message text, who text, why text, data text);
create index if not exists events_t on events (t);
create index if not exists events_kind on events (kind, t);
create table if not exists trail (child text, relation text, parent text, t real,
  primary key (child, relation, parent));
create index if not exists trail_parent on trail (parent);
create table if not exists series (id integer primary key, metric text, replica text, release text,
  endpoint text, unique (metric, replica, release, endpoint));
create table if not exists samples (series integer, t real, value real,
  primary key (series, t)) without rowid;
"""
MOST_LINES = 1_000_000  # log lines, and requests, that are kept at most


class Store(Logbook):
    """The lab's memory.

    Args:
        path: the SQLite file; made, with its tables, when it does not exist.

    Raises:
        NotALab: the file is not an SQLite database.
        DiskFull: there is no room to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._local = threading.local()
        self._series: dict[tuple[str, str, str, str], int] = {}
        try:
            with self._write() as db:
                db.executescript(SCHEMA + logbook.SCHEMA)
                if not self.has_words():
                    db.execute("begin immediate")  # several may open a new lab at the same moment
                    self.index_words(db)
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError):
                raise
            raise NotALab(f"{path} is not a lab's store: {error}", next_step=f"Move {path} away.") from error

    @property
    def db(self) -> sqlite3.Connection:
        """This thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is None:
            found = sqlite3.connect(self.path, timeout=15, isolation_level=None)
            found.execute("pragma journal_mode = wal")
            found.execute("pragma synchronous = normal")
            self._local.db = found
        return found

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        db = self.db
        try:
            db.execute("begin immediate")
            yield db
            if db.in_transaction:
                db.execute("commit")
        except sqlite3.OperationalError as error:
            if db.in_transaction:
                db.execute("rollback")
            if "full" in str(error):
                raise DiskFull(f"No room left to write {self.path}.") from error
            raise
        except BaseException:
            if db.in_transaction:
                db.execute("rollback")
            raise

    def close(self) -> None:
        """Close this thread's connection."""
        found: sqlite3.Connection | None = getattr(self._local, "db", None)
        if found is not None:
            found.close()
            self._local.db = None

    # ---- records: the latest state of each keyed thing
    def put(self, *records: Keyed) -> None:
        """Keep records, replacing those of the same kind and key."""
        rows = [(type(r).__name__, r.key, time.time(), msgspec.json.encode(r).decode()) for r in records]
        with self._write() as db:
            db.executemany("insert or replace into records values (?, ?, ?, ?)", rows)

    def replace_all(self, kind: type[R], records: Iterable[R]) -> None:
        """Make `records` the only ones of their kind, in one transaction."""
        rows = [(kind.__name__, r.key, time.time(), msgspec.json.encode(r).decode()) for r in records]
        with self._write() as db:
            db.execute("delete from records where kind = ?", (kind.__name__,))
            db.executemany("insert into records values (?, ?, ?, ?)", rows)

    def remove(self, kind: type[Keyed], key: str) -> None:
        with self._write() as db:
            db.execute("delete from records where kind = ? and key = ?", (kind.__name__, key))

    def get(self, kind: type[R], key: str) -> R | None:
        row = self.db.execute(
            "select data from records where kind = ? and key = ?", (kind.__name__, key)
        ).fetchone()
        return msgspec.json.decode(row[0], type=kind) if row else None

    def all(self, kind: type[R]) -> list[R]:
        """All records of a kind, oldest write first."""
        rows = self.db.execute("select data from records where kind = ? order by t, key", (kind.__name__,))
        return [msgspec.json.decode(row[0], type=kind) for row in rows.fetchall()]

    def last(self, kind: type[R]) -> R | None:
        row = self.db.execute(
            "select data from records where kind = ? order by t desc, key desc limit 1", (kind.__name__,)
        ).fetchone()
        return msgspec.json.decode(row[0], type=kind) if row else None

    # ---- events and the trail
    def event(
        self,
        phase: str,
        kind: str,
        subject: str,
        message: str = "",
        *,
        who: str = "",
        why: str = "",
        **data: Any,
    ) -> Event:
        """Record that something happened, and return it with its number."""
        now = time.time()
        with self._write() as db:
            number = db.execute(
                "insert into events (t, phase, kind, subject, message, who, why, data)"
                " values (?, ?, ?, ?, ?, ?, ?, ?)",
                (now, phase, kind, subject, message, who, why, msgspec.json.encode(data).decode()),
            ).lastrowid
        return Event(now, phase, kind, subject, message, who, why, data, number or 0)

    def events(
        self,
        *,
        kind: str = "",
        phase: str = "",
        subject: str = "",
        since: float = 0.0,
        after_id: int = 0,
        limit: int = 1000,
    ) -> list[Event]:
        """The newest `limit` events that match, oldest first; `kind` may end in `*`."""
        where, values = ["t >= ?", "id > ?"], [since, after_id]  # type: list[str], list[Any]
        for column, wanted in (("kind", kind), ("phase", phase), ("subject", subject)):
            if wanted:
                where.append(f"{column} glob ?")
                values.append(wanted)
        rows = self.db.execute(
            "select t, phase, kind, subject, message, who, why, data, id from events "
            f"where {' and '.join(where)} order by id desc limit ?",
            (*values, limit),
        ).fetchall()
        return [Event(*(*row[:7], msgspec.json.decode(row[7]), row[8])) for row in reversed(rows)]

    def link(self, child: str, relation: str, parent: str) -> None:
        """Say where something comes from, e.g. link("release:1.1.0", "made from", "artifact:sha256:…")."""
        with self._write() as db:
            db.execute(
                "insert or ignore into trail values (?, ?, ?, ?)", (child, relation, parent, time.time())
            )

    def trail(self, subject: str) -> list[tuple[str, str, str, float]]:
        """Everything that `subject` comes from, nearest first: (child, relation, parent, time)."""
        return self.db.execute(
            """with recursive up(child, relation, parent, t, depth) as (
                 select child, relation, parent, t, 0 from trail where child = ?
                 union select trail.child, trail.relation, trail.parent, trail.t, depth + 1
                 from trail join up on trail.child = up.parent where depth < 20)
               select child, relation, parent, t from up
               group by child, relation, parent order by min(depth), t""",
            (subject,),
        ).fetchall()

    # ---- samples
    def add_samples(self, rows: Iterable[tuple[float, str, str, str, str, float]]) -> None:
        """Keep measurements: rows of (t, metric, replica, release, endpoint, value)."""
        with self._write() as db:
            ready = [(self._series_id(db, (m, r, v, e)), t, value) for t, m, r, v, e, value in rows]
            db.executemany("insert or replace into samples values (?, ?, ?)", ready)

    def _series_id(self, db: sqlite3.Connection, key: tuple[str, str, str, str]) -> int:
        if key not in self._series:
            db.execute(
                "insert or ignore into series (metric, replica, release, endpoint) values (?, ?, ?, ?)", key
            )
            self._series[key] = db.execute(
                "select id from series where metric = ? and replica = ? and release = ? and endpoint = ?", key
            ).fetchone()[0]
        return self._series[key]

    def samples(
        self, metric: str, *, since: float = 0.0, until: float = 1e12, replica: str = "", endpoint: str = ""
    ) -> list[tuple[float, str, str, str, float]]:
        """Measurements of one metric in a window, oldest first: (t, replica, release, endpoint, value)."""
        return self.db.execute(
            """select samples.t, replica, release, endpoint, value
               from series join samples on samples.series = series.id
               where metric = ? and samples.t between ? and ?
                 and (? = '' or replica = ?) and (? = '' or endpoint = ?)
               order by samples.t""",
            (metric, since, until, replica, replica, endpoint, endpoint),
        ).fetchall()

    def totals(self, metric: str, since: float, until: float) -> dict[tuple[str, str], float]:
        """Sums over replicas and a window's seconds, by (metric, endpoint); `metric` may end in `*`."""
        rows = self.db.execute(
            """select metric, endpoint, sum(value) from series join samples on samples.series = series.id
               where metric glob ? and samples.t between ? and ? group by metric, endpoint""",
            (metric, since, until),
        )
        return {(name, endpoint): total for name, endpoint, total in rows}

    def curve(
        self, metric: str, since: float, until: float, endpoint: str = "", how: str = "sum", points: int = 400
    ) -> list[tuple[float, float]]:
        """One line of a figure: replicas put together in each second, seconds in each of some hundred steps.

        Args:
            metric, endpoint: of the samples; endpoint "" is what was kept for all together.
            since, until: POSIX seconds.
            how: "sum" of the replicas, then the mean of the seconds; or "max" of both.
            points: at most about so many, however long the window: no screen shows more.
        """
        over = {"sum": "avg", "max": "max"}[how]
        step = max(-(-(until - since) // points), 1)
        rows = self.db.execute(
            f"""select min(second), {over}(value) from (
                  select second, {how}(value) as value from (
                    select cast(samples.t + 0.01 as int) as second, series, avg(value) as value
                    from series join samples on samples.series = series.id
                    where metric = ? and endpoint = ? and samples.t between ? and ? group by second, series)
                  group by second)
                group by cast((second - ?) / ? as int) order by 1""",
            (metric, endpoint, since, until, int(since), step),
        )
        return [(float(second), value) for second, value in rows]

    def forget(self, before: float, most: int = MOST_LINES) -> None:
        """Drop samples, log lines and requests older than `before`; records, events and the trail stay.

        Args:
            before: POSIX seconds.
            most: log lines and requests that stay at most, however young: a flood may not fill the disk.
        """
        with self._write() as db:
            db.execute("delete from samples where series in (select id from series) and t < ?", (before,))
            db.execute(
                """delete from series where not exists
                   (select 1 from samples where samples.series = series.id)"""
            )
            for table in ("logs", "requests"):
                db.execute(f"delete from {table} where t < ?", (before,))
                db.execute(f"delete from {table} where id <= (select max(id) from {table}) - ?", (most,))
        self._series.clear()  # one that was dropped may come again
