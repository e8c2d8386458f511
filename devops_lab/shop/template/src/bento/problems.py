"""Errors as JSON (RFC 9457, application/problem+json)."""

from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

TITLES = {
    400: "Bad request",
    404: "Not found",
    405: "Method not allowed",
    409: "Conflict",
    413: "Too large",
    422: "Can't be ordered",
    500: "Internal error",
    503: "Not ready",
}


class Problem(Exception):
    """Something that the caller should hear about, with the HTTP status that says so."""

    def __init__(self, status: int, detail: str, **extra: Any) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.extra = extra


def response(status: int, detail: str, **extra: Any) -> JSONResponse:
    """A problem document."""
    body = {
        "type": "about:blank",
        "title": TITLES.get(status, "Error"),
        "status": status,
        "detail": detail,
        **extra,
    }
    return JSONResponse(body, status_code=status, media_type="application/problem+json")


async def on_problem(_request: Request, error: Exception) -> JSONResponse:
    """Answer for a Problem that a handler raised."""
    assert isinstance(error, Problem)
    return response(error.status, error.detail, **error.extra)


async def on_crash(request: Request, _error: Exception) -> JSONResponse:
    """Answer for what nobody foresaw; the reason goes to the log, under the request's id."""
    return response(500, "The shop could not answer.", request_id=request.scope["request_id"])


async def on_http_exception(_request: Request, error: Exception) -> JSONResponse:
    """Answer for what the framework raises itself (no such path, wrong method)."""
    assert isinstance(error, HTTPException)
    return response(error.status_code, str(error.detail))
