"""What the doctor sees of Docker: does an engine answer, what is it like, a swarm, the base images.

The engine is asked over its socket, in plain HTTP: what exactly fails there tells what to do about it.
"""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import ssl
import sys
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

from devops_lab.errors import EngineUnavailable
from devops_lab.model import Check
from devops_lab.platform.engines.address import Address, is_apart
from devops_lab.platform.engines.address import address as engine_address
from devops_lab.platform.settings import PUBLIC_IMAGES, by_digest, named_image, public_image

FREE_BYTES = 2_000_000_000
SECONDS = 2.0  # nobody waits longer for an answer
OLDEST = (1, 41)  # of the engine's interface: Docker 20.10
OPTIONAL = "Optional, since the process engine needs none: "
APART = (
    "This runs inside a container and the engine outside: the replicas' ports can't be reached. Start this "
    "container with --network host, or take the process engine."
)
INSTALL = "install Docker (Debian, Ubuntu: sudo apt install docker.io; macOS, Windows: Docker Desktop)."


def containers() -> list[Check]:
    """The rows about Docker, Swarm and the images that the lab's containers stand on."""
    try:
        version, info = ask("/version"), ask("/info")
        images = ask("/images/json")
    except OSError as error:
        return [Check("engine: docker", None, *silence(error)), no_answer("swarm"), no_answer("images")]
    except EngineUnavailable as error:
        row = Check("engine: docker", None, error.wrong, error.next_step)
        return [row, no_answer("swarm"), no_answer("images")]
    return [docker(version, info, is_apart(address().host)), swarm(info), prepared(images)]


def no_answer(what: str) -> Check:
    advice = "Needs a Docker engine that answers: see above."
    return Check("base images" if what == "images" else f"engine: {what}", None, "no answer", advice)


# ---- the engine
def docker(version: dict[str, Any], info: dict[str, Any], apart: bool = False) -> Check:
    """An engine that answers, and what of it the reader should know."""
    found = f"Docker {version.get('Version', '?')} on {info.get('OperatingSystem', '?')} ({address()})"
    if tuple(int(part) for part in str(version.get("ApiVersion", "0")).split(".")) < OLDEST:
        return Check("engine: docker", None, f"{found} is too old", "Update it: 20.10 or newer is needed.")
    notes = [note for note in (disk_note(info), rootless_note(info), limits_note(info)) if note]
    if apart:
        notes.append(APART)
    if "Docker Desktop" in str(info.get("OperatingSystem")):
        found += ", in a virtual machine of its own"
    fine = True if not notes else None
    return Check("engine: docker", fine, f"answers: {found}", " ".join(notes))


def disk_note(info: dict[str, Any]) -> str:
    """A full disk, where the engine's folder can be seen: not inside a virtual machine."""
    folder = Path(str(info.get("DockerRootDir", "")))
    try:
        free = shutil.disk_usage(folder).free
    except OSError:
        return ""
    if free >= FREE_BYTES:
        return ""
    return (
        f"Only {free / 1e9:.1f} GB are free where Docker keeps its images ({folder}): "
        "docker system df shows what takes them, docker system prune frees what is unused."
    )


def rootless_note(info: dict[str, Any]) -> str:
    options = " ".join(map(str, info.get("SecurityOptions") or []))
    if "name=rootless" not in options or info.get("CgroupVersion") == "2":
        return ""
    return "It runs rootless on cgroup v1, where no limit of memory or CPU holds: boot with cgroup v2."


def limits_note(info: dict[str, Any]) -> str:
    lacking = {"MemoryLimit": "memory", "CpuCfsQuota": "CPU", "PidsLimit": "processes"}
    missing = [word for key, word in lacking.items() if info.get(key) is False]
    if not missing or rootless_note(info):
        return ""
    return (
        f"It can't limit {', '.join(missing)}; rootless needs delegation (systemd: Delegate=cpu memory pids)."
    )


