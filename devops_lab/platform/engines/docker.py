"""The line to a Docker engine; refusals become errors that help. (Where it is, `address.py` tells.)"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import urlsplit

import docker
from docker.auth import AuthConfig, load_config, resolve_repository_name
from docker.errors import APIError, DockerException, NotFound
from docker.models.containers import Container as Container
from docker.types import LogConfig as LogConfig
from docker.utils import parse_repository_tag as parse_repository_tag
from docker.utils.proxy import ProxyConfig
from requests.exceptions import ConnectionError, RequestException, Timeout

from devops_lab.errors import DiskFull, EngineUnavailable, LabError
from devops_lab.platform.engines import heard
from devops_lab.platform.engines.address import address
from devops_lab.platform.engines.base import MEMORY_BYTES, PROCESSES
from devops_lab.platform.identity import identity, machine

LAB_LABEL = "devops-lab"  # on everything that a lab makes: which lab it belongs to
ROLE_LABEL = "devops-lab.role"  # and what it is there for: replica, migration, postgres, registry
PATH_LABEL = "devops-lab.path"  # where the lab lay, in the eyes of
MACHINE_LABEL = "devops-lab.machine"  # the machine, or container, that it was opened on
CONNECTIONS = 64  # kept open: each replica's log and figures take one for as long as it lives
OLDEST = (1, 41)  # of the engine's interface: Docker 20.10
Gone = NotFound  # what was asked for is not there
# What a container of the shop may not do, whatever runs in it (each is tried: test_hardening.py).
USER = "10001"  # no name, no home, no rights; the image says so too
CPUS = 1.0
TMP_BYTES = 16_000_000
NANO = 1_000_000_000


def labels(root: Path, role: str) -> dict[str, str]:
    """The labels of one thing of a lab."""
    return {
        LAB_LABEL: identity(root),
        ROLE_LABEL: role,
        PATH_LABEL: str(root.resolve()),
        MACHINE_LABEL: machine(),
    }


def named(root: Path, what: str = "") -> str:
    """What a container, network or volume of a lab is called, e.g. "lab-1a2b3c4d-r1"."""
    return "-".join(part for part in ("lab", identity(root), what) if part)


def hardened() -> dict[str, Any]:
    """The options of docker-py's `create` for a container that serves strangers."""
    return {
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": MEMORY_BYTES,
        "memswap_limit": MEMORY_BYTES,  # the same: no swap on top
        "nano_cpus": int(CPUS * NANO),
        "pids_limit": PROCESSES,
        "tmpfs": {"/tmp": f"size={TMP_BYTES},mode=1777,noexec,nosuid,nodev"},
        # Docker's own check starts a Python each time, and is for `docker ps` only: Envoy's decides.
        "healthcheck": {"interval": 10 * NANO},
    }


def on_this_machine(api: Any) -> None:
    """Keep the reader's proxies and logins out of calls that never leave this machine.

    docker-py has no public way. It would write the proxies of ~/.docker/config.json (perhaps with a password)
    into each container and image, and a credential helper that is missing or locked would fail every build.
    """
    api.trust_env = False
    api._proxy_configs = ProxyConfig()
    api._auth_configs = AuthConfig({"auths": {"127.0.0.1": {}}})  # not empty: else it reads the file again


