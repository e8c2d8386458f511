"""Migrations: once each, all or nothing, and forgiving to a release that is older than the schema."""

import pytest

from bento import migrate
from bento.__main__ import main
from bento.database import Database


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path / 'new.db'}"


def tables(url):
    database = Database(url)
    found = {row["name"] for row in database.rows("SELECT name FROM sqlite_master WHERE type = 'table'")}
    database.close()
    return found


def test_a_new_database_gets_the_whole_schema_once(url):
    assert migrate.migrate(url) == list(migrate.NAMES)
    assert {"items", "orders", "order_lines", "migrations"} <= tables(url)
    assert migrate.migrate(url) == []


def test_a_failing_migration_changes_nothing(url, monkeypatch):
    bad = {"0001_good.sql": "CREATE TABLE good (id INTEGER);"}
    bad["0002_bad.sql"] = "CREATE TABLE half (id INTEGER);\nOOPS;"
    monkeypatch.setattr(migrate, "files", lambda: bad)
    monkeypatch.setattr(migrate, "NAMES", tuple(bad))
    with pytest.raises(migrate.MigrationError, match=r"0002_bad.sql failed.*left unchanged"):
        migrate.migrate(url)
    assert tables(url) == set()


def test_the_command_says_what_failed_and_exits_with_1(url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", url)
    monkeypatch.setattr(migrate, "files", lambda: dict.fromkeys(migrate.NAMES, "OOPS;"))
    assert main(["migrate"]) == 1
    assert "0001_menu.sql failed" in capsys.readouterr().err


def test_the_command_says_what_it_did(url, monkeypatch, capsys):
    monkeypatch.setenv("DATABASE_URL", url)
    assert main(["migrate"]) == 0
    assert capsys.readouterr().out.startswith(f"migrate: {len(migrate.NAMES)} applied")


def test_a_file_is_split_into_statements():
    sql = "-- a; b;\nCREATE TABLE a (\n  b TEXT DEFAULT ';'\n);\n\n-- next\nINSERT INTO a VALUES ('x;\ny');\n"
    assert list(migrate.statements(sql)) == [
        "CREATE TABLE a (\n  b TEXT DEFAULT ';'\n);",
        "INSERT INTO a VALUES ('x;\ny');",
    ]


def test_a_database_that_is_ahead_is_fine(database):
    database.execute("INSERT INTO migrations (name) VALUES ('9999_from_the_future.sql')")
    assert migrate.pending(database) == []
