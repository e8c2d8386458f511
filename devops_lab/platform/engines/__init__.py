"""What runs the replicas: processes of this machine, containers, or tasks of a cluster.

Here is told which a lab gets: the one that its settings ask for, or, for "auto", the best that answers.
"""

from __future__ import annotations

import json
import sys
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from devops_lab.errors import EngineUnavailable, LabError
from devops_lab.platform.processes import replace_file
from devops_lab.platform.settings import PUBLIC_IMAGES, Settings, by_digest, public_image

if TYPE_CHECKING:
    from devops_lab.platform.engines.base import Engine
    from devops_lab.platform.engines.docker import Docker


@dataclass(frozen=True)
class Choice:
    """Which engine it is, and why; of Docker's also where (`host`): another context may be in use later."""

    engine: str
    why: str
    host: str = ""


def choose(root: Path, settings: Settings) -> Engine:
    """The engine of a lab, ready to be used.

    Raises:
        EngineUnavailable: it can't be used on this machine, with the reason.
    """
    choice = chosen(root, settings)
    name, settings = choice.engine, replace(settings, docker_host=choice.host)
    if sys.platform == "win32":
        raise EngineUnavailable(
            "The lab needs Unix sockets and signals, which Windows lacks.",
            expected="Linux or macOS",
            next_step="Use WSL 2 (Windows Subsystem for Linux) and start again inside it.",
        )
    if name == "docker":
        from devops_lab.platform.engines.address import is_apart
        from devops_lab.platform.engines.containers import ContainerEngine

        engine = ContainerEngine(root, settings)
        if is_apart(engine.docker.host):
            raise apart(engine.docker)
        return engine
    if name == "swarm":
        from devops_lab.platform.engines.swarm import SwarmEngine

        return SwarmEngine(root, settings)
    from devops_lab.platform.engines.process import ProcessEngine

    return ProcessEngine(root)


def chosen(root: Path, settings: Settings) -> Choice:
    """What the settings ask for; what "auto" means, and where Docker is, is found out once and then kept.

    An engine that is away for a moment, or another docker context that is used meanwhile, must not make the
    same lab's production move to another one.
    """
    if settings.engine == "process":
        return Choice("process", "lab.toml asks for it")
    note, asked = root / "run" / "engine.json", settings.docker_host
    with suppress(OSError, ValueError, TypeError):
        kept = Choice(**json.loads(note.read_text()))
        if settings.engine in ("auto", kept.engine):
            return replace(kept, host=asked or kept.host)
    if settings.engine == "auto":
        found = best(asked)
    else:
        from devops_lab.platform.engines.docker import Docker

        docker = Docker(asked)
        found = Choice(settings.engine, f"lab.toml asks for it: {docker.address}", docker.host)
    note.parent.mkdir(parents=True, exist_ok=True)
    replace_file(note, json.dumps(asdict(found)))
    return found


def best(docker_host: str = "") -> Choice:
    """The best engine that answers here and has what it needs: a swarm that it manages, Docker, processes."""
    from devops_lab.platform.engines.address import is_apart
    from devops_lab.platform.engines.docker import Docker

    try:
        docker = Docker(docker_host)
        missing, why = lacking(docker)
    except LabError as error:
        return Choice("process", error.wrong)
    if missing:
        wants = f"A Docker engine answers, but there is no {missing} image, and none can be pulled"
        return Choice("process", f"{wants}{why} (devops-lab doctor --prepare makes it).")
    answers = f"Docker {docker.version['Version']} answers ({docker.address})"
    cluster = docker.info().get("Swarm") or {}
    if cluster.get("ControlAvailable"):
        count = f"{cluster['Nodes']} node{'s' if cluster['Nodes'] > 1 else ''}"
        return Choice("swarm", f"{answers} and manages a swarm of {count}.", docker.host)
    if is_apart(docker.host):
        return Choice("process", apart(docker).wrong)
    return Choice("docker", f"{answers} and has its images.", docker.host)


def apart(docker: Docker) -> EngineUnavailable:
    """This runs in a container, beside those that it would start: each has a loopback of its own."""
    return EngineUnavailable(
        f"The lab runs inside a container, and the Docker engine ({docker.address}) outside of it: "
        "the ports of replicas, published on that machine's loopback, can't be reached from here.",
        expected="a container on the host's network (docker run --network host), or an engine inside it",
        next_step='Start this container so, or take engine = "process".',
    )


def lacking(docker: Docker) -> tuple[str, str]:
    """The first of the images that production needs which can't be had, and why; empty: none is lacking."""
    from devops_lab.platform.engines.docker import Gone
    from devops_lab.platform.engines.prepared import local, why_not_pulled

    for what in PUBLIC_IMAGES:
        if local(docker, what):
            continue
        public = by_digest(public_image(what))
        try:
            with docker.calls(f"ask for {public}"):
                login = docker.login(public)
                docker.client.images.get_registry_data(public, login)  # asks its registry; pulls nothing
        except (Gone, LabError) as error:
            return what, f": {why_not_pulled(str(error))[0]}"
    return "", ""
