"""Production on a real cluster of three nodes, under load: nothing is lost, whatever comes.

The tests of this file share one lab, and go on where the one before them left it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from devops_lab.errors import DeployRefused
from devops_lab.model import LoadSummary, Pool, Replica
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.operate import Operate
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.docker import labels, named
from devops_lab.platform.engines.swarm import SwarmEngine
from devops_lab.platform.processes import process_of
from devops_lab.platform.traffic.load import LoadRun
from tests.cluster.nodes import Node
from tests.patience import until

# Requests a second: three engines, the customers and all else share one small machine here.
RATE = float(os.environ.get("DEVOPS_LAB_RATE", "60"))
pytestmark = [pytest.mark.alone, pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(300)]


@contextmanager
def customers(world: LabContext) -> Iterator[LoadRun]:
    """Customers who come before, while, and after something happens."""
    with Operate(world).load(RATE, 250.0) as run:
        until(lambda: len(world.store.requests(run=run.id)) > RATE, "customers")
        yield run
        count = len(world.store.requests(run=run.id))
        until(lambda: len(world.store.requests(run=run.id)) > count + RATE, "customers")


def under_load(world: LabContext, act: Callable[[], object]) -> LoadSummary:
    before = len(Deploy(world).history())
    with customers(world) as run:
        act()
    for deployment in Deploy(world).history()[before:]:
        print(
            f"{deployment.strategy} to {deployment.version}: {deployment.seconds:.1f} s, {deployment.state}"
        )
    return run.stop()


def assert_nothing_lost(world: LabContext, summary: LoadSummary) -> None:
    bad = [o for o in world.store.requests(run=summary.run) if not 200 <= o.status < 300]
    assert bad == []
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    assert summary.orders_accepted > 0
    count = len(world.store.requests(run=summary.run))
    print(f"{count} requests, 0 failed; {summary.orders_accepted} orders, 0 lost")


def at(world: LabContext, version: str, replicas: int = 4) -> None:
    """Have this version serve, if it does not."""
    deploy = Deploy(world)
    if deploy.current() != version:
        deploy.run(version, "rolling", replicas=replicas)
    elif sum(pool.replicas for pool in deploy.pools()) != replicas:
        deploy.scale(replicas)
    world.control.wait_settled(60)


def service(world: LabContext, pool: str) -> Any:
    engine = world.engine
    assert isinstance(engine, SwarmEngine)
    found = engine.cluster.service(named(world.root, pool), world.root)
    assert found
    return found


def healthy(world: LabContext) -> list[Replica]:
    return [r for r in world.store.all(Replica) if r.state == "healthy"]


def test_the_first_deployment_is_spread_over_the_nodes(world: LabContext, cluster: list[Node]) -> None:
    done = Deploy(world).run("1.0.0")
    assert done.strategy == "first"
    replicas = healthy(world)
    assert len(replicas) == 4
    assert {r.node for r in replicas} == {node.name for node in cluster}
    assert all(r.host in {node.address for node in cluster} for r in replicas)
    usage = [world.engine.usage(r) for r in replicas]
    assert all(u is not None and u.memory_bytes > 5_000_000 for u in usage)
    log = world.engine.log_path(replicas[0])
    assert log
    until(lambda: replicas[0].id in log.read_text(), "its log, from its node")


def test_a_task_may_do_no_more_than_it_has_to(world: LabContext) -> None:
    told = service(world, Deploy(world).pools()[0].name)["Spec"]["TaskTemplate"]
    container = told["ContainerSpec"]
    assert (container["User"], container["ReadOnly"], container["CapabilityDrop"]) == ("10001", True, ["ALL"])
    assert told["Resources"]["Limits"].keys() == {"NanoCPUs", "MemoryBytes", "Pids"}
    assert "@sha256:" in container["Image"]


def test_a_rolling_update_and_swarms_own_rollback_lose_nothing(world: LabContext) -> None:
    at(world, "1.0.0")
    deploy = Deploy(world)
    (pool,) = deploy.pools()

    def there_and_back() -> None:
        assert deploy.run("1.1.0", "rolling").state == "done"
        assert {r.release for r in healthy(world)} == {"1.1.0"}
        assert deploy.rollback(why="a hunch").state == "done"
        assert {r.release for r in healthy(world)} == {"1.0.0"}

    assert_nothing_lost(world, under_load(world, there_and_back))
    assert [p.name for p in deploy.pools()] == [pool.name]
    assert service(world, pool.name)["UpdateStatus"]["State"] == "rollback_completed"


@pytest.mark.parametrize("strategy", ["canary", "blue/green"])
def test_a_second_pool_beside_the_first_loses_nothing(world: LabContext, strategy: str) -> None:
    at(world, "1.0.0", 3)
    deploy = Deploy(world)

    def there_and_back() -> None:
        assert deploy.run("1.1.0", strategy, canary_steps=(20, 50)).state == "done"
        assert deploy.rollback().state == "done"

    assert_nothing_lost(world, under_load(world, there_and_back))


def test_scaling_loses_nothing(world: LabContext) -> None:
    at(world, "1.0.0", 3)

    def out_and_in() -> None:
        for replicas in (5, 2):
            Deploy(world).scale(replicas)
            assert len(healthy(world)) == replicas

    assert_nothing_lost(world, under_load(world, out_and_in))


def test_a_version_that_cant_serve_is_rolled_back_by_the_cluster_and_refused(world: LabContext) -> None:
    at(world, "1.0.0", 3)
    before = {r.id for r in healthy(world)}
    began = time.time()

    def refused() -> None:
        with pytest.raises(DeployRefused, match=r"(?s)went back from 1.8.0.*bento can not serve"):
            Deploy(world).run("1.8.0", "rolling")

    assert_nothing_lost(world, under_load(world, refused))
    told = world.store.events(kind="pool.rolled_back", since=began)
    assert len(told) == 1
    assert Deploy(world).current() == "1.0.0"
    world.control.wait_settled(60)
    assert {r.id for r in healthy(world)} == before  # nobody who served was touched
    assert Deploy(world).history()[-1].state in ("refused", "rolled back")


def test_replicas_that_are_killed_on_any_node_are_replaced(world: LabContext) -> None:
    at(world, "1.0.0", 3)
    victims, began = healthy(world), time.time()
    with customers(world) as run:
        for victim in victims[:2]:
            world.engine.kill(victim)

        def replaced() -> bool:
            now = {r.id for r in healthy(world)}
            return len(now) == 3 and not now & {v.id for v in victims[:2]}

        until(replaced, "their places to be taken")
    summary = run.stop()
    assert summary.orders_lost == summary.orders_doubled == 0
    reads = [o for o in world.store.requests(run=summary.run) if o.status >= 500 and not o.order_key]
    assert reads == []
    died = world.store.events(kind="replica.died", subject=f"replica:{victims[0].id}")
    assert "SIGKILL" in died[-1].message
    assert len(world.store.events(kind="replica.replaced", since=began)) >= 2


def test_a_new_agent_takes_over_what_runs(world: LabContext) -> None:
    at(world, "1.0.0", 3)
    before = {r.id for r in healthy(world)}

    def again() -> None:
        who = world.control.identity()
        assert who
        agent = process_of(*who)
        assert agent
        agent.kill()
        agent.wait(60)
        world.control.ensure()
        world.control.wait_settled(60)

    assert_nothing_lost(world, under_load(world, again))
    assert {r.id for r in healthy(world)} == before


def test_the_loss_of_a_node_is_seen_told_and_healed(world: LabContext, cluster: list[Node]) -> None:
    at(world, "1.0.0", 4)
    crowded = max(cluster[1:], key=lambda node: sum(r.node == node.name for r in healthy(world)))
    lost = {r.id for r in healthy(world) if r.node == crowded.name}
    assert lost
    with customers(world) as run:
        began = time.time()
        crowded.lose()
        until(lambda: not lost & {r.id for r in healthy(world)}, "the loss to be seen")
        detected = time.time()
        # Envoy tries who was only cast out after two seconds again: back are they who took their places.
        until(lambda: len([r for r in healthy(world) if r.id not in lost]) == 4, "all replicas", seconds=90)
        healed = time.time()
    summary = run.stop()
    rows = world.store.requests(run=summary.run)
    late = [o for o in rows if o.t > detected and not o.order_key and not 200 <= o.status < 300]
    early = [o for o in rows if o.t <= detected and not 200 <= o.status < 300]
    print(
        f"{len(lost)} of 4 replicas lost; seen by the proxy in {detected - began:.2f} s, all back in "
        f"{healed - began:.2f} s; {len(rows)} requests: {len(early)} failed before that, {len(late)} after"
    )
    assert late == []
    assert summary.orders_lost == summary.orders_doubled == 0
    (down,) = world.store.events(kind="node.down", since=began)
    assert set(down.data["replicas"]) >= lost
    assert {r.node for r in healthy(world)} == {n.name for n in cluster} - {crowded.name}
    crowded.start()
    until(
        lambda: world.store.events(kind="node.back", since=began),
        "the node to be back",
        seconds=60,
        evidence=crowded.words,
    )


def test_orders_survive_all_of_it(world: LabContext) -> None:
    asked, answer = world.engine.ask_database()
    assert "orders" in answer
    assert "***" in asked


def test_teardown_leaves_nothing_and_a_foreign_service_alone(world: LabContext, cluster: list[Node]) -> None:
    foreign = {"Name": "foreign", "TaskTemplate": {"ContainerSpec": {"Image": "none"}}, "Labels": {"a": "b"}}
    engine = world.engine
    assert isinstance(engine, SwarmEngine)
    engine.cluster.create(foreign)
    try:
        world.control.stop(production=True)
        engine.teardown()
        mine = labels(world.root, "")
        label = "devops-lab=" + mine["devops-lab"]
        for node in cluster:
            with node.client() as client:
                # a node that came back removes what it ran before a while after it is told to
                until(
                    lambda: (
                        not client.containers.list(all=True, filters={"label": label}, ignore_removed=True)
                    ),
                    "an empty node",
                    seconds=60,
                )
                assert client.networks.list(filters={"label": label}) == []
                assert client.volumes.list(filters={"label": label}) == []
        with cluster[0].client() as client:
            assert [s.name for s in client.services.list()] == ["foreign"]
            assert client.images.list(filters={"label": label}) == []
    finally:
        engine.cluster.remove_service("foreign")
        world.store.replace_all(Pool, [])
