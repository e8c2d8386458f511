"""A lab is a folder that is copied, moved, deleted and found again."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from devops_lab.lab import Lab, clean
from devops_lab.lab.removal import is_gone
from devops_lab.platform import settings
from devops_lab.platform.control import Control
from devops_lab.platform.engines import docker
from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.git import git, run
from devops_lab.platform.git import identity as author
from devops_lab.platform.identity import identity
from devops_lab.platform.processes import process_of, processes_of
from tests.patience import until
from tests.phases.production import release


@contextmanager
def labs(source: Path, folder: Path) -> Iterator[Path]:
    """The folder of a lab A, whose production serves; all labs in it are cleaned at the end."""
    copy(source, folder / "A")
    with Lab.open(folder / "A") as lab:
        lab.world.control.ensure()
        lab.world.control.wait_settled(60)
    yield folder
    for path in folder.iterdir():
        if (path / "lab.toml").exists():
            clean(path)


@pytest.fixture
def there(operated: Path, tmp_path: Path) -> Iterator[Path]:
    with labs(operated, tmp_path) as folder:
        yield folder


@pytest.fixture(scope="module")
def lasting(operated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """For tests that leave A as it was."""
    with labs(operated, tmp_path_factory.mktemp("lasting")) as folder:
        yield folder


def copy(source: Path, target: Path) -> None:
    """`cp -r`; without work/, which may be removed at any time."""

    def into(here: str, new: str) -> None:  # packages are never written to, and copying them takes a second
        (os.link if "site-packages" in here else shutil.copy2)(here, new)

    skipped = shutil.ignore_patterns("*.sock", "work")
    shutil.copytree(source, target, symlinks=True, ignore=skipped, copy_function=into)


def alive(pids: set[int]) -> list[int]:
    return [pid for pid in pids if psutil.pid_exists(pid) and psutil.Process(pid).status() != "zombie"]


def commit(lab: Lab, text: str) -> str:
    (lab.world.shop / "NOTES.md").write_text(text)
    git(lab.world.shop, "add", "--all")
    git(lab.world.shop, "commit", "--quiet", "--message", f"docs: {text}", env=author("Mia Ito"))
    git(lab.world.shop, "push", "--quiet", "origin", "main")
    return git(lab.world.origin, "rev-parse", "main")


def serve(lab: Lab) -> None:
    """What a lab comes to by the whole story, in one step: a release, and production on it."""
    release(lab.world, "1.0.0")
    lab.deploy.run("1.0.0")


def names(root: Path) -> set[int]:
    return {process.pid for process in processes_of(root)}


@pytest.mark.timeout(300)
def test_a_copy_is_a_lab_of_its_own(there: Path) -> None:
    """2a: the copy showed, drove and ended the original's production, and pushed into its origin."""
    with Lab.open(there / "A") as lab:
        url, head, replicas = lab.url, git(lab.world.origin, "rev-parse", "main"), lab.replicas()
        lab.pipeline.install_hook("delivery")
        copy(there / "A", there / "B")
        with Lab.open(there / "B") as other:
            assert settings.read(there / "B").id != settings.read(there / "A").id
            assert other.url == ""
            assert other.replicas() == []
            assert other.deploy.current() == lab.deploy.current()  # its history is the same
            assert commit(other, "mine") != head  # and nothing listens to its pushes
            assert len(other.pipeline.runs()) == len(lab.pipeline.runs())
            other.deploy.scale(1)
            assert other.url not in ("", url)
            assert len(other.replicas()) == 1
        clean(there / "B")
        assert not (there / "B").exists()
        assert lab.world.control.alive()
        assert lab.url == url
        assert lab.replicas() == replicas
        assert git(lab.world.origin, "rev-parse", "main") == head


def test_a_copy_that_nobody_opened_is_cleaned_alone(lasting: Path) -> None:
    there = lasting
    copy(there / "A", there / "B")
    (there / "B" / "lab.toml").write_text((there / "B" / "lab.toml").read_text() + "replicas = [\n")
    running = names(there / "A")
    clean(there / "B")  # also where its settings are damaged
    copy(there / "A", there / "C")
    clean(there / "C")
    assert names(there / "A") == running
    assert Control(there / "A").alive()


