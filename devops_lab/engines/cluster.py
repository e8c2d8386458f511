"""The line to a Docker Swarm: a lab's services, their tasks, and the nodes, asked of one manager."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, ClassVar

from devops_lab.engines.docker import LAB_LABEL, Docker, Gone, lab_id, taken
from devops_lab.engines.measuring import how_it_ended
from devops_lab.errors import EngineUnavailable, LabError

Json = dict[str, Any]
ALIVE = {"new", "pending", "assigned", "accepted", "preparing", "ready", "starting", "running"}
TRIES = 10  # somebody else, Swarm itself for one, may change a service while we do
HEAD_BYTES = 8  # before each line of a log: its stream, and in the last four its length


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
    def services(self, root: Path) -> list[Json]:
        """The services of a lab, as Docker's interface has them."""
        with self.calls("list the lab's services"):
            return list(self.client.api.services(filters={"label": f"{LAB_LABEL}={lab_id(root)}"}))

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
        if found["Spec"]["Labels"].get(LAB_LABEL) != lab_id(root):
            raise taken("service", name)
        return found

    def tasks(self, root: Path) -> list[Json]:
        """The tasks of a lab's services, also those that ended, and of services that were removed."""
        with self.calls("list the cluster's tasks"):
            tasks = self.client.api.tasks()
        return [t for t in tasks if container_of(t).get("Labels", {}).get(LAB_LABEL) == lab_id(root)]

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

    def goes_on(self, container: str) -> bool:
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
