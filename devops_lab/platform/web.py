"""One HTTP request to something of the lab's own: never through a proxy, always with a time limit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException
from urllib.parse import urlsplit


@dataclass(frozen=True)
class Reply:
    """What came back, whatever its status."""

    status: int
    reason: str
    headers: Message
    body: bytes

    @property
    def text(self) -> str:
        return self.body.decode(errors="replace")


def ask(
    url: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    *,
    seconds: float = 5.0,
) -> Reply:
    """Send one request to an http:// address and return the answer.

    Args:
        url: where to; redirections are not followed.
        body: sent by POST; None is a GET.
        headers: further ones.
        seconds: how long connecting, and each part of the answer, may take.

    Raises:
        OSError: nobody answers, or not in HTTP.
    """
    where = urlsplit(url)
    line = HTTPConnection(where.hostname or "", where.port, timeout=seconds)
    path = (where.path or "/") + (f"?{where.query}" if where.query else "")
    try:
        line.request("GET" if body is None else "POST", path, body, dict(headers or {}))
        answer = line.getresponse()
        return Reply(answer.status, answer.reason, answer.headers, answer.read())
    except HTTPException as error:
        raise ConnectionError(f"not an answer in HTTP: {error!r}") from error
    finally:
        line.close()
