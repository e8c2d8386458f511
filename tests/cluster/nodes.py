"""A cluster on one machine: Docker engines that each believe to be a machine of their own.

Each node has its own network, processes, mounts and host name (Linux namespaces), an address on one bridge,
and its own data. The first process of a node's PID namespace is its dockerd: when that is killed, the
kernel ends everything in the node, containers too, as when a machine loses its power. Needs root.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import docker
import psutil

from devops_lab.platform import variables
from tests.patience import until

NETWORKS = range(16)  # clusters that may live side by side on this machine: 10.99.0.x, 10.99.1.x, …
TRUSTED = "10.99.0.0/16"  # the nodes take images from registries there without TLS
HEARTBEAT = 2_000_000_000  # nanoseconds; a node that is silent for three of them is down
# It ends with whoever made it, also when that is killed.
BOX = ["setpriv", "--pdeathsig", "KILL", "unshare", "--net", "--mount", "--uts", "--pid", "--fork"]
BOX += ["--kill-child=KILL", "--mount-proc", "--propagation", "private"]
# It waits for its network, then becomes dockerd.
BOOT = 'hostname "$1"; mount -t tmpfs none /run; echo made; read go; shift; exec "$@"'


def missing() -> str:
    """Why no cluster can be made here, or nothing."""
    if os.geteuid() != 0:
        return "a cluster on one machine needs root (network namespaces)"
    tools = [
        name
        for name in ("dockerd", "ip", "iptables", "nsenter", "setpriv", "unshare")
        if not shutil.which(name)
    ]
    return f"not installed: {', '.join(tools)}" if tools else ""


def run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{' '.join(command)}: {done.stderr.strip()}")


@dataclass
class Node:
    """One Docker engine with an address of its own.

    Args:
        folder: where its socket, data and log lie.
    """

    name: str
    address: str
    bridge: str
    folder: Path
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def host(self) -> str:
        """Its address for Docker's clients, as DOCKER_HOST has it."""
        return f"unix://{self.folder / 'docker.sock'}"

    @property
    def link(self) -> str:
        return f"{self.bridge}{self.name}"  # an interface's name has at most 15 letters

    @property
    def cgroup(self) -> str:
        return f"{self.bridge}-{self.name}"

    def start(self) -> None:
        """Make its namespaces, lay its cable, and start its dockerd; also after it was lost."""
        self.folder.mkdir(parents=True, exist_ok=True)
        # What a machine keeps in /run is gone after a reset. Process numbers mean nothing in a new PID
        # namespace: a dockerd that finds the one of its old containerd taken waits for that in vain.
        (self.folder / "pid").unlink(missing_ok=True)
        shutil.rmtree(self.folder / "exec", ignore_errors=True)
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                [*BOX, "sh", "-c", BOOT, "boot", self.name, *self._dockerd()],
                env=variables.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                start_new_session=True,
            )
        assert self.process.stdin
        assert self.process.stdout
        if self.process.stdout.readline() != "made\n":
            raise OSError(f"{self.name} could not be made:\n{self.words()}")
        self._connect(self.process.pid)
        self.process.stdin.write("go\n")
        self.process.stdin.close()

    def _dockerd(self) -> list[str]:
        options = {
            "host": self.host,
            "pidfile": str(self.folder / "pid"),
            "data-root": str(self.folder / "data"),
            "exec-root": str(self.folder / "exec"),
            "cgroup-parent": f"/{self.cgroup}",
            "insecure-registry": TRUSTED,
            "storage-driver": "overlay2",
            "log-level": "warn",
        }
        usual = "--host=unix:///var/run/docker.sock"  # in the node's own /run
        return ["dockerd", usual, *(f"--{name}={value}" for name, value in options.items())]

    def _connect(self, pid: int) -> None:
        with suppress(OSError):  # the cable of a node that was lost may still be there
            run("ip", "link", "delete", self.link)
        run("ip", "link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", str(pid))
        run("ip", "link", "set", self.link, "master", self.bridge, "up")
        gateway = self.address.rsplit(".", 1)[0] + ".1"
        for what in (
            f"addr add {self.address}/24 dev eth0",
            "link set lo up",
            "link set eth0 up",
            f"route add default via {gateway}",
        ):
            run("nsenter", f"--net=/proc/{pid}/ns/net", "ip", *what.split())

    def answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except (docker.errors.DockerException, OSError):
            if self.process and self.process.poll() is not None:
                raise OSError(f"{self.name} ended:\n{self.words()}") from None
            return False

    @contextmanager
    def client(self) -> Iterator[Any]:
        """Docker's own client of this node."""
        made = docker.DockerClient(base_url=self.host, timeout=30)
        try:
            yield made
        finally:
            made.close()

    def lose(self) -> None:
        """Cut the power and the cable: its dockerd, and all that it runs, end without a word."""
        if self.process:
            for child in psutil.Process(self.process.pid).children():
                child.kill()  # the first process of the PID namespace: the kernel ends the rest
            self.process.wait(60)
        with suppress(OSError):
            run("ip", "link", "delete", self.link)

    def remove(self) -> None:
        """Lose it, with its data."""
        with suppress(psutil.NoSuchProcess):
            self.lose()
        for controller in Path("/sys/fs/cgroup").glob(f"*/{self.cgroup}"):
            for folder in sorted(controller.rglob("*"), reverse=True):
                if folder.is_dir():
                    folder.rmdir()
            controller.rmdir()
        shutil.rmtree(self.folder)

    def words(self) -> str:
        """The last lines that its dockerd wrote."""
        return "\n".join((self.folder / "log").read_text(errors="replace").splitlines()[-8:])


