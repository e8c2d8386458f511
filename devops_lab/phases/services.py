"""The live "try it" of the platform's services: a real connection or request, what was sent and came back."""

from __future__ import annotations

import re
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen
from uuid import uuid4

from devops_lab.errors import LabError
from devops_lab.model import Replica
from devops_lab.phases import World
from devops_lab.phases.backlog import Service

SECONDS = 3.0
BRING_UP = "Bring production up first: lab.catch_up('operate')."
SECRET_NAME = re.compile(r"(?i)password|secret|token|key")


@dataclass(frozen=True)
class Answer:
    """What a service answered; where it could not, `received` says why and `next_step` what to do."""

    service: str
    ok: bool
    sent: str
    received: str
    seconds: float = 0.0
    next_step: str = ""


def try_service(world: World, service: Service) -> Answer:
    """Talk to one service of the platform, for real, within SECONDS."""
    by_name: dict[str, Callable[[World, Service], Answer]] = {
        "database": _database,
        "configuration": _configuration,
        "logs": _logs,
    }
    try:
        return by_name.get(service.name, _http)(world, service)
    except (LabError, OSError, sqlite3.Error) as error:
        return Answer(service.name, False, service.example, str(error), next_step=BRING_UP)


def _database(world: World, service: Service) -> Answer:
    """Production's database, read-only; a scratch one where there is none yet."""
    url = world.engine.database_url()
    file = Path(url.removeprefix("sqlite:///"))
    if not url.startswith("sqlite:///"):
        return _postgresql(service, url)
    if file.is_file():
        return _sqlite(service, file, "?mode=ro", f"DATABASE_URL={url}")
    with TemporaryDirectory(prefix="devops-lab-") as folder:
        scratch = Path(folder, "scratch.db")
        return _sqlite(
            service, scratch, "", f"DATABASE_URL=sqlite:///{scratch} (a scratch one, removed after this)"
        )


def _sqlite(service: Service, file: Path, mode: str, where: str) -> Answer:
    started = time.perf_counter()
    with closing(sqlite3.connect(file.resolve().as_uri() + mode, uri=True, timeout=SECONDS)) as db:
        one, version = db.execute("select 1, sqlite_version()").fetchone()
        tables = [
            name
            for (name,) in db.execute("select name from sqlite_master where type = 'table' order by name")
        ]
    seconds = time.perf_counter() - started
    sent = f"{where}: select 1, sqlite_version()"
    return Answer(
        service.name, True, sent, f"{one}, SQLite {version}; tables: {', '.join(tables) or 'none'}", seconds
    )


def _postgresql(service: Service, url: str) -> Answer:
    try:
        psycopg: Any = import_module("psycopg")
    except ImportError:
        return Answer(
            service.name, False, masked("DATABASE_URL", url), "The driver psycopg is not installed here.",
            next_step="pip install 'psycopg[binary]'",
        )  # fmt: skip
    started = time.perf_counter()
    try:
        with psycopg.connect(url, connect_timeout=int(SECONDS)) as db:
            row = db.execute("select 1, version()").fetchone()
    except psycopg.Error as error:
        return Answer(
            service.name, False, masked("DATABASE_URL", url), str(error), next_step="Start the database."
        )
    sent = f"{masked('DATABASE_URL', url)}: select 1, version()"
    return Answer(service.name, True, sent, str(row), time.perf_counter() - started)


def _http(world: World, service: Service) -> Answer:
    """One GET through the proxy, as a customer sends it."""
    path = service.path or "/"
    if not world.control.alive():
        return Answer(service.name, False, f"GET {path}", "Production is not up.", next_step=BRING_UP)
    url = world.control.url().rstrip("/") + path
    headers = {"X-Request-Id": f"try-{uuid4().hex[:12]}"}
    sent = f"GET {url}\nX-Request-Id: {headers['X-Request-Id']}"
    started = time.perf_counter()
    try:
        with urlopen(Request(url, headers=headers), timeout=SECONDS) as response:
            status, body, release = (
                response.status,
                response.read(200_000),
                response.headers.get("X-Release", ""),
            )
    except HTTPError as error:
        with error:
            words = f"{error.code} {error.reason}\n{error.read(500).decode(errors='replace')}"
        return Answer(service.name, False, sent, words, time.perf_counter() - started, BRING_UP)
    except (URLError, OSError) as error:
        return Answer(
            service.name, False, sent, f"no answer: {error}", time.perf_counter() - started, BRING_UP
        )
    seconds = time.perf_counter() - started
    return Answer(
        service.name,
        True,
        sent,
        f"{status} X-Release: {release}\n{_shown(body.decode(errors='replace'))}",
        seconds,
    )


def _shown(body: str) -> str:
    """The part worth reading: of metrics the shop's own, of all else the beginning."""
    own = [line for line in body.splitlines() if line.startswith(("http_requests_total", "bento_"))]
    return "\n".join(own[:8]) if own else body[:400]


def _configuration(world: World, service: Service) -> Answer:
    """The environment of a replica that runs now, as its process has it."""
    import psutil

    replica = next((r for r in world.store.all(Replica) if r.state == "healthy" and r.pid), None)
    if replica is None:
        return Answer(
            service.name, False, "environment of a replica", "No replica is running.", next_step=BRING_UP
        )
    started = time.perf_counter()
    try:
        found = psutil.Process(replica.pid).environ()
    except psutil.Error as error:
        return Answer(service.name, False, f"environment of {replica.id}", str(error), next_step=BRING_UP)
    ours = {
        name: value for name, value in found.items() if name.startswith("BENTO_") or name == "DATABASE_URL"
    }
    text = "\n".join(masked(name, value) for name, value in sorted(ours.items()))
    text = text.replace(str(world.root.resolve()), f"…/{world.root.name}")
    sent = f"environment of replica {replica.id}, process {replica.pid}"
    return Answer(
        service.name, bool(ours), sent, text or "none of the shop's variables", time.perf_counter() - started
    )


def _logs(world: World, service: Service) -> Answer:
    started = time.perf_counter()
    lines = world.store.logs(limit=1)
    seconds = time.perf_counter() - started
    sent = "the newest log line in the lab's store"
    if not lines:
        return Answer(service.name, False, sent, "No replica has logged anything yet.", seconds, BRING_UP)
    line = lines[0]
    text = f"{line.level} {line.message} release={line.release} replica={line.replica}"
    text += f" request_id={line.request_id}"
    return Answer(service.name, True, sent, text, seconds)


def masked(name: str, value: str) -> str:
    """`NAME=value` with passwords and secrets hidden."""
    hidden = "***" if SECRET_NAME.search(name) else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", value)
    return f"{name}={hidden}"
