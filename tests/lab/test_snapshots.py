"""How a lab was when a notebook was first opened: when it is kept, what going back brings and keeps."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from devops_lab.errors import BadInput, LabError, LabInUse
from devops_lab.lab import Lab, clean, snapshots
from devops_lab.lab.removal import RUN_VARIABLE
from devops_lab.lab.story import FIRST, FIRST_FEATURE, first, ship
from devops_lab.platform import cells, web
from devops_lab.platform.git import git
from tests.production import ENGINES

Open = Callable[..., Lab]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens the lab as a notebook's kernel does."""
    monkeypatch.delenv(RUN_VARIABLE, raising=False)

    def open_in(notebook: str, engine: str | None = None) -> Lab:
        monkeypatch.setattr(cells, "notebook", lambda: notebook)
        return Lab.open(tmp_path / "ein läb", engine=engine)

    return open_in


def commit(lab: Lab, text: str) -> None:
    (lab.world.shop / "NOTES.md").write_text(text)
    git(lab.world.shop, "add", "--all")
    git(lab.world.shop, "-c", "user.name=Mia", "-c", "user.email=m@x", "commit", "--quiet", "-m", text)
    git(lab.world.shop, "push", "--quiet", "origin", "main")


def heads(lab: Lab) -> list[str]:
    return [git(repo, "rev-parse", "main") for repo in (lab.world.shop, lab.world.origin)]


@pytest.mark.parametrize("name", ["", "my notes", "thesis", "00-welcome-copy"])
def test_only_the_workbooks_notebooks_keep_a_lab(opened: Open, name: str) -> None:
    with opened(name) as lab:
        assert not (lab.root / snapshots.KEPT).exists()
    clean(lab.root)


def test_a_run_keeps_nothing(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(RUN_VARIABLE, "1")
    with opened("01-plan") as lab:
        assert not (lab.root / snapshots.KEPT).exists()
    clean(lab.root)


def test_a_lab_goes_back_to_when_a_notebook_was_first_opened(opened: Open) -> None:
    """Repositories, store and registry; what was, is kept; later notebooks are kept anew."""
    with opened("02-code") as lab:
        before = heads(lab)
    with opened("02-code") as lab:
        commit(lab, "the reader's work")
        lab.store.event("learning", "exercise.said", "lab", "an answer")
        (lab.world.registry / "9.9.9").mkdir()
        assert lab.root.joinpath(snapshots.KEPT, "02-code").exists()
    with opened("03-build") as lab:
        after = heads(lab)
        with pytest.raises(LabInUse):
            snapshots.bring_back(lab.root, "02-code")
        assert heads(lab) == after
    restored, kept = snapshots.bring_back(lab.root, "02-code")
    assert "nothing serves yet" in restored
    (aside,) = (lab.root / snapshots.BEFORE).iterdir()
    assert str(aside) in kept
    assert git(aside / "origin.git", "rev-parse", "main") == after[1]
    assert (aside / "registry/9.9.9").exists()
    assert [place.name for place in (lab.root / snapshots.KEPT).iterdir()] == ["02-code"]
    with opened("03-build") as lab:
        assert heads(lab) == before
        assert not lab.store.events(kind="exercise.said")
        assert lab.store.events(kind="lab.restored")
        assert not (lab.world.registry / "9.9.9").exists()
        assert git(lab.world.shop, "status", "--porcelain") == ""
        commit(lab, "again")
        assert lab.root.joinpath(snapshots.KEPT, "03-build").exists()
    assert snapshots.kept(lab.root, ["03-build", "02-code", "09-repeat"]) == "02-code"
    with pytest.raises(BadInput, match="09-repeat was first opened is not kept"):
        snapshots.bring_back(lab.root, "09-repeat")
    clean(lab.root)


def test_going_back_is_done_once_more_where_it_was_broken_off(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    with opened("02-code") as lab:
        before = heads(lab)
        commit(lab, "the reader's work")
    real, moves = os.replace, list[str]()

    def broken(source: Path, target: Path) -> None:
        moves.append(source.name)
        if len(moves) == 3:
            raise OSError(5, "Input/output error")
        real(source, target)

    monkeypatch.setattr("os.replace", broken)
    with pytest.raises(LabError, match="Input/output error"):
        snapshots.bring_back(lab.root, "02-code")
    monkeypatch.undo()
    snapshots.bring_back(lab.root, "02-code")
    with Lab.open(lab.root) as lab:
        assert heads(lab) == before
    clean(lab.root)


def test_keeping_a_lab_is_cheap_and_a_full_disk_stops_no_notebook(
    opened: Open, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with opened("") as lab:
        pass
    monkeypatch.setattr("shutil.copytree", full)
    with opened("02-code") as lab:
        assert "no way back" in capsys.readouterr().out
        assert list((lab.root / snapshots.KEPT).glob("*")) == []
    clean(lab.root)


@pytest.mark.timeout(400)
@pytest.mark.parametrize("engine", ENGINES)
def test_production_serves_what_it_served(opened: Open, engine: str) -> None:
    """A version that was deployed since is gone from registry and production; it can be made again."""
    opened("01-plan", engine).close()
    with opened("05-release") as lab:
        first(lab)
    with opened("06-deploy") as lab:
        new = ship(lab, FIRST_FEATURE).version
        lab.deploy.run(new)
        lab.deploy.scale(1)
        url = lab.url
    began = time.monotonic()
    told, _ = snapshots.bring_back(lab.root, "06-deploy")
    assert f"version {FIRST} serves" in told
    assert time.monotonic() - began < 30
    with opened("06-deploy") as lab:
        assert lab.url == url, "the reader's tab still shows the shop"
        assert web.ask(f"{url}/healthz")
        assert {replica.release for replica in lab.replicas()} == {FIRST}
        assert len(lab.replicas()) == lab.settings.replicas
        assert [release.version for release in lab.release.registry()] == [FIRST]
        assert ship(lab, FIRST_FEATURE).version == new
        lab.deploy.run(new)
    snapshots.bring_back(lab.root, "01-plan")
    with opened("01-plan") as lab:
        assert (lab.deploy.current(), lab.url) == ("", "")
    clean(lab.root)
