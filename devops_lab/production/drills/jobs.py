"""What a drill lets run beside production: `python -m devops_lab.production.drills.jobs`.

Its work comes on standard input, so that no list of processes names it; when that closes, it ends.
"""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from devops_lab.platform import web
from devops_lab.platform.processes import outlive_nobody

HOST = "127.0.0.1"


def say(**facts: Any) -> None:
    """Answer to who started this process, in one line."""
    print(json.dumps(facts), flush=True)


def lock(path: str, hold_seconds: float = 1.0, rest_seconds: float = 0.15) -> None:
    """Hold the database's write lock, let it go for a moment, take it again."""
    db = sqlite3.connect(path, timeout=30, isolation_level=None)
    db.execute("begin immediate")
    say(ready=True)
    while True:
        time.sleep(hold_seconds)
        db.execute("rollback")
        time.sleep(rest_seconds)
        db.execute("begin immediate")


def kitchen() -> None:
    """A system that others depend on: it says yes to everything."""

    class Yes(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer((HOST, 0), Yes)
    say(port=server.server_address[1])
    server.serve_forever()


def retry(url: str, key: str, every_seconds: float = 0.05) -> None:
    """A customer who sends the same order until it is answered well, as well-behaved programs do."""
    body = json.dumps({"lines": [{"item": 1, "quantity": 1}], "customer": "Ann  Lee"}).encode()
    headers = {"Content-Type": "application/json", "Idempotency-Key": key}
    say(ready=True)
    while True:
        with suppress(OSError):  # an error is what it waits to see the end of
            web.ask(url, body, headers)
        time.sleep(every_seconds)


def delay(host: str, port: int, seconds: float = 0.6) -> None:
    """Pass a replica's connections on; every answer comes later by so many seconds."""

    async def pump(source: asyncio.StreamReader, target: asyncio.StreamWriter, late: float) -> None:
        with suppress(OSError):
            while data := await source.read(65536):
                await asyncio.sleep(late)
                target.write(data)
                await target.drain()
        target.close()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            there, back = await asyncio.open_connection(host, port)
        except OSError:  # the replica is gone
            writer.close()
            return
        await asyncio.gather(pump(reader, back, 0.0), pump(there, writer, seconds))

    async def serve() -> None:
        server = await asyncio.start_server(connected, HOST, 0)
        say(port=server.sockets[0].getsockname()[1])
        await server.serve_forever()

    asyncio.run(serve())


WORK: dict[str, Callable[..., None]] = {"lock": lock, "kitchen": kitchen, "retry": retry, "delay": delay}


def main() -> None:
    wish = json.loads(sys.stdin.buffer.readline())
    outlive_nobody()
    WORK[wish.pop("do")](**wish)


if __name__ == "__main__":
    main()