def test_a_copy_of_a_copy_and_an_original_that_moved(there: Path) -> None:
    """Whose folder is the original's is known by the folder, also where both have moved."""
    running = names(there / "A")
    copy(there / "A", there / "B")
    (there / "A").rename(there / "A2")
    with Lab.open(there / "B") as other:
        assert other.url == ""
    with Lab.open(there / "A2") as lab:
        until(lambda: len(lab.replicas()) == 2, "production at the new place")
    copy(there / "B", there / "C")
    with Lab.open(there / "C") as second:
        assert len({settings.read(there / name).id for name in ("A2", "B", "C")}) == 3
        assert second.url == ""
    assert running.isdisjoint(names(there / "A2"))


def test_a_moved_lab_goes_on(there: Path) -> None:
    """2b: 20 s, "another agent works"; after `clean` the proxy and two replicas lived on."""
    before = names(there / "A")
    (there / "A").rename(there / "Bö b")
    with Lab.open(there / "Bö b") as lab:
        assert lab.deploy.current()
        until(lambda: len([r for r in lab.replicas() if r.state == "healthy"]) == 2, "replicas")
        assert lab.operate.load(rate=20, seconds=1).wait().failed == 0
        assert lab.store.events(kind="lab.moved")
        assert lab.store.events(kind="replica.died") == []
        lab.deploy.scale(1)
    after = names(there / "Bö b")
    assert before.isdisjoint(after)
    clean(there / "Bö b")
    assert alive(before | after) == []


def test_production_follows_a_moved_lab_by_itself(there: Path) -> None:
    """Nobody opens it: its agent sees that the folder has another name, and starts all anew there."""
    (there / "A").rename(there / "B")
    control = Control(there / "B")

    def serves() -> bool:
        found = control.status() if control.alive() else {}
        return bool(found) and found["settled"]

    until(serves, "production at the new place")
    assert all(str(there / "B") in " ".join(p.cmdline()) for p in processes_of(there / "B") if p.pid)


def test_a_new_lab_where_a_moved_one_lay(there: Path) -> None:
    (there / "A").rename(there / "B")
    with Lab.open(there / "A") as fresh:
        assert fresh.url == ""
        serve(fresh)
        with Lab.open(there / "B") as lab:
            until(lambda: len(lab.replicas()) == 2, "production at the new place")
            assert lab.url != fresh.url
        clean(there / "B")
        assert len(fresh.replicas()) == 2


def test_a_stopped_lab_that_moved_merges_and_ships(there: Path) -> None:
    """2c: "A/origin.git does not appear to be a git repository"."""
    Control(there / "A").stop(production=True)
    (there / "deep" / "er").mkdir(parents=True)
    (there / "A").rename(there / "deep" / "er" / "B")
    with Lab.open(there / "deep" / "er" / "B") as lab:
        commit(lab, "after the move")
        assert run(lab.world.shop / "src", "push", "origin", "main").stdout == ""
        lab.catch_up("test")
    clean(there / "deep" / "er" / "B")


def test_the_same_folder_by_another_path_is_the_same_lab(lasting: Path) -> None:
    there = lasting
    (there / "link").symlink_to(there / "A")
    known = settings.read(there / "A")
    with Lab.open(there / "link") as lab:
        assert len(lab.replicas()) == 2
    assert settings.read(there / "A") == known
    (there / "link").unlink()


def test_a_lab_of_an_older_version_gets_an_identity(tmp_path: Path) -> None:
    with Lab.open(tmp_path / "A"):
        pass
    marker = tmp_path / "A" / "lab.toml"
    lines = [line for line in marker.read_text().splitlines() if not line.startswith(("id", "home"))]
    marker.write_text("\n".join(lines))
    git(tmp_path / "A" / "shop", "remote", "set-url", "origin", str(tmp_path / "A" / "origin.git"))
    with Lab.open(tmp_path / "A"):
        found = settings.read(tmp_path / "A")
        assert found.id
        assert found.home.endswith(str(tmp_path / "A"))
    os.rename(tmp_path / "A", tmp_path / "B")
    with Lab.open(tmp_path / "B") as lab:
        assert settings.read(tmp_path / "B").id == found.id
        commit(lab, "x")
    clean(tmp_path / "B")


