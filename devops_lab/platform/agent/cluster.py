"""The control loop on a cluster: it keeps the replicas by itself, so we say what is wanted, watch, and route.

What dies is replaced by the cluster, an update that fails is rolled back by it. Left to us: that Envoy knows
each replica's address in time, and that people hear what happened, in the same words as on one machine.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import cast

from devops_lab.errors import LabError
from devops_lab.model import EventKind, Pool, Replica
from devops_lab.platform.agent.observer import last_lines
from devops_lab.platform.agent.reconciler import CALM_SECONDS, Reconciler
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.base import Orchestrator

LOOP = 3  # quick deaths in a row at one place that are called a crash loop


class ClusterReconciler(Reconciler):
    """Makes a cluster want what the desired state says, and the traffic follow what the cluster does.

    Args:
        world: the lab.
        watch: called with the number of each process that should wake the loop when it ends.
    """

    start_seconds = 30.0  # a node may have to pull first

    def __init__(self, world: LabContext, watch: Callable[[int], None] = lambda pid: None) -> None:
        self.cluster = cast(Orchestrator, world.engine)
        self.looked = False
        self.buried: set[str] = set()  # told already, though the cluster still remembers them
        self.died: dict[tuple[str, str], Replica] = {}  # pool and place -> who died there last
        self.quick: dict[tuple[str, str], int] = {}  # quick deaths there, in a row
        self.went_back: set[str] = set()  # pools whose update the cluster has undone
        self.up: dict[str, bool] = {}  # nodes
        super().__init__(world, watch)

    def reconcile(self) -> None:
        """Take the next step from production as it is to production as it is wanted."""
        self.awake()  # its clock stands still while nobody asks
        pools = {pool.name: pool for pool in self.store.all(Pool)}
        self.keep_envoy_running()
        try:
            self.want(pools)
            self.look()
        except LabError as error:  # what was seen last still holds; customers need not notice
            self.complain("cluster.unreachable", "cluster", f"the cluster can't be asked: {error.wrong}")
        self.read_health()
        self.route(pools)
        self.save()

    def want(self, pools: dict[str, Pool]) -> None:
        """Tell the cluster; a pool that nobody wants goes when no route leads to it."""
        for pool in pools.values():
            try:
                why = self.cluster.ensure(pool)
            except LabError as error:
                self.complain("replica.failed", f"pool:{pool.name}", f"{pool.release} can't run: {error}")
                continue
            if why and pool.name not in self.went_back:
                text = f"the cluster went back from {pool.release} by itself: {why}"
                self.event("pool.rolled_back", f"pool:{pool.name}", text, release=pool.release)
            (self.went_back.add if why else self.went_back.discard)(pool.name)
        for name in self.cluster.pools():
            if name not in pools and name not in self.routed:
                self.cluster.drop(name)

    # ---- what the cluster did
    def look(self) -> None:
        """Compare what runs with what was seen last, and tell the difference."""
        seen = {replica.id: replica for replica in self.cluster.observe()}
        self.look_at_nodes()
        if not self.looked:  # whoever died before we came is history
            self.buried = {r.id for r in seen.values() if r.state == "dead" and r.id not in self.replicas}
            self.looked = True
        dead_first = sorted(seen.values(), key=lambda r: r.state != "dead")  # then who takes their places
        for replica in dead_first:
            if replica.state == "dead":
                self._bury(replica)
            else:
                self._meet(replica)
        for replica in list(self.replicas.values()):
            if replica.id not in seen:
                self.event("replica.stopped", f"replica:{replica.id}", f"{replica.id} ended after draining")
                self._forget(replica)
        self.buried &= seen.keys()

    def look_at_nodes(self) -> None:
        now = self.cluster.machines()
        for name, up in now.items():
            if up == self.up.get(name, True):
                continue
            on_it = [replica.id for replica in self.replicas.values() if replica.node == name]
            lost = f" with {', '.join(on_it)}" if on_it else ""
            text = f"node {name} is back" if up else f"node {name} is down{lost}"
            self.event("node.back" if up else "node.down", f"node:{name}", text, replicas=on_it)
        self.up = now

    def _meet(self, seen: Replica) -> None:
        """A replica that runs, or is on its way: new, moved on, or told to end."""
        known = self.replicas.get(seen.id)
        if known is None:
            known = self._welcome(seen)
        now = replace(known, host=seen.host, port=seen.port, node=seen.node, pid=seen.pid, born=seen.born)
        if seen.state == "draining" and known.state != "draining":
            now = replace(now, state="draining", reason="")
            self.draining_since[seen.id] = self.awake()
            self.event("replica.draining", f"replica:{seen.id}", f"{seen.id} gets no new requests")
        self.replicas[seen.id] = now

    def _welcome(self, replica: Replica) -> Replica:
        self.buried.discard(replica.id)
        self.age(replica)
        kind: EventKind = "replica.started"
        text = f"{replica.id} of {replica.release} is on its way"
        if died := self.died.pop(place_of(replica), None):
            kind, text = "replica.replaced", f"{replica.id} takes the place of {died.id}"
            replica = replace(replica, restarts=died.restarts + 1)
        pool, release = replica.pool, replica.release
        self.event(kind, f"replica:{replica.id}", text, pool=pool, release=release, node=replica.node)
        return replace(replica, state="starting")

    def _bury(self, seen: Replica) -> None:
        """A replica that ended by itself, or with its node."""
        known = self.replicas.get(seen.id)
        if seen.id in self.buried:
            return
        if known is None:  # it came and went between two looks
            self.replicas[seen.id] = known = self._welcome(seen)
        self.buried.add(seen.id)
        if known.state == "draining":
            self.event("replica.stopped", f"replica:{seen.id}", f"{seen.id} ended after draining")
        else:
            self._tell_death(seen, known)
        self._forget(known)

    def _tell_death(self, seen: Replica, known: Replica) -> None:
        place, how = place_of(seen), self.engine.ended(seen)
        words = last_lines(self.engine.log_path(seen))
        text = f"{seen.id} died: {how}"
        self.event("replica.died", f"replica:{seen.id}", text, how=how, last_lines=words, node=known.node)
        self.died[place] = known
        self.quick[place] = self.quick.get(place, 0) + 1 if self.age(known) < CALM_SECONDS else 1
        if self.quick[place] == LOOP:
            text = f"{seen.pool} crashes again and again ({how})"
            self.event("replica.crash_loop", f"replica:{seen.id}", text, last_lines=words)

    # ---- what is otherwise here
    def _listens(self, replica: Replica) -> bool:
        """The cluster names a replica's port when its own health check has passed."""
        return replica.port > 0

    def _replace_hung(self, replica: Replica) -> None:
        """The cluster's own health check ends who hangs; that Envoy can't reach it must be heard."""
        self.ill_since.pop(replica.id)
        text = f"{replica.id} on {replica.node} is well for the cluster, but the proxy does not reach it"
        self.complain("replica.hung", f"replica:{replica.id}", text)

    def moving(self) -> bool:
        """The cluster takes its time, and a replica that was told to end serves on for a while: no hurry."""
        return False


def place_of(replica: Replica) -> tuple[str, str]:
    """Where a replica stands: its pool, and the first part of its name, which its successor has too."""
    return replica.pool, replica.id.partition("-")[0]
