"""A small but real shop in a wheel, and labs that run it: for the tests of engine, proxy and agent."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
import time
import urllib.request
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from devops_lab.model import Release
from devops_lab.platform import settings
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import Control, teardown
from devops_lab.platform.engines.docker import ROLE_LABEL, Docker
from devops_lab.platform.engines.environments import template_for
from devops_lab.platform.engines.images import Images
from devops_lab.platform.engines.postgres import password
from devops_lab.platform.processes import processes_of
from devops_lab.platform.store import Store

ENGINES = ["process", pytest.param("docker", marks=pytest.mark.docker)]
LOCK = Path(__file__).parents[1] / "devops_lab" / "shop" / "template" / "requirements.lock"

# Follows the shop's contract as far as these tests look; TINY in a pool's environment makes it misbehave.
TINY = """
import asyncio, json, os, sys
HOW = os.environ.get("TINY", "")
DATABASE = os.environ["DATABASE_URL"]

def connect():
    if DATABASE.startswith("sqlite"):
        import sqlite3
        return sqlite3.connect(DATABASE.removeprefix("sqlite:///"))
    import psycopg
    return psycopg.connect(DATABASE)

def migrate():
    db = connect()
    db.execute("create table if not exists orders (key text primary key)")
    MIGRATION
    db.commit()
    print("migrate: done")

def say(message, **more):
    line = {"time": "2026-01-01T00:00:00+00:00", "level": "INFO", "message": message, **more}
    print(json.dumps(line), flush=True)

def serve(host, port):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route
    counts, held = {"n": 0}, []
    async def ready(request):
        return PlainTextResponse("no" if HOW == "never ready" else "ok", 503 if HOW == "never ready" else 200)
    async def info(request):
        counts["n"] += 1
        held.append(b"x" * (1_000_000 * int(request.query_params.get("megabytes", 0))))
        seconds = float(request.query_params.get("seconds", 0))
        if seconds:
            say("slow begins")
            await asyncio.sleep(seconds)
        if HOW == "flood":
            for number in range(3000):
                say(f"flood {number}")
        release = os.environ["BENTO_RELEASE"]
        answer = {"release": release, "replica": os.environ["BENTO_REPLICA"], "python": sys.executable}
        return JSONResponse(answer, headers={"X-Release": release})
    async def metrics(request):
        n = counts["n"]
        return PlainTextResponse(
            f'http_requests_total{{method="GET",endpoint="/api/info",status="200"}} {n}\\n'
            f'http_request_duration_seconds_bucket{{endpoint="/api/info",le="0.1"}} {n}\\n'
            f'http_request_duration_seconds_bucket{{endpoint="/api/info",le="+Inf"}} {n}\\n'
            'http_requests_in_flight 0\\n')
    paths = {"/readyz": ready, "/healthz": ready, "/api/info": info, "/metrics": metrics}
    routes = [Route(path, endpoint) for path, endpoint in paths.items()]
    say("serving", pid=os.getpid())
    uvicorn.run(Starlette(routes=routes), host=host, port=port, log_level="warning",
                timeout_keep_alive=75, timeout_graceful_shutdown=10)

if sys.argv[1] == "migrate":
    migrate()
elif HOW == "crash":
    sys.exit("no such setting: BENTO_SAUCE")
else:
    serve(sys.argv[sys.argv.index("--host") + 1], int(sys.argv[sys.argv.index("--port") + 1]))
