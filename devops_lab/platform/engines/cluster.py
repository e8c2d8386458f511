"""The line to a Docker Swarm: a lab's services, their tasks, and the nodes, asked of one manager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from devops_lab.errors import EngineUnavailable, LabError
from devops_lab.platform.engines.docker import (
    LAB_LABEL,
    MACHINE_LABEL,
    PATH_LABEL,
    Docker,
    Gone,
    labels,
    named,
    taken,
)
from devops_lab.platform.engines.metrics import how_it_ended
from devops_lab.platform.identity import identity, machine
from devops_lab.platform.waits import until

Json = dict[str, Any]
ALIVE = {"new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"}
TRIES = 10  # somebody else, Swarm itself for one, may change a service while we do
HEAD_BYTES = 8  # before each line of a log: its stream, and in the last four its length
ENGINE = "/var/run/docker.sock"
KILL = """
import http.client, socket, sys
line = http.client.HTTPConnection("engine")
line.sock = socket.socket(socket.AF_UNIX)
line.sock.connect("/var/run/docker.sock")
line.request("POST", f"/containers/{sys.argv[1]}/kill?signal=SIGKILL")
answer = line.getresponse()
if answer.status not in (204, 404, 409):  # 404, 409: it has ended already
    sys.exit(answer.read().decode())
"""


@dataclass(frozen=True)
class Machine:
    """One node of the cluster."""

    id: str
    name: str
    address: str
    up: bool


class Cluster(Docker):
    """A Docker engine that manages a swarm.

    Args:
        host: its address, as DOCKER_HOST has it; empty for the environment's, else the default one.

    Raises:
        EngineUnavailable: it does not answer, or manages no swarm.
    """

    # Attachable, so that plain containers beside the services (PostgreSQL, migrations) can join it.
    network_options: ClassVar[Json] = {"driver": "overlay", "attachable": True}

    def __init__(self, host: str = "") -> None:
        super().__init__(host)
        self.here = manager_of(self.info())

    # ---- what there is
    def services(self, lab: str) -> list[Json]:
        """The services of a lab, by its identity, as Docker's interface has them."""
        return self._services(f"{LAB_LABEL}={lab}")

    def _services(self, label: str) -> list[Json]:
        with self.calls("list the lab's services"):
            return list(self.client.api.services(filters={"label": label}))

    def labs(self) -> dict[str, str]:
        """As of one engine; also those of which the cluster has services."""
        told = [service["Spec"]["Labels"] for service in self._services(f"{MACHINE_LABEL}={machine()}")]
        return {labels[LAB_LABEL]: labels[PATH_LABEL] for labels in told} | super().labs()

    def service(self, name: str, root: Path) -> Json | None:
        """A service of the lab by its name; None when there is none.

        Raises:
            LabError: the name is taken by a service that is not this lab's; it is left alone.
        """
        try:
            with self.calls(f"look for the service {name}"):
                found: Json = self.client.api.inspect_service(name)
        except Gone:
            return None
        if found["Spec"]["Labels"].get(LAB_LABEL) != identity(root):
            raise taken("service", name)
        return found

    def tasks(self, lab: str) -> list[Json]:
        """The tasks of a lab's services, also those that ended, and of services that were removed."""
        with self.calls("list the cluster's tasks"):
            tasks = self.client.api.tasks()
        return [t for t in tasks if container_of(t).get("Labels", {}).get(LAB_LABEL) == lab]

    def task(self, task_id: str) -> Json | None:
        try:
            with self.calls(f"look at the task {task_id}"):
                found: Json = self.client.api.inspect_task(task_id)
                return found
        except Gone:
            return None

    def machines(self) -> dict[str, Machine]:
        """The nodes of the cluster by their ids."""
        with self.calls("list the nodes"):
            nodes = self.client.api.nodes()
        return {node["ID"]: machine_of(node) for node in nodes}

    # ---- changes
    def remove_all(self, lab: str) -> None:
        """Remove the services of a lab, on all nodes, and what one engine would remove."""
        for service in self.services(lab):
            self.remove_service(service["ID"])

        def gone() -> bool:
            down = {node.id for node in self.machines().values() if not node.up}
            left = [task for task in self.tasks(lab) if task["Status"]["State"] in ALIVE]
            return all(task.get("NodeID") in down for task in left)

        until(gone, "the tasks to end", seconds=30)
        super().remove_all(lab)

    def create(self, spec: Json) -> None:
        self._send(f"create the service {spec['Name']}", "/services/create", spec)

    def change(self, name: str, change: Callable[[Json], tuple[Json, bool]]) -> None:
        """Change a service; when somebody else did so meanwhile, look again and try again.

        Args:
            change: from the service as it is to the specification that is wanted, and whether that is meant
                as a rollback: then Swarm takes the one that it remembers.
        """
        for left in reversed(range(TRIES)):
            with self.calls(f"look at the service {name}"):
                service = self.client.api.inspect_service(name)
            spec, back = change(service)
            asked = {"version": service["Version"]["Index"]} | ({"rollback": "previous"} if back else {})
            try:
                self._send(f"update the service {name}", f"/services/{service['ID']}/update", spec, **asked)
                return
            except LabError as error:
                if "out of sequence" not in error.wrong or not left:
                    raise

    def remove_service(self, name: str) -> None:
        try:
            with self.calls(f"remove the service {name}"):
                self.client.api.remove_service(name)
        except Gone:
            pass

    def _send(self, what: str, path: str, spec: Json, **parameters: object) -> Json:
        """Post a specification as it is: docker-py knows neither `rollback` nor limits on processes."""
        api = self.client.api
        with self.calls(what):
            answer = api.post(
                f"{api.base_url}/v{api.api_version}{path}",
                json=spec,
                params={name: str(value) for name, value in parameters.items()},
                timeout=api.timeout,
            )
        said: Json = answer.json() if answer.content else {}
        if answer.status_code >= HTTPStatus.BAD_REQUEST:
            raise LabError(f"The cluster refused to {what}: {said.get('message', answer.reason)}")
        return said

    # ---- logs: of tasks, wherever they run
    def log_lines(self, container: str, since: str = "") -> Iterator[tuple[str, bytes]]:
        """What a task says, as it says it: (time stamp to the nanosecond, text); the manager fetches it.

        Args:
            container: the task's id.
            since: a time stamp; what came before it is left out by who reads.
        """
        api = self.client.api
        wanted = "follow=1&stdout=1&stderr=1&timestamps=1"
        with api.get(
            f"{api.base_url}/v{api.api_version}/tasks/{container}/logs?{wanted}", stream=True, timeout=None
        ) as answer:
            if answer.status_code == HTTPStatus.NOT_FOUND:
                raise Gone(f"no task {container}")
            yield from lines_in(answer.iter_content(None))

    def is_running(self, container: str) -> bool:
        """Whether a task may still say something."""
        task = self.task(container)
        return task is not None and task["Status"]["State"] in ALIVE


