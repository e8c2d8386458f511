"""The shop on a real PostgreSQL: the same code and the same SQL as on SQLite, from migration to search."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from devops_lab.platform import variables
from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.engines.prepared import find
from devops_lab.platform.processes import free_port
from tests.patience import until

SHOP = Path(__file__).resolve().parents[2] / "devops_lab" / "shop"
pytestmark = pytest.mark.docker
ORDER = {"lines": [{"item": 1, "quantity": 2}], "customer": "Ada"}


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """The address of a PostgreSQL in a container, without the database's name."""
    docker = Docker()
    container = docker.client.containers.run(
        find(docker, "postgres"),
        detach=True,
        labels={"devops-lab.role": "test"},
        environment={"POSTGRES_USER": "bento", "POSTGRES_PASSWORD": "secret", "POSTGRES_DB": "bento"},
        tmpfs={"/tmp": "", "/var/run/postgresql": "mode=1777"},
        ports={"5432/tcp": ("127.0.0.1", 0)},
    )
    ready = ["pg_isready", "-q", "-h", "127.0.0.1"]
    try:
        until(lambda: container.exec_run(ready).exit_code == 0, "PostgreSQL to answer", seconds=90)
        container.reload()
        (published,) = container.ports["5432/tcp"] or []
        yield f"postgresql://bento:secret@127.0.0.1:{published['HostPort']}"
    finally:
        container.remove(force=True, v=True)


@pytest.fixture
def database(server: str) -> str:
    """An empty database of its own."""
    name = f"test_{uuid.uuid4().hex[:8]}"
    sql(f"{server}/bento", f"create database {name}")
    return f"{server}/{name}"


def sql(url: str, query: str) -> list[tuple[Any, ...]]:
    import psycopg

    with psycopg.connect(url, autocommit=True) as connection:
        answer = connection.execute(query.encode())
        return answer.fetchall() if answer.description else []


def bento(source: Path, database: str, *command: str) -> tuple[list[str], dict[str, str]]:
    environment = variables.command(PYTHONPATH=str(source), DATABASE_URL=database, BENTO_RELEASE="1.0.0")
    return [sys.executable, "-m", "bento", *command], environment


def migrate(database: str, source: Path = SHOP / "template" / "src") -> subprocess.CompletedProcess[str]:
    command, environment = bento(source, database, "migrate")
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@contextmanager
def served(database: str) -> Iterator[str]:
    """A shop that serves; its address."""
    port = free_port()
    command, environment = bento(SHOP / "template" / "src", database, "serve", "--port", str(port))
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        with suppress(OSError):
            return ask(f"{url}/healthz")[0] == 200
        return False

    try:
        until(answers, "the shop to answer")
        yield url
    finally:
        process.terminate()
        assert process.wait(60) in (0, -15)


def ask(url: str, body: object = None, **headers: str) -> tuple[int, dict[str, Any]]:
    data = None if body is None else json.dumps(body).encode()
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data, named), timeout=10) as answer:
            return answer.status, json.loads(answer.read())
    except urllib.error.HTTPError as refusal:
        return refusal.code, json.loads(refusal.read())


def test_a_day_at_the_shop(database: str) -> None:
    with served(database) as url:
        status, told = ask(f"{url}/readyz")
        assert status == 503  # alive, and not ready: nobody has migrated yet
        assert "0001_menu.sql" in told["detail"]
        done = migrate(database)
        assert done.returncode == 0, done.stderr
        assert "4 applied" in done.stdout
        assert "nothing to do" in migrate(database).stdout
        assert ask(f"{url}/readyz")[0] == 200

        status, order = ask(f"{url}/api/orders", ORDER, Idempotency_Key="lunch-1")
        assert status == 201
        status, again = ask(f"{url}/api/orders", ORDER, Idempotency_Key="lunch-1")
        assert (status, again) == (200, order)
        other = {**ORDER, "customer": "Bola"}
        assert ask(f"{url}/api/orders", other, Idempotency_Key="lunch-1")[0] == 409
        assert (
            ask(f"{url}/api/orders", {"lines": [{"item": 9999, "quantity": 1}]}, Idempotency_Key="x")[0]
            == 422
        )
        assert sql(database, "select count(*) from orders") == [(1,)]

        assert ask(f"{url}/api/orders/{order['id']}")[1]["total_cents"] == order["total_cents"]
        assert [found["id"] for found in ask(f"{url}/api/orders?key=lunch-1")[1]["orders"]] == [order["id"]]
        assert ask(f"{url}/api/orders/unknown")[0] == 404
        assert len(ask(f"{url}/api/menu")[1]["items"]) > 10
        found = ask(f"{url}/api/search?q=teryaki+samon")[1]["results"]
        assert "almon" in found[0]["name"]


def test_orders_that_arrive_at_once_are_taken_once(database: str) -> None:
    from concurrent.futures import ThreadPoolExecutor

    migrate(database)
    with served(database) as url, ThreadPoolExecutor(8) as customers:
        answers = list(
            customers.map(lambda _: ask(f"{url}/api/orders", ORDER, Idempotency_Key="one"), range(24))
        )
    assert sorted(status for status, _ in answers) == [200] * 23 + [201]
    assert len({order["id"] for _, order in answers}) == 1
    assert sql(database, "select count(*), sum(quantity) from order_lines") == [(1, 2)]


def test_a_broken_migration_leaves_schema_and_orders_as_they_were(database: str, tmp_path: Path) -> None:
    migrate(database)
    with served(database) as url:  # two orders of one customer are what the migration trips over
        for key in ("kept", "kept as well"):
            assert ask(f"{url}/api/orders", ORDER, Idempotency_Key=key)[0] == 201
    schema = "select table_name, column_name, data_type from information_schema.columns"
    schema += " where table_schema = 'public' order by 1, 2"
    before = sql(database, schema)
    shutil.copytree(SHOP / "template", tmp_path / "shop")
    patch = SHOP / "changes" / "broken-migration.patch"
    subprocess.run(["git", "apply", str(patch)], cwd=tmp_path / "shop", check=True)
    done = migrate(database, tmp_path / "shop" / "src")
    assert done.returncode == 1
    assert "0008_order_numbers.sql failed: duplicate key" in done.stderr
    assert "The database was left unchanged" in done.stderr
    assert sql(database, schema) == before
    with served(database) as url:  # the release that ran before goes on
        assert ask(f"{url}/readyz")[0] == 200
        assert len(ask(f"{url}/api/orders?key=kept")[1]["orders"]) == 1