"""


def tiny_release(world: LabContext, version: str = "1.0.0", migration: str = "pass") -> Release:
    """Put a wheel with the tiny shop into a lab's registry, and an image where the engine wants one."""
    root = world.root
    wheel = root / "registry" / version / f"bento-{version}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    info = f"bento-{version}.dist-info"
    files = {
        "bento/__init__.py": "",
        "bento/__main__.py": TINY.replace("MIGRATION", migration),
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: bento\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    recorded = {
        name: urlsafe_b64encode(hashlib.sha256(text.encode()).digest()).decode().rstrip("=")
        for name, text in files.items()
    }
    files[f"{info}/RECORD"] = "".join(f"{name},sha256={sum},\n" for name, sum in recorded.items())
    with zipfile.ZipFile(wheel, "w") as archive:
        for name, text in files.items():
            archive.writestr(zipfile.ZipInfo(name), text)  # no time in it: the same text, the same digest
    shutil.copy(LOCK, wheel.with_suffix(".lock"))
    digest = "sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest()
    path = wheel.relative_to(root).as_posix()
    size = wheel.stat().st_size
    image = pushed(world, wheel, version, digest) if world.engine.capabilities().images else ""
    return Release(version, "c" * 40, f"v{version}", digest, path, size, "", "", time.time(), image)


def pushed(world: LabContext, wheel: Path, version: str, digest: str) -> str:
    """Build the image around a wheel and push it; the digest of its manifest."""
    images = Images(Docker(), world.root)
    tag = f"{version}-{digest[7:19]}"  # tests give a version several contents
    if there := images.registry.digest_of(tag):
        return there
    return images.push(images.build(wheel, wheel.with_suffix(".lock"), LOCK.parent, tag, digest)).digest


def new_world(root: Path, templates: Path, engine: str = "process") -> LabContext:
    """An empty lab that need not install the shop's packages again."""
    root.mkdir(parents=True)
    settings.write(root, settings.Settings(engine=engine, grace_seconds=5.0))
    shutil.copytree(templates, root / "work" / "templates", symlinks=True, copy_function=os.link)
    return LabContext(root, settings.read(root), Store(root / "lab.db"))


def make_templates(root: Path) -> Path:
    template_for(root, LOCK)
    return root / "work" / "templates"


@contextmanager
def torn_down(world: LabContext) -> Iterator[LabContext]:
    """Give a lab to a test, and end whatever it left running."""
    try:
        yield world
    finally:
        teardown(world.root)
        world.engine.teardown()
        assert running(world) == []


def engine_lab(request: pytest.FixtureRequest, root: Path, templates: Path) -> Iterator[LabContext]:
    """An empty lab on the engine that a fixture's parameter names; that of containers is lent."""
    if request.param == "docker":
        with renewed(request.getfixturevalue("docker_lab")) as made:
            yield made
        return
    with torn_down(new_world(root, templates)) as made:
        assert made.engine.name == request.param
        yield made


@contextmanager
def renewed(lab: LabContext) -> Iterator[LabContext]:
    """A lab as if nothing had ever happened in it; its registry and its PostgreSQL stay."""
    for file in lab.root.glob("lab.db*"):
        file.unlink()
    world = LabContext(lab.root, lab.settings, Store(lab.root / "lab.db"))
    try:
        yield world
    finally:
        teardown(world.root)
        world.engine.sweep([])
        shutil.rmtree(world.production, ignore_errors=True)
        for container in Docker().containers(world.root):  # a test's own
            if container.labels[ROLE_LABEL] not in ("registry", "postgres", "replica"):
                Docker().remove(container)
        if Docker().find(world.root, "postgres"):
            sql(world, "drop schema public cascade; create schema public")
        world.store.close()


def running(world: LabContext) -> list[str]:
    """What runs for a lab: its processes, and its containers."""
    found = [f"process {process.pid}" for process in processes_of(world.root)]
    if world.engine.capabilities().images:
        found += [str(container.name) for container in Docker().containers(world.root)]
    return found


def sql(world: LabContext, statement: str) -> list[str]:
    """Have production's database do something; the rows that it answers."""
    url = world.engine.database_url()
    if url.startswith("sqlite"):
        with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as db:
            rows = [str(row[0]) for row in db.execute(statement)]
            db.commit()
            return rows
    server = Docker().find(world.root, "postgres")
    assert server
    psql = ["psql", "-h", "127.0.0.1", "-U", "bento", "-qAt", "-v", "ON_ERROR_STOP=1", "-c", statement]
    code, said = server.exec_run(psql, environment={"PGPASSWORD": password(world.root)})
    assert code == 0, said
    assert isinstance(said, bytes)
    return said.decode().split()


def with_agent(world: LabContext, *versions: str) -> Control:
    """Install releases of the tiny shop and start the agent."""
    for version in versions:
        release = tiny_release(world, version)
        world.store.put(release)
        world.engine.prepare(release)
        world.engine.migrate(release)
    world.control.ensure()
    return world.control


def get(url: str, seconds: float = 5.0) -> str:
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return str(answer.read().decode())
