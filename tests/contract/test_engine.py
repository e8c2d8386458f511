"""What every engine promises (engines/base.py), tried on each of them."""

from __future__ import annotations

import json
import threading
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path

import pytest

from devops_lab.errors import DeployRefused, LabError, RegistryRefused
from devops_lab.model import Pool, Replica
from devops_lab.platform.context import LabContext
from tests.contract.conftest import EVERY
from tests.patience import until
from tests.production import get, new_world, running, sql, tiny_release, torn_down

POOL = Pool("v1", "1.0.0", 1, 100)


def url(replica: Replica) -> str:
    return f"http://{replica.host}:{replica.port}"


def answers(replica: Replica) -> bool:
    try:
        return get(url(replica) + "/readyz") == "ok"
    except OSError:
        return False


def launched(world: LabContext, replica_id: str = "r1", pool: Pool = POOL) -> Replica:
    """A replica of a prepared release that answers."""
    release = tiny_release(world, pool.release)
    world.engine.prepare(release)
    replica = world.engine.launch(pool, replica_id)
    until(lambda: answers(replica), "the replica to answer")
    return replica


def orders(world: LabContext) -> list[str]:
    return sql(world, "select key from orders order by key")


def log_of(world: LabContext, replica: Replica) -> Path:
    path = world.engine.log_path(replica)
    assert path
    return path


def failed(address: str) -> bool:
    try:
        get(address)
    except (OSError, HTTPException):
        return True
    return False


def order(world: LabContext, key: str) -> None:
    sql(world, f"insert into orders values ('{key}')")


def test_a_replica_runs_its_release_in_its_own_environment(world: LabContext) -> None:
    replica = launched(world)
    told = json.loads(get(url(replica) + "/api/info"))
    assert (told["release"], told["replica"]) == ("1.0.0", "r1")
    assert (str(world.production / "envs" / "1.0.0") in told["python"]) == (world.engine.name == "process")
    assert world.engine.alive(replica)
    environment = world.engine.environment(replica)
    assert (environment["BENTO_RELEASE"], environment["BENTO_REPLICA"]) == ("1.0.0", "r1")
    assert environment["DATABASE_URL"] == world.engine.database_url()


def test_two_releases_run_side_by_side(world: LabContext) -> None:
    first, second = launched(world), launched(world, "r2", Pool("v2", "1.1.0", 1, 0))
    assert json.loads(get(url(first) + "/api/info"))["release"] == "1.0.0"
    assert json.loads(get(url(second) + "/api/info"))["release"] == "1.1.0"


def test_usage_and_logs_are_the_replicas_own(world: LabContext) -> None:
    replica = launched(world, "r77")  # no other test's name: its log holds its own words alone
    usage = until(lambda: world.engine.usage(replica), "the replica to be measured")
    assert usage
    assert usage.memory_bytes > 5_000_000
    log = log_of(world, replica)
    until(lambda: '"message": "serving"' in log.read_text(), "its words")
    assert len(log.read_text().splitlines()) == 1


def test_stop_lets_finish_what_is_in_flight(world: LabContext) -> None:
    replica, got = launched(world), list[str]()
    asking = threading.Thread(target=lambda: got.append(get(url(replica) + "/api/info?seconds=0.7")))
    asking.start()
    log = log_of(world, replica)
    until(lambda: "slow begins" in log.read_text(), "the request to be in flight")
    world.engine.stop(replica, 10.0)
    asking.join()
    assert json.loads(got[0])["replica"] == "r1"
    assert not world.engine.alive(replica)


def test_stop_ends_at_the_grace_what_does_not_end_by_itself(world: LabContext) -> None:
    replica = launched(world)
    threading.Thread(target=lambda: failed(url(replica) + "/api/info?seconds=60")).start()
    log = log_of(world, replica)
    until(lambda: "slow begins" in log.read_text(), "the request to be in flight")
    world.engine.stop(replica, 0.3)
    assert not world.engine.alive(replica)
    assert world.engine.ended(replica) == "SIGKILL"
    assert world.engine.usage(replica) is None


def test_stop_is_safe_to_repeat_and_spares_a_stranger(world: LabContext) -> None:
    replica = launched(world)
    stranger = replace(replica, id="r9", born="another:1", handle="f" * 64)
    world.engine.stop(stranger, 1.0)
    assert answers(replica)
    world.engine.stop(replica, 5.0)
    world.engine.stop(replica, 5.0)