def make_bridge() -> tuple[str, str]:
    """A bridge that nobody uses yet, and the first three numbers of its network."""
    for number in NETWORKS:
        bridge = f"lab{number}"
        with suppress(OSError):
            run("ip", "link", "add", bridge, "type", "bridge")
            run("ip", "addr", "add", f"10.99.{number}.1/24", "dev", bridge)
            run("ip", "link", "set", bridge, "up")
            # Docker's own rules forbid what is not allowed.
            run("iptables", "-I", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")
            return bridge, f"10.99.{number}"
    raise OSError(
        f"All {len(NETWORKS)} bridges lab0, lab1, … are taken; ip link delete one that is left over."
    )


def remove_bridge(bridge: str) -> None:
    run("iptables", "-D", "FORWARD", "-i", bridge, "-o", bridge, "-j", "ACCEPT")
    run("ip", "link", "delete", bridge)


@contextmanager
def nodes(count: int, swarm: bool = True) -> Iterator[list[Node]]:
    """So many nodes, the first the manager of a swarm of all; nothing of them is left in the end."""
    bridge, network = make_bridge()
    folder = Path(tempfile.mkdtemp(prefix="nodes-", dir="/var/tmp"))  # a socket's path must be short
    made = [
        Node(f"n{number}", f"{network}.{10 + number}", bridge, folder / f"n{number}")
        for number in range(1, count + 1)
    ]
    try:
        for node in made:
            node.start()
        for node in made:
            until(node.answers, f"{node.name} to answer", evidence=node.words)
        if swarm:
            join(made)
        yield made
    finally:
        for node in made:
            if node.folder.exists():
                node.remove()
        remove_bridge(bridge)
        folder.rmdir()


def join(made: list[Node]) -> None:
    """Make one swarm of all nodes; the first is its manager."""
    manager = made[0]
    where = f"{manager.address}:2377"
    with manager.client() as client:
        client.swarm.init(
            advertise_addr=manager.address,
            listen_addr=where,
            task_history_retention_limit=2,
            dispatcher_heartbeat_period=HEARTBEAT,
        )
        token = client.swarm.attrs["JoinTokens"]["Worker"]
    for node in made[1:]:
        with node.client() as client:
            client.swarm.join([where], token, listen_addr=f"{node.address}:2377", advertise_addr=node.address)
