"""Records each call of a Docker engine, as the `docker` command that does the same where there is one.

docker-py sends everything through one session of requests, so that one hook hears it all.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from devops_lab.platform import commands
from devops_lab.platform.clock import steady

LONG_ID = re.compile(r"(?<!@sha256:)\b([0-9a-f]{12})[0-9a-f]{52}\b")  # `docker ps` shows the first
STREAMS = ("/build", "/images/create", "/push", "/wait")  # their answer goes on while the work does
# method and path > the words of the command; what stands in braces is asked of the call
LINES = (
    (r"POST /build", "docker build {built} -"),
    (r"POST /images/create", "docker pull {pulled}"),
    (r"POST /images/(.+)/push", "docker push {0}:{tag}"),
    (r"POST /images/(.+)/tag", "docker tag {0} {repo}:{tag}"),
    (r"DELETE /images/(.+)", "docker rmi {0}"),
    (r"POST /containers/([^/]+)/start", "docker start {0}"),
    (r"POST /containers/([^/]+)/kill", "docker kill --signal {signal} {0}"),
    (r"DELETE /containers/([^/]+)", "docker rm --force --volumes {0}"),
    (r"DELETE /networks/([^/]+)", "docker network rm {0}"),
    (r"DELETE /volumes/([^/]+)", "docker volume rm {0}"),
    (r"DELETE /services/([^/]+)", "docker service rm {0}"),
)
_waiting = threading.local()  # what is being answered, inside of `answered`


def hear(response: Any, **_: Any) -> None:
    """The hook: what was asked, and how the engine answered (`requests.Response`, all of it)."""
    asked = response.request
    parts = urlsplit(asked.url or "")
    path = re.sub(r"^/v[\d.]+", "", unquote(parts.path))
    query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
    words = line(asked.method or "", path, query, asked.body)
    took, looks = response.elapsed.total_seconds(), asked.method in ("GET", "HEAD") or path.endswith("/wait")
    about: dict[str, Any] = {"t": steady() - took, "exit_code": response.status_code, "looks": looks}
    calls: list[Any] | None = getattr(_waiting, "calls", None)
    if calls is not None and path.endswith(STREAMS):
        calls.append((words, about))
    else:
        commands.record(words, by="engine", seconds=took, **about)


@contextmanager
def answered() -> Iterator[None]:
    """Around a call: one that answers bit by bit has taken as long as this block."""
    above, _waiting.calls = getattr(_waiting, "calls", None), []
    try:
        yield
    finally:
        for words, about in _waiting.calls:
            commands.record(words, by="engine", seconds=steady() - about["t"], **about)
        _waiting.calls = above


def line(method: str, path: str, query: dict[str, str], body: Any) -> list[str]:
    """The words of the `docker` command that makes this call, else method, path and what it is about."""
    path = LONG_ID.sub(r"\1", path)
    if query.get("rollback"):  # an update that Swarm takes back by itself
        return ["docker", "service", "rollback", path.split("/")[2]]
    for pattern, words in LINES:
        if found := re.fullmatch(pattern, f"{method} {path}"):
            more = {"built": "", "pulled": "", "signal": "KILL", "tag": "latest", "repo": ""} | query
            told = [word.format(*found.groups(), **more) for word in words.split()]
            extra = {"{built}": _built(query), "{pulled}": [_pulled(query)]}
            return [w for old, new in zip(words.split(), told, strict=True) for w in extra.get(old, [new])]
    return [method, path, *([about] if (about := _about(query, body)) else [])]


def _built(query: dict[str, str]) -> list[str]:
    pairs = [("--build-arg", "buildargs"), ("--label", "labels")]
    given = [
        word
        for option, name in pairs
        for key, value in json.loads(query.get(name, "{}")).items()
        for word in (option, f"{key}={value}")
    ]
    return ["--tag", query.get("t", ""), "--network", query.get("networkmode", "default"), *given]


def _pulled(query: dict[str, str]) -> str:
    name, tag = query.get("fromImage", ""), query.get("tag", "")
    return f"{name}{'@' if ':' in tag else ':'}{tag}" if tag else name


def _about(query: dict[str, str], body: Any) -> str:
    """What a call without a command of its own makes: names alone, since a body may hold a password."""
    try:
        made = json.loads(body) if body else {}
    except (TypeError, ValueError):
        made = {}
    told = {"name": query.get("name") or made.get("Name"), "image": made.get("Image"), "cmd": made.get("Cmd")}
    words = [f"{key} {' '.join(v) if isinstance(v, list) else v}" for key, v in told.items() if v]
    return f"({', '.join(words)})" if words else ""
