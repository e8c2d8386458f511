"""Images in Build and Release, in a real Docker engine: built around the wheel, published, never changed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab.delivery import image as imaging
from devops_lab.errors import BuildFailed, DiskFull, EngineUnavailable, RegistryRefused
from devops_lab.lab import end_production
from devops_lab.model import Artifact, Image
from devops_lab.phases.build import Build
from devops_lab.phases.release import ReleasePhase
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.docker import Docker, Gone, labels, named
from devops_lab.platform.engines.images import Images
from devops_lab.platform.engines.prepared import find
from devops_lab.platform.engines.registry import Registry
from devops_lab.platform.git import git
from devops_lab.platform.settings import Settings, write
from tests.patience import until
from tests.shoplab import commit, found, say_tested

pytestmark = [pytest.mark.docker, pytest.mark.slow]


@contextmanager
def of_images(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    """A lab whose production runs from images."""
    made = found(root, tmp_path_factory)
    write(made.root, Settings(engine="docker"))
    try:
        yield LabContext(made.root, Settings(engine="docker"), made.store)
    finally:
        end_production(made.root)
        assert left_of(made.root) == []


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    with of_images(tmp_path / "ein Läb", tmp_path_factory) as made:
        yield made


def left_of(root: Path) -> list[str]:
    docker = Docker()
    ours: dict[str, str | list[str] | bool] = {"label": f"devops-lab={labels(root, '')['devops-lab']}"}
    things = [
        *docker.client.containers.list(all=True, filters=ours),
        *docker.client.images.list(filters=ours),
    ]
    return [str(thing) for thing in [*things, *docker.client.volumes.list(filters=ours)]]


def green(world: LabContext, message: str = "feat: lunch for two") -> Artifact:
    commit(world, message)
    artifact = Build(world).run()
    say_tested(world, artifact)
    return artifact


def images(world: LabContext) -> Images:
    return imaging.images_of(world)


def test_an_image_is_built_around_the_wheel_and_then_from_the_cache(world: LabContext) -> None:
    artifact, lines = green(world), list[str]()
    image = Build(world).image(on_line=lines.append)
    assert (image.version, image.wheel) == (artifact.version, artifact.digest)
    assert any(line.startswith("Step 1/") for line in lines)
    assert any("zipfile" in step.name and step.output != "cached" for step in image.steps)
    assert [layer.made_by for layer in image.layers[-2:]] == ["COPY … /opt/packages", "COPY … /opt/shop"]
    assert sum(layer.bytes for layer in image.layers) == image.bytes
    assert world.store.last(Image) == image
    again = Build(world).image()
    assert again.id == image.id
    made = [step for step in again.steps if not step.name.startswith(("FROM", "ARG"))]
    assert {step.output for step in made} == {"cached"}


def test_a_lab_stands_on_its_own_layers_though_others_use_the_engine(
    world: LabContext, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The engine takes the newest match: where two build at once, a second build would be another image."""
    with of_images(tmp_path / "another", tmp_path_factory) as other:
        for each in (other, world):
            green(each)
            image = Build(each).image()
    made = [step for step in image.steps if step.name.startswith(("COPY", "RUN"))]
    assert len(made) >= 5
    assert "cached" not in {step.output for step in made}


def test_a_new_version_of_the_shop_is_one_small_layer(world: LabContext) -> None:
    green(world)
    first = Build(world).image()
    commit(world, "feat: more", "src/bento/more.py", "MORE = 1\n")
    second = Build(world).image(Build(world).run())
    assert [a.digest == b.digest for a, b in zip(first.layers, second.layers, strict=True)][-2:] == [
        True,
        False,
    ]
    assert second.layers[-1].bytes < 1_000_000
    assert next(step for step in second.steps if "/opt/packages" in step.name).output == "cached"


