"""The Docker engine where things go wrong: strangers, an engine that is away, broken images; logs."""

from __future__ import annotations

import io
import re
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab.errors import DeployRefused, EngineUnavailable, LabError, RegistryRefused
from devops_lab.model import Pool, Release, Replica
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.containers import ContainerEngine
from devops_lab.platform.engines.docker import LAB_LABEL, Docker, LogConfig, labels, named
from devops_lab.platform.engines.log_follower import Follower, position_of
from devops_lab.platform.identity import identity
from tests.engines.proxied import Proxy
from tests.patience import until
from tests.production import get, make_templates, new_world, running, tiny_release, torn_down

pytestmark = pytest.mark.docker
POOL = Pool("v1", "1.0.0", 1, 100)
PYTHON = "devops-lab/python"


@pytest.fixture
def engine(world: LabContext) -> ContainerEngine:
    assert isinstance(world.engine, ContainerEngine)
    return world.engine


@pytest.fixture
def release(world: LabContext) -> Release:
    made = tiny_release(world)
    world.engine.prepare(made)
    return made


def python_image(docker: Docker) -> str:
    from devops_lab.platform.engines.prepared import find

    return find(docker, "python")


# ---- strangers
def test_teardown_spares_what_is_not_the_labs(tmp_path: Path) -> None:
    """A container, image, network and volume of somebody else, with names that look like ours."""
    docker = Docker()
    client, image = docker.client, python_image(docker)
    client.images.get(image).tag("lab-00000000/bento", "9.9.9")
    network = client.networks.create("lab-00000000")
    volume = client.volumes.create("lab-00000000-postgres")
    other = labels(tmp_path / "another lab", "replica")
    stranger = client.containers.run(
        image, ["sleep", "60"], name="lab-00000000-r1", labels=other, network=network.name, detach=True
    )
    try:
        with torn_down(new_world(tmp_path / "lab", make_templates(tmp_path / "t"), "docker")) as world:
            release = tiny_release(world)
            world.engine.prepare(release)
            world.engine.migrate(release)
            world.engine.launch(POOL, "r1")
            assert len(running(world)) == 3
            id_ = named(world.root)
        stranger.reload()
        assert stranger.status == "running"
        assert client.images.get("lab-00000000/bento:9.9.9")
        assert client.networks.list(names=["lab-00000000"])
        assert client.volumes.get("lab-00000000-postgres")
        left = [str(c.name) for c in client.containers.list(all=True)]
        left += [str(v.name) for v in client.volumes.list()] + [str(n.name) for n in client.networks.list()]
        left += [tag for i in client.images.list() for tag in i.tags]
        assert [name for name in left if id_ in name] == []
    finally:
        stranger.remove(force=True)
        network.remove()
        volume.remove()
        client.images.remove("lab-00000000/bento:9.9.9")


@pytest.mark.parametrize("what", ["r1", "migration"])
def test_a_name_that_somebody_else_has_is_a_clear_error(
    world: LabContext, engine: ContainerEngine, release: Release, what: str
) -> None:
    client = engine.docker.client
    stranger = client.containers.create(
        python_image(engine.docker), ["sleep", "9"], name=named(world.root, what)
    )
    try:
        with pytest.raises(LabError, match=r"(?s)already.*does not carry this lab's mark.*What to do"):
            engine.launch(POOL, "r1") if what == "r1" else engine.migrate(release)
        stranger.reload()
    finally:
        stranger.remove(force=True)


def test_what_an_agent_that_died_left_half_started_is_replaced(
    world: LabContext, engine: ContainerEngine, release: Release
) -> None:
    lost = engine.launch(POOL, "r1")
    assert engine.launch(POOL, "r1").handle != lost.handle
    assert not engine.alive(lost)
    assert len(engine.docker.containers(world.root, "replica")) == 1