def test_a_killed_replica_is_seen_at_once_and_leaves_its_last_words(world: LabContext) -> None:
    replica = launched(world, pool=replace(POOL, env={"TINY": "flood"}))
    get(url(replica) + "/api/info")
    world.engine.kill(replica)
    until(lambda: not world.engine.alive(replica), "the replica to be gone")
    assert world.engine.ended(replica) == "SIGKILL"
    assert "flood 2999" in log_of(world, replica).read_text().splitlines()[-1]
    world.engine.forget(replica)
    world.engine.kill(replica)
    with pytest.raises(LabError, match="r1"):
        world.engine.environment(replica)


def test_a_replica_that_ends_by_itself_tells_how(world: LabContext) -> None:
    release = tiny_release(world)
    world.engine.prepare(release)
    replica = world.engine.launch(replace(POOL, env={"TINY": "crash"}), "r1")
    until(lambda: not world.engine.alive(replica), "the replica to be gone")
    assert world.engine.ended(replica) == "exit code 1"
    assert "no such setting: BENTO_SAUCE" in log_of(world, replica).read_text()


def test_the_database_answers_and_can_not_be_changed_by_asking(world: LabContext) -> None:
    release = tiny_release(world)
    world.engine.prepare(release)
    world.engine.migrate(release)
    asked, answer = world.engine.ask_database()
    assert "DATABASE_URL=" in asked
    assert answer.endswith("tables: orders")
    assert ":***@" in asked or world.engine.name == "process"


def test_a_changed_artifact_is_refused(world: LabContext) -> None:
    release = tiny_release(world)
    if release.image:
        release = replace(release, digest="sha256:" + "0" * 64)
    else:
        with (world.root / release.path).open("ab") as wheel:
            wheel.write(b"x")
    with pytest.raises(RegistryRefused, match=r"is not what was released|holds another wheel"):
        world.engine.prepare(release)
    with pytest.raises(DeployRefused, match="not installed"):
        world.engine.launch(POOL, "r1")


def test_a_missing_artifact_is_refused(world: LabContext) -> None:
    missing = replace(tiny_release(world), path="registry/none.whl", image="sha256:" + "1" * 64)
    with pytest.raises(RegistryRefused, match=r"missing|can't give the image"):
        world.engine.prepare(missing)


def test_a_release_that_was_never_made_for_this_engine_is_refused(world: LabContext) -> None:
    release = replace(tiny_release(world), image="")
    (world.root / release.path).with_suffix(".lock").unlink()
    with pytest.raises(RegistryRefused, match=r"pinned packages|no container image"):
        world.engine.prepare(release)


def test_a_migration_tells_what_it_did(world: LabContext) -> None:
    release = tiny_release(world)
    world.engine.prepare(release)
    assert world.engine.migrate(release) == "migrate: done"
    assert world.engine.migrate(release) == "migrate: done"
    assert orders(world) == []


@pytest.mark.parametrize(
    "broken",
    [
        "sys.exit('no such column: sauce')",
        "db.execute('drop table orders'); sys.exit('no such column: sauce')",
    ],
    ids=["before it changed anything", "half way"],
)
def test_a_broken_migration_is_refused_and_leaves_the_database_as_it_was(
    world: LabContext, broken: str
) -> None:
    good, bad = tiny_release(world), tiny_release(world, "1.1.0", broken)
    for release in (good, bad):
        world.engine.prepare(release)
    world.engine.migrate(good)
    order(world, "first")
    with pytest.raises(DeployRefused, match="no such column: sauce"):
        world.engine.migrate(bad)
    assert orders(world) == ["first"]


def test_a_broken_first_migration_leaves_no_tables(world: LabContext) -> None:
    bad = tiny_release(world, "1.0.0", "sys.exit('no')")
    world.engine.prepare(bad)
    with pytest.raises(DeployRefused):
        world.engine.migrate(bad)
    assert world.engine.ask_database()[1].endswith("tables: none")
    assert world.engine.name != "process" or list((world.production / "data").iterdir()) == []


def test_sweep_ends_only_what_no_record_names(world: LabContext) -> None:
    kept, lost = launched(world), launched(world, "r2")
    assert world.engine.sweep([kept]) == 1
    assert world.engine.alive(kept)
    until(lambda: not world.engine.alive(lost), "the other one to drain and end")


@pytest.mark.parametrize("engine", EVERY)
def test_teardown_leaves_nothing(
    tmp_path: Path, templates: Path, engine: str, request: pytest.FixtureRequest
) -> None:
    if engine == "swarm":
        request.getfixturevalue("one_node")
    with torn_down(new_world(tmp_path / "lab", templates, engine)) as world:
        launched(world)
        assert running(world)
        world.engine.teardown()
        assert running(world) == []
        assert not {"envs", "images"} & {path.name for path in world.production.iterdir()}
        world.engine.teardown()
