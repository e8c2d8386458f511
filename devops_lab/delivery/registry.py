"""The registry's folder, one a version: its records are checked where they are read, and damage is named.

A release is all of its files. Its record has the digest of each, and the id of its tag in git; the tag's
message has the digests too; the lab's store keeps the record as well. Each contradicts a change of another.
"""

from __future__ import annotations

import re
from dataclasses import asdict
from pathlib import Path

from devops_lab.errors import Damaged, RegistryRefused
from devops_lab.model import Release
from devops_lab.platform import records
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.environments import unchanged
from devops_lab.platform.git import git

DIGEST = "\nDigest: sha256:"  # what only the tags of releases say


def read_registry(registry: Path) -> tuple[list[Release], list[RegistryRefused]]:
    """Every release, lowest first; and what is wrong with those whose records can't be read."""
    found, damaged = [], []
    for folder in sorted(registry.glob("[0-9]*")):
        try:
            found.append(read_release(folder))
        except RegistryRefused as error:
            damaged.append(error)
    return sorted(found, key=lambda r: [int(part) for part in re.findall(r"\d+", r.version)]), damaged


def read_release(folder: Path) -> Release:
    """The record of the release that lies in a folder of the registry.

    Raises:
        RegistryRefused: it is missing or damaged, or another version's; names file and field.
    """
    path = folder / "release.json"
    try:
        release = records.read(path, Release)
        wrong = "" if release.version == folder.name else f"{path} is that of version {release.version!r}."
    except FileNotFoundError:
        wrong = f"{path} is missing."
    except Damaged as error:
        wrong = error.wrong
    if wrong:
        raise RegistryRefused(
            wrong,
            expected=f"the record of version {folder.name}, as it was released",
            next_step=f"Put it back from a copy, or go on with another version: {folder.name} is out of use.",
        )
    return release


# ---- is it still what was released?
def check_release(world: LabContext, release: Release) -> None:
    """Hold a release's record against its files, its tag and the lab's store.

    What a release of an older lab did not record can't be held against anything.

    Raises:
        RegistryRefused: one of them differs.
    """
    folder = world.registry / release.version
    record = f"{world.relative(folder)}/release.json"
    kept = world.store.get(Release, release.version)
    if kept and (fields := [name for name, value in asdict(kept).items() if getattr(release, name) != value]):
        raise contradicted(release, f"{record} says another {', '.join(fields)} than the lab's store")
    unchanged(world.root, release)
    if not release.files:
        return
    there = {path.name for path in folder.iterdir() if not path.name.startswith(".")}
    if foreign := there - release.files.keys() - {"release.json"}:
        raise contradicted(release, f"{world.relative(folder)} has one more: {', '.join(sorted(foreign))}")
    for repo in (world.origin, world.shop):
        if wrong := tag_differs(repo, release):
            raise contradicted(
                release,
                f"The tag {release.tag} in {repo.name} {wrong}",
                "Find out who changed it. As long as git keeps the old one, this puts it back: "
                f"git -C {repo} update-ref refs/tags/{release.tag} {release.tag_object}",
            )


def tag_differs(repo: Path, release: Release) -> str:
    """What is wrong with a release's tag in a repository; empty when nothing is."""
    fields = "%(objectname)%1f%(*objectname)%1f%(contents)"
    found = git(repo, "for-each-ref", f"--format={fields}", f"refs/tags/{release.tag}")
    if not found:
        return "is gone"
    tag, commit, message = found.split("\x1f")
    if (tag, commit or tag) != (release.tag_object, release.commit):
        return f"was moved or rewritten: it names commit {(commit or tag)[:8]}"
    # The first version's tag is older than its release, and has a message of its own.
    ours = DIGEST in message and message.strip() != tag_message(release).strip()
    return "has other digests or notes than its record" if ours else ""


def tag_message(release: Release) -> str:
    """The message of a release's annotated tag: its notes, and the digest of all that belongs to it."""
    lines = [f"Digest: {release.digest}", *(f"{digest}  {name}" for name, digest in release.files.items())]
    if release.image:
        lines.append(f"Image: {release.image}")
    return f"Release {release.version}\n\n{release.notes}\n" + "\n".join(lines) + "\n"


def contradicted(release: Release, wrong: str, next_step: str = "") -> RegistryRefused:
    return RegistryRefused(
        f"{wrong}: that is not what was released as {release.version}.",
        expected="record, files, tag and store that agree",
        next_step=next_step or "Find out who changed it, and release a new version from a clean build.",
    )
