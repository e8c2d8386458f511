"""The doctor: every row says what it found, and what to do where something is missing."""

from __future__ import annotations

import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devops_lab.commands import doctor
from devops_lab.commands.cli import main
from devops_lab.commands.doctor import base_images, containers
from devops_lab.model import Check
from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.engines.prepared import there
from devops_lab.platform.settings import PUBLIC_IMAGES


def test_everything_that_is_missing_comes_with_advice() -> None:
    rows = doctor.examine()
    assert {"Python", "git", "Envoy", "C compiler", "py-spy", "engine: process", "engine: docker"} <= {
        row.name for row in rows
    }
    assert all(row.detail for row in rows)
    assert all(row.what_to_do for row in rows if not row.ok)


def test_the_table_marks_what_is_needed_and_what_is_optional() -> None:
    rows = [
        Check("git", False, "not found", "Install it."),
        Check("cores", None, "1", "Two."),
    ]
    text = doctor.table(rows)
    assert "NO  git" in text
    assert "-   cores" in text
    assert "> Install it." in text


def test_a_missing_git_and_compiler_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(doctor, "package", lambda name: "")
    assert doctor.git().ok is False
    assert doctor.compiler().ok is None
    assert "apt install" in doctor.git().what_to_do


@pytest.mark.skipif(sys.platform != "linux", reason="Yama is Linux'")
@pytest.mark.parametrize(
    ("scope", "user", "ok", "told"),
    [
        (None, 1000, True, "may read other processes"),
        ("0", 1000, True, "may read other processes"),
        ("1", 1000, True, "may read processes that allow it"),
        ("2", 1000, None, "no process may be read"),
        ("2", 0, True, "may read other processes"),
        ("3", 0, None, "no process may be read"),
    ],
)
def test_who_may_look_into_a_process_is_told(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scope: str | None,
    user: int,
    ok: bool | None,
    told: str,
) -> None:
    yama = tmp_path / "ptrace_scope"
    monkeypatch.setattr(doctor, "YAMA", yama)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    if scope:
        yama.write_text(scope + "\n")
    found = doctor.profiler()
    assert (found.ok, told in found.detail) == (ok, True)
    assert bool(found.what_to_do) == (ok is None)


def test_a_platform_without_an_envoy_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package", lambda name: "")
    monkeypatch.setattr("platform.system", lambda: "FreeBSD")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    found = doctor.envoy()
    assert found.ok is False
    assert "FreeBSD riscv64" in found.detail
    assert "x86_64" in found.what_to_do


