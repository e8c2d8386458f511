"""Which engine is taken, and what is said about those that are not there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from devops_lab.errors import EngineUnavailable
from devops_lab.platform import engines
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines import choose, chosen
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store

NOBODY = "unix:///nowhere/docker.sock"


def test_the_process_engine_is_the_default(tmp_path: Path) -> None:
    engine = choose(tmp_path, Settings())
    assert engine.name == "process"
    able = engine.capabilities()
    assert [able.heals, able.rolls, able.images] == [False] * 3
    assert set(able.why_not) == {"images"}


@pytest.mark.docker
def test_the_docker_engine_says_what_it_can_not_do(tmp_path: Path) -> None:
    able = choose(tmp_path, Settings(engine="docker")).capabilities()
    assert [able.heals, able.rolls, able.images] == [False, False, True]


def test_auto_takes_processes_where_no_docker_engine_answers_and_says_so(tmp_path: Path) -> None:
    settings = Settings(engine="auto", docker_host=NOBODY)
    world = LabContext(tmp_path, settings, Store(tmp_path / "lab.db"))
    assert world.engine.name == "process"
    (event,) = world.store.events(kind="engine.chosen")
    assert "No Docker engine answers" in event.message
    assert LabContext(tmp_path, settings, world.store).engine.name == "process"
    assert len(world.store.events(kind="engine.chosen")) == 1


@pytest.mark.docker
def test_auto_takes_docker_where_it_answers_and_has_its_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(engine="auto")
    monkeypatch.setattr(engines, "lacking", lambda docker: ("python", ": the rate limit is reached"))
    assert "no python image, and none can be pulled: the rate limit" in engines.best().why
    monkeypatch.setattr(engines, "lacking", lambda docker: ("", ""))
    found = chosen(tmp_path, settings)
    assert found.engine == "docker"
    assert json.loads((tmp_path / "run" / "engine.json").read_text())["engine"] == "docker"


def test_a_lab_stays_with_its_engine_when_that_is_away(tmp_path: Path) -> None:
    """Else production would run twice: in containers that nobody sees, and as processes."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "engine.json").write_text('{"engine": "docker", "why": "it answered"}')
    with pytest.raises(EngineUnavailable, match=r"(?s)No Docker engine answers.*What to do"):
        choose(tmp_path, Settings(engine="auto", docker_host=NOBODY))


@pytest.mark.parametrize("address", ["tcp://10.0.0.9:2375", "ssh://ops@far.example"])
def test_a_docker_engine_on_another_machine_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(EngineUnavailable, match="another machine"):
        choose(tmp_path, Settings(engine="docker", docker_host=address))


def test_windows_is_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EngineUnavailable, match="WSL"):
        choose(tmp_path, Settings())