# ---- a lab that is gone, and what it left
def leave(root: Path) -> set[int]:
    """Delete a lab while its agent is away; return what goes on."""
    control = Control(root)
    agent = control.identity()
    assert agent
    os.kill(agent[0], signal.SIGKILL)
    until(lambda: process_of(*agent) is None, "the agent to be gone")
    left = names(root)
    shutil.rmtree(root)
    return left


def test_processes_of_a_lab_that_is_gone_end_when_the_next_one_is_founded(
    there: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    left = leave(there / "A")
    assert len(alive(left)) == 3  # the proxy and two replicas
    copy_of_nothing = there / "B"
    with Lab.open(copy_of_nothing) as lab:
        assert alive(left) == []
        (event,) = lab.store.events(kind="lab.leftovers")
        assert str(there / "A") in event.message
    assert "of a lab that is gone" in capsys.readouterr().out


def test_who_is_only_away_is_left_alone(there: Path) -> None:
    """Renamed, on a disk that is not there, or looked after by an agent somewhere else: none is gone."""
    lab = identity(there / "A")
    assert not is_gone(lab, there / "A")
    (there / "A").rename(there / "A2")
    assert not is_gone(lab, there / "A")
    assert not is_gone("0123456789ab", there / "unmounted" / "A")
    assert is_gone("0123456789ab", there / "A")
    (there / "A2" / "lab.toml").rename(there / "aside")  # damaged, and all else is there
    assert not is_gone(lab, there / "A2")
    (there / "aside").rename(there / "A2" / "lab.toml")


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_what_the_engine_holds_of_a_lab_that_is_gone_is_removed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2d, 2e: the next lab at that path was refused at its first release; two containers, one path."""
    with Lab.open(tmp_path / "L", engine="docker") as lab:
        lab.catch_up("operate")
        gone, engine = identity(tmp_path / "L"), Docker()
    left = leave(tmp_path / "L")
    assert engine.labs()[gone] == str(tmp_path / "L")
    with monkeypatch.context() as elsewhere:  # in another container that shares the engine, at the same path
        elsewhere.setattr(docker, "machine", lambda: "another")
        with Lab.open(tmp_path / "L", engine="docker") as other:
            told = [event.message for event in other.store.events(kind="lab.leftovers")]
            assert not [line for line in told if "the engine held" in line]
        clean(tmp_path / "L")
    assert gone in engine.labs()
    with Lab.open(tmp_path / "L", engine="docker") as lab:
        assert gone not in engine.labs()
        assert "what the engine held for a lab that is gone" in capsys.readouterr().out
        assert alive(left) == []
        assert identity(lab.root) != gone
        lab.catch_up("operate")
        assert len(lab.replicas()) == 2
    clean(tmp_path / "L")
    assert [lab for lab, path in engine.labs().items() if path == str(tmp_path / "L")] == []


@pytest.mark.docker
@pytest.mark.timeout(300)
def test_a_copy_and_a_move_with_containers(tmp_path: Path) -> None:
    """The copy's releases have their images again, from the engine; the moved lab keeps its containers."""
    with Lab.open(tmp_path / "A", engine="docker") as lab:
        lab.catch_up("operate")
        url, handles = lab.url, {replica.handle for replica in lab.replicas()}
        copy(tmp_path / "A", tmp_path / "B")
        with Lab.open(tmp_path / "B") as other:
            assert other.replicas() == []
            other.deploy.run(other.release.registry()[-1].version)
            assert other.url not in ("", url)
            assert {replica.handle for replica in other.replicas()}.isdisjoint(handles)
        clean(tmp_path / "B")
        assert lab.url == url
    (tmp_path / "A").rename(tmp_path / "C")
    with Lab.open(tmp_path / "C") as lab:
        until(lambda: {r.handle for r in lab.replicas() if r.state == "healthy"} == handles, "replicas")
        assert lab.operate.load(rate=20, seconds=1).wait().failed == 0
    clean(tmp_path / "C")
