"""A lab of containers for the tests of its engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devops_lab.phases import World
from tests.production import renewed


@pytest.fixture
def world(docker_lab: World) -> Iterator[World]:
    with renewed(docker_lab) as made:
        yield made
