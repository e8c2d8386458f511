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
from operator import attrgetter
from pathlib import Path
from typing import Any, Protocol, TypeVar

import msgspec

from devops_lab.errors import DiskFull, NotALab
from devops_lab.model import Event, LogLine, Outcome


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
create table if not exists logs (id integer primary key, t real, level text, message text,
  replica text, release text, endpoint text, request_id text, status integer, seconds real, extra text);
create index if not exists logs_t on logs (t);
create index if not exists logs_request on logs (request_id);
create index if not exists logs_level on logs (level, t);
create table if not exists requests (id integer primary key, t real, endpoint text, status integer,
  seconds real, release text, run text, session text, request_id text, error text, order_key text);
create index if not exists requests_t on requests (t);
create index if not exists requests_run on requests (run, t);
"""
LOG_COLUMNS = "t, level, message, replica, release, endpoint, request_id, status, seconds, extra"
REQUEST_COLUMNS = "t, endpoint, status, seconds, release, run, session, request_id, error, order_key"


class Store:
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
                db.executescript(SCHEMA)
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
                raise DiskFull(
                    f"No room left to write {self.path}.",
                    expected="some free megabytes",
                    next_step="Free some space (`devops-lab clean` removes a lab), then try again.",
                ) from error
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

    # ---- log lines
    def add_logs(self, lines: Iterable[LogLine]) -> None:
        rows = [
            (x.t, x.level, x.message, x.replica, x.release, x.endpoint, x.request_id, x.status, x.seconds,
             msgspec.json.encode(x.extra).decode() if x.extra else "")
            for x in lines
        ]  # fmt: skip
        with self._write() as db:
            db.executemany(f"insert into logs ({LOG_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def logs(
        self,
        *,
        level: str = "",
        endpoint: str = "",
        request_id: str = "",
        release: str = "",
        replica: str = "",
        text: str = "",
        since: float = 0.0,
        until: float = 1e12,
        limit: int = 100,
    ) -> list[LogLine]:
        """The newest `limit` log lines that match, newest first; `text` is a part of the message."""
        where, values = ["t between ? and ?"], [since, until]  # type: list[str], list[Any]
        wanted = {
            "level": level,
            "endpoint": endpoint,
            "request_id": request_id,
            "release": release,
            "replica": replica,
        }
        for column, value in wanted.items():
            if value:
                where.append(f"{column} = ?")
                values.append(value)
        if text:
            where.append("instr(lower(message), lower(?)) > 0")
            values.append(text)
        rows = self.db.execute(
            f"select {LOG_COLUMNS} from logs where {' and '.join(where)} order by t desc, id desc limit ?",
            (*values, limit),
        ).fetchall()
        return [LogLine(*(*row[:9], msgspec.json.decode(row[9]) if row[9] else {})) for row in rows]

    # ---- customers' requests
    def add_requests(self, outcomes: Iterable[Outcome]) -> None:
        rows = map(attrgetter(*REQUEST_COLUMNS.split(", ")), outcomes)
        with self._write() as db:
            db.executemany(
                f"insert into requests ({REQUEST_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", rows
            )

    def requests(
        self,
        *,
        run: str = "",
        endpoint: str = "",
        since: float = 0.0,
        until: float = 1e12,
        limit: int = 1_000_000,
    ) -> list[Outcome]:
        """Customers' requests in a window, oldest first."""
        rows = self.db.execute(
            f"""select {REQUEST_COLUMNS} from requests where t between ? and ? and (? = '' or run = ?)
                and (? = '' or endpoint = ?) order by t limit ?""",
            (since, until, run, run, endpoint, endpoint, limit),
        ).fetchall()
        return [Outcome(*row) for row in rows]

    def forget(self, before: float) -> None:
        """Drop samples, log lines and requests older than `before`; records, events and the trail stay."""
        with self._write() as db:
            for table in ("samples", "logs", "requests"):
                db.execute(f"delete from {table} where t < ?", (before,))
