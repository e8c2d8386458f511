"""The server process: uvicorn around the application."""

import asyncio
import threading
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from bento import logs, problems
from bento.app import create_app
from bento.config import Config


class OneWrite:
    """A connection that sends an answer's head and body in one piece.

    The server writes them one after the other. If it is killed in between, the customer has half an answer,
    and no proxy can ask another replica any more.
    """

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        self._pieces: list[bytes] = []

    def write(self, data: bytes) -> None:
        if not self._pieces:
            asyncio.get_running_loop().call_soon(self.flush)
        self._pieces.append(data)

    def flush(self) -> None:
        pieces, self._pieces = self._pieces, []
        if pieces:
            self._transport.write(b"".join(pieces))

    def close(self) -> None:
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class Protocol(H11Protocol):
    """HTTP as uvicorn speaks it, one write for each answer."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(OneWrite(transport))  # type: ignore[arg-type]


class Server(uvicorn.Server):
    """uvicorn, which is told to stop, says "not ready" for a while, and only then closes its door.

    Whoever sends the traffic asks /readyz, and has turned to other replicas by then.
    """

    def __init__(self, app: ASGIApp, drain_seconds: float, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.app, self.drain_seconds, self.draining = app, drain_seconds, False
        config.app = self.answer

    async def answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.draining and scope.get("path") == "/readyz":
            await problems.response(503, "This replica is about to stop.")(scope, receive, send)
        else:
            await self.app(scope, receive, send)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called on SIGTERM and SIGINT; the second one ends the wait."""
        if self.draining or not self.drain_seconds:
            super().handle_exit(sig, frame)
            return
        self.draining = True
        stop = threading.Timer(self.drain_seconds, super().handle_exit, (sig, frame))
        stop.daemon = True
        stop.start()


def serve(config: Config, host: str, port: int) -> None:
    """Answer requests until SIGTERM; what is in flight then is finished first."""
    logs.configure(config)
    app = create_app(config)
    options = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        loop="asyncio",
        interface="asgi3",
        http=Protocol,
        ws="none",
        timeout_keep_alive=75,  # longer than the proxy keeps idle connections
        timeout_graceful_shutdown=10,
    )
    Server(app, config.drain_seconds, options).run()
