"""Open loop against closed loop, on one server that stands still for a moment: who tells the truth?

A closed loop waits for each answer before it asks again. While the server is frozen it asks nothing, so what
customers would have waited in that time is never measured: Gil Tene's "coordinated omission". This module is
the only place with a closed loop; `python -m devops_lab.platform.traffic.loops` is the server.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from devops_lab.errors import BadInput, LabError
from devops_lab.model import Loops
from devops_lab.platform import commands
from devops_lab.platform.processes import HOST, companion, outlive_nobody
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import MAX_RATE, MAX_SECONDS, LoadRun, LoadSpec, failed, number
from devops_lab.platform.waits import pause


def compare_loops(
    root: Path, rate: float = 100.0, seconds: float = 5.0, freeze_seconds: float = 1.0, users: int = 4
) -> Loops:
    """Let both kinds of load measure the same server at the same time, and freeze it once.

    Args:
        root: the lab's directory.
        rate: requests per second that each of the two means to send.
        seconds: how long they ask.
        freeze_seconds: how long the server stands still (SIGSTOP), a third of the way in.
        users: of the closed loop; each waits for its answer.

    Raises:
        BadInput: the freeze is no part of the time, or there are no users.
        LabError: a request failed, so that there is nothing to compare.
    """
    rate, seconds = number("rate", rate, MAX_RATE), number("seconds", seconds, MAX_SECONDS)
    if not 0 < freeze_seconds <= seconds / 2 or not 1 <= users <= 50:
        raise BadInput(
            f"A freeze of {freeze_seconds:g} s in {seconds:g} s, {users} users",
            expected="a freeze of at most half of the time, 1 to 50 users",
        )
    folder = root / "work" / "loops"  # a store of its own: none of this happens to the shop
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    store, curve = Store(folder / "loops.db"), [(0.0, rate), (seconds, rate)]
    try:
        with serving(root) as (server, port):
            url = f"http://{HOST}:{port}"
            spec = LoadSpec(url, "open", str(store.path), curve, even=True, mix={"page": 1.0})
            with LoadRun(spec, folder, root) as run, ThreadPoolExecutor(users) as pool:
                end = time.monotonic() + seconds
                asked = [pool.submit(closed_loop, port, users / rate, end) for _ in range(users)]
                pause(seconds / 3)
                freeze(server, freeze_seconds)
                closed = [waited for user in asked for waited in user.result()]
                run.wait()
        rows = store.requests(run="open")
    finally:
        store.close()
        shutil.rmtree(folder, ignore_errors=True)
    if bad := [row.error for row in rows if failed(row)]:
        raise LabError(f"{len(bad)} of {len(rows)} requests failed: {bad[0]}")
    return Loops(rate, freeze_seconds, sorted(row.seconds for row in rows), sorted(closed))


def closed_loop(port: int, think_seconds: float, end: float) -> list[float]:
    """One user: ask, wait for the answer, think, ask again; a wait counts from when the request was sent."""
    line, waits = http.client.HTTPConnection(HOST, port, timeout=60), []
    while time.monotonic() < end:
        began = time.monotonic()
        line.request("GET", "/")
        line.getresponse().read()
        waits.append(time.monotonic() - began)
        time.sleep(max(think_seconds - waits[-1], 0.0))
    line.close()
    return waits


def freeze(server: subprocess.Popen[bytes], seconds: float) -> None:
    """Stop a process for a while, as a long garbage collection or a full disk queue would."""
    os.kill(server.pid, signal.SIGSTOP)
    commands.signalled(server.pid, signal.SIGSTOP)
    try:
        pause(seconds)
    finally:
        os.kill(server.pid, signal.SIGCONT)
        commands.signalled(server.pid, signal.SIGCONT)


@contextmanager
def serving(root: Path) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    """A small server in a process of its own, and its port."""
    with companion(root, "devops_lab.platform.traffic.loops", stdout=subprocess.PIPE) as server:
        try:
            assert server.stdout
            yield server, int(server.stdout.readline())
        finally:
            server.kill()
            commands.signalled(server.pid, signal.SIGKILL)


def serve() -> None:
    """Answer every request at once, until whoever started this ends."""
    from aiohttp import web

    async def answer(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    door = socket.create_server((HOST, 0))
    outlive_nobody()
    app = web.Application()
    app.router.add_get("/{rest:.*}", answer)
    print(door.getsockname()[1], flush=True)
    web.run_app(app, sock=door, print=None, backlog=1024)


if __name__ == "__main__":
    serve()
