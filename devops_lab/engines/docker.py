"""The line to a Docker engine, the only module that imports docker-py; refusals become errors that help."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import sha256
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import docker
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container as Container
from docker.types import LogConfig as LogConfig
from requests.exceptions import ConnectionError, RequestException, Timeout

from devops_lab.errors import DiskFull, EngineUnavailable, LabError

LAB_LABEL = "devops-lab"  # on everything that a lab makes: which lab it belongs to
ROLE_LABEL = "devops-lab.role"  # and what it is there for: replica, migration, postgres, registry
CONNECTIONS = 64  # kept open: each replica's log and figures take one for as long as it lives
OLDEST = (1, 41)  # of the engine's interface: Docker 20.10
Gone = NotFound  # what was asked for is not there


def lab_id(root: Path) -> str:
    """What a lab's things are called in an engine: eight letters that follow from its directory."""
    return sha256(os.fsencode(root.resolve())).hexdigest()[:8]


def labels(root: Path, role: str) -> dict[str, str]:
    """The labels of one thing of a lab."""
    return {LAB_LABEL: lab_id(root), ROLE_LABEL: role}


def named(root: Path, what: str = "") -> str:
    """What a container, network or volume of a lab is called, e.g. "lab-1a2b3c4d-r1"."""
    return "-".join(part for part in ("lab", lab_id(root), what) if part)