# ---- Docker: states that this machine can have are had for real; of the others, real answers are read
VERSION: dict[str, object] = {"Version": "27.3.1", "ApiVersion": "1.47"}
INFO: dict[str, object] = {
    "OperatingSystem": "Debian GNU/Linux 12 (bookworm)",
    "DockerRootDir": "/",
    "SecurityOptions": ["name=seccomp,profile=builtin", "name=cgroupns"],
    "CgroupVersion": "2",
    "MemoryLimit": True,
    "CpuCfsQuota": True,
    "PidsLimit": True,
    "Swarm": {"LocalNodeState": "inactive", "ControlAvailable": False},
}
Serve = Callable[[dict[str, object]], None]


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Starts a server on a socket that answers each path as an engine did; DOCKER_HOST names it."""
    path = str(tmp_path / "d.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    servers: list[socketserver.UnixStreamServer] = []

    def serve(answers: dict[str, object]) -> None:
        class Handler(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                wanted = self.rfile.readline().split()[1].decode()
                said = answers.get(wanted, b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")
                if not isinstance(said, bytes):
                    body = json.dumps(said).encode()
                    said = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
                self.wfile.write(said)

        servers.append(socketserver.ThreadingUnixStreamServer(path, Handler))
        threading.Thread(
            target=servers[-1].serve_forever, kwargs={"poll_interval": 0.01}, daemon=True
        ).start()

    yield serve
    for server in servers:
        server.shutdown()
        server.server_close()


def seen(info: dict[str, object], version: dict[str, object] = VERSION) -> Check:
    return containers.docker(version, {**INFO, **info})


def test_an_engine_is_asked_over_its_socket(engine: Serve) -> None:
    engine({"/version": VERSION, "/info": INFO, "/images/json": []})
    found = {row.name: row for row in containers.containers()}
    assert found["engine: docker"].ok is True
    assert "Docker 27.3.1 on Debian" in found["engine: docker"].detail
    assert found["engine: swarm"].detail == "inactive"
    assert "docker swarm init" in found["engine: swarm"].what_to_do
    assert found["base images"].detail == "missing: python, registry, postgres"
    assert "--prepare" in found["base images"].what_to_do


@pytest.mark.parametrize(
    "answer", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK"]
)
def test_what_is_no_engine_is_told_apart(engine: Serve, answer: bytes) -> None:
    engine({"/version": answer})
    row = containers.containers()[0]
    assert row.ok is None
    assert "does not speak as a Docker engine" in row.detail


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "unix:///nowhere/docker.sock", "ssh://somewhere", "npipe:x"]
)
def test_no_docker_is_no_trouble(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    rows = containers.containers()
    assert [row.ok for row in rows] == [None, None, None]
    assert all(row.what_to_do for row in rows)


def test_a_stopped_engine_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "d.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)  # the file stays, as a dockerd that was killed leaves it
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    row = containers.containers()[0]
    assert "stopped" in row.detail
    assert "start" in row.what_to_do


def test_a_silent_engine_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "SECONDS", 0.1)
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/d.sock")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"{tmp_path}/d.sock")
        server.listen(5)
        assert "no answer within" in containers.containers()[0].detail


def test_a_refused_socket_names_the_group(tmp_path: Path) -> None:
    path = tmp_path / "d.sock"
    code = (
        "from devops_lab.commands.doctor import containers as c; import os; os.getuid() or os.setuid(65534); "
    )
    code += "row = c.containers()[0]; print(row.detail, row.what_to_do)"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))
        server.listen(1)
        path.chmod(0)
        environment = {**os.environ, "DOCKER_HOST": f"unix://{path}"}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True
        )
    assert "this user may not talk to it" in done.stdout
    assert "usermod -aG docker" in done.stdout


def test_a_full_disk_is_seen_where_the_engine_keeps_its_images(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(containers, "FREE_BYTES", 10**18)  # more than any disk has
    row = seen({"DockerRootDir": "/"})
    assert row.ok is None
    assert "docker system prune" in row.what_to_do
    assert seen({"DockerRootDir": "/in/a/virtual/machine"}).ok is True


def test_too_old_an_engine_is_named() -> None:
    row = seen({}, {"Version": "19.03.15", "ApiVersion": "1.40"})
    assert row.ok is None
    assert "19.03.15" in row.detail
    assert "20.10" in row.what_to_do


@pytest.mark.parametrize(
    ("info", "told"),
    [
        (
            {"SecurityOptions": ["name=seccomp,profile=builtin", "name=rootless"], "CgroupVersion": "1"},
            "cgroup v1",
        ),
        (
            {"SecurityOptions": ["name=rootless"], "CpuCfsQuota": False, "PidsLimit": False},
            "limit CPU, processes",
        ),
        ({"SecurityOptions": ["name=rootless"]}, ""),
    ],
)
def test_a_rootless_engine_says_which_limits_hold(info: dict[str, object], told: str) -> None:
    row = seen(info)
    assert row.ok is (None if told else True)
    assert told in row.what_to_do


def test_docker_desktop_is_named() -> None:
    row = seen({"OperatingSystem": "Docker Desktop", "DockerRootDir": "/var/lib/docker"})
    assert "in a virtual machine of its own" in row.detail


@pytest.mark.parametrize(
    ("state", "ok", "told"),
    [
        (
            {"LocalNodeState": "active", "ControlAvailable": True, "Nodes": 3, "Managers": 1},
            True,
            "3 node(s)",
        ),
        ({"LocalNodeState": "active", "RemoteManagers": [{"Addr": "10.9.0.1:2377"}]}, None, "10.9.0.1"),
        ({"LocalNodeState": "locked"}, None, "docker swarm unlock"),
        ({"LocalNodeState": "pending"}, None, "manager"),
        ({"LocalNodeState": "error", "Error": "certificate has expired"}, None, "certificate has expired"),
    ],
)
def test_the_state_of_the_swarm_is_told(state: dict[str, object], ok: bool | None, told: str) -> None:
    row = containers.swarm({"Swarm": state})
    assert row.ok is ok
    assert told in f"{row.detail} {row.what_to_do}"


def test_base_images_are_prepared_ones_or_the_pinned_public_ones() -> None:
    name, _, digest = PUBLIC_IMAGES["postgres"].partition("@")
    images: list[dict[str, object]] = [
        {"RepoTags": ["devops-lab/python:3.11"]},
        {"RepoTags": ["devops-lab/registry:2.8.2", "other:1"]},
        {"RepoTags": None, "RepoDigests": [f"postgres@{digest}"]},
    ]
    row = containers.prepared(images)
    assert row.ok is True
    assert row.detail == f"devops-lab/python:3.11, devops-lab/registry:2.8.2, {name}"
    row = containers.prepared(images[:1])
    assert row.detail == "missing: registry, postgres; devops-lab/python:3.11"


# ---- doctor --prepare
@pytest.mark.docker
def test_preparing_makes_only_what_is_missing_and_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    have = {"python": "devops-lab/python:3.11", "postgres": "devops-lab/postgres:15"}
    made: list[str] = []

    def make(docker: Docker, what: str, on_progress: Callable[[str, float], None]) -> str:
        made.append(what)
        for share in (0.15, 0.3, 0.6):
            on_progress("downloading" if share < 0.5 else "unpacking", share)
        return there(docker)["python"]  # an image that is there, whose size can be asked for

    monkeypatch.setattr(base_images, "there", lambda docker: have)
    monkeypatch.setattr(base_images, "prepare", make)
    told = base_images.prepare_missing()
    assert made == ["registry"]
    assert [line.split()[0] for line in told if line.endswith("was there")] == list(have.values())
    assert sum(" made in " in line for line in told) == 1
    assert capsys.readouterr().err.splitlines() == [
        "registry: downloading (15%)",
        "registry: unpacking (60%)",
    ]


def test_preparing_without_an_engine_is_refused_with_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--prepare"])
    assert ended.value.code == 3
    assert "No Docker engine answers" in capsys.readouterr().err