# ---- images and registries that are not as they should be
def test_an_image_that_does_not_start_leaves_nothing(
    world: LabContext, engine: ContainerEngine, release: Release, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One without Python in it: the engine itself can't start the command."""
    nothing = io.BytesIO()
    with tarfile.open(fileobj=nothing, mode="w") as tar:
        tar.addfile(tarfile.TarInfo("empty"))
    label = f"LABEL {LAB_LABEL}={identity(world.root)}"
    said = engine.docker.client.api.import_image_from_data(nothing.getvalue(), changes=[label])
    image = re.findall(r"sha256:[0-9a-f]{64}", said)[-1]
    monkeypatch.setattr(engine, "_prepared", lambda version: image)
    with pytest.raises(LabError, match=r"refused to start r1.*python"):
        engine.launch(POOL, "r1")
    with pytest.raises(LabError, match=r"refused to migrate.*python"):
        engine.migrate(release)
    assert engine.docker.containers(world.root, "replica") == []
    assert engine.docker.containers(world.root, "migration") == []


def test_an_image_that_somebody_removed_is_a_clear_error_and_comes_back_with_the_next_deployment(
    world: LabContext, engine: ContainerEngine, release: Release
) -> None:
    engine.docker.client.images.remove(engine._prepared("1.0.0"), force=True)
    with pytest.raises(DeployRefused, match=r"(?s)gone from the Docker engine.*Deploy 1\.0\.0 again"):
        engine.launch(POOL, "r1")
    assert engine.docker.containers(world.root, "replica") == []
    engine.prepare(release)
    replica = engine.launch(POOL, "r1")
    until(lambda: answers(replica), "it to answer")


def test_a_tag_that_moved_changes_nothing(
    world: LabContext, engine: ContainerEngine, release: Release
) -> None:
    """What is launched is what was pulled by its digest, whatever a tag says by now."""
    client = engine.docker.client
    tag = engine.images.tag(release.version)
    client.images.get(engine.images.pull(release.image)).tag(tag)
    client.images.get(python_image(engine.docker)).tag(tag)  # now it names another image
    try:
        replica = engine.launch(POOL, "r1")
        until(lambda: answers(replica), "the right image to answer")
    finally:
        client.images.remove(tag)


def test_an_image_of_another_wheel_is_refused(engine: ContainerEngine, release: Release) -> None:
    with pytest.raises(RegistryRefused, match="holds another wheel"):
        engine.prepare(replace(release, digest="sha256:" + "0" * 64))


# ---- an engine that is away
@pytest.fixture
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxy]:
    made = Proxy(tmp_path_factory.mktemp("p") / "docker.sock")
    yield made
    made.cut()


def test_an_engine_that_is_away_is_told_and_kills_nobody(
    world: LabContext, engine: ContainerEngine, release: Release, proxy: Proxy
) -> None:
    away = ContainerEngine(world.root, world.settings, Docker(proxy.address))
    replica = away.launch(POOL, "r1")
    until(lambda: answers(replica), "the replica to answer")
    proxy.cut()
    unseen = replace(replica, pid=0, started=0)  # as where Docker runs in a virtual machine
    assert away.alive(replica)
    assert away.alive(unseen)
    for call in (
        lambda: away.launch(POOL, "r2"),
        lambda: away.prepare(release),
        lambda: away.migrate(release),
        lambda: away.stop(replica, 1.0),
        lambda: away.kill(replica),
        lambda: away.ask_database(),
        lambda: away.teardown(),
    ):
        with pytest.raises(EngineUnavailable, match=r"(?s)No Docker engine answers.*What to do"):
            call()
    assert answers(replica)
    proxy.restore()
    assert away.alive(unseen)
    away.kill(replica)
    until(lambda: not away.alive(unseen), "the end to be seen")
    assert away.ended(replica) == "SIGKILL"


# ---- logs
def counting(world: LabContext, lines: int, text: str = "") -> str:
    """A container that counts aloud, quickly; its id."""
    docker, code = Docker(), f"for n in range({lines}): print(n, {text!r}, flush=True)"
    container = docker.client.containers.run(
        python_image(docker),
        ["python", "-c", f"import time\n{code}\ntime.sleep(0.2)"],
        labels=labels(world.root, "counter"),
        log_config=LogConfig(type="json-file"),
        detach=True,
    )
    return str(container.id)