class Docker:
    """One Docker engine.

    Args:
        host: its address, as DOCKER_HOST has it; empty for the one that the `docker` command would use.

    Raises:
        EngineUnavailable: nobody answers there, or may not be asked, or it is too old; says what to do.
    """

    network_options: ClassVar[dict[str, Any]] = {"driver": "bridge"}

    def __init__(self, host: str = "") -> None:
        self.address = address(host)
        self.host = self.address.host
        if urlsplit(self.host).hostname not in (None, "localhost", "127.0.0.1", "::1"):
            raise EngineUnavailable(
                f"The Docker engine at {self.address} is on another machine: its replicas can't be reached.",
                expected="an engine of this machine",
                next_step='Unset DOCKER_HOST (docker context use default); or take engine = "process".',
            )
        try:
            self.client = docker.DockerClient(
                base_url=self.host, tls=self.address.tls or False, max_pool_size=CONNECTIONS
            )
            on_this_machine(self.client.api)
            self.client.api.hooks["response"].append(heard.hear)
            self.version: dict[str, Any] = self.client.version()
        except (DockerException, RequestException, OSError) as error:
            raise unreachable(str(self.address), error) from error
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

    def login(self, image: str) -> dict[str, str] | None:
        """The reader's login at an image's registry (`docker login`), if there is one that can be read."""
        with suppress(DockerException, OSError), warnings.catch_warnings(action="ignore"):
            found: dict[str, str] | None = load_config().resolve_authconfig(resolve_repository_name(image)[0])
            return found
        return None

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
            with heard.answered():
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
            raise unreachable(str(self.address), error) from error

    # ---- the things of one lab
    def containers(self, root: Path, role: str = "") -> list[Container]:
        """The containers of a lab, running or not, of one role or all."""
        return self._labelled(f"{LAB_LABEL}={identity(root)}", *([f"{ROLE_LABEL}={role}"] if role else []))

    def _labelled(self, *wanted: str) -> list[Container]:
        with self.calls("list the lab's containers"):
            return self.client.containers.list(all=True, filters={"label": list(wanted)}, ignore_removed=True)

    def labs(self) -> dict[str, str]:
        """The labs of this machine that the engine holds something of: identity > path when that was made."""
        ours = f"{MACHINE_LABEL}={machine()}"
        with self.calls("list what labs have here"):
            volumes = self.client.volumes.list(filters={"label": ours})
            found = [volume.attrs.get("Labels") or {} for volume in volumes]
        found += [container.labels for container in self._labelled(ours)]
        return {labels[LAB_LABEL]: labels[PATH_LABEL] for labels in found}

    def running(self, root: Path) -> set[str]:
        """The ids of a lab's running containers: one quick question, however many they are."""
        with self.calls("list what runs"):
            found = self.client.api.containers(filters={"label": f"{LAB_LABEL}={identity(root)}"})
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
        if found.labels.get(LAB_LABEL) != identity(root):
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
                    if (one.attrs.get("Labels") or {}).get(LAB_LABEL) != identity(root):
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
        if (made.attrs.get("Labels") or {}).get(LAB_LABEL) != identity(root):
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

    def is_running(self, container: str) -> bool:
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

    def stop_all(self, root: Path) -> None:
        """Stop every container of a lab; nothing is removed."""
        for container in self.containers(root):
            with suppress(Gone), self.calls(f"stop {container.name}"):
                container.stop(timeout=10)

    def remove_all(self, lab: str) -> None:
        """Remove every container, network, volume and image of a lab, by its identity; no other's."""
        ours = {"label": f"{LAB_LABEL}={lab}"}
        for container in self._labelled(ours["label"]):
            self.remove(container)
        with self.calls("remove the lab's networks, volumes and images"):
            for network in self.client.networks.list(filters=ours):
                with suppress(Gone):
                    network.remove()
            for volume in self.client.volumes.list(filters=ours):
                with suppress(Gone):
                    volume.remove(force=True)
            images = self.client.images.list(all=False, filters=ours)
            for image in sorted(images, key=lambda image: str(image.attrs["Created"]), reverse=True):
                try:  # the newest first: it may stand on another
                    self.client.images.remove(str(image.id), force=True)
                except Gone:
                    pass
                except APIError as error:
                    if error.status_code != HTTPStatus.CONFLICT:  # somebody's own image stands on it
                        raise


def taken(kind: str, name: str) -> LabError:
    """Somebody else's thing has the name that the lab needs."""
    return LabError(
        f"There is a {kind} called {name} already, and it does not carry this lab's mark.",
        expected=f"no {kind} of that name, or one with this lab's label ({LAB_LABEL})",
        next_step=f"See whose it is (docker {kind} inspect {name}), and rename or remove it.",
    )


def unreachable(host: str, error: Exception) -> EngineUnavailable:
    """Why nobody answers at a Docker engine's address, as far as it can be seen from here."""
    where, words = host, str(error)
    advice = 'Start Docker, or set DOCKER_HOST; or take engine = "process", which needs none.'
    if ", context " in host:
        advice = 'Start it, or choose another (docker context use NAME); or take engine = "process".'
    if "Permission denied" in words:
        where += " (this user may not talk to it)"
        advice = "sudo usermod -aG docker $USER, then log in again."
    return EngineUnavailable(
        f"No Docker engine answers at {where}: {words.splitlines()[0] if words else type(error).__name__}",
        expected="a running Docker engine, 20.10 or newer",
        next_step=advice,
    )
