"""A small but real shop in a wheel, and labs that run it: for the tests of engine, proxy and agent."""

from __future__ import annotations

import hashlib
import os
import shutil
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from devops_lab import settings
from devops_lab.control import Control, teardown
from devops_lab.engines.environments import template_for
from devops_lab.model import Release
from devops_lab.phases import World
from devops_lab.processes import processes_of
from devops_lab.store import Store

LOCK = Path(__file__).parents[1] / "devops_lab" / "shop" / "template" / "requirements.lock"

# Follows the shop's contract as far as these tests look; TINY in a pool's environment makes it misbehave.
TINY = """
import asyncio, json, os, sqlite3, sys
HOW = os.environ.get("TINY", "")
DATABASE = os.environ["DATABASE_URL"].removeprefix("sqlite:///")

def migrate():
    db = sqlite3.connect(DATABASE)
    db.execute("create table if not exists orders (key text primary key)")
    db.commit()
    MIGRATION
    print("migrate: done")

def say(message, **more):
    line = {"time": "2026-01-01T00:00:00+00:00", "level": "INFO", "message": message, **more}
    print(json.dumps(line), flush=True)

def serve(port):
    import uvicorn
    from starlette.applications import Starlette
    from starlette.responses import JSONResponse, PlainTextResponse
    from starlette.routing import Route
    counts = {"n": 0}
    async def ready(request):
        return PlainTextResponse("no" if HOW == "never ready" else "ok", 503 if HOW == "never ready" else 200)
    async def info(request):
        counts["n"] += 1
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
    uvicorn.run(Starlette(routes=routes), host="127.0.0.1", port=port, log_level="warning",
                timeout_keep_alive=75, timeout_graceful_shutdown=10)

if sys.argv[1] == "migrate":
    migrate()
elif HOW == "crash":
    sys.exit("no such setting: BENTO_SAUCE")
else:
    serve(int(sys.argv[sys.argv.index("--port") + 1]))
"""


def tiny_release(root: Path, version: str = "1.0.0", migration: str = "pass") -> Release:
    """Put a wheel with the tiny shop into a lab's registry."""
    wheel = root / "registry" / version / f"bento-{version}-py3-none-any.whl"
    wheel.parent.mkdir(parents=True, exist_ok=True)
    info = f"bento-{version}.dist-info"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("bento/__init__.py", "")
        archive.writestr("bento/__main__.py", TINY.replace("MIGRATION", migration))
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: bento\nVersion: {version}\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    shutil.copy(LOCK, wheel.with_suffix(".lock"))
    digest = "sha256:" + hashlib.sha256(wheel.read_bytes()).hexdigest()
    path = wheel.relative_to(root).as_posix()
    size = wheel.stat().st_size
    return Release(version, "c" * 40, f"v{version}", digest, path, size, "", "", time.time())


def new_world(root: Path, templates: Path) -> World:
    """An empty lab that need not install the shop's packages again."""
    root.mkdir(parents=True)
    settings.write(root, settings.Settings(grace_seconds=5.0))
    shutil.copytree(templates, root / "work" / "templates", symlinks=True, copy_function=os.link)
    return World(root, settings.read(root), Store(root / "lab.db"))


def make_templates(root: Path) -> Path:
    template_for(root, LOCK)
    return root / "work" / "templates"


@contextmanager
def torn_down(world: World) -> Iterator[World]:
    """Give a lab to a test, and end whatever it left running."""
    try:
        yield world
    finally:
        teardown(world.root)
        assert processes_of(world.root) == []


def with_agent(world: World, *versions: str) -> Control:
    """Install releases of the tiny shop and start the agent."""
    for version in versions:
        release = tiny_release(world.root, version)
        world.store.put(release)
        world.engine.prepare(release)
        world.engine.migrate(release)
    world.control.ensure()
    return world.control


def get(url: str, seconds: float = 5.0) -> str:
    with urllib.request.urlopen(url, timeout=seconds) as answer:
        return str(answer.read().decode())