def test_a_log_is_followed_to_its_end(world: LabContext, tmp_path: Path) -> None:
    follower = Follower(Docker(), counting(world, 3000), tmp_path / "r1.log")
    follower.join(60)
    assert (tmp_path / "r1.log").read_text().split() == [str(n) for n in range(3000)]


def test_a_log_goes_on_where_its_follower_was_killed(world: LabContext, tmp_path: Path, proxy: Proxy) -> None:
    """Cut off again and again, and once in the middle of a write: no line is missing, none is there twice."""
    path, container = tmp_path / "r1.log", counting(world, 6000)
    docker = Docker(proxy.address)
    for part in (500, 2000):
        follower = Follower(docker, container, path)
        until(lambda part=part: path.exists() and path.read_text().count("\n") > part, "some lines")  # type: ignore[misc]
        follower.stopped.set()
        proxy.cut()
        follower.join(60)
        proxy.restore()
    with path.open("a") as half:
        half.write("4000\n40")  # written, but not yet noted, when the power went
    Follower(Docker(), container, path).join(60)
    assert path.read_text().split() == [str(n) for n in range(6000)]


def test_a_log_goes_on_when_the_engine_comes_back(world: LabContext, tmp_path: Path, proxy: Proxy) -> None:
    path, docker = tmp_path / "r1.log", Docker(proxy.address)
    follower = Follower(docker, counting(world, 4000), path)
    until(lambda: path.exists() and path.stat().st_size > 1000, "some lines")
    proxy.cut()
    proxy.restore()
    follower.join(60)
    assert path.read_text().split() == [str(n) for n in range(4000)]


def test_a_log_that_was_emptied_meanwhile_goes_on(world: LabContext, tmp_path: Path) -> None:
    path = tmp_path / "r1.log"
    follower = Follower(Docker(), counting(world, 3000), path)
    until(lambda: path.exists() and path.stat().st_size > 1000, "some lines")
    with path.open("r+") as file:
        file.truncate(0)
    follower.join(60)
    rest = [int(line) for line in path.read_text().split()]
    assert rest == list(range(rest[0], 3000))
    assert position_of(path).exists()


def test_a_very_long_line_stays_one(world: LabContext, tmp_path: Path) -> None:
    path = tmp_path / "r1.log"
    Follower(Docker(), counting(world, 2, "x" * 100_000), path).join(60)
    assert [len(line) for line in path.read_text().splitlines()] == [100_002] * 2


# ---- the database
def test_the_password_is_the_owners_alone_and_shown_to_nobody(
    world: LabContext, engine: ContainerEngine, release: Release
) -> None:
    file = world.root / "run" / "postgres-password"
    assert file.stat().st_mode & 0o777 == 0o600
    asked, answer = engine.ask_database()
    assert file.read_text() not in asked + answer
    assert re.match(r"PostgreSQL \d+", answer)


def test_asking_the_database_can_not_change_it(engine: ContainerEngine, release: Release) -> None:
    with pytest.raises(LabError, match="read-only transaction"):
        engine.database().ask("create table x (y int)")


def test_the_database_is_started_again_with_all_its_data(
    world: LabContext, engine: ContainerEngine, release: Release
) -> None:
    engine.migrate(release)
    server = engine.docker.find(world.root, "postgres")
    assert server
    server.stop()
    engine.migrate(release)
    assert engine.database().ask("select count(*) from orders") == "0"


def answers(replica: Replica) -> bool:
    try:
        return get(f"http://{replica.host}:{replica.port}/readyz") == "ok"
    except OSError:
        return False


def test_two_who_ask_at_once_get_one_password(tmp_path: Path) -> None:
    from devops_lab.platform.engines.postgres import password

    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(password(tmp_path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(set(found)) == 1
