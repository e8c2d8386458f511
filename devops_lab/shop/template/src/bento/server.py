"""The server process: uvicorn around the application."""

import asyncio
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from bento import logs
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


def serve(config: Config, host: str, port: int) -> None:
    """Answer requests until SIGTERM; what is in flight then is finished first."""
    logs.configure(config)
    uvicorn.run(
        create_app(config),
        host=host,
        port=port,
        log_config=None,
        access_log=False,
        server_header=False,
        loop="asyncio",
        http=Protocol,
        ws="none",
        timeout_keep_alive=75,  # longer than the proxy keeps idle connections
        timeout_graceful_shutdown=10,
    )
