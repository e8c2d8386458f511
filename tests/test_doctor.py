"""The doctor: every row says what it found, and what to do where something is missing."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

import pytest

from devops_lab import doctor


def test_everything_that_is_missing_comes_with_advice() -> None:
    rows = doctor.examine()
    assert {"Python", "git", "Envoy", "C compiler", "py-spy", "engine: process", "engine: docker"} <= {
        row.name for row in rows
    }
    assert all(row.detail for row in rows)
    assert all(row.what_to_do for row in rows if not row.ok)


def test_the_table_marks_what_is_needed_and_what_is_optional() -> None:
    rows = [
        doctor.Finding("git", False, "not found", "Install it."),
        doctor.Finding("cores", None, "1", "Two."),
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


def test_a_platform_without_an_envoy_wheel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "package", lambda name: "")
    monkeypatch.setattr("platform.system", lambda: "FreeBSD")
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    found = doctor.envoy()
    assert found.ok is False
    assert "FreeBSD riscv64" in found.detail
    assert "x86_64" in found.what_to_do


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nOK", b"nonsense\r\n\r\n", b""]
)
def test_docker_is_asked_over_its_socket(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: bytes
) -> None:
    path = str(tmp_path / "d.sock")
    monkeypatch.setenv("DOCKER_HOST", f"unix://{path}")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(1)

        def serve() -> None:
            client, _ = server.accept()
            with client:
                client.recv(4096)
                client.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        found = doctor.docker()
        thread.join(5)
    assert found.ok is (True if answer.startswith(b"HTTP") else None)


@pytest.mark.parametrize(
    "address", ["tcp://127.0.0.1:1", "unix:///nowhere/docker.sock", "ssh://somewhere", "npipe:x"]
)
def test_no_docker_is_no_trouble(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    monkeypatch.setenv("DOCKER_HOST", address)
    assert doctor.docker().ok is None
    assert doctor.swarm().ok is None


def test_the_doctor_does_not_import_the_docker_client() -> None:
    import subprocess
    import sys

    code = "import sys; from devops_lab import doctor; doctor.examine(); sys.exit('docker' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