def lines_in(pieces: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """The lines of a log as the engine sends it: each behind a head with its length, cut anywhere."""
    left = b""
    for piece in pieces:
        left += piece
        while len(left) >= HEAD_BYTES:
            end = HEAD_BYTES + int.from_bytes(left[4:HEAD_BYTES], "big")
            if len(left) < end:
                break
            stamp, _, text = left[HEAD_BYTES:end].partition(b" ")
            left = left[end:]
            yield stamp.decode(), text


def manager_of(info: Json) -> Machine:
    """The node that an engine is, if it manages a swarm.

    Raises:
        EngineUnavailable: it does not; says what to do.
    """
    cluster = info.get("Swarm") or {}
    if cluster.get("LocalNodeState") != "active":
        raise EngineUnavailable(
            "This Docker engine belongs to no swarm.",
            expected="a manager of an active swarm",
            next_step='Run `docker swarm init`, or take engine = "docker".',
        )
    if not cluster.get("ControlAvailable"):
        managers = ", ".join(m["Addr"].rpartition(":")[0] for m in cluster.get("RemoteManagers") or [])
        raise EngineUnavailable(
            "This Docker engine is a worker of its swarm, and only managers can be told what is wanted.",
            expected="a manager of an active swarm",
            next_step=f"Run the lab on a manager ({managers or 'docker node ls tells which'}).",
        )
    return Machine(cluster["NodeID"], info["Name"], cluster["NodeAddr"], True)


def machine_of(node: Json) -> Machine:
    address = node["Status"].get("Addr", "")
    if address in ("", "0.0.0.0"):  # a manager does not always know its own
        address = node.get("ManagerStatus", {}).get("Addr", "127.0.0.1").rpartition(":")[0]
    return Machine(
        node["ID"],
        node["Description"]["Hostname"],
        address,
        node["Status"]["State"] not in ("down", "unknown"),
    )


def container_of(task: Json) -> Json:
    """What a task says about its container."""
    found: Json = task["Spec"].get("ContainerSpec", {})
    return found


def container_id(task: Json) -> str:
    """The container of a task, as its node's engine calls it; empty while there is none."""
    return str((task["Status"].get("ContainerStatus") or {}).get("ContainerID", ""))


def port_of(task: Json) -> int:
    """The port of its node that a task's container answers on; 0 while it has none."""
    ports = (task["Status"].get("PortStatus") or {}).get("Ports") or [{}]
    return int(ports[0].get("PublishedPort", 0))


def how_task_ended(task: Json) -> str:
    """The end of a task in words."""

    status = task["Status"]
    code = int((status.get("ContainerStatus") or {}).get("ExitCode", 0))
    words = str(status.get("Err") or status.get("Message") or status["State"]).removeprefix("task: ")
    return how_it_ended({"ExitCode": code}) if code else words


# ---- a manager can only start services: for a kill on another node, one there asks that node's engine
def kill_on_node(cluster: Cluster, root: Path, task: Json, container: str) -> None:
    """End a container of another node at once, through that node's own engine.

    Raises:
        LabError: it could not be done; carries the words of who tried.
    """
    name = named(root, f"kill-{container[:12]}")
    cluster.create(
        {
            "Name": name,
            "Labels": labels(root, "kill"),
            "Mode": {"Replicated": {"Replicas": 1}},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": container_of(task)["Image"],  # that node has it, and it has a Python
                    "Command": ["python", "-Ic", KILL, container],
                    "User": "0",  # the engine's socket is root's
                    "Labels": labels(root, "kill"),
                    "Mounts": [{"Type": "bind", "Source": ENGINE, "Target": ENGINE}],
                    "Healthcheck": {"Test": ["NONE"]},
                },
                "RestartPolicy": {"Condition": "none"},
                "Placement": {"Constraints": [f"node.id=={task['NodeID']}"]},
            },
        }
    )
    try:
        done = until(lambda: _ended(cluster, root, name), "the node to end a container", seconds=30)
    finally:
        cluster.remove_service(name)
    assert done
    if done["Status"]["State"] != "complete":
        raise LabError(
            f"The container could not be ended on its node: {how_task_ended(done)}",
            expected=f"an engine behind {ENGINE} of that node",
        )


def _ended(cluster: Cluster, root: Path, name: str) -> Json | None:
    """The task of a service that runs once, when it has ended."""
    service = cluster.service(name, root)
    tasks = [t for t in cluster.tasks(identity(root)) if service and t["ServiceID"] == service["ID"]]
    return next((t for t in tasks if t["Status"]["State"] not in ALIVE), None)
