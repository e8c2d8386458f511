"""Bars of the whole lab that no single module answers for: `clean` leaves nothing, whatever was killed."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

from devops_lab.commands import cli
from devops_lab.platform import variables
from devops_lab.platform.control import Control, teardown
from devops_lab.platform.processes import processes_of

CHECKOUT = Path(cli.__file__).parents[2]
KERNEL = """
import sys, time
from devops_lab.lab import story
from devops_lab.lab import Lab
lab = Lab.open(sys.argv[1])
story.first(lab)
run = lab.operate.load(rate=20, seconds=120)
print(lab.world.control.identity()[0], run.process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def root(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    yield tmp_path / "lab"
    teardown(tmp_path / "lab")


def naming(text: str) -> list[psutil.Process]:
    """Every process whose command line names something, beside this one and what started it."""
    known = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.pid not in known and text in " ".join(process.cmdline()):
                found.append(process)
    return found


def devops_lab(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "devops_lab", *arguments],
        cwd=CHECKOUT,
        env=variables.command(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_clean_leaves_nothing_after_kernel_and_agent_were_killed(root: Path) -> None:
    kernel = subprocess.Popen(
        [sys.executable, "-c", KERNEL, str(root)],
        cwd=CHECKOUT,
        env=variables.command(),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert kernel.stdout
        agent, customers = map(int, kernel.stdout.readline().split())
        status = Control(root).status()
        ports = {status["port"], status["admin_port"], *(r["port"] for r in status["replicas"])}
        assert len(ports) == 4
        assert customers in {process.pid for process in processes_of(root)}
    finally:
        kernel.kill()  # as `kill -9` does: nothing of it can tidy up
        kernel.communicate()
    os.kill(agent, signal.SIGKILL)
    left = processes_of(root)
    assert len(left) >= 3  # Envoy and two replicas serve on

    done = devops_lab("clean", "--lab", str(root))

    assert done.returncode == 0, done.stderr
    assert "nothing of it runs any more" in done.stdout
    assert processes_of(root) == naming(str(root)) == []
    for port in ports:
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=2)
    assert list(root.parent.iterdir()) == []
    again = devops_lab("clean", "--lab", str(root))
    assert (again.returncode, "There is no lab" in again.stderr) == (2, True)
