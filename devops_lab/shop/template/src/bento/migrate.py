"""Migrations: numbered .sql files, each applied once, all pending ones in one transaction.

Rule for their authors: expand, then contract. The release that runs now must go on working on the new schema,
so a migration adds tables, and columns with defaults; what is no longer used is dropped one release later.
"""

import sqlite3
from collections.abc import Iterator
from importlib import resources

from bento.database import Database

LEDGER = """CREATE TABLE IF NOT EXISTS migrations (
    name TEXT PRIMARY KEY, applied_at TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP)"""


class MigrationError(Exception):
    """A migration failed; the database is as it was before."""


def files() -> dict[str, str]:
    """The migrations of this release: name to SQL, in order."""
    folder = resources.files("bento") / "migrations"
    found = sorted(
        (each for each in folder.iterdir() if each.name.endswith(".sql")), key=lambda each: each.name
    )
    return {each.name: each.read_text("utf-8") for each in found}


def statements(sql: str) -> Iterator[str]:
    """Split a file into its statements (a `;` at the end of a line may end one)."""
    statement = ""
    for line in sql.splitlines(keepends=True):
        if not statement.strip() and (line.startswith("--") or not line.strip()):
            continue
        statement += line
        if line.rstrip().endswith(";") and sqlite3.complete_statement(statement):
            yield statement.strip()
            statement = ""
    if statement.strip():
        yield statement.strip()


def pending(database: Database) -> list[str]:
    """Names of this release's migrations that the database doesn't have yet.

    A database that is *ahead* is fine: during a rollout the old release runs on the new schema.
    """
    if database.is_sqlite:
        known = "SELECT name FROM sqlite_master WHERE type = 'table' AND name = 'migrations'"
    else:
        known = "SELECT 1 FROM pg_tables WHERE schemaname = current_schema() AND tablename = 'migrations'"
    if not database.rows(known):
        return list(NAMES)
    applied = {row["name"] for row in database.rows("SELECT name FROM migrations")}
    return [name for name in NAMES if name not in applied]


def migrate(url: str) -> list[str]:
    """Apply what is pending; all of it or nothing. Returns the names applied."""
    database = Database(url)
    name = "connect"
    sql = files()
    try:
        with database.transaction():
            if not database.is_sqlite:  # one migration at a time; SQLite's write lock does that already
                database.execute("SELECT pg_advisory_xact_lock(2610)")
            database.execute(LEDGER)
            todo = pending(database)
            for name in todo:
                for statement in statements(sql[name]):
                    database.execute(statement)
                database.execute("INSERT INTO migrations (name) VALUES (:name)", {"name": name})
        return todo
    except Exception as error:
        if not isinstance(error, sqlite3.Error) and not type(error).__module__.startswith("psycopg"):
            raise
        raise MigrationError(f"migration {name} failed: {error}. The database was left unchanged.") from error
    finally:
        database.close()


NAMES = tuple(files())
