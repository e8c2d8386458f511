"""What Release publishes, every engine can prepare; and what it would not take, no engine gets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from devops_lab.errors import BadInput, RegistryRefused
from devops_lab.lab import end_production
from devops_lab.model import Artifact
from devops_lab.phases.build import Build
from devops_lab.phases.release import ReleasePhase
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings, write
from tests.production import ENGINES
from tests.shoplab import commit, found, say_tested


@pytest.fixture(params=ENGINES)
def shop(
    request: pytest.FixtureRequest, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[LabContext]:
    """A lab with the real shop's repository, once for each engine."""
    made = found(tmp_path / "ein Läb", tmp_path_factory)
    settings = Settings(engine=request.param)
    write(made.root, settings)
    try:
        yield LabContext(made.root, settings, made.store)
    finally:
        end_production(made.root)


def built(world: LabContext) -> Artifact:
    commit(world, "feat: lunch for two")
    artifact = Build(world).run()
    say_tested(world, artifact)
    return artifact


def test_a_release_can_be_prepared_and_is_the_wheel_that_was_tested(shop: LabContext) -> None:
    artifact = built(shop)
    release = ReleasePhase(shop).run()
    assert release.digest == artifact.digest
    assert bool(release.image) is shop.engine.capabilities().images
    shop.engine.prepare(release)
    shop.engine.prepare(release)
    assert ReleasePhase(shop).verify(release.version) == release
    with pytest.raises(BadInput, match="already"):
        ReleasePhase(shop).run(artifact=artifact)


def test_a_changed_artifact_is_neither_released_nor_prepared(shop: LabContext) -> None:
    artifact = built(shop)
    wheel = shop.root / artifact.path
    whole = wheel.read_bytes()
    wheel.write_bytes(whole + b"one more line")
    with pytest.raises(RegistryRefused, match="not the artifact that was tested"):
        ReleasePhase(shop).run()
    wheel.write_bytes(whole)
    release = ReleasePhase(shop).run()
    forged = type(release)(**{**vars(release), "digest": "sha256:" + "0" * 64})
    with pytest.raises(RegistryRefused):
        shop.engine.prepare(forged)
