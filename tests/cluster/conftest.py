"""One cluster of three nodes for all tests, and a lab whose production it is."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.docker import Docker
from tests.cluster.images import bring_images
from tests.cluster.nodes import Node, nodes
from tests.phases.production import production

VERSIONS = ("1.0.0", "1.1.0", "1.8.0")  # the last one can't serve


@pytest.fixture(scope="module")
def cluster() -> Iterator[list[Node]]:
    """Three nodes; the first, which manages them, has the images that the lab stands on."""
    with nodes(3) as made:
        bring_images(Docker(made[0].host))
        yield made


@pytest.fixture(scope="module")
def world(cluster: list[Node], tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    """A lab on the cluster, with the real shop in its registry; all that it started is removed in the end."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DOCKER_HOST", cluster[0].host)
        root = tmp_path_factory.mktemp("labs") / "my läb"
        with production(root, *VERSIONS, replicas=4, engine="swarm") as made:
            yield made
