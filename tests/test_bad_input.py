"""What bad input gets, as far as no module's own test shows it: told plainly, and nothing changed."""

from __future__ import annotations

import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from devops_lab import lab as labs
from devops_lab.commands import cli
from devops_lab.errors import DiskFull
from devops_lab.lab import Lab
from devops_lab.model import Artifact, Replica, TestReport
from devops_lab.phases.build import Build
from devops_lab.phases.deploy import Deploy
from devops_lab.platform import variables
from devops_lab.platform.context import LabContext
from devops_lab.platform.processes import processes_of
from devops_lab.platform.store import Store
from tests.phases.production import production, release
from tests.shoplab import found

CHECKOUT = Path(cli.__file__).parents[2]


def main(*arguments: str) -> int:
    with pytest.raises(SystemExit) as end:
        cli.main(list(arguments))
    return int(end.value.code or 0)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    Lab.open(tmp_path / "lab").close()
    return tmp_path / "lab"


# ---- the command line on a lab that is there
def test_an_unknown_version_is_told(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Lab.open(root) as lab:
        release(lab.world, "1.0.0")
    assert main("trail", "1.0.1", "--lab", str(root)) == 2
    assert "Did you mean '1.0.0'?" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["status"], ["trail", "1.0.0"], ["clean"], ["run", "--only", "plan"]])
def test_a_lab_in_use_by_a_run_is_left_to_it(
    root: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with labs.held(root):
        assert main(*command, "--lab", str(root)) == 2
    assert "in use by another run" in capsys.readouterr().err
    assert (root / "lab.toml").exists()


def test_without_git_a_command_says_what_to_install(
    root: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(root / "registry"))
    assert main("status", "--lab", str(root)) == 3
    assert "apt install git" in capsys.readouterr().err


# ---- a full disk
@contextmanager
def small_disk(at: Path, size: str) -> Iterator[None]:
    """A real file system that is soon full; only root may mount one."""
    at.mkdir(parents=True, exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(at)]
    if sys.platform != "linux" or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", str(at)], check=True)


def test_a_store_on_a_full_disk_says_so_and_keeps_what_it_has(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "600k"):
        store = Store(tmp_path / "disk" / "lab.db")
        first = store.event("plan", "plan.added", "lab", "kept")
        for filler in (tmp_path / "disk" / name for name in "ab"):  # the second finds no room at all
            with pytest.raises(OSError, match="No space left"):
                filler.write_bytes(b"x" * 10**6)
        with pytest.raises(DiskFull, match=r"lab\.db"):
            store.event("plan", "plan.removed", "lab", "x" * 100_000)
        assert store.events(kind="plan.added") == [first]
        store.close()


@pytest.mark.parametrize("size", ["40k", "250k"])
def test_a_build_on_a_full_disk_leaves_nothing_half(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, size: str
) -> None:
    world = found(tmp_path / "lab", tmp_path_factory)
    with small_disk(world.work / "builds", size):
        with pytest.raises(DiskFull, match="Free some space"):
            Build(world).run()
        assert list((world.work / "builds").iterdir()) == []
    assert world.store.last(Artifact) is None
    assert Build(world).run().version == "1.0.0"
    world.store.close()


# ---- an interrupted cell
def interrupted(world: LabContext, code: str, at: str) -> subprocess.CompletedProcess[str]:
    """Run a cell in a process of its own; interrupt it, as a notebook does, once it has said `at`."""
    program = f"""
        import sys
        from pathlib import Path
        from devops_lab.platform import settings
        from devops_lab.platform.context import LabContext
        from devops_lab.phases.build import Build
        from devops_lab.phases.deploy import Deploy
        from devops_lab.phases.test import Test
        from devops_lab.platform.store import Store
        root = Path({str(world.root)!r})
        world = LabContext(root, settings.read(root), Store(root / "lab.db"))
        def tell(step):
            print(step.name, flush=True)
        {code}
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    cell = subprocess.Popen(
        command,
        cwd=CHECKOUT,
        env=variables.command(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert cell.stdout
    said = ""
    while at not in said:
        line = cell.stdout.readline()
        assert line, cell.communicate()[1]
        said += line
    cell.send_signal(signal.SIGINT)
    out, err = cell.communicate(timeout=60)
    return subprocess.CompletedProcess(command, cell.returncode, said + out, err)


@pytest.mark.parametrize("at", ["export", "transpile"])
def test_an_interrupted_build_leaves_nothing_half(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, at: str
) -> None:
    world = found(tmp_path / "lab", tmp_path_factory)
    done = interrupted(world, "Build(world).run(on_step=tell)", at)
    assert "KeyboardInterrupt" in done.stderr
    assert list((world.work / "builds").iterdir()) == []
    assert world.store.last(Artifact) is None
    world.store.close()


def test_an_interrupted_test_run_leaves_no_process_and_no_report(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = found(tmp_path / "lab", tmp_path_factory)
    artifact = Build(world).run()
    done = interrupted(world, "Test(world).run(on_case=tell)", "::")
    assert "KeyboardInterrupt" in done.stderr
    assert processes_of(world.root) == []
    assert list((world.work / "tests").glob("*/run-*")) == []
    assert world.store.last(TestReport) is None
    assert world.store.last(Artifact) == artifact
    world.store.close()


def test_an_interrupted_deployment_leaves_production_as_it_was(tmp_path: Path) -> None:
    with production(tmp_path / "lab", "1.0.0", "1.1.0") as world:
        deploy = Deploy(world)
        deploy.run("1.0.0")
        pools, running = deploy.pools(), {process.pid for process in processes_of(world.root)}
        done = interrupted(world, 'Deploy(world).run("1.1.0", on_step=tell)', "migrate")
        assert "KeyboardInterrupt" in done.stderr
        assert deploy.pools() == pools
        assert deploy.history()[-1].state == "interrupted"
        assert {replica.release for replica in world.store.all(Replica)} == {"1.0.0"}
        assert {process.pid for process in processes_of(world.root)} == running
        assert world.control.status()["settled"]
