"""The lab's memory: records, events, the trail, samples, log lines, and customers' requests.

One SQLite file a lab: the agent, the notebook and the load write to it side by side. Words of log lines are
found by SQLite's full-text index (FTS5) where this Python's SQLite has one, else by looking at each line.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from dataclasses import fields, replace
from operator import attrgetter
from pathlib import Path
from typing import Any

import msgspec

from devops_lab.model import Event, EventKind, EventPattern, LogLine, Request
from devops_lab.platform import database
from devops_lab.platform.clock import steady, this_boot
from devops_lab.platform.database import LOST, Database
from devops_lab.platform.records import decoded

SCHEMA = """
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
create index if not exists requests_request on requests (request_id) where request_id != '';
"""
WORDS = (
    "create virtual table logs_words using fts5 (message, extra, content = 'logs', content_rowid = 'id')",
    """create trigger logs_added after insert on logs begin
         insert into logs_words (rowid, message, extra) values (new.id, new.message, new.extra); end""",
    """create trigger logs_dropped after delete on logs begin
         insert into logs_words (logs_words, rowid, message, extra)
         values ('delete', old.id, old.message, old.extra); end""",
    "insert into logs_words (logs_words) values ('rebuild')",
)
LOG_COLUMNS, REQUEST_COLUMNS = ([column.name for column in fields(kind)] for kind in (LogLine, Request))
MOST_LINES = 1_000_000  # log lines, and requests, that are kept at most
# lines: replicas' logs are taken in one after the other, so ids follow time only roughly
OUT_OF_ORDER = 20_000
ALWAYS = 1e12  # POSIX seconds; later than all that is recorded


class Store(Database):
    """The lab's memory.

    Args:
        path: the SQLite file; made, with its tables, when it does not exist.

    Raises:
        Damaged: the file is not an SQLite database, or not all of it is.
        DiskFull: there is no room to write.
        LabError: it can't be opened, or written.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._series: dict[tuple[str, str, str, str], int] = {}
        with self._write() as db:
            db.executescript(database.SCHEMA + SCHEMA)
            db.execute(
                "insert or ignore into clock select ?, max(?, coalesce(max(t), 0)) - ? from events",
                (this_boot(), time.time(), steady()),
            )  # holds the file from here on: several may open a new lab at the same moment
            self.index_words(db)

    # ---- events and the trail
    def event(
        self,
        phase: str,
        kind: EventKind,
        subject: str,
        message: str = "",
        *,
        who: str = "",
        why: str = "",
        **data: Any,
    ) -> Event:
        """Record that something happened, and return it with its number."""
        return self.add_event(Event(self.now(), phase, kind, subject, message, who, why, data))

    def add_event(self, event: Event) -> Event:
        """Record something that happened earlier, and return it with its number."""
        e, data = event, msgspec.json.encode(event.data).decode()
        with self._write() as db:
            number = db.execute(
                "insert into events (t, phase, kind, subject, message, who, why, data)"
                " values (?, ?, ?, ?, ?, ?, ?, ?)",
                (e.t, e.phase, e.kind, e.subject, e.message, e.who, e.why, data),
            ).lastrowid
        return replace(event, id=number or 0)

    def events(
        self,
        *,
        kind: EventKind | EventPattern | None = None,
        subject: str = "",
        since: float = 0.0,
        after_id: int = 0,
        limit: int = 1000,
    ) -> list[Event]:
        """The newest `limit` events that match, oldest first; `kind` and `subject` may end in `*`."""
        rows = self._rows(
            """select t, phase, kind, subject, message, who, why, data, id from events
               where kind glob ? and subject glob ? and t >= ? and id > ? order by id desc limit ?""",
            (kind or "*", subject or "*", since, after_id, limit),
        )
        place = f"An event in {self.path}"
        return [Event(*(*row[:7], decoded(row[7], dict, place, LOST), row[8])) for row in reversed(rows)]

    def link(self, child: str, relation: str, parent: str) -> None:
        """Say where something comes from, e.g. link("release:1.1.0", "made from", "artifact:sha256:…")."""
        row = child, relation, parent, self.now()
        with self._write() as db:
            db.execute("insert or ignore into trail values (?, ?, ?, ?)", row)

    def trail(self, subject: str) -> list[tuple[str, str, str, float]]:
        """Everything that `subject` comes from, nearest first: (child, relation, parent, time)."""
        return self._rows(
            """with recursive up(child, relation, parent, t, depth) as (
                 select child, relation, parent, t, 0 from trail where child = ?
                 union select trail.child, trail.relation, trail.parent, trail.t, depth + 1
                 from trail join up on trail.child = up.parent where depth < 20)
               select child, relation, parent, t from up
               group by child, relation, parent order by min(depth), t""",
            (subject,),
        )

    # ---- samples
    def add_samples(self, rows: Iterable[tuple[float, str, str, str, str, float]]) -> None:
        """Keep measurements: rows of (t, metric, replica, release, endpoint, value)."""
        with self._write() as db:
            ready = [(self._series_id(db, (m, r, v, e)), t, value) for t, m, r, v, e, value in rows]
            db.executemany("insert or replace into samples values (?, ?, ?)", ready)

    def _series_id(self, db: sqlite3.Connection, key: tuple[str, str, str, str]) -> int:
        if key not in self._series:
            columns = "(metric, replica, release, endpoint)"
            db.execute(f"insert or ignore into series {columns} values (?, ?, ?, ?)", key)
            found = db.execute(f"select id from series where {columns} = (?, ?, ?, ?)", key)
            self._series[key] = found.fetchone()[0]
        return self._series[key]

    def samples(
        self, metric: str, *, since: float = 0.0, until: float = ALWAYS, endpoint: str = ""
    ) -> list[tuple[float, str, str, str, float]]:
        """Measurements of one metric in a window, oldest first: (t, replica, release, endpoint, value)."""
        return self._rows(
            """select samples.t, replica, release, endpoint, value
               from series join samples on samples.series = series.id
               where metric = ? and samples.t between ? and ? and (? = '' or endpoint = ?)
               order by samples.t""",
            (metric, since, until, endpoint, endpoint),
        )

    def totals(self, metric: str, since: float, until: float) -> dict[tuple[str, str], float]:
        """Sums over replicas and a window's seconds, by (metric, endpoint); `metric` may end in `*`."""
        rows = self._rows(
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
        rows = self._rows(
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

    # ---- log lines
    def index_words(self, db: sqlite3.Connection) -> None:
        """Make the full-text index where there is none yet and this SQLite can."""
        if self.has_words():
            return
        try:
            for statement in WORDS:
                db.execute(statement)
        except sqlite3.OperationalError as error:
            if "no such module: fts5" not in str(error):
                raise

    def has_words(self) -> bool:
        return bool(self._rows("select 1 from sqlite_master where name = 'logs_words'"))

    def add_logs(self, lines: Iterable[LogLine]) -> None:
        plain = attrgetter(*LOG_COLUMNS[:-1])
        rows = [(*plain(x), msgspec.json.encode(x.extra).decode() if x.extra else "") for x in lines]
        self._add("logs", LOG_COLUMNS, rows)

    def _add(self, table: str, columns: list[str], rows: Iterable[Any]) -> None:
        places = ", ".join("?" * len(columns))
        with self._write() as db:
            db.executemany(f"insert into {table} ({', '.join(columns)}) values ({places})", rows)

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
        until: float = ALWAYS,
        limit: int = 100,
    ) -> list[LogLine]:
        """The newest `limit` log lines that match, newest first; `text` is a part of the message."""
        exactly = {"level": level, "endpoint": endpoint, "request_id": request_id, "release": release}
        wanted = {column: value for column, value in (exactly | {"replica": replica}).items() if value}
        rows = self._rows(
            f"""select {", ".join(LOG_COLUMNS)} from logs
                where t between ? and ? and (? = '' or instr(lower(message), lower(?)) > 0)
                {" ".join(f"and {column} = ?" for column in wanted)} order by t desc, id desc limit ?""",
            (since, until, text, text, *wanted.values(), limit),
        )
        return [_line(row) for row in rows]

    def search(
        self, words: str, *, since: float = 0.0, until: float = ALWAYS, limit: int = 100
    ) -> list[tuple[LogLine, Request | None]]:
        """The newest log lines that hold all words, each with the customer's side of the same request.

        Args:
            words: in any order and case; `order*` finds what begins so. All else stands for itself.
            since, until: POSIX seconds.
            limit: of lines.
        """
        asked = words.split()
        if not asked:
            return []
        if self.has_words():
            plain = [(word.rstrip("*").replace('"', " "), word.endswith("*")) for word in asked]
            first = "coalesce((select id from logs where t >= ? order by t limit 1), 0)"
            source = f"logs_words join logs on logs.id = logs_words.rowid and logs_words.rowid > {first} - ?"
            match, order = "logs_words match ?", "logs_words.rowid"
            values: list[Any] = [since, OUT_OF_ORDER, " ".join(f'"{w}"{"*" * more}' for w, more in plain)]
        else:
            source, order, values = "logs", "logs.id", [word.rstrip("*") for word in asked]
            match = " and ".join(["instr(lower(logs.message || logs.extra), lower(?)) > 0"] * len(asked))
        columns = [*(f"logs.{name}" for name in LOG_COLUMNS), *(f"requests.{n}" for n in REQUEST_COLUMNS)]
        rows = self._rows(
            f"""select {", ".join(columns)} from {source} left join requests on requests.id =
                  (select max(id) from requests where request_id != '' and request_id = logs.request_id)
                where {match} and logs.t between ? and ? order by {order} desc limit ?""",
            (*values, since, until, limit),
        )
        return [(_line(row[:10]), Request(*row[10:]) if row[10] is not None else None) for row in rows]

    # ---- customers' requests
    def add_requests(self, outcomes: Iterable[Request]) -> None:
        self._add("requests", REQUEST_COLUMNS, map(attrgetter(*REQUEST_COLUMNS), outcomes))

    def requests(
        self, *, run: str = "", since: float = 0.0, until: float = ALWAYS, limit: int = 1_000_000
    ) -> list[Request]:
        """Customers' requests in a window, oldest first."""
        rows = self._rows(
            f"""select {", ".join(REQUEST_COLUMNS)} from requests
                where t between ? and ? and (? = '' or run = ?) order by t limit ?""",
            (since, until, run, run, limit),
        )
        return [Request(*row) for row in rows]

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


def _line(row: tuple[Any, ...]) -> LogLine:
    return LogLine(*(*row[:9], decoded(row[9], dict, "A log line in lab.db") if row[9] else {}))
