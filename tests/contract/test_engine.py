"""What every engine promises (engines/base.py), tried on each of them."""

from __future__ import annotations

import json
import sqlite3
import threading
from contextlib import closing
from dataclasses import replace
from http.client import HTTPException

import pytest

from devops_lab.errors import DeployRefused, RegistryRefused
from devops_lab.model import Pool, Replica
from devops_lab.phases import World
from devops_lab.processes import processes_of
from devops_lab.waits import until
from tests.production import get, tiny_release

POOL = Pool("v1", "1.0.0", 1, 100)


def url(replica: Replica) -> str:
    return f"http://{replica.host}:{replica.port}"


def answers(replica: Replica) -> bool:
    try:
        return get(url(replica) + "/readyz") == "ok"
    except OSError:
        return False


def launched(world: World, replica_id: str = "r1", pool: Pool = POOL) -> Replica:
    """A replica of a prepared release that answers."""
    release = tiny_release(world.root, pool.release)
    world.engine.prepare(release)
    replica = world.engine.launch(pool, replica_id)
    until(lambda: answers(replica), "the replica to answer", seconds=20)
    return replica


def orders(world: World) -> list[str]:
    path = world.engine.database_url().removeprefix("sqlite:///")
    with closing(sqlite3.connect(path)) as db:
        return [row[0] for row in db.execute("select key from orders order by key")]


def failed(address: str) -> bool:
    try:
        get(address)
    except (OSError, HTTPException):
        return True
    return False


def order(world: World, key: str) -> None:
    with closing(sqlite3.connect(world.engine.database_url().removeprefix("sqlite:///"))) as db:
        db.execute("insert into orders values (?)", (key,))
        db.commit()


def test_a_replica_runs_its_release_in_its_own_environment(world: World) -> None:
    replica = launched(world)
    told = json.loads(get(url(replica) + "/api/info"))
    assert (told["release"], told["replica"]) == ("1.0.0", "r1")
    assert str(world.production / "envs" / "1.0.0") in told["python"]
    assert world.engine.alive(replica)


def test_two_releases_run_side_by_side(world: World) -> None:
    first, second = launched(world), launched(world, "r2", Pool("v2", "1.1.0", 1, 0))
    assert json.loads(get(url(first) + "/api/info"))["release"] == "1.0.0"
    assert json.loads(get(url(second) + "/api/info"))["release"] == "1.1.0"


def test_usage_and_logs_are_the_replicas_own(world: World) -> None:
    replica = launched(world)
    usage = world.engine.usage(replica)
    assert usage is not None
    assert usage.memory_bytes > 5_000_000
    log = world.engine.log_path(replica)
    assert log is not None
    assert f'"pid": {replica.pid}' in log.read_text()


def test_stop_lets_finish_what_is_in_flight(world: World) -> None:
    replica, got = launched(world), list[str]()
    asking = threading.Thread(target=lambda: got.append(get(url(replica) + "/api/info?seconds=0.7")))
    asking.start()
    log = world.engine.log_path(replica)
    assert log is not None
    until(lambda: "slow begins" in log.read_text(), "the request to be in flight")
    world.engine.stop(replica, 10.0)
    asking.join()
    assert json.loads(got[0])["replica"] == "r1"
    assert not world.engine.alive(replica)


def test_stop_ends_at_the_grace_what_does_not_end_by_itself(world: World) -> None:
    replica = launched(world)
    threading.Thread(target=lambda: failed(url(replica) + "/api/info?seconds=60")).start()
    log = world.engine.log_path(replica)
    assert log is not None
    until(lambda: "slow begins" in log.read_text(), "the request to be in flight")
    world.engine.stop(replica, 0.3)
    assert not world.engine.alive(replica)
    assert world.engine.ended(replica) == "SIGKILL"
    assert world.engine.usage(replica) is None


def test_stop_is_safe_to_repeat_and_spares_a_stranger(world: World) -> None:
    replica = launched(world)
    stranger = replace(replica, id="r9", created=replica.created - 1000)
    world.engine.stop(stranger, 1.0)
    assert answers(replica)
    world.engine.stop(replica, 5.0)
    world.engine.stop(replica, 5.0)


def test_a_changed_artifact_is_refused(world: World) -> None:
    release = tiny_release(world.root)
    with (world.root / release.path).open("ab") as wheel:
        wheel.write(b"x")
    with pytest.raises(RegistryRefused, match="is not what was released"):
        world.engine.prepare(release)
    with pytest.raises(DeployRefused, match="not installed"):
        world.engine.launch(POOL, "r1")


def test_a_missing_artifact_is_refused(world: World) -> None:
    with pytest.raises(RegistryRefused, match="missing"):
        world.engine.prepare(replace(tiny_release(world.root), path="registry/none.whl"))


def test_a_release_without_a_list_of_packages_is_refused(world: World) -> None:
    release = tiny_release(world.root)
    (world.root / release.path).with_suffix(".lock").unlink()
    with pytest.raises(RegistryRefused, match="pinned packages"):
        world.engine.prepare(release)


def test_a_migration_tells_what_it_did(world: World) -> None:
    release = tiny_release(world.root)
    world.engine.prepare(release)
    assert world.engine.migrate(release) == "migrate: done"
    assert orders(world) == []


@pytest.mark.parametrize(
    "broken",
    [
        "sys.exit('no such column: sauce')",
        "db.execute('drop table orders'); db.commit(); sys.exit('no such column: sauce')",
    ],
    ids=["before it changed anything", "half way"],
)
def test_a_broken_migration_is_refused_and_leaves_the_database_as_it_was(world: World, broken: str) -> None:
    good, bad = tiny_release(world.root), tiny_release(world.root, "1.1.0", broken)
    for release in (good, bad):
        world.engine.prepare(release)
    world.engine.migrate(good)
    order(world, "first")
    with pytest.raises(DeployRefused, match="no such column: sauce"):
        world.engine.migrate(bad)
    assert orders(world) == ["first"]


def test_a_broken_first_migration_leaves_no_database(world: World) -> None:
    bad = tiny_release(world.root, "1.0.0", "sys.exit('no')")
    world.engine.prepare(bad)
    with pytest.raises(DeployRefused):
        world.engine.migrate(bad)
    assert list((world.production / "data").iterdir()) == []


def test_sweep_ends_only_what_no_record_names(world: World) -> None:
    kept, lost = launched(world), launched(world, "r2")
    assert world.engine.sweep([kept]) == 1
    assert world.engine.alive(kept)
    assert not world.engine.alive(lost)


def test_teardown_leaves_nothing(world: World) -> None:
    launched(world)
    world.engine.teardown()
    assert processes_of(world.root) == []
    assert not (world.production / "envs").exists()