class Docker:
    """One Docker engine.

    Args:
        host: its address, as DOCKER_HOST has it; empty for the environment's, else the default one.

    Raises:
        EngineUnavailable: nobody answers there, or may not be asked, or it is too old; says what to do.
    """

    network_options: ClassVar[dict[str, Any]] = {"driver": "bridge"}

    def __init__(self, host: str = "") -> None:
        self.host = host or os.environ.get("DOCKER_HOST", "")
        if urlsplit(self.host).hostname not in (None, "localhost", "127.0.0.1", "::1"):
            raise EngineUnavailable(
                f"The Docker engine at {self.host} is on another machine: no replica can be reached there.",
                expected="an engine of this machine",
                next_step='Unset DOCKER_HOST (docker context use default); or take engine = "process".',
            )
        try:
            self.client = docker.DockerClient(base_url=self.host or None, max_pool_size=CONNECTIONS)
            self.version: dict[str, Any] = self.client.version()
        except (DockerException, RequestException, OSError) as error:
            raise unreachable(self.host, error) from error
        found = tuple(int(part) for part in str(self.version.get("ApiVersion", "0")).split("."))
        if found < OLDEST:
            raise EngineUnavailable(
                f"This Docker engine is too old: {self.version.get('Version')}.",
                expected="20.10 or newer",
                next_step='Update Docker, or take engine = "process".',
            )

    def info(self) -> dict[str, Any]:
        """What the engine says about itself (`docker info`)."""
        with self.calls("ask the engine about itself"):
            found: dict[str, Any] = self.client.info()
            return found

    @contextmanager
    def calls(self, what: str) -> Iterator[None]:
        """Around every call: what the engine refuses, or can't do, becomes a LabError that names `what`.

        `Gone` passes: what a missing thing means, only the caller knows.

        Raises:
            EngineUnavailable: the engine does not answer any more.
            DiskFull: the engine has no room left.
            LabError: it refused; carries its own words.
        """
        try:
            yield
        except Gone:
            raise
        except APIError as error:
            words = str(error.explanation or error)
            if "no space left" in words.lower():
                raise DiskFull(
                    f"The Docker engine has no room to {what}: {words}",
                    next_step="Free some: docker system df, docker system prune.",
                ) from error
            raise LabError(f"The Docker engine refused to {what}: {words}") from error
        except (DockerException, RequestException, OSError) as error:
            raise unreachable(self.host, error) from error

    # ---- the things of one lab
    def containers(self, root: Path, role: str = "") -> list[Container]:
        """The containers of a lab, running or not, of one role or all."""
        wanted = [f"{LAB_LABEL}={lab_id(root)}"] + ([f"{ROLE_LABEL}={role}"] if role else [])
        with self.calls("list the lab's containers"):
            return self.client.containers.list(all=True, filters={"label": wanted}, ignore_removed=True)

    def running(self, root: Path) -> set[str]:
        """The ids of a lab's running containers: one quick question, however many they are."""
        with self.calls("list what runs"):
            found = self.client.api.containers(filters={"label": f"{LAB_LABEL}={lab_id(root)}"})
        return {str(one["Id"]) for one in found}

    def find(self, root: Path, what: str) -> Container | None:
        """A container of the lab by what it is; None when there is none.

        Raises:
            LabError: the name is taken by a container that is not this lab's; it is left alone.
        """
        name = named(root, what)
        try:
            with self.calls(f"look for {name}"):
                found = self.client.containers.get(name)
        except Gone:
            return None
        if found.labels.get(LAB_LABEL) != lab_id(root):
            raise taken("container", name)
        return found

    def network(self, root: Path) -> str:
        """The name of the lab's own network, which is made when it is first asked for.

        Raises:
            LabError: the name is taken by a network that is not this lab's; it is left alone.
        """
        name = named(root)
        with self.calls("make the lab's network"):
            for one in self.client.networks.list(names=[name]):
                if one.name == name:
                    if (one.attrs.get("Labels") or {}).get(LAB_LABEL) != lab_id(root):
                        raise taken("network", name)
                    return name
            self.client.networks.create(
                name, labels=labels(root, "network"), check_duplicate=True, **self.network_options
            )
        return name

    def volume(self, root: Path, what: str) -> str:
        """The name of a volume of the lab, which is made when it is first asked for.

        Raises:
            LabError: the name is taken by a volume that is not this lab's; it is left alone.
        """
        name = named(root, what)
        with self.calls(f"make the volume {name}"):
            made = self.client.volumes.create(name, labels=labels(root, what))  # or the one that is there
        if (made.attrs.get("Labels") or {}).get(LAB_LABEL) != lab_id(root):
            raise taken("volume", name)
        return name

    def log_lines(self, container: str, since: str = "") -> Iterator[tuple[str, bytes]]:
        """What a container says, as it says it: (time stamp to the nanosecond, text), until it ends.

        Args:
            container: its id.
            since: a time stamp; what came before it is left out (roughly: what has it comes again).
        """
        start = datetime.fromisoformat(since[:26] + "+00:00").timestamp() - 0.001 if since else None
        lines = self.client.api.logs(container, stream=True, follow=True, timestamps=True, since=start)
        for line in lines:  # one message each; a very long one comes in pieces, each with its own stamp
            stamp, _, text = line.partition(b" ")
            yield stamp.decode(), text

    def goes_on(self, container: str) -> bool:
        """Whether more may come from a container: it runs, or is about to."""
        with self.calls("look at a container"):
            return bool(self.client.containers.get(container).status in ("running", "created"))

    def signal(self, container: Container, name: str) -> None:
        """Send a signal to a container's first process; one that has ended is left in peace."""
        try:
            container.kill(name)
        except APIError as error:
            if error.status_code != HTTPStatus.CONFLICT:
                raise

    def ended_within(self, container: Container, seconds: float) -> bool:
        """Wait until a container has ended, `seconds` at the longest; whether it has."""
        try:
            container.wait(timeout=seconds)
        except (Timeout, ConnectionError):  # docker-py lets through both for the same silence
            return False
        except Gone:
            pass
        return True

    def remove(self, container: Container) -> None:
        """Remove a container, also a running one; it may be gone, or be going, already."""
        with suppress(Gone), self.calls(f"remove {container.name}"):
            try:
                container.remove(force=True, v=True)
            except APIError as error:
                if "already in progress" not in str(error.explanation):
                    raise

    def remove_all(self, root: Path) -> None:
        """Remove every container, network, volume and image of a lab; other people's are left alone."""
        ours = {"label": f"{LAB_LABEL}={lab_id(root)}"}
        for container in self.containers(root):
            self.remove(container)
        with self.calls("remove the lab's networks, volumes and images"):
            for network in self.client.networks.list(filters=ours):
                with suppress(Gone):
                    network.remove()
            for volume in self.client.volumes.list(filters=ours):
                with suppress(Gone):
                    volume.remove(force=True)
            for image in self.client.images.list(all=False, filters=ours):
                with suppress(Gone):
                    self.client.images.remove(str(image.id), force=True)


def taken(kind: str, name: str) -> LabError:
    """Somebody else's thing has the name that the lab needs."""
    return LabError(
        f"There is a {kind} called {name} already, and it does not carry this lab's mark.",
        expected=f"no {kind} of that name, or one with this lab's label ({LAB_LABEL})",
        next_step=f"See whose it is (docker {kind} inspect {name}), and rename or remove it.",
    )


def unreachable(host: str, error: Exception) -> EngineUnavailable:
    """Why nobody answers at a Docker engine's address, as far as it can be seen from here."""
    where, words = host or "its usual address", str(error)
    advice = 'Start Docker, or set DOCKER_HOST; or take engine = "process", which needs none.'
    if "Permission denied" in words:
        where += " (this user may not talk to it)"
        advice = "sudo usermod -aG docker $USER, then log in again."
    return EngineUnavailable(
        f"No Docker engine answers at {where}: {words.splitlines()[0] if words else type(error).__name__}",
        expected="a running Docker engine, 20.10 or newer",
        next_step=advice,
    )
