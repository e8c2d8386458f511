"""The lab's OCI registry: one container a lab, with its storage in a volume.

`Registry(docker, root).ensure()` answers its address, e.g. "127.0.0.1:49153", as the engine reaches it. The
port is another one after each start, so records keep digests only, and the address is asked for when needed.
All questions go through the engine, so that they work the same when it runs in a virtual machine.
"""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

from devops_lab.errors import LabError, RegistryRefused
from devops_lab.platform.engines.docker import Container, Docker, Gone, labels, named
from devops_lab.platform.engines.prepared import find
from devops_lab.platform.identity import identity
from devops_lab.platform.waits import until

ROLE = "registry"
PORT = "5000/tcp"
LOOPBACK = "127.0.0.1"
DATA = "/var/lib/registry"
USER = "10001"
NAME = "bento"  # the one repository in it
FULL = "no space left on device"


class Registry:
    """The registry of one lab.

    Args:
        docker: the engine that it runs in.
        root: the lab directory.
        host: the address to publish it on; another than loopback must be one that every node trusts.
            Empty for loopback, or, where the engine manages a cluster of several nodes, its address there.
    """

    def __init__(self, docker: Docker, root: Path, host: str = "") -> None:
        self.docker, self.root, self.host = docker, root, host or meeting_point(docker)

    def ensure(self) -> str:
        """The address of the running registry; made, or started again, where it does not run.

        Raises:
            EngineUnavailable: there is no image of a registry.
            LabError: it does not come up, or its name is taken, or the engine would not trust it.
        """
        self._trusted()
        container = self.docker.find(self.root, ROLE) or self._create()
        with self.docker.calls("start the registry"):
            container.reload()
            if container.status != "running":
                container.start()
        return until(
            lambda: self._answering(container),
            "the registry to answer",
            seconds=30,
            evidence=lambda: self.words(container),
            next_step=f"Read its log: docker logs {named(self.root, ROLE)}",
        )

    def address(self) -> str:
        """Where the registry is now; empty while it does not run."""
        container = self.docker.find(self.root, ROLE)
        published = container.ports.get(PORT) if container and container.status == "running" else None
        return f"{self.host}:{published[0]['HostPort']}" if published else ""

    def repository(self) -> str:
        """The name of the shop's images in the running registry, to which :tag or @digest is added."""
        return f"{self.address() or self.ensure()}/{NAME}"

    def digest_of(self, tag: str) -> str:
        """The manifest digest that a tag has now; empty when there is no such tag.

        Raises:
            RegistryRefused: the registry does not answer as it should; carries its words.
        """
        try:
            ask = self.docker.client.api.inspect_distribution
            with self.docker.calls(f"ask the registry for {tag}"):
                found = ask(f"{self.repository()}:{tag}")  # type: ignore[no-untyped-call]
        except Gone:
            return ""
        except LabError as error:
            if "manifest unknown" in error.wrong or "name unknown" in error.wrong:
                return ""
            raise RegistryRefused(
                error.wrong, next_step=f"See docker logs {named(self.root, ROLE)}"
            ) from error
        return str(found["Descriptor"]["digest"])

    def is_full(self) -> bool:
        """Whether the registry said lately that it has no room left."""
        container = self.docker.find(self.root, ROLE)
        return container is not None and FULL in self.words(container)

    def words(self, container: Container) -> str:
        """The last lines of its log."""
        with self.docker.calls("read the registry's log"):
            return str(container.logs(tail=20).decode("utf-8", "replace"))

    def teardown(self) -> None:
        """Remove the registry and all that it holds."""
        if container := self.docker.find(self.root, ROLE):
            self.docker.remove(container)
        try:
            with self.docker.calls("remove the registry's volume"):
                self.docker.client.volumes.get(named(self.root, ROLE)).remove(force=True)
        except Gone:
            pass

    def _create(self) -> Container:
        image, volume = find(self.docker, ROLE), self.docker.volume(self.root, ROLE)
        with self.docker.calls("make the registry's container"):
            return self.docker.client.containers.create(
                image,
                name=named(self.root, ROLE),
                user=USER if image.startswith("devops-lab/") else None,  # the public one's folder is root's
                labels=labels(self.root, ROLE),
                environment={"REGISTRY_STORAGE_DELETE_ENABLED": "true", "OTEL_TRACES_EXPORTER": "none"},
                volumes={volume: {"bind": DATA, "mode": "rw"}},
                ports={PORT: (self.host, self._port())},
                read_only=True,
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                mem_limit=500_000_000,
                pids_limit=200,
                restart_policy={"Name": "unless-stopped"},  # type: ignore[arg-type]  # no count goes with it
            )

    def _port(self) -> int:
        """Any free one on loopback; for other nodes one that stays, since they note it with each image."""
        return 0 if self.host == LOOPBACK else 20_000 + int(identity(self.root), 16) % 10_000

    def _answering(self, container: Container) -> str:
        """The address once the registry answers there; it does when it says that it knows no such image."""
        with self.docker.calls("look at the registry"):
            container.reload()
        if container.status == "exited":
            raise LabError(f"The registry ended:\n{self.words(container)}")
        address = self.address()
        try:
            with self.docker.calls("ask the registry"):
                self.docker.client.api.inspect_distribution(f"{address}/{NAME}:none")
        except Gone:
            return address
        except LabError as error:
            return address if "unknown" in error.wrong else ""
        return address

    def _trusted(self) -> None:
        """A registry without TLS must be one that the engine was told to trust; loopback always is."""
        if ipaddress.ip_address(self.host).is_loopback:
            return
        if not trusts(self.docker.info(), self.host):
            raise LabError(
                f"This Docker engine does not trust a registry at {self.host} without TLS.",
                expected=f"{self.host} in insecure-registries, on every node",
                next_step=f'Add "insecure-registries": ["{self.host}/32"] to daemon.json and restart it.',
            )


def trusts(info: dict[str, Any], host: str) -> bool:
    """Whether an engine takes images from a registry at this address without TLS."""
    trusted = info.get("RegistryConfig", {}).get("InsecureRegistryCIDRs") or []
    return any(ipaddress.ip_address(host) in ipaddress.ip_network(network) for network in trusted)


def meeting_point(docker: Docker) -> str:
    """The address that all who pull can reach: a manager's, where there are other nodes and it is trusted."""
    info = docker.info()
    cluster = info.get("Swarm") or {}
    alone = cluster.get("Nodes", 0) < 2 or not cluster.get("NodeAddr")
    return LOOPBACK if alone or not trusts(info, cluster["NodeAddr"]) else str(cluster["NodeAddr"])
