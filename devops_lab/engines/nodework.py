"""Work on another node: a manager can only start services, so a service there asks that node's engine."""

from __future__ import annotations

from pathlib import Path

from devops_lab.engines.cluster import ALIVE, Cluster, Json, container_of, how_task_ended
from devops_lab.engines.docker import labels, named
from devops_lab.errors import LabError
from devops_lab.waits import until

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
    tasks = [t for t in cluster.tasks(root) if service and t["ServiceID"] == service["ID"]]
    return next((t for t in tasks if t["Status"]["State"] not in ALIVE), None)
