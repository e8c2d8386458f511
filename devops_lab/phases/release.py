"""Release: a version, a tag in git, and the tested artifact in a registry that production reaches.

The artifact is promoted, never rebuilt: a build already carries the version that its commits ask for, and the
registry takes only the very bytes that the tests saw.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, replace
from difflib import get_close_matches
from pathlib import Path

from devops_lab.delivery import image as images
from devops_lab.delivery.materials import bill_of_materials, serve_once
from devops_lab.delivery.registry import DIGEST, check_release, read_registry, read_release, tag_message
from devops_lab.delivery.versions import VersionPlan, changelog, locate, plan_version
from devops_lab.errors import BadInput, ChecksFailed, RegistryRefused
from devops_lab.model import Artifact, EventKind, Release, TestReport
from devops_lab.phases.build import Build
from devops_lab.phases.test import Test
from devops_lab.platform import commands, locks
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.environments import sha256, unchanged
from devops_lab.platform.git import git, identity


@dataclass(frozen=True)
class NonStep:
    """An application that needs no release: its page went straight from the commit to where it is read."""

    commit: str
    url: str
    status: int
    bytes: int
    seconds: float
    folder: str
    tags: tuple[int, int]  # before, after
    releases: tuple[int, int]  # before, after


def candidate(artifact: Artifact) -> Release:
    """What an artifact will be as a release, should its tests be green; production can be prepared for it."""
    return Release(
        version=artifact.version,
        commit=artifact.commit,
        tag=f"v{artifact.version}",
        digest=artifact.digest,
        path=artifact.path,
        bytes=artifact.bytes,
        notes="",
        sbom="",
        t=artifact.t,
        files=artifact.files,
    )


class ReleasePhase:
    """The phase Release of one lab."""

    def __init__(self, world: LabContext) -> None:
        self.world = world
        self.lock = world.registry / ".lock"

    def next_version(self, commit: str = "main") -> VersionPlan:
        """The version that a commit asks for, and the commit that decided."""
        repo, whole = locate(self.world, commit)
        return plan_version(repo, whole)

    def run(self, why: str = "", who: str = "", artifact: Artifact | None = None) -> Release:
        """Release a tested artifact (default: the newest build): check > version > notes > tag > publish.

        Raises:
            ChecksFailed: it was not tested, or the quality gate is closed.
            BadInput: nothing was built, or nothing since the last tag is worth a release.
            RegistryRefused: the version is there already, or the file is not the one that was tested.
        """
        artifact = artifact or self.world.store.last(Artifact)
        if artifact is None:
            raise BadInput("Nothing was built yet.", next_step="Build and test a commit first.")
        report = self._tested(artifact)
        with locks.held(self.lock):
            self._mend()
            release = self._publish(artifact, self._worth_a_release(artifact), tag=True, who=who)
        self._record(release, report, who, why)
        return release

    def release_tag(self, tag: str) -> Release:
        """Build, test and publish what an existing tag names, as the shop's first version was."""
        if any(release.tag == tag for release in self.registry()):
            raise RegistryRefused(
                f"{tag} is in the registry already, and a released version never changes.",
                next_step="Merge a change: it gets a version of its own.",
            )
        artifact = Build(self.world).run(tag)
        Test(self.world).run(artifact)
        report = self._tested(artifact)
        with locks.held(self.lock):
            self._mend()
            release = self._publish(artifact, self.next_version(tag), tag=False, who="")
        self._record(release, report, "", f"the tag {tag}")
        return release

    def _tested(self, artifact: Artifact) -> TestReport:
        wanted = (artifact.digest, artifact.commit)  # other tests may lie beside the same wheel
        reports = [r for r in self.world.store.all(TestReport) if (r.digest, r.commit) == wanted]
        if reports and reports[-1].passed:
            return reports[-1]
        wrong = "; ".join(reports[-1].gate) if reports else "it was never tested"
        self._event("release.refused", f"artifact:{artifact.digest}", wrong)
        raise ChecksFailed(
            f"Version {artifact.version} can't be released: {wrong}.",
            expected="a test report of this very artifact with an open quality gate",
            next_step="Mend what failed, commit, build and test again."
            if reports
            else "Run the tests first.",
        )

    def _worth_a_release(self, artifact: Artifact) -> VersionPlan:
        plan = self.next_version(artifact.commit)
        if plan.bump == "none" and any(r.version == plan.version for r in self.registry()):
            raise BadInput(
                f"Commit {plan.commit[:8]} is version {plan.version} already.", next_step="Merge a change."
            )
        if plan.bump == "none" and "+" in plan.version:
            raise BadInput(
                f"Nothing to release: {plan.reason}.",
                expected="a commit that begins with feat: or fix:",
                next_step="Merge a feature or a fix, then build and test it.",
            )
        if plan.version != artifact.version:
            raise BadInput(
                f"The artifact says {artifact.version}, but its commits now ask for {plan.version}: "
                "another commit was released since it was built.",
                next_step="Build and test again; then that artifact can be released.",
            )
        return plan

    # ---- the registry: one folder a version; the rename that puts it in place is what makes a release
    def _publish(self, artifact: Artifact, plan: VersionPlan, *, tag: bool, who: str) -> Release:
        """Take what is acceptable, or leave no trace."""
        self._acceptable(artifact)
        image = images.publish(self.world, artifact) if self._runs_images() else ""
        try:
            release = self._put_in_place(artifact, plan, image, tag=tag, who=who)
        except BaseException:
            self._mend()
            raise
        if image:
            images.name_version(self.world, release)
        return release

    def _runs_images(self) -> bool:
        return self.world.engine.capabilities().images

    def _put_in_place(
        self, artifact: Artifact, plan: VersionPlan, image: str, *, tag: bool, who: str
    ) -> Release:
        """Assemble the folder aside, tag the commit, then rename the folder into place."""
        home, aside = self.world.registry / artifact.version, self.world.registry / f".{artifact.version}.new"
        aside.mkdir()
        commands.did("mkdir", aside)
        wheel = self.world.root / artifact.path
        for path in (wheel, wheel.with_suffix(".lock")):
            shutil.copyfile(path, aside / path.name)
            commands.did("cp", path, aside / path.name)
        repo, _ = locate(self.world, artifact.commit)
        when = int(git(repo, "show", "-s", "--format=%ct", artifact.commit))
        pinned = wheel.with_suffix(".lock").read_text(encoding="utf-8")
        bill = bill_of_materials(aside / wheel.name, artifact, pinned, when)
        (aside / "sbom.json").write_text(bill, encoding="utf-8")
        commands.told(f"Python writes {aside.name}/sbom.json, the bill of materials, {len(bill)} bytes.")
        place = self.world.relative(home)
        release = replace(
            candidate(artifact),
            path=f"{place}/{wheel.name}",
            notes=changelog(plan),
            sbom=f"{place}/sbom.json",
            t=self.world.store.now(),
            image=image,
            files={path.name: f"sha256:{sha256(path)}" for path in sorted(aside.iterdir())},
        )
        if tag:
            message, name = tag_message(release), identity(who or self.world.settings.learner)
            options = ["--annotate", "--cleanup=verbatim", "--message", message]
            git(repo, "tag", *options, release.tag, release.commit, env=name)
        self._share_tag(repo, release.tag)
        tag_object = git(self.world.origin, "rev-parse", f"refs/tags/{release.tag}")
        release = replace(release, tag_object=tag_object)
        (aside / "release.json").write_text(json.dumps(asdict(release), indent=1), encoding="utf-8")
        for path in aside.iterdir():
            path.chmod(0o444)
        os.rename(aside, home)
        commands.told(f"Python writes {aside.name}/release.json, the record, and makes all read-only.")
        commands.did("mv", aside, home)
        return release

    def _acceptable(self, artifact: Artifact) -> None:
        wheel, version = self.world.root / artifact.path, artifact.version
        if (self.world.registry / version).exists():
            read_release(self.world.registry / version)  # says it when that is damaged
            raise RegistryRefused(
                f"Version {version} is in the registry already, and a released version never changes.",
                next_step="Merge a change: it gets a version of its own.",
            )
        if not (wheel.is_file() and wheel.with_suffix(".lock").is_file()):
            raise RegistryRefused(f"{artifact.path} or its lock is gone.", next_step="Build and test again.")
        unchanged(self.world.root, artifact, "the artifact that was tested", "Build and test again.")

    def _share_tag(self, repo: Path, tag: str) -> None:
        if repo != self.world.origin:
            git(repo, "push", "--quiet", str(self.world.origin), f"refs/tags/{tag}")
        else:
            git(self.world.shop, "fetch", "--quiet", "--tags", str(self.world.origin))

    def _mend(self) -> None:
        """Undo what an interrupted release left: a folder not yet in place, a tag without its artifact."""
        for leftover in self.world.registry.glob(".*.new"):
            shutil.rmtree(leftover)
        for repo in (self.world.shop, self.world.origin):
            tags = git(repo, "tag", "--list", "v[0-9]*", "--format=%(refname:short)%1f%(contents)%1e").split(
                "\x1e"
            )
            for name, contents in (entry.strip("\n").split("\x1f") for entry in tags if entry.strip()):
                if DIGEST in contents and not (self.world.registry / name.removeprefix("v")).exists():
                    git(repo, "tag", "--delete", name)
        released = self.registry()
        if released and released[-1].image and self._runs_images():
            images.name_version(self.world, released[-1])

    def registry(self) -> list[Release]:
        """Every released version, lowest first; one whose record is damaged is left out."""
        return read_registry(self.world.registry)[0]

    def find(self, version: str) -> Release:
        """A released version.

        Raises:
            BadInput: the registry has no such version; the message names near ones.
            RegistryRefused: its record is damaged.
        """
        known = {r.version: r for r in self.registry()}
        if version in known:
            return known[version]
        if version[:1].isdecimal() and (self.world.registry / version).is_dir():
            read_release(self.world.registry / version)
        near = get_close_matches(version, known, 1, 0.5)
        raise BadInput(
            f"The registry has no version {version!r}.",
            expected=", ".join(known) or "a released version (there is none yet)",
            next_step=f"Did you mean {near[0]!r}?" if near else "Release one first.",
        )

    def verify(self, version: str) -> Release:
        """Check that a release still is what was released, all of it, and return it.

        Raises:
            RegistryRefused: a file, its record, its tag or its image differs.
        """
        release = self.find(version)
        check_release(self.world, release)
        images.verify(self.world, release)
        return release

    def _record(self, release: Release, report: TestReport, who: str, why: str) -> None:
        store, subject = self.world.store, f"release:{release.version}"
        store.put(release)
        store.link(subject, "made from", f"artifact:{release.digest}")
        store.link(subject, "tested by", f"report:{report.key}")
        if release.image:
            store.link(subject, "runs as", f"image:{release.image}")
            store.link(f"image:{release.image}", "built around", f"artifact:{release.digest}")
        self._event(
            "release.done",
            subject,
            f"{release.tag} is in the registry",
            who,
            why,
            digest=release.digest,
            image=release.image,
        )

    def _event(
        self, kind: EventKind, subject: str, message: str, who: str = "", why: str = "", **data: str
    ) -> None:
        who = who or self.world.settings.learner
        self.world.store.event("release", kind, subject, message, who=who, why=why, **data)

    # ---- where release is a non-step
    def non_step(self, commit: str = "main") -> NonStep:
        """Put the shop's static pages where readers get them, straight from a commit: no version, no tag."""
        repo, whole = locate(self.world, commit)
        before = self._counts()
        began = time.perf_counter()
        folder = self.world.work / "site" / whole[:8]
        url, status, size = serve_once(repo, whole, folder)
        seconds = time.perf_counter() - began
        tags, releases = zip(before, self._counts(), strict=True)
        self._event("release.non_step", f"commit:{whole}", "static pages, live without a release")
        return NonStep(whole, url, status, size, seconds, self.world.relative(folder), tags, releases)

    def _counts(self) -> tuple[int, int]:
        return len(git(self.world.origin, "tag").split()), len(self.registry())