def test_a_release_is_an_image_known_by_its_digest(world: LabContext) -> None:
    artifact = green(world)
    release = ReleasePhase(world).run(why="lunch")
    assert release.image == images(world).registry.digest_of("1.1.0")
    assert images(world).look(images(world).pull(release.image)).wheel == artifact.digest == release.digest
    assert ReleasePhase(world).verify("1.1.0") == release == ReleasePhase(world).registry()[-1]
    trail = {row[2] for row in world.store.trail("release:1.1.0")}
    assert f"image:{release.image}" in trail
    tags = [tag for image in Docker().client.images.list() for tag in image.tags if "bento" in tag]
    assert not [tag for tag in tags if tag.startswith(images(world).registry.address())]


def test_the_image_that_was_built_is_the_one_that_is_released(world: LabContext) -> None:
    green(world)
    image = Build(world).image()
    release = ReleasePhase(world).run()
    assert images(world).look(images(world).pull(release.image)).id == image.id


def move_tag(world: LabContext, tag: str) -> str:
    """Push something else over a tag, past all checks; return its digest."""
    docker, where = images(world).docker.client, images(world).registry.repository()
    made = docker.containers.create(
        find(images(world).docker, "python"), ["true"], labels=labels(world.root, "other")
    )
    changed = made.commit(where, tag, changes=[f"LABEL devops-lab={labels(world.root, '')['devops-lab']}"])
    made.remove()
    said = docker.api.push(where, tag, stream=True, decode=True)
    digest = next(line["aux"]["Digest"] for line in said if "aux" in line)
    docker.images.remove(f"{where}:{tag}")
    assert changed.id
    return str(digest)


def test_a_tag_that_moved_is_noticed(world: LabContext) -> None:
    green(world)
    release = ReleasePhase(world).run()
    moved = move_tag(world, "1.1.0")
    with pytest.raises(RegistryRefused, match=f"leads to {moved}: it was moved") as refused:
        ReleasePhase(world).verify("1.1.0")
    assert refused.value.expected == release.image


def test_an_image_that_the_registry_lost_is_noticed(world: LabContext) -> None:
    green(world)
    release = ReleasePhase(world).run()
    registry = images(world).registry
    registry.teardown()
    with pytest.raises(RegistryRefused, match=r"has no tag 1\.1\.0 any more"):
        ReleasePhase(world).verify("1.1.0")
    with pytest.raises(RegistryRefused, match="can't give the image"):
        images(world).pull(release.image.replace("sha256:", "sha256:0")[:71])


def test_bytes_that_do_not_match_their_digest_are_refused(world: LabContext) -> None:
    green(world)
    release = ReleasePhase(world).run()
    docker, registry = images(world).docker, images(world).registry

    genuine = images(world).look(images(world).pull(release.image)).id

    def refusal() -> str:
        """What is said to an engine that has no copy of its own; it forgets a removed one after a while."""
        with suppress(Gone), docker.calls("remove the image"):
            docker.client.images.remove(genuine, force=True)
        try:
            ReleasePhase(world).verify("1.1.0")
        except RegistryRefused as refused:
            return refused.wrong
        return ""

    assert refusal() == ""
    hexes = release.image.removeprefix("sha256:")
    blob = f"/data/docker/registry/v2/blobs/sha256/{hexes[:2]}/{hexes}/data"
    change = f"import pathlib; p = pathlib.Path('{blob}'); p.write_text(p.read_text().replace(' ', '', 1))"
    docker.client.containers.run(
        find(docker, "python"),
        ["python3", "-c", change],
        volumes={named(world.root, "registry"): {"bind": "/data"}},
        remove=True,
        user="10001",
    )
    container = docker.find(world.root, "registry")
    assert container is not None
    container.restart()  # it may remember
    registry.ensure()
    assert "verification failed" in until(refusal, "the damage to be noticed", every_seconds=0.2)


def test_an_image_around_another_wheel_is_refused(world: LabContext) -> None:
    green(world)
    release = ReleasePhase(world).run()
    forged = replace(release, digest="sha256:" + "0" * 64)
    with pytest.raises(RegistryRefused, match="holds another wheel"):
        imaging.verify(world, forged)


