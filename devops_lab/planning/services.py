"""The live "try it" of the platform's services: a real connection or request, what was sent and came back."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from uuid import uuid4

from devops_lab.errors import LabError
from devops_lab.model import Replica, Service
from devops_lab.platform import web
from devops_lab.platform.context import LabContext

SECONDS = 3.0
BRING_UP = "Bring production up first: lab.catch_up('operate')."
SECRET_NAME = re.compile(r"(?i)password|secret|token|key")


@dataclass(frozen=True)
class Answer:
    """What a service answered; where it could not, `received` says why and `next_step` what to do."""

    service: str
    ok: bool
    sent: str
    received: str
    seconds: float = 0.0
    next_step: str = ""


Seen = tuple[bool, str, str]  # whether it answered as it should, what was sent, what came back


def try_service(world: LabContext, service: Service) -> Answer:
    """Talk to one service of the platform, for real, within SECONDS."""
    by_name: dict[str, Callable[[LabContext, Service], Seen]] = {
        "database": lambda world, _: (True, *world.engine.ask_database()),  # asked where it runs, read-only
        "configuration": _configuration,
        "logs": _logs,
    }
    started = time.perf_counter()
    try:
        ok, sent, received = by_name.get(service.name, _http)(world, service)
    except (LabError, OSError) as error:
        ok, sent, received = False, service.example, str(error)
    seconds = time.perf_counter() - started
    return Answer(service.name, ok, sent, received, seconds, "" if ok else BRING_UP)


def _http(world: LabContext, service: Service) -> Seen:
    """One GET through the proxy, as a customer sends it."""
    path = service.path or "/"
    if not world.control.keep():
        return False, f"GET {path}", "Production is not up."
    url, request_id = world.control.url().rstrip("/") + path, f"try-{uuid4().hex[:12]}"
    sent = f"GET {url}\nX-Request-Id: {request_id}"
    try:
        answer = web.ask(url, headers={"X-Request-Id": request_id}, seconds=SECONDS)
    except OSError as error:
        return False, sent, f"no answer: {error}"
    if answer.status >= 400:
        return False, sent, f"{answer.status} {answer.reason}\n{answer.text[:500]}"
    head = f"{answer.status} X-Release: {answer.headers.get('X-Release', '')}"
    return True, sent, f"{head}\n{_shown(answer.text)}"


def _shown(body: str) -> str:
    """The part worth reading: of metrics the shop's own, of all else the beginning."""
    own = [line for line in body.splitlines() if line.startswith(("http_requests_total", "bento_"))]
    return "\n".join(own[:8]) if own else body[:400]


def _configuration(world: LabContext, service: Service) -> Seen:
    """The environment of a replica that runs now, as it really has it."""
    replica = next((r for r in world.store.all(Replica) if r.state == "healthy"), None)
    if replica is None:
        return False, "environment of a replica", "No replica is running."
    found = sorted(world.engine.environment(replica).items())
    ours = [masked(*pair) for pair in found if pair[0].startswith("BENTO_") or pair[0] == "DATABASE_URL"]
    text = "\n".join(ours).replace(str(world.root.resolve()), f"…/{world.root.name}")
    where = f"process {replica.pid}" if replica.pid else f"container {replica.handle[:12]}"
    sent = f"environment of replica {replica.id}, {where}"
    return bool(ours), sent, text or "none of the shop's variables"


def _logs(world: LabContext, service: Service) -> Seen:
    sent = "the newest log line in the lab's store"
    for line in world.store.logs(limit=1):
        who = f"release={line.release} replica={line.replica} request_id={line.request_id}"
        return True, sent, f"{line.level} {line.message} {who}"
    return False, sent, "No replica has logged anything yet."


def masked(name: str, value: str) -> str:
    """`NAME=value` with passwords and secrets hidden."""
    hidden = "***" if SECRET_NAME.search(name) else re.sub(r"(://[^:/@]*):[^@]*@", r"\1:***@", value)
    return f"{name}={hidden}"
