"""Container images in Build and Release: made around the wheel, published with it, checked against it.

A release's image is pushed under a tag of its wheel first; its version becomes a tag only after the release
is in place. So a version's tag always belongs to a release, and the next one finishes what was cut short.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from devops_lab.delivery.materials import export
from devops_lab.delivery.versions import locate
from devops_lab.errors import BadInput, BuildFailed, EngineUnavailable, LabError, RegistryRefused
from devops_lab.model import Artifact, Image, Release
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.environments import unchanged
from devops_lab.platform.identity import identity

if TYPE_CHECKING:
    from devops_lab.platform.engines.images import Images, OnLine

RECIPE = ("Dockerfile", ".dockerignore")


@runtime_checkable
class RunsImages(Protocol):
    """An engine whose replicas run from images; it knows where they are kept."""

    images: Images


def images_of(world: LabContext) -> Images:
    """The images of this lab: those of production's engine, else of whatever Docker engine answers here.

    Raises:
        EngineUnavailable: none answers.
    """
    if isinstance(world.engine, RunsImages):
        return world.engine.images
    from devops_lab.platform.engines.docker import Docker
    from devops_lab.platform.engines.images import Images

    return Images(Docker(world.settings.docker_host), world.root)


def why_no_image(world: LabContext) -> str:
    """Why no image can be built here, in plain words; empty where one can."""
    from devops_lab.platform.engines.prepared import find

    try:
        find(images_of(world).docker, "python")
    except EngineUnavailable as error:
        return str(error)
    return ""


def build_image(world: LabContext, artifact: Artifact | None = None, on_line: OnLine | None = None) -> Image:
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
    images = images_of(world)
    with tempfile.TemporaryDirectory(dir=world.work) as folder:
        repo, whole = locate(world, artifact.commit)
        try:
            export(repo, whole, Path(folder), *RECIPE)
        except LabError as error:
            raise BuildFailed(
                f"Commit {whole[:8]} has no Dockerfile, so there is no image to build.",
                next_step="Build a newer commit.",
            ) from error
        wheel = unchanged(world.root, artifact, "the artifact that was built", "Build the commit again.")
        lock = wheel.with_suffix(".lock")
        image = images.build(wheel, lock, Path(folder), artifact.version, artifact.digest, on_line)
    world.store.put(image)
    world.store.link(f"image:{image.id}", "built around", f"artifact:{artifact.digest}")
    message = f"{image.version}, {len(image.layers)} layers, in {image.seconds:.2f} s"
    who = world.settings.learner
    world.store.event("build", "image.built", f"commit:{whole}", message, who=who, image=image.id)
    return image


# ---- Release
def publish(world: LabContext, artifact: Artifact) -> str:
    """Have the image of an artifact in the lab's registry, built if it is not there yet.

    Returns:
        The digest of its manifest: what production pulls.

    Raises:
        RegistryRefused: the registry has another image under this version.
        DiskFull: the registry is full; nothing of this version is in it.
    """
    images, tag = images_of(world), wheel_tag(artifact)
    if taken := images.registry.digest_of(artifact.version):
        raise RegistryRefused(
            f"The registry of images has a version {artifact.version} that nobody released: {taken}",
            expected="no such tag: a version is published once, by its release",
            next_step="Merge a change: it gets a version of its own.",
        )
    if there := images.registry.digest_of(tag):
        matches(images, there, artifact)
        return there
    image = images.find(artifact.version)
    if image is None or (image.wheel, image.lock) != (artifact.digest, artifact.lock):
        image = build_image(world, artifact)
    pushed = images.push(image, tag)
    world.store.put(pushed)
    return pushed.digest


def wheel_tag(artifact: Artifact) -> str:
    """A tag for a wheel with the packages beside it: the same wheel may come with another lock."""
    return f"wheel-{hashlib.sha256(''.join(artifact.files.values()).encode()).hexdigest()[:16]}"


def matches(images: Images, digest: str, made: Artifact | Release) -> None:
    """Pull an image by its digest, and insist that it holds this very wheel, and the packages of its lock.

    Raises:
        RegistryRefused: the registry can't give it, or something else is inside.
    """
    image = images.look(images.pull(digest))
    lock = PurePath(made.path).with_suffix(".lock").name
    wanted = {"wheel": (made.digest, image.wheel), "lock": (made.files.get(lock, ""), image.lock)}
    for what, (expected, inside) in wanted.items():
        if expected and inside != expected:
            raise RegistryRefused(
                f"The image of {made.version} holds another {what}: {inside or 'none that it names'}",
                expected=expected,
                next_step="Build and release it again, as a new version.",
            )


def name_version(world: LabContext, release: Release) -> None:
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


def verify(world: LabContext, release: Release) -> None:
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
    matches(images, release.image, release)


def bring_along(world: LabContext, releases: Iterable[Release]) -> None:
    """Give a copied lab's registry the images of its releases, as far as this engine has them."""
    if isinstance(world.engine, RunsImages):
        images = world.engine.images
        for release in releases:
            if release.image and (name := images.in_engine(release.image)):
                images.push(images.look(name), release.version)


def drop_images(world: LabContext) -> None:
    """Remove the images of a lab whose production runs without them; with them, its engine does so."""
    if isinstance(world.engine, RunsImages):
        return
    with suppress(EngineUnavailable):  # an engine that is gone keeps nobody from removing a lab
        images_of(world).docker.remove_all(identity(world.root))
