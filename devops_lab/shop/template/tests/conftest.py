"""What the tests share. They run against the installed package: an import from the source tree would hide a
broken wheel.
"""

import asyncio
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from bento import migrate
from bento.app import create_app
from bento.config import Config
from bento.database import Database
from bento.orders import Orders


@dataclass(frozen=True)
class Answer:
    """What the application answered."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Shop:
    """Calls the ASGI application in this process: no socket, no server."""

    def __init__(self, config: Config, runner: asyncio.Runner) -> None:
        self.config = config
        self.app = create_app(config)
        self.runner = runner

    def call(self, method: str, url: str, body: bytes = b"", headers: dict[str, str] | None = None) -> Answer:
        return self.runner.run(self._call(method, url, body, headers or {}))

    def get(self, url: str, headers: dict[str, str] | None = None) -> Answer:
        return self.call("GET", url, headers=headers)

    def order(self, lines: list[dict[str, Any]], key: str = "key-1", **more: Any) -> Answer:
        return self.call(
            "POST", "/api/orders", json.dumps({"lines": lines, **more}).encode(), {"Idempotency-Key": key}
        )

    async def _call(self, method: str, url: str, body: bytes, headers: dict[str, str]) -> Answer:
        parts = urlsplit(url)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
            "client": ("127.0.0.1", 1),
            "server": ("shop", 80),
        }
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body, "more_body": False}

        async def send(message: Any) -> None:
            sent.append(message)

        await self.app(scope, receive, send)
        start = next(message for message in sent if message["type"] == "http.response.start")
        content = b"".join(
            message.get("body", b"") for message in sent if message["type"] == "http.response.body"
        )
        return Answer(start["status"], {k.decode(): v.decode() for k, v in start["headers"]}, content)


@pytest.fixture(scope="session")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as running:
        yield running


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated database, to be copied."""
    path = tmp_path_factory.mktemp("migrated") / "bento.db"
    migrate.migrate(f"sqlite:///{path}")
    return path


@pytest.fixture
def database(migrated: Path, tmp_path: Path) -> Iterator[Database]:
    """A migrated database for this test alone."""
    shutil.copy(migrated, tmp_path / "bento.db")
    made = Database(f"sqlite:///{tmp_path / 'bento.db'}")
    yield made
    made.close()


@pytest.fixture
def orders(database: Database) -> Orders:
    return Orders(database)


@pytest.fixture
def shop(database: Database, runner: asyncio.Runner) -> Shop:
    """The application on a database of its own."""
    return Shop(Config(database_url=database.url, release="1.2.3", replica="test-1"), runner)
