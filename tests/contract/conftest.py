"""Labs for the contract that every engine keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devops_lab.phases import World
from tests.production import make_templates, new_world, torn_down


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_templates(tmp_path_factory.mktemp("templates"))


@pytest.fixture(params=["process"])
def world(request: pytest.FixtureRequest, tmp_path: Path, templates: Path) -> Iterator[World]:
    """An empty lab, once for each engine; its path has a space and a letter beyond ASCII."""
    with torn_down(new_world(tmp_path / "my läb", templates)) as made:
        assert made.engine.name == request.param
        yield made
