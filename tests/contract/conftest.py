"""Labs for the contract that every engine keeps."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devops_lab.platform.context import LabContext
from devops_lab.platform.control import teardown
from devops_lab.platform.engines.docker import Docker
from tests.cluster.images import bring_images
from tests.cluster.nodes import Node, nodes
from tests.production import ENGINES, engine_lab, new_world, renewed, running

EVERY = [*ENGINES, pytest.param("swarm", marks=pytest.mark.cluster)]


@pytest.fixture(scope="session")
def node() -> Iterator[Node]:
    """A Docker engine of its own, which is a swarm of one."""
    with nodes(1) as (made,):
        bring_images(Docker(made.host))
        yield made


@pytest.fixture
def one_node(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker is that node, for one test."""
    monkeypatch.setenv("DOCKER_HOST", node.host)


@pytest.fixture(scope="session")
def swarm_lab(node: Node, tmp_path_factory: pytest.TempPathFactory, templates: Path) -> Iterator[LabContext]:
    """One lab on the swarm for all tests: its registry and its PostgreSQL take seconds to start."""
    made = new_world(tmp_path_factory.mktemp("swarm") / "my läb", templates, "swarm")
    yield made
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", node.host)
        teardown(made.root)
        made.engine.teardown()
        assert running(made) == []


@pytest.fixture(params=EVERY)
def world(request: pytest.FixtureRequest, tmp_path: Path, templates: Path) -> Iterator[LabContext]:
    """An empty lab, once for each engine; its path has a space and a letter beyond ASCII."""
    if request.param == "swarm":
        request.getfixturevalue("one_node")
        with renewed(request.getfixturevalue("swarm_lab")) as made:
            yield made
        return
    yield from engine_lab(request, tmp_path / "my läb", templates)
