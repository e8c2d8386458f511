"""A lab of containers for the tests of its engine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devops_lab.platform.context import LabContext
from tests.production import renewed


@pytest.fixture
def world(docker_lab: LabContext) -> Iterator[LabContext]:
    with renewed(docker_lab) as made:
        yield made
