"""Which engine a lab gets: the one that its settings ask for, or, for "auto", the best that answers."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devops_lab.errors import EngineUnavailable, LabError
from devops_lab.processes import replace_file
from devops_lab.settings import PUBLIC_IMAGES, Settings

if TYPE_CHECKING:
    from devops_lab.engines.base import Engine
    from devops_lab.engines.docker import Docker


@dataclass(frozen=True)
class Choice:
    """Which engine it is, and why."""

    engine: str
    why: str


def choose(root: Path, settings: Settings) -> Engine:
    """The engine of a lab, ready to be used.

    Raises:
        EngineUnavailable: it can't be used on this machine, with the reason.
    """
    name = chosen(root, settings).engine
    if sys.platform == "win32":
        raise EngineUnavailable(
            "The lab needs Unix sockets and signals, which Windows lacks.",
            expected="Linux or macOS",
            next_step="Use WSL 2 (Windows Subsystem for Linux) and start again inside it.",
        )
    if name == "docker":
        from devops_lab.engines.containers import ContainerEngine

        return ContainerEngine(root, settings)
    if name == "swarm":
        from devops_lab.engines.swarm import SwarmEngine

        return SwarmEngine(root, settings)
    from devops_lab.engines.process import ProcessEngine

    return ProcessEngine(root, settings)


def chosen(root: Path, settings: Settings) -> Choice:
    """What the settings ask for; what "auto" means is found out once and then kept.

    An engine that is away for a moment must not make the same lab's production move to another one.
    """
    if settings.engine != "auto":
        return Choice(settings.engine, "lab.toml asks for it")
    note = root / "run" / "engine.json"
    try:
        return Choice(**json.loads(note.read_text()))
    except (OSError, ValueError, TypeError):
        found = best(settings.docker_host)
    note.parent.mkdir(parents=True, exist_ok=True)
    replace_file(note, json.dumps(asdict(found)))
    return found


def best(docker_host: str = "") -> Choice:
    """The best engine that answers here and has what it needs: a swarm that it manages, Docker, processes."""
    from devops_lab.engines.docker import Docker

    try:
        docker = Docker(docker_host)
        missing = lacking(docker)
    except LabError as error:
        return Choice("process", error.wrong)
    if missing:
        wants = f"A Docker engine answers, but there is no {missing} image, and none can be pulled"
        return Choice("process", f"{wants} (devops-lab doctor --prepare makes it).")
    cluster = docker.info().get("Swarm") or {}
    if cluster.get("ControlAvailable"):
        count = f"{cluster['Nodes']} node{'s' if cluster['Nodes'] > 1 else ''}"
        return Choice("swarm", f"Docker {docker.version['Version']} answers and manages a swarm of {count}.")
    return Choice("docker", f"Docker {docker.version['Version']} answers and has its images.")


def lacking(docker: Docker) -> str:
    """The first of the images that production needs which is not there and can't be had; empty: none."""
    from devops_lab.engines.docker import Gone
    from devops_lab.engines.prepared import there

    prepared = there(docker)
    for what, name in PUBLIC_IMAGES.items():
        if what in prepared:
            continue
        public = name.partition(":")[0] + "@" + name.partition("@")[2]
        try:
            with docker.calls(f"look for {public}"):
                docker.client.images.get(public)
        except Gone:
            try:
                with docker.calls(f"ask for {public}"):
                    docker.client.images.get_registry_data(public)  # asks where it comes from; pulls nothing
            except (Gone, LabError):
                return what
    return ""
