"""The Swarm engine: a pool is a service, a replica one of its tasks, on whichever node Swarm puts it.

Swarm keeps the number of replicas, replaces the dead, updates a service task by task, and goes back by itself
when that fails. Here it is only told what is wanted and asked what there is. The registry and PostgreSQL are
containers of the manager that the lab talks to; replicas reach PostgreSQL through an overlay network.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from devops_lab.errors import LabError, TimedOut
from devops_lab.model import Pool, Replica, Usage
from devops_lab.platform.engines.base import Capabilities
from devops_lab.platform.engines.cluster import (
    ALIVE,
    Cluster,
    Json,
    Machine,
    container_id,
    container_of,
    how_task_ended,
    kill_on_node,
    port_of,
)
from devops_lab.platform.engines.containers import ContainerEngine
from devops_lab.platform.engines.docker import Gone, named
from devops_lab.platform.engines.log_follower import Follower
from devops_lab.platform.engines.metrics import Meter, Told, told_by, visible
from devops_lab.platform.engines.service import (
    DRAIN_SECONDS,
    POOL,
    RELEASE,
    REPLICA_VARIABLE,
    WANTED,
    as_wanted,
    in_words,
    moment,
    name_of,
    running,
    specification,
    went_back,
)
from devops_lab.platform.identity import identity
from devops_lab.platform.processes import Identity, created_at
from devops_lab.platform.settings import Settings
from devops_lab.platform.waits import until

OBEYED = {"shutdown", "remove"}  # states of a task that ended because Swarm told it to


class SwarmEngine(ContainerEngine):
    """Keeps pools as services of a Docker Swarm.

    Args:
        root: the lab directory.
        settings: the lab's configuration.
    """

    name = "swarm"

    def __init__(self, root: Path, settings: Settings) -> None:
        self.cluster = Cluster(settings.docker_host)
        super().__init__(root, settings, self.cluster)
        self._machines: dict[str, Machine] = {}
        self._asked: dict[str, str] = {}  # pool -> what Swarm was told last
        self._where: dict[str, tuple[str, int]] = {}  # task -> its address, which Swarm forgets when it ends
        self._killed: dict[str, str] = {}  # task -> how it ended, when that was us
        self._told: dict[str, Told] = {}  # task -> what it said of itself last
        self._processes: dict[str, Identity] = {}  # container -> its process here, and its start

    def capabilities(self) -> Capabilities:
        return replace(super().capabilities(), heals=True, rolls=True)

    # ---- what is wanted
    def ensure(self, pool: Pool) -> str:
        """Create, scale or update a pool's service; Swarm's own rollback where it remembers just that."""
        name, wanted = self._name(pool.name), as_wanted(pool)
        asked, self._asked[pool.name] = self._asked.get(pool.name), wanted
        service = self.cluster.service(name, self.root)
        if service is None:
            self.cluster.create(self._spec(pool))
        elif service["Spec"]["Labels"].get(WANTED) != wanted:
            if asked == wanted and went_back(service):
                return str(service["UpdateStatus"].get("Message", ""))
            self.cluster.change(name, lambda now: self._changed(now, pool))
        return ""

    def _changed(self, service: Json, pool: Pool) -> tuple[Json, bool]:
        """A service's next specification, and whether that is the one that Swarm remembers."""
        now, before = service["Spec"], service.get("PreviousSpec") or {}
        if before.get("Labels", {}).get(WANTED) == as_wanted(pool) and running(now) != running(before):
            return now, True
        wanted = self._spec(pool)
        if running(now) == running(wanted):  # only their number changes: no task is touched
            wanted = now | {"Labels": wanted["Labels"], "Mode": wanted["Mode"]}
        return wanted, False

    def drop(self, pool: str) -> None:
        self.cluster.remove_service(self._name(pool))
        self._asked.pop(pool, None)

    def pools(self) -> dict[str, str]:
        return {
            s["Spec"]["Labels"].get(POOL, ""): in_words(s) for s in self.cluster.services(identity(self.root))
        }

    def _name(self, pool: str) -> str:
        return named(self.root, re.sub(r"[^a-zA-Z0-9-]", "-", pool))

    def _spec(self, pool: Pool) -> Json:
        told = {"BENTO_RELEASE": pool.release, "DATABASE_URL": self.database_url(), "PYTHONUNBUFFERED": "1"}
        return specification(
            self.root,
            self._name(pool.name),
            pool,
            image=f"{self.images.registry.repository()}@{self._prepared(pool.release, 'digest')}",
            network=self.cluster.network(self.root),
            environment=told | pool.env,
            grace_seconds=self.settings.grace_seconds,
        )

    # ---- what there is
    def observe(self) -> list[Replica]:
        """The tasks of all pools: who starts, runs, drains; who ended is "dead", as long as Swarm remembers.

        Each one's log is followed from here on: only who keeps replicas (the agent) calls this.
        """
        self._machines, tasks = self.cluster.machines(), self.cluster.tasks(identity(self.root))
        ours = [
            task
            for task in tasks
            if task["Status"]["State"] not in OBEYED and POOL in container_of(task)["Labels"]
        ]
        found = [self._replica_of(task, self._machines.get(task.get("NodeID", ""))) for task in ours]
        for replica, task in zip(found, ours, strict=True):
            self._follow(replica, task)
        there = {task["ID"] for task in tasks}
        self._where = {task: where for task, where in self._where.items() if task in there}
        known = {container_id(task) for task in tasks}
        self._processes = {name: found for name, found in self._processes.items() if name in known}
        return found

    def _replica_of(self, task: Json, node: Machine | None) -> Replica:
        status, about = task["Status"], container_of(task)["Labels"]
        if node and (port := port_of(task)):
            self._where[task["ID"]] = node.address, port
        host, port = self._where.get(task["ID"], (node.address if node else "", 0))
        pid, born = self._process(task)
        replica = Replica(
            name_of(task), about[POOL], about[RELEASE], host, port, pid, born,
            started=moment(task["CreatedAt"]), engine=self.name, handle=task["ID"],
            node=node.name if node else "",
        )  # fmt: skip
        if status["State"] not in ALIVE:
            return replace(replica, state="dead", reason=how_task_ended(task))
        if node and not node.up:
            return replace(replica, state="dead", reason=f"its node {node.name} is down")
        return replace(
            replica, state="draining" if task["DesiredState"] in ("shutdown", "remove") else "starting"
        )

    def _process(self, task: Json) -> Identity:
        """A task's process as this machine numbers it, and its start; zeros on other nodes."""
        container = container_id(task)
        if not container or task.get("NodeID") != self.cluster.here.id:
            return 0, ""
        if container not in self._processes:
            try:
                with self.cluster.calls("look for a task's process"):
                    state = self.cluster.client.api.inspect_container(container)["State"]
            except (Gone, LabError):
                return 0, ""
            if not state["Running"]:
                return 0, ""
            pid = visible(int(state["Pid"]), container)
            self._processes[container] = (pid, created_at(pid) if pid else "")
        return self._processes[container]

    def machines(self) -> dict[str, bool]:
        return {machine.name: machine.up for machine in self._machines.values()}

    def _follow(self, replica: Replica, task: Json) -> None:
        """Take in its log, and its figures where this node's engine has them."""
        if replica.handle not in self._followers and replica.node:
            path = self.production / "logs" / f"{replica.id}.log"
            self._followers[replica.handle] = Follower(self.cluster, replica.handle, path)
        container, here = container_id(task), task.get("NodeID") == self.cluster.here.id
        if here and container and replica.state == "starting" and replica.handle not in self._meters:
            self._meters[replica.handle] = Meter(self.cluster, container)

    # ---- one replica
    def launch(self, pool: Pool, replica_id: str) -> Replica:
        """Start one replica as a pool of its own, under a name of ours."""
        alone = replace(
            pool, name=f"{pool.name}-{replica_id}", replicas=1, env=pool.env | {REPLICA_VARIABLE: replica_id}
        )
        self.ensure(alone)

        def placed() -> Replica | None:
            found = (r for r in self.observe() if r.pool == alone.name and (r.port or r.state == "dead"))
            return next(found, None)

        replica = until(placed, f"a node for {alone.name}", seconds=60, every_seconds=0.05)
        assert replica
        return replica

    def alive(self, replica: Replica) -> bool:
        """Whether its task runs, on a node that is up: of others Swarm only knows what was."""
        task = self.cluster.task(replica.handle)
        if task is None or task["Status"]["State"] not in ALIVE:
            return False
        node = self.cluster.machines().get(task.get("NodeID", ""))
        return node is None or node.up

    def ended(self, replica: Replica) -> str:
        if follower := self._followers.get(replica.handle):
            follower.join(2.0)
        task = self.cluster.task(replica.handle)
        if task and task["Status"]["State"] not in ALIVE:
            return how_task_ended(task)
        return self._killed.get(replica.handle) or replica.reason or "ended"

    def stop(self, replica: Replica, grace_seconds: float) -> None:
        """End a replica that is a pool of its own; one of several would only be replaced."""
        self.drop(replica.pool)
        with suppress(TimedOut):
            until(lambda: not self.alive(replica), "it to end", seconds=DRAIN_SECONDS + grace_seconds)
            return
        self.kill(replica)
        self._killed[replica.handle] = "SIGKILL"  # Swarm forgets a task whose service is gone
        until(lambda: not self.alive(replica), f"{replica.id} to end", seconds=10)

    def kill(self, replica: Replica) -> None:
        """SIGKILL, by the engine of the node that the replica runs on."""
        task = self.cluster.task(replica.handle)
        if task and (container := container_id(task)):
            if task.get("NodeID") == self.cluster.here.id:
                super().kill(replace(replica, handle=container))
            else:
                kill_on_node(self.cluster, self.root, task, container)

    def environment(self, replica: Replica) -> dict[str, str]:
        """What the task's container was told, with Swarm's template filled in."""
        task = self.cluster.task(replica.handle)
        if task is None or task["Status"]["State"] not in ALIVE:
            raise LabError(
                f"{replica.id} does not run any more.", next_step="Ask one that lab.replicas() lists."
            )
        told = dict(line.split("=", 1) for line in container_of(task)["Env"])
        return told | {REPLICA_VARIABLE: name_of(task)}

    def usage(self, replica: Replica) -> Usage | None:
        """A replica's figures: as this node's engine counts them, or, on another node, as it says itself."""
        if meter := self._meters.get(replica.handle):
            return meter.last if self.alive(replica) else None
        said = told_by(replica) if replica.port else None
        if said is None:
            return None
        before, self._told[replica.handle] = self._told.get(replica.handle), said
        return said.usage(before)

    def forget(self, replica: Replica) -> None:
        """Drop what is kept in memory; its log is still taken in to its end."""
        self._told.pop(replica.handle, None)
        if meter := self._meters.pop(replica.handle, None):
            meter.ended.set()

    def sweep(self, known: list[Replica]) -> int:
        """Drop the pools of which no replica is known."""
        pools, ended = {replica.pool for replica in known}, 0
        for name in self.pools():
            if name not in pools:
                ended += sum(r.pool == name and r.state != "dead" for r in self.observe())
                self.drop(name)
        return ended
