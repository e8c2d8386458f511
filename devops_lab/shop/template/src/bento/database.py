"""One small door to the database: SQLite by default, PostgreSQL by its URL.

SQL is written once with `:name` parameters. Each thread has a connection of its own; a transaction takes
the write lock at its start (BEGIN IMMEDIATE), so that replicas wait for each other and don't fail half way.
"""

import re
import sqlite3
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

LOCK_SECONDS = 10


@lru_cache(maxsize=256)
def _for_psycopg(sql: str) -> str:
    return re.sub(r"(?<!:):([a-z_]+)", r"%(\1)s", sql)


class Database:
    """Connections to the one database that all replicas share."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.is_sqlite = url.startswith("sqlite")
        self._local = threading.local()
        self._all: list[Any] = []

    def _open(self) -> Any:
        if not self.is_sqlite:
            import psycopg
            from psycopg.rows import dict_row

            return psycopg.connect(
                self.url, autocommit=True, row_factory=dict_row, connect_timeout=LOCK_SECONDS
            )
        connection = sqlite3.connect(
            self.url.removeprefix("sqlite:///"),
            timeout=LOCK_SECONDS,
            isolation_level=None,
            check_same_thread=False,  # close() comes from the main thread
            cached_statements=32,
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        connection.execute("PRAGMA cache_size=-256")
        return connection

    def connection(self) -> Any:
        """This thread's connection, opened at first use."""
        connection = getattr(self._local, "connection", None)
        if connection is None or getattr(connection, "broken", False):
            connection = self._local.connection = self._open()
            self._all.append(connection)
        return connection

    def execute(self, sql: str, parameters: Mapping[str, Any] | None = None) -> Any:
        """Run one statement on this thread's connection and return its cursor."""
        if self.is_sqlite:
            return self.connection().execute(sql, parameters or {})
        return self.connection().execute(_for_psycopg(sql), parameters or {})

    def rows(self, sql: str, parameters: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
        """All rows of a query as dictionaries."""
        return [dict(row) for row in self.execute(sql, parameters).fetchall()]

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing for what is executed inside."""
        self.execute("BEGIN IMMEDIATE" if self.is_sqlite else "BEGIN")
        try:
            yield
        except BaseException:
            self.execute("ROLLBACK")
            raise
        self.execute("COMMIT")

    def close(self) -> None:
        """Close the connections of all threads."""
        while self._all:
            self._all.pop().close()
        self._local = threading.local()
