"""What a replica in a container may not do: each setting is looked at, and tried to be broken."""

from __future__ import annotations

import pytest

from devops_lab.model import Pool, Replica
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.base import MEMORY_BYTES, PROCESSES
from devops_lab.platform.engines.containers import ContainerEngine
from devops_lab.platform.engines.docker import CPUS, TMP_BYTES, Container
from tests.patience import until
from tests.production import get, tiny_release

pytestmark = pytest.mark.docker
POOL = Pool("v1", "1.0.0", 1, 100)


@pytest.fixture
def replica(world: LabContext) -> Replica:
    world.engine.prepare(tiny_release(world))
    return world.engine.launch(POOL, "r1")


@pytest.fixture
def container(world: LabContext, replica: Replica) -> Container:
    assert isinstance(world.engine, ContainerEngine)
    return world.engine.docker.client.containers.get(replica.handle)


def tried(container: Container, *python: str) -> str:
    """What a line of Python says in a running container."""
    _, said = container.exec_run(["python", "-c", "; ".join(python)])
    assert isinstance(said, bytes)
    return said.decode()


def status(container: Container, name: str) -> str:
    """One line of what the kernel says about the container's first process."""
    lines = tried(container, "print(open('/proc/1/status').read())").splitlines()
    return next(line.split(":")[1].strip() for line in lines if line.startswith(name + ":"))


def test_every_limit_is_set(container: Container) -> None:
    found, config = container.attrs["HostConfig"], container.attrs["Config"]
    assert config["User"] == "10001"
    assert found["ReadonlyRootfs"]
    assert found["CapDrop"] == ["ALL"]
    assert found["SecurityOpt"] == ["no-new-privileges"]
    assert (found["Memory"], found["MemorySwap"]) == (MEMORY_BYTES, MEMORY_BYTES)
    assert found["NanoCpus"] == CPUS * 1e9
    assert found["PidsLimit"] == PROCESSES
    assert set(found["Tmpfs"]) == {"/tmp"}
    assert config["Healthcheck"]["Test"][0] == "CMD"
    assert found["RestartPolicy"]["Name"] in ("", "no")
    assert not found["Privileged"]
    assert not found["Binds"]


def test_ports_are_published_on_this_machine_alone(container: Container, replica: Replica) -> None:
    published = container.attrs["NetworkSettings"]["Ports"]
    assert [one["HostIp"] for ports in published.values() for one in ports] == ["127.0.0.1"]
    assert published["8080/tcp"][0]["HostPort"] == str(replica.port)


def test_it_is_nobody_and_can_not_become_more(container: Container) -> None:
    assert status(container, "Uid").split() == ["10001"] * 4
    assert status(container, "NoNewPrivs") == "1"
    for capabilities in ("CapEff", "CapPrm", "CapBnd"):
        assert int(status(container, capabilities), 16) == 0
    assert "PermissionError" in tried(container, "import os", "os.setuid(0)")


@pytest.mark.parametrize("place", ["/opt/shop/x.py", "/etc/passwd", "/x", "/opt/packages/x"])
def test_nothing_in_the_image_can_be_changed(container: Container, place: str) -> None:
    _, said = container.exec_run(["python", "-c", f"open({place!r}, 'a')"], user="root")
    assert isinstance(said, bytes)
    assert "Read-only file system" in said.decode()


def test_temporary_files_have_a_place_with_an_end_where_nothing_can_be_run(container: Container) -> None:
    assert tried(container, "print(open('/tmp/note', 'w').write('ok'))").strip() == "2"
    much = tried(container, "f = open('/tmp/much', 'wb', 0)", f"print(f.write(b'x' * {TMP_BYTES * 2}))")
    assert int(much) < TMP_BYTES
    script = "open('/tmp/run', 'w').write('#!/bin/sh')"
    assert "PermissionError" in tried(
        container, "import os", script, "os.chmod('/tmp/run', 0o755)", "os.execv('/tmp/run', ['run'])"
    )


def test_processes_have_an_end(container: Container) -> None:
    many = f"[subprocess.Popen(['sleep', '20']) for n in range({PROCESSES * 2})]"
    assert "BlockingIOError" in tried(container, "import subprocess", many)


def test_cpu_time_has_an_end(container: Container) -> None:
    """Two busy processes get no more than the limit, whatever the machine has."""
    burn = "import os, time; os.fork(); end = time.time() + 2\n"
    burn += "while time.time() < end: pass\nos.write(1, b'%f\\n' % time.process_time())"
    code, said = container.exec_run(["python", "-c", burn])
    assert code == 0
    assert isinstance(said, bytes)
    assert sum(map(float, said.split())) < 2.0 * CPUS * 1.3


def test_too_much_memory_is_ended_by_the_kernel_and_told(world: LabContext, replica: Replica) -> None:
    url = f"http://{replica.host}:{replica.port}"
    until(lambda: answers(url), "the replica to answer")
    until(lambda: not grows(url), "the kernel to end it")
    until(lambda: not world.engine.alive(replica), "the replica to be gone")
    assert world.engine.ended(replica) == (
        f"SIGKILL, by the kernel: out of memory, above its limit of {MEMORY_BYTES / 1e6:.0f} MB"
    )


def test_docker_itself_finds_it_healthy(container: Container) -> None:
    def health() -> bool:
        container.reload()
        return bool(container.attrs["State"]["Health"]["Status"] == "healthy")

    def evidence() -> str:
        return str(container.attrs["State"]["Health"])

    until(health, "the health check of the image", evidence=evidence)


def answers(url: str) -> bool:
    try:
        return get(url + "/readyz") == "ok"
    except OSError:
        return False


def grows(url: str) -> bool:
    """Make the replica hold more memory; False when it does not answer any more."""
    try:
        return bool(get(url + "/api/info?megabytes=50"))
    except OSError:
        return False