def silence(error: OSError) -> tuple[str, str]:
    """What was seen, and what to do, when no engine answers."""
    path = urlsplit(address().host).path
    if isinstance(error, PermissionError):
        return (
            f"it is there, but this user may not talk to it ({path})",
            "sudo usermod -aG docker $USER, then log in again.",
        )
    if isinstance(error, BadAnswer):
        return f"{error} ({address()})", OPTIONAL + "see what listens there, or set DOCKER_HOST."
    start = "open Docker Desktop" if sys.platform == "darwin" else "sudo systemctl start docker"
    if isinstance(error, ConnectionRefusedError) and path and Path(path).exists():
        return f"it is stopped: nobody listens at {path}", OPTIONAL + f"start it ({start})."
    if isinstance(error, TimeoutError):
        return f"no answer within {SECONDS:g} s ({address()})", OPTIONAL + f"start it again ({start})."
    if shutil.which("docker") or shutil.which("dockerd"):
        return (
            f"installed, and no answer ({address()})",
            OPTIONAL + f"start it ({start}), or set DOCKER_HOST.",
        )
    return f"no answer ({address()})", OPTIONAL + INSTALL


# ---- the swarm
def swarm(info: dict[str, Any]) -> Check:
    """Whether the engine is part of a swarm, and may give orders in it."""
    state = info.get("Swarm") or {}
    local = str(state.get("LocalNodeState") or "inactive")
    if local != "active":
        advice = {
            "inactive": "Optional: `docker swarm init` makes this engine a cluster of one node.",
            "locked": "Unlock it: docker swarm unlock.",
            "pending": "It waits for a manager: docker swarm leave, or bring the manager back.",
        }.get(local, f"See why: docker info. {state.get('Error', '')}".strip())
        return Check("engine: swarm", None, local, advice)
    if not state.get("ControlAvailable"):
        managers = ", ".join(
            str(m.get("Addr", "")).partition(":")[0] for m in state.get("RemoteManagers") or []
        )
        advice = f"Talk to a manager instead (DOCKER_HOST): {managers or 'see docker info'}."
        return Check("engine: swarm", None, "active, but this node is a worker", advice)
    nodes, managers_count = state.get("Nodes", 0), state.get("Managers", 0)
    return Check("engine: swarm", True, f"active: {nodes} node(s), {managers_count} manager(s)")


# ---- the images that the lab's containers stand on
def prepared(images: list[dict[str, Any]]) -> Check:
    """Which base images are there: made by `doctor --prepare`, or the public ones that settings pin."""
    tags = [tag for image in images for tag in image.get("RepoTags") or []]
    digests = {digest for image in images for digest in image.get("RepoDigests") or []}
    found, missing = [], []
    for what in PUBLIC_IMAGES:
        public = public_image(what)
        ours = (tag for tag in tags if tag.startswith(f"devops-lab/{what}:"))
        mine = "" if named_image(what) else next(ours, "")
        theirs = public.partition("@")[0] if by_digest(public) in {*digests, *tags} else ""
        found += [mine or theirs] if mine or theirs else []
        missing += [] if mine or theirs else [what]
    if not missing:
        return Check("base images", True, ", ".join(found))
    lacking = f"missing: {', '.join(missing)}"
    return Check(
        "base images",
        None,
        "; ".join([lacking, *found]),
        "devops-lab doctor --prepare makes them from Debian's or Ubuntu's packages. With internet access for "
        "Docker there is no need: they are pulled when they are first used.",
    )


# ---- one question, one answer
class BadAnswer(OSError):
    """Somebody answers, and it is not a Docker engine."""


def address() -> Address:
    return engine_address()


def ask(path: str) -> Any:
    """GET one path of the engine's interface.

    Raises:
        OSError: nobody answers, or not as an engine would.
    """
    connection = connected()
    try:
        connection.request("GET", quote(path))
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise BadAnswer(f"answers {answer.status} {answer.reason}")
        return json.loads(body)
    except (http.client.HTTPException, ValueError) as error:
        raise BadAnswer(f"does not speak as a Docker engine does ({type(error).__name__})") from error
    finally:
        connection.close()


def connected() -> http.client.HTTPConnection:
    """A connection to the engine that the `docker` command would use."""
    where, tls = urlsplit(address().host), address().tls
    host = where.hostname or "localhost"
    if where.scheme == "unix":
        connection = http.client.HTTPConnection(host, timeout=SECONDS)
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.settimeout(SECONDS)
        connection.sock.connect(where.path)
        return connection
    if where.scheme not in ("tcp", "http", "https"):
        raise OSError(f"can't look at {where.scheme}")
    if tls:
        context = ssl.create_default_context(cafile=tls.ca_cert or None)
        context.load_cert_chain(*tls.cert)
        return http.client.HTTPSConnection(host, where.port or 2376, timeout=SECONDS, context=context)
    return http.client.HTTPConnection(host, where.port or 2375, timeout=SECONDS)
