"""The store's log lines: kept, filtered, searched by words, and joined to what customers saw.

Words are found by SQLite's full-text index (FTS5) where this Python's SQLite has one, else by looking at each
line of the window.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from contextlib import AbstractContextManager
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import msgspec

from devops_lab.model import LogLine, Outcome

SCHEMA = """
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
LOG_COLUMNS = "t, level, message, replica, release, endpoint, request_id, status, seconds, extra"
REQUEST_COLUMNS = "t, endpoint, status, seconds, release, run, session, request_id, error, order_key"
OUT_OF_ORDER = (
    20_000  # lines: replicas' logs are taken in one after the other, so ids follow time only roughly
)


class Logbook:
    """The part of a Store that keeps log lines and customers' requests."""

    if TYPE_CHECKING:

        @property
        def db(self) -> sqlite3.Connection: ...

        def _write(self) -> AbstractContextManager[sqlite3.Connection]: ...

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
        return bool(self.db.execute("select 1 from sqlite_master where name = 'logs_words'").fetchone())

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
        return [_line(row) for row in rows]

    def search(
        self, words: str, *, since: float = 0.0, until: float = 1e12, limit: int = 100
    ) -> list[tuple[LogLine, Outcome | None]]:
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
            quoted = [
                f'"{word.rstrip("*").replace(chr(34), " ")}"{"*" * word.endswith("*")}' for word in asked
            ]
            first = "coalesce((select id from logs where t >= ? order by t limit 1), 0)"
            source = f"logs_words join logs on logs.id = logs_words.rowid and logs_words.rowid > {first} - ?"
            match, values = "logs_words match ?", [since, OUT_OF_ORDER, " ".join(quoted)]  # type: str, list[Any]
            order = "logs_words.rowid desc"
        else:
            source, order, values = "logs", "logs.id desc", [word.rstrip("*") for word in asked]
            match = " and ".join(["instr(lower(logs.message || logs.extra), lower(?)) > 0"] * len(asked))
        logged = ", ".join(f"logs.{name}" for name in LOG_COLUMNS.split(", "))
        seen = ", ".join(f"requests.{name}" for name in REQUEST_COLUMNS.split(", "))
        rows = self.db.execute(
            f"""select {logged}, {seen} from {source} left join requests on requests.id =
                  (select max(id) from requests where request_id != '' and request_id = logs.request_id)
                where {match} and logs.t between ? and ? order by {order} limit ?""",
            (*values, since, until, limit),
        ).fetchall()
        return [(_line(row[:10]), Outcome(*row[10:]) if row[10] is not None else None) for row in rows]

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


def _line(row: tuple[Any, ...]) -> LogLine:
    return LogLine(*(*row[:9], msgspec.json.decode(row[9]) if row[9] else {}))
