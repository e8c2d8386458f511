"""Container images in Build and Release: made around the wheel, published with it, checked against it.

A release's image is pushed under a tag of its wheel first; its version becomes a tag only after the release
is in place. So a version's tag always belongs to a release, and the next one finishes what was cut short.
"""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from devops_lab.errors import BadInput, BuildFailed, EngineUnavailable, LabError, RegistryRefused
from devops_lab.model import Artifact, Image, Release
from devops_lab.phases import World
from devops_lab.phases.materials import export
from devops_lab.phases.versions import locate

if TYPE_CHECKING:
    from devops_lab.engines.images import Images, OnLine

RECIPE = ("Dockerfile", ".dockerignore")


@runtime_checkable
class RunsImages(Protocol):
    """An engine whose replicas run from images; it knows where they are kept."""

    images: Images


def images_of(world: World) -> Images:
    """The images of this lab: those of production's engine, else of whatever Docker engine answers here.

    Raises:
        EngineUnavailable: none answers.
    """
    if isinstance(world.engine, RunsImages):
        return world.engine.images
    from devops_lab.engines.docker import Docker
    from devops_lab.engines.images import Images

    return Images(Docker(world.settings.docker_host), world.root)


def why_no_image(world: World) -> str:
    """Why no image can be built here, in plain words; empty where one can."""
    from devops_lab.engines.prepared import find

    try:
        find(images_of(world).docker, "python")
    except EngineUnavailable as error:
        return str(error)
    return ""


def build_image(world: World, artifact: Artifact | None = None, on_line: OnLine | None = None) -> Image:
    """Build the container image around a wheel, by the Dockerfile of the commit that the wheel came from.

    Args:
        artifact: what goes inside; the newest build by default.
        on_line: called with each line of the engine's log as it comes.

    Raises:
        BadInput: nothing was built yet.
        EngineUnavailable: no Docker engine answers, or it has no base image and can't get one.
        BuildFailed: a step failed, with the engine's own words.
        RegistryRefused: the wheel is not the one that was built.
        DiskFull: there is no room.
    """
    artifact = artifact or world.store.last(Artifact)
    if artifact is None:
        raise BadInput("Nothing was built yet.", next_step="Build a commit first.")
    images, wheel = images_of(world), world.root / artifact.path
    with tempfile.TemporaryDirectory(dir=world.work) as folder:
        repo, whole = locate(world, artifact.commit)
        try:
            export(repo, whole, Path(folder), *RECIPE)
        except LabError as error:
            raise BuildFailed(
                f"Commit {whole[:8]} has no Dockerfile, so there is no image to build.",
                next_step="Build a newer commit.",
            ) from error
        lock = wheel.with_suffix(".lock")
        image = images.build(wheel, lock, Path(folder), artifact.version, artifact.digest, on_line)
    world.store.put(image)
    world.store.link(f"image:{image.id}", "built around", f"artifact:{artifact.digest}")
    message = f"{image.version}, {len(image.layers)} layers, in {image.seconds:.2f} s"
    who = world.settings.learner
    world.store.event("build", "image.built", f"commit:{whole}", message, who=who, image=image.id)
    return image


# ---- Release
def publish(world: World, artifact: Artifact) -> str:
    """Have the image of an artifact in the lab's registry, built if it is not there yet.

    Returns:
        The digest of its manifest: what production pulls.

    Raises:
        RegistryRefused: the registry has another image under this version.
        DiskFull: the registry is full; nothing of this version is in it.
    """
    images, tag = images_of(world), wheel_tag(artifact.digest)
    if taken := images.registry.digest_of(artifact.version):
        raise RegistryRefused(
            f"The registry of images has a version {artifact.version} that nobody released: {taken}",
            expected="no such tag: a version is published once, by its release",
            next_step="Merge a change: it gets a version of its own.",
        )
    if there := images.registry.digest_of(tag):
        matches(images, there, artifact.digest, artifact.version)
        return there
    image = images.find(artifact.version)
    if image is None or image.wheel != artifact.digest:
        image = build_image(world, artifact)
    pushed = images.push(image, tag)
    world.store.put(pushed)
    return pushed.digest


def wheel_tag(digest: str) -> str:
    return f"wheel-{digest.removeprefix('sha256:')[:16]}"


def matches(images: Images, digest: str, wheel: str, version: str) -> None:
    """Pull an image by its digest, and insist that it holds this very wheel.

    Raises:
        RegistryRefused: the registry can't give it, or another wheel is inside.
    """
    if (inside := images.wheel_in(digest)) != wheel:
        raise RegistryRefused(
            f"The image of {version} holds another wheel: {inside or 'none that it names'}",
            expected=wheel,
            next_step="Build and release it again, as a new version.",
        )


def name_version(world: World, release: Release) -> None:
    """Give a release's image its version as a tag; safe to repeat.

    Raises:
        RegistryRefused: that tag leads to another image.
    """
    images = images_of(world)
    if images.registry.digest_of(release.version) == release.image:
        return
    pushed = images.push(images.look(images.pull(release.image), release.version))
    if pushed.digest != release.image:
        raise RegistryRefused(
            f"The registry names {pushed.digest} as {release.version}.", expected=release.image
        )


def verify(world: World, release: Release) -> None:
    """Check that a release's image still is what was released: by tag, by digest, and the wheel inside.

    Raises:
        RegistryRefused: the tag moved or is gone, the registry can't give the image, or the wheel differs.
    """
    if not release.image or not isinstance(world.engine, RunsImages):
        return
    images = world.engine.images
    if (now := images.registry.digest_of(release.version)) != release.image:
        raise RegistryRefused(
            f"The tag {release.version} leads to {now}: it was moved."
            if now
            else f"The registry of images has no tag {release.version} any more.",
            expected=release.image,
            next_step="Find out who pushed there. Production is safe: it deploys by digest, never by tag.",
        )
    matches(images, release.image, release.digest, release.version)


def drop_images(world: World) -> None:
    """Remove the images of a lab whose production runs without them; with them, its engine does so."""
    if isinstance(world.engine, RunsImages) or world.store.last(Image) is None:
        return
    with suppress(EngineUnavailable):  # an engine that is gone keeps nobody from removing a lab
        images_of(world).docker.remove_all(world.root)
