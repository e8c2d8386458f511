"""The shop's server: an answer is sent in one piece, so that a crash leaves a whole one or none."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest

from devops_lab.platform import variables
from devops_lab.platform.processes import free_port
from tests.patience import until

SOURCE = Path(__file__).resolve().parents[2] / "devops_lab" / "shop" / "template" / "src"


@pytest.fixture
def port(tmp_path: Path) -> Iterator[int]:
    """A shop that serves."""
    number = free_port()
    environment = variables.command(
        PYTHONPATH=str(SOURCE), PYTHONPYCACHEPREFIX=str(tmp_path / "cache"), BENTO_RELEASE="1.0.0"
    )
    bento = [sys.executable, "-m", "bento"]
    subprocess.run([*bento, "migrate"], cwd=tmp_path, env=environment, check=True, capture_output=True)
    server = subprocess.Popen(
        [*bento, "serve", "--port", str(number)], cwd=tmp_path, env=environment, stdout=subprocess.DEVNULL
    )

    def listens() -> bool:
        with suppress(OSError):
            socket.create_connection(("127.0.0.1", number)).close()
            return True
        return False

    try:
        until(listens, "the shop to listen")
        yield number
    finally:
        server.terminate()
        assert server.wait(60) in (0, -15)


@pytest.mark.parametrize("path", ["/", "/api/menu", "/api/info", "/api/orders/unknown"])
def test_head_and_body_arrive_together(port: int, path: str) -> None:
    with closing(socket.create_connection(("127.0.0.1", port))) as customer:
        for _ in range(10):
            customer.sendall(f"GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n".encode())
            head, _, body = customer.recv(1_000_000).partition(b"\r\n\r\n")
            lines = dict(line.split(b": ", 1) for line in head.lower().split(b"\r\n")[1:])
            assert len(body) == int(lines[b"content-length"]) > 0
