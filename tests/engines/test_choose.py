"""Which engine is taken, and what is said about those that are not there."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from devops_lab.engines import choose
from devops_lab.errors import EngineUnavailable
from devops_lab.settings import Settings


@pytest.mark.parametrize("asked", ["process", "auto"])
def test_the_process_engine_is_the_default(tmp_path: Path, asked: str) -> None:
    engine = choose(tmp_path, Settings(engine=asked))
    assert engine.name == "process"
    able = engine.capabilities()
    assert set(able.why_not) == {"heals", "limits", "images", "nodes"}


@pytest.mark.parametrize("asked", ["docker", "swarm"])
def test_an_engine_that_is_not_built_in_is_refused_with_what_to_do(tmp_path: Path, asked: str) -> None:
    with pytest.raises(EngineUnavailable, match=r"(?s)not built in.*What to do"):
        choose(tmp_path, Settings(engine=asked))


def test_windows_is_not_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(EngineUnavailable, match="WSL"):
        choose(tmp_path, Settings())