def test_a_version_that_somebody_else_pushed_is_never_overwritten(world: LabContext) -> None:
    green(world)
    foreign = move_tag(world, "1.1.0")
    with pytest.raises(RegistryRefused, match=r"has a version 1\.1\.0 that nobody released"):
        ReleasePhase(world).run()
    assert images(world).registry.digest_of("1.1.0") == foreign
    assert ReleasePhase(world).registry() == []
    assert "v1.1.0" not in git(world.origin, "tag").split()


def test_another_image_is_not_pushed_over_a_tag(world: LabContext) -> None:
    green(world)
    image = Build(world).image()
    pushed = images(world).push(image)
    assert images(world).push(image) == pushed
    commit(world, "feat: more", "src/bento/more.py", "MORE = 1\n")
    other = Build(world).image(Build(world).run())
    with pytest.raises(RegistryRefused, match="never changes"):
        images(world).push(other, image.version)
    assert images(world).registry.digest_of(image.version) == pushed.digest


def test_a_release_that_was_cut_short_before_its_tag_is_finished_by_the_next(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    green(world)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(imaging, "name_version", cut)
        with pytest.raises(KeyboardInterrupt):
            ReleasePhase(world).run()
    assert images(world).registry.digest_of("1.1.0") == ""
    green(world, "feat: more")
    second = ReleasePhase(world).run()
    first = ReleasePhase(world).find("1.1.0")
    assert images(world).registry.digest_of("1.1.0") == first.image
    assert second.version == "1.2.0"


@pytest.mark.slow
def test_a_full_registry_is_named_and_nothing_of_the_release_is_left(world: LabContext) -> None:
    green(world)
    docker = Docker().client
    docker.volumes.create(
        named(world.root, "registry"),
        driver="local",
        driver_opts={"type": "tmpfs", "device": "tmpfs", "o": "size=4m,uid=10001"},
        labels=labels(world.root, "registry"),
    )
    before = git(world.origin, "tag").split()
    with pytest.raises(DiskFull, match="registry is full"):
        ReleasePhase(world).run()
    assert ReleasePhase(world).registry() == []
    assert git(world.origin, "tag").split() == before
    assert sorted(path.name for path in world.registry.iterdir()) == [".lock"]
    registry = Registry(Docker(), world.root)
    assert registry.digest_of("1.1.0") == ""


def test_a_dockerfile_that_fails_carries_the_engines_words(world: LabContext) -> None:
    broken = (world.shop / "Dockerfile").read_text("utf-8").replace("-m zipfile", "-m zipfil")
    commit(world, "build: a typing error", "Dockerfile", broken)
    Build(world).run()
    with pytest.raises(BuildFailed, match="No module named zipfil"):
        Build(world).image()
    assert world.store.last(Image) is None


def test_a_commit_without_a_dockerfile_is_named(world: LabContext) -> None:
    git(world.shop, "rm", "--quiet", "Dockerfile")
    commit(world, "build: none")
    Build(world).run()
    with pytest.raises(BuildFailed, match="has no Dockerfile"):
        Build(world).image()


def test_a_lab_of_processes_builds_images_too_and_takes_them_away_with_it(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    world = found(tmp_path / "lab", tmp_path_factory)
    Build(world).run()
    assert Build(world).why_no_image() == ""
    assert Build(world).image().layers
    assert left_of(world.root)
    end_production(world.root)
    assert left_of(world.root) == []


def test_where_no_engine_answers_the_reason_is_told(
    tmp_path: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = found(tmp_path / "lab", tmp_path_factory)
    Build(world).run()
    monkeypatch.setenv("DOCKER_HOST", f"unix://{tmp_path}/none.sock")
    assert "No Docker engine answers" in Build(world).why_no_image()
    with pytest.raises(EngineUnavailable):
        Build(world).image()
