"""Deployments in a real production under real load: nothing is lost, and what is bad never takes traffic."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest

from devops_lab import views
from devops_lab.errors import BadInput, DeployRefused, RegistryRefused
from devops_lab.model import Deployment, DeploymentState, LoadSummary, Pool, Release, Replica, Step
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.operate import Operate
from devops_lab.phases.plan import Plan
from devops_lab.platform.context import LabContext, exclusive
from devops_lab.platform.control import Control
from devops_lab.platform.git import git
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.production.rollout import Baseline
from devops_lab.shop import apply_change, found_repository
from tests.patience import until
from tests.phases.production import production

RATE = 60.0


@pytest.fixture
def world(tmp_path: Path) -> Iterator[LabContext]:
    with production(tmp_path / "lab", "1.0.0", "1.1.0") as made:
        yield made


def serving(world: LabContext) -> dict[str, int]:
    """Healthy replicas of each release, as they are."""
    found: dict[str, int] = {}
    for replica in world.store.all(Replica):
        if replica.state == "healthy":
            found[replica.release] = found.get(replica.release, 0) + 1
    return found


def under_load(
    world: LabContext, act: Callable[[], object], rate: float = RATE, keep_alive: bool = True
) -> LoadSummary:
    """Customers come before, while, and after something happens."""
    with Operate(world).load(rate, 170.0, keep_alive=keep_alive) as run:
        until(lambda: len(world.store.requests(run=run.id)) > rate / 2, "customers")
        act()
        count = len(world.store.requests(run=run.id))
        until(lambda: len(world.store.requests(run=run.id)) > count + rate / 2, "customers afterwards")
        return run.stop()


def kill_the_oldest(world: LabContext) -> None:
    """End the replica that is there longest as a crash would, and wait until its place is taken."""
    before = world.store.all(Replica)
    victim = min(before, key=lambda r: r.started)
    world.engine.kill(victim)

    def replaced() -> bool:
        now = world.store.all(Replica)
        whole = len(now) == len(before) and all(r.state == "healthy" for r in now)
        return whole and victim.id not in {r.id for r in now}

    until(replaced, f"the place of {victim.id} to be taken")


def assert_nothing_lost(summary: LoadSummary, world: LabContext) -> None:
    bad = [o for o in world.store.requests(run=summary.run) if not 200 <= o.status < 300]
    assert bad == []
    assert summary.failed == summary.orders_lost == summary.orders_doubled == summary.orders_retried == 0
    assert summary.orders_accepted > 0


def test_what_the_agent_did_stands_in_the_transcript(world: LabContext) -> None:
    Deploy(world).run("1.0.0")
    views.commands(world)
    Deploy(world).run("1.1.0")
    text = views.commands(world).alt
    ours, _, theirs = text.partition("# the lab's agent, meanwhile:\n")
    assert "The lab's agent is told: reconcile" in ours + theirs
    assert "-m bento serve --host 127.0.0.1 --port" in theirs
    assert "BENTO_RELEASE=1.1.0" in theirs
    assert "mv xds/.rds.json.new xds/rds.json" in theirs
    assert "kill -TERM" in theirs
    assert str(world.root) not in text


def test_the_first_deployment_serves(world: LabContext) -> None:
    seen: list[Step] = []
    done = Deploy(world).run("1.0.0", who="ada", why="we open", on_step=seen.append)
    assert (done.state, done.strategy, done.previous, done.who, done.why) == (
        "done",
        "first",
        "",
        "ada",
        "we open",
    )
    assert Deploy(world).current() == "1.0.0"
    assert serving(world) == {"1.0.0": 2}
    assert seen == done.steps
    assert all(step.ok and step.seconds > 0 for step in done.steps)
    assert ("deployment:1", "brings", "release:1.0.0") in [
        row[:3] for row in world.store.trail("deployment:1")
    ]
    assert [e.kind for e in Operate(world).inbox() if e.subject == "deployment:1"]
    with pytest.raises(BadInput, match="serves already"):
        Deploy(world).run("1.0.0")
    with pytest.raises(BadInput, match="no version before"):
        Deploy(world).rollback()


@pytest.mark.parametrize("strategy", ["rolling", "blue/green", "canary"])
def test_no_request_is_lost_there_and_back(world: LabContext, strategy: str) -> None:
    deploy = Deploy(world)
    deploy.run("1.0.0")

    def there_and_back() -> None:
        assert deploy.run("1.1.0", strategy, canary_steps=(20, 50)).state == "done"
        assert serving(world) == {"1.1.0": 2}
        assert [p.release for p in deploy.pools()] == ["1.1.0"]
        back = deploy.rollback(why="just to see")
        assert (back.state, back.version, back.previous) == ("done", "1.0.0", "1.1.0")

    summary = under_load(world, there_and_back)
    assert_nothing_lost(summary, world)
    assert set(summary.by_release) == {"1.0.0", "1.1.0"}
    assert deploy.current() == "1.0.0"
    assert serving(world) == {"1.0.0": 2}


def test_a_version_comes_back_with_the_configuration_it_had(world: LabContext) -> None:
    deploy, wanted = Deploy(world), {"BENTO_LOG_LEVEL": "WARNING"}
    deploy.run("1.0.0")
    deploy.run("1.0.0", env=wanted)
    deploy.run("1.1.0")
    assert deploy.pools()[0].env == {}
    assert deploy.rollback().env == deploy.pools()[0].env == wanted


def test_a_canary_has_as_many_replicas_as_its_share_needs(world: LabContext) -> None:
    deploy, seen = Deploy(world), []
    deploy.run("1.0.0", replicas=3)

    def look(step: Step) -> None:
        seen.append((step.name, serving(world).get("1.1.0", 0)))

    under_load(world, lambda: deploy.run("1.1.0", "canary", canary_steps=(20, 50), on_step=look))
    assert seen[2:7] == [
        ("start canary 1", 1),
        ("canary takes 20 %", 1),
        ("start canary 2 to 3", 3),
        ("canary takes 50 %", 3),
        ("switch the traffic", 3),
    ]


def test_scaling_out_and_in_loses_nothing(world: LabContext) -> None:
    deploy = Deploy(world)
    deploy.run("1.0.0", replicas=1)

    def out_and_in() -> None:
        deploy.scale(4, why="lunch")
        assert serving(world) == {"1.0.0": 4}
        deploy.scale(1, why="night")
        assert serving(world) == {"1.0.0": 1}

    assert_nothing_lost(under_load(world, out_and_in), world)
    for impossible in (0, 9):
        with pytest.raises(BadInput):
            deploy.scale(impossible)


def test_a_killed_replica_costs_no_read_and_no_order(world: LabContext) -> None:
    Deploy(world).run("1.0.0")
    summary = under_load(world, lambda: kill_the_oldest(world))
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    assert len(world.store.events(kind="replica.replaced")) == 1


@pytest.mark.parametrize(("version", "evidence"), [("1.4.0", "health check"), ("1.5.0", "can not start")])
@pytest.mark.parametrize("strategy", ["rolling"])
def test_an_unhealthy_release_never_takes_traffic(
    tmp_path: Path, version: str, evidence: str, strategy: str
) -> None:
    with production(tmp_path / "lab", "1.0.0", version) as world:
        deploy = Deploy(world)
        deploy.run("1.0.0")
        before = deploy.pools()

        def refused() -> None:
            with pytest.raises(DeployRefused, match=evidence):
                deploy.run(version, strategy)

        summary = under_load(world, refused)
        assert_nothing_lost(summary, world)
        assert set(summary.by_release) == {"1.0.0"}
        assert deploy.pools() == before
        until(lambda: {r.release for r in world.store.all(Replica)} == {"1.0.0"}, "the new to be removed")
        assert deploy.history()[-1].state == "refused"


@pytest.mark.parametrize(("version", "evidence"), [("1.2.0", "requests fail"), ("1.3.0", "takes")])
def test_a_canary_that_is_worse_is_taken_back_with_the_evidence(
    tmp_path: Path, version: str, evidence: str
) -> None:
    with production(tmp_path / "lab", "1.0.0", version) as world:
        deploy = Deploy(world)
        deploy.run("1.0.0")

        def refused() -> None:
            with pytest.raises(DeployRefused, match=evidence):
                deploy.run(version, "canary", canary_steps=(25, 50))

        under_load(world, refused)
        assert deploy.current() == "1.0.0"
        assert serving(world) == {"1.0.0": 2}
        assert deploy.history()[-1].state == "rolled back"


def test_a_canary_without_customers_says_so(world: LabContext, monkeypatch: pytest.MonkeyPatch) -> None:
    deploy = Deploy(world)
    deploy.run("1.0.0")
    with pytest.raises(DeployRefused, match="saw 0 requests"):
        deploy.run("1.1.0", "canary")
    assert serving(world) == {"1.0.0": 2}


def test_a_failing_migration_is_refused_before_anything_starts(tmp_path: Path) -> None:
    with production(tmp_path / "lab", "1.0.0", "1.6.0") as world:
        Deploy(world).run("1.0.0")
        for key in ("one", "two"):  # two orders in one name, which the migration does not expect
            body = b'{"lines": [{"item": 1, "quantity": 1}], "customer": "Ada"}'
            headers = {"Idempotency-Key": key, "Content-Type": "application/json"}
            order = urllib.request.Request(world.control.url() + "/api/orders", body, headers)
            urllib.request.urlopen(order).close()
        with pytest.raises(DeployRefused):
            Deploy(world).run("1.6.0")
        assert Deploy(world).current() == "1.0.0"
        started = {e.data.get("release") for e in world.store.events(kind="replica.started")}
        assert started == {"1.0.0"}


def test_a_changed_artifact_is_refused_before_anything_starts(world: LabContext) -> None:
    wheel = next((world.registry / "1.0.0").glob("*.whl"))
    wheel.write_bytes(wheel.read_bytes() + b"x")
    with pytest.raises(RegistryRefused):
        Deploy(world).run("1.0.0")
    assert Deploy(world).current() == ""
    assert world.store.all(Replica) == []
    assert Deploy(world).history()[-1].state == "refused"


def test_bad_input_changes_nothing(world: LabContext) -> None:
    deploy = Deploy(world)
    wrong: list[dict[str, Any]] = [
        {"version": "9.9.9"},
        {"version": "1.0.0", "strategy": "roling"},
        {"version": "1.0.0", "replicas": 0},
        {"version": "1.0.0", "canary_steps": (50, 5)},
    ]
    for arguments in wrong:
        with pytest.raises(BadInput):
            deploy.run(**arguments)
    assert deploy.history() == []
    assert not world.control.alive()


def test_a_closed_gate_keeps_the_old_version(world: LabContext) -> None:
    deploy = Deploy(world)
    deploy.run("1.0.0")

    def gate() -> None:
        assert serving(world)["1.1.0"] == 2  # started beside the old, without traffic
        raise DeployRefused("tests failed")

    with pytest.raises(DeployRefused, match="tests failed"):
        deploy.run("1.1.0", "blue/green", gate=gate)
    assert deploy.current() == "1.0.0"
    assert serving(world) == {"1.0.0": 2}


@pytest.mark.parametrize("moment", ["start replica 1", "shift traffic", "drain"])
def test_an_interrupt_puts_the_last_good_pools_back(world: LabContext, moment: str) -> None:
    deploy = Deploy(world)
    deploy.run("1.0.0")
    before = deploy.pools()

    def interrupt(step: Step) -> None:
        if step.name.startswith(moment):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        deploy.run("1.1.0", on_step=interrupt)
    assert deploy.pools() == before
    assert serving(world) == {"1.0.0": 2}
    assert deploy.history()[-1].state == "interrupted"
    assert deploy.run("1.1.0").state == "done"


def test_two_deployments_at_once_are_refused(world: LabContext) -> None:
    Deploy(world).run("1.0.0")
    with exclusive(world), pytest.raises(DeployRefused, match="Somebody else"):
        Deploy(world).run("1.1.0")
    with exclusive(world), pytest.raises(DeployRefused):
        Deploy(world).scale(3)
    assert Deploy(world).current() == "1.0.0"


def test_a_deployment_whose_process_was_killed_is_undone(world: LabContext) -> None:
    Deploy(world).run("1.0.0")
    before = Deploy(world).pools()
    code = f"""
        import time
        from pathlib import Path
        from devops_lab.platform import settings
        from devops_lab.platform.context import LabContext
        from devops_lab.phases.deploy import Deploy
        from devops_lab.platform.store import Store
        root = Path({str(world.root)!r})
        def wait(step):
            if step.name.startswith("shift"):
                print("half way", flush=True)
                time.sleep(60)
        Deploy(LabContext(root, settings.read(root), Store(root / "lab.db"))).run("1.1.0", on_step=wait)
    """
    kernel = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE)
    assert kernel.stdout
    assert kernel.stdout.readline() == b"half way\n"
    assert Deploy(world).settle() is None  # it still runs
    kernel.kill()
    kernel.communicate()
    settled = Deploy(world).settle()
    assert settled
    assert settled.state == "interrupted"
    assert Deploy(world).pools() == before
    assert serving(world) == {"1.0.0": 2}
    assert Deploy(world).settle() is None


def test_a_dead_deployment_whose_new_version_serves_all_is_finished(world: LabContext) -> None:
    deploy = Deploy(world)
    deploy.run("1.0.0")
    old = deploy.pools()[0]
    done = deploy.run("1.1.0", "blue/green")
    # as a process leaves it that dies after the switch, before it stopped the old pool
    world.store.put(replace(done, state="running"), Baseline(done.key, [old], deploy.pools()[0].name))
    world.store.put(replace(old, weight=0))
    settled = deploy.settle()
    assert settled
    assert settled.state == "done"
    assert deploy.current() == "1.1.0"
    world.control.wait_settled(60)
    assert serving(world) == {"1.1.0": 2}


def test_the_agent_may_die_in_the_middle(world: LabContext) -> None:
    deploy = Deploy(world)
    deploy.run("1.0.0")

    def kill_agent(step: Step) -> None:
        if step.name.startswith("start replica 1"):
            identity = Control(world.root).identity()
            assert identity
            os.kill(identity[0], signal.SIGKILL)

    assert deploy.run("1.1.0", on_step=kill_agent).state == "done"
    assert deploy.current() == "1.1.0"
    world.control.wait_settled(60)
    assert serving(world) == {"1.1.0": 2}


def test_the_value_clock_is_flat_until_a_deployment_brings_value(tmp_path: Path) -> None:
    found_repository(tmp_path / "origin.git", tmp_path / "shop", date(2026, 1, 5))
    world = LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db"))
    world.store.event("plan", "lab.founded", "lab")
    first = git(world.shop, "rev-parse", "HEAD")
    second = apply_change(world.shop, "dietary-filter")
    git(world.shop, "push", "--quiet", "origin", "main")
    for version, commit in (("1.0.0", first), ("1.1.0", second)):
        world.store.put(Release(version, commit, f"v{version}", "", "", 0, "", "", 0.0))
    assert [value for _, _, value in Deploy(world).value_clock()] == [
        0.0
    ]  # built, tested, released: no value yet
    history = [("1.0.0", "done"), ("1.1.0", "refused"), ("1.1.0", "done"), ("1.0.0", "done")]
    for number, (version, state) in enumerate(history, 1):
        record = Deployment(number, version, "", "rolling", "", "", "running", number, number + 0.5)
        world.store.put(replace(record, state=cast(DeploymentState, state)))
    worth = next(i.value for i in Plan(world).backlog() if i.change == "dietary-filter")
    clock = Deploy(world).value_clock()[1:]
    assert clock == [(1.5, "1.0.0", 0.0), (3.5, "1.1.0", worth), (4.5, "1.0.0", 0.0)]


@pytest.fixture(params=["process", pytest.param("docker", marks=pytest.mark.docker)])
def anywhere(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LabContext]:
    """The same production on each engine."""
    with production(tmp_path / "lab", "1.0.0", "1.1.0", engine=request.param) as made:
        yield made


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_the_whole_bar_at_200_requests_a_second(anywhere: LabContext, keep_alive: bool) -> None:
    world = anywhere
    deploy = Deploy(world)
    deploy.run("1.0.0")

    def everything() -> None:
        deploy.run("1.1.0", "rolling")
        deploy.rollback()
        deploy.run("1.1.0", "blue/green")
        deploy.rollback()
        deploy.run("1.1.0", "canary")
        deploy.scale(1)
        deploy.scale(4)
        deploy.scale(1)

    summary = under_load(world, everything, 200.0, keep_alive)
    assert_nothing_lost(summary, world)
    assert threading.active_count() < 50
    assert {d.state for d in world.store.all(Deployment)} == {"done"}
    assert {p.release for p in world.store.all(Pool)} == {"1.1.0"}


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize("keep_alive", [True, False])
def test_killed_replicas_cost_nothing_at_200_requests_a_second(
    anywhere: LabContext, keep_alive: bool
) -> None:
    world = anywhere
    Deploy(world).run("1.0.0")

    def kill_three() -> None:
        for _ in range(3):
            kill_the_oldest(world)

    summary = under_load(world, kill_three, 200.0, keep_alive)
    assert summary.failed == summary.orders_lost == summary.orders_doubled == 0
    assert summary.orders_accepted > 0
