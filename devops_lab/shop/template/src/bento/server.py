"""The server process: uvicorn around the application."""

import uvicorn

from bento import logs
from bento.app import create_app
from bento.config import Config


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
        http="h11",
        ws="none",
        timeout_keep_alive=75,  # longer than the proxy keeps idle connections
        timeout_graceful_shutdown=10,
    )
