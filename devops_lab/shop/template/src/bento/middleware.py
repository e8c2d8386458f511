"""What happens around every request: request id, in-flight count, duration, access log.

Plain ASGI, because this runs for each request and Starlette's BaseHTTPMiddleware costs a task and a queue.
"""

import logging
import re
from time import perf_counter
from uuid import uuid4

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bento import metrics
from bento.config import Config

logger = logging.getLogger("bento.access")
REQUEST_ID = re.compile(r"[\w.:-]{1,64}")


def request_id_of(scope: Scope) -> str:
    """The caller's X-Request-Id where it is a sane one, else a new one."""
    for name, value in scope["headers"]:
        if name == b"x-request-id" and REQUEST_ID.fullmatch(given := value.decode("latin-1")):
            return str(given)
    return uuid4().hex


def endpoint_of(scope: Scope) -> str:
    """The route's template (/api/orders/{id}): a label with few values, whatever is asked for."""
    return getattr(scope.get("route"), "path", None) or "unknown"


class Observe:
    """Counts, times and logs each request, and names it in the response's headers."""

    def __init__(self, app: ASGIApp, config: Config) -> None:
        self.app = app
        self.release = config.release.encode()
        metrics.BUILD.labels(config.release).set(1)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = perf_counter()
        scope["request_id"] = request_id = request_id_of(scope)
        status = 0

        async def send_named(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ())]
                headers += [(b"x-request-id", request_id.encode()), (b"x-release", self.release)]
                message = {**message, "headers": headers}
            await send(message)

        metrics.IN_FLIGHT.inc()
        try:
            await self.app(scope, receive, send_named)
        except Exception:  # it was answered by problems.on_crash
            logger.exception(
                "request failed", extra={"request_id": request_id, "endpoint": endpoint_of(scope)}
            )
        finally:
            metrics.IN_FLIGHT.dec()
            self.record(scope, request_id, status or 499, perf_counter() - started)

    def record(self, scope: Scope, request_id: str, status: int, seconds: float) -> None:
        """Count, time and log one finished request (499: the caller went away)."""
        method, endpoint = scope["method"], endpoint_of(scope)
        metrics.REQUESTS.labels(method, endpoint, str(status)).inc()
        metrics.DURATION.labels(method, endpoint).observe(seconds)
        quiet = endpoint in ("/healthz", "/readyz", "/metrics")
        logger.log(
            logging.DEBUG if quiet else logging.INFO,
            "%s %s %d",
            method,
            scope["path"],
            status,
            extra={
                "request_id": request_id,
                "method": method,
                "endpoint": endpoint,
                "status": status,
                "seconds": round(seconds, 6),
            },
        )
