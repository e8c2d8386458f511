"""Release: versions from commits, the tested artifact promoted, and a registry that knows how to refuse."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab.delivery.versions import changelog, plan_version
from devops_lab.errors import BadInput, ChecksFailed, RegistryRefused
from devops_lab.model import Artifact
from devops_lab.phases.build import Build
from devops_lab.phases.release import ReleasePhase
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git
from tests.shoplab import commit, found, say_tested


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "ein Läb", tmp_path_factory)


def built(world: LabContext, message: str = "feat: lunch for two") -> Artifact:
    commit(world, message)
    return Build(world).run()


def tags(world: LabContext) -> tuple[list[str], list[str]]:
    return git(world.shop, "tag").split(), git(world.origin, "tag").split()


@pytest.mark.parametrize(
    ("messages", "version", "bump"),
    [
        (["fix: a"], "1.0.1", "patch"),
        (["perf: a"], "1.0.1", "patch"),
        (["feat: a", "fix: b"], "1.1.0", "minor"),
        (["fix(menu): a", "feat(menu): b", "docs: c"], "1.1.0", "minor"),
        (["feat!: a"], "2.0.0", "major"),
        (["fix: a\n\nBREAKING CHANGE: b"], "2.0.0", "major"),
        (["docs: a", "a feature: without form"], "1.0.0+g", "none"),
        ([], "1.0.0", "none"),
    ],
)
def test_the_version_comes_from_the_commits(
    world: LabContext, messages: list[str], version: str, bump: str
) -> None:
    git(world.shop, "reset", "--quiet", "--hard", "v1.0.0")
    for message in messages:
        commit(world, message)
    plan = ReleasePhase(world).next_version()
    assert plan.version.startswith(version)
    assert plan.bump == bump
    assert [c.subject for c in plan.commits][::-1] == [m.split("\n")[0] for m in messages] or not messages
    if bump == "minor":
        assert "feat" in plan.reason
    assert plan_version(world.shop, "v1.0.0").version == "1.0.0"


def test_the_changelog_is_grouped_with_ids_and_authors(world: LabContext) -> None:
    git(world.shop, "reset", "--quiet", "--hard", "v1.0.0")
    for message in ("feat: soup", "fix(menu): prices", "feat!: no cash", "docs: more"):
        commit(world, message)
    text = changelog(ReleasePhase(world).next_version())
    short = git(world.shop, "log", "-1", "--format=%H", "--grep=soup")[:8]
    assert text.startswith("## [2.0.0] - 20")
    assert text.index("### Added") < text.index("### Fixed") < text.index("### Other")
    assert f"- soup ({short}, Mia Ito)" in text
    assert "- **Breaking:** no cash" in text


def test_the_tested_artifact_is_promoted(world: LabContext) -> None:
    artifact = built(world)
    report = say_tested(world, artifact)
    release = ReleasePhase(world).run(why="lunch", who="Ada")
    assert (release.version, release.digest, release.commit) == ("1.1.0", artifact.digest, artifact.commit)
    wheel = world.root / release.path
    assert wheel.read_bytes() == (world.root / artifact.path).read_bytes()
    assert wheel.with_suffix(".lock").is_file()
    assert not [path for path in wheel.parent.iterdir() if path.stat().st_mode & 0o222]
    assert all("v1.1.0" in names for names in tags(world))
    assert git(world.origin, "cat-file", "-t", "v1.1.0") == "tag"
    assert git(world.origin, "for-each-ref", "--format=%(taggername)", "refs/tags/v1.1.0") == "Ada"
    bill = json.loads((world.root / release.sbom).read_text("utf-8"))
    assert bill["bomFormat"] == "CycloneDX"
    assert bill["metadata"]["component"]["hashes"][0]["content"] == artifact.digest.removeprefix("sha256:")
    assert {"starlette", "uvicorn", "anyio"} <= {part["name"] for part in bill["components"]}
    direct = next(d for d in bill["dependencies"] if d["ref"] == "bento")["dependsOn"]
    assert "starlette" in direct
    assert "anyio" not in direct  # it comes with starlette
    assert ReleasePhase(world).verify("1.1.0") == release == ReleasePhase(world).registry()[-1]
    parents = {row[2] for row in world.store.trail("release:1.1.0")}
    assert {f"artifact:{artifact.digest}", f"report:{report.key}", f"commit:{artifact.commit}"} <= parents
    event = world.store.events(kind="release.done")[0]
    assert (event.who, event.why) == ("Ada", "lunch")


def test_a_closed_gate_stops_the_release(world: LabContext) -> None:
    artifact = built(world)
    before = tags(world)
    with pytest.raises(ChecksFailed, match="never tested"):
        ReleasePhase(world).run()
    say_tested(world, artifact, "2 of 80 tests failed")
    with pytest.raises(ChecksFailed, match="2 of 80 tests failed"):
        ReleasePhase(world).run()
    assert tags(world) == before
    assert ReleasePhase(world).registry() == []
    assert len(world.store.events(kind="release.refused")) == 2


def test_the_newest_report_of_this_very_commit_decides(world: LabContext) -> None:
    artifact = built(world)
    say_tested(world, replace(artifact, commit="e" * 40))  # the same wheel, and beside it other tests
    with pytest.raises(ChecksFailed, match="never tested"):
        ReleasePhase(world).run()
    say_tested(world, artifact)
    say_tested(world, replace(artifact, t=artifact.t + 1), "1 of 80 tests failed")
    with pytest.raises(ChecksFailed, match="1 of 80 tests failed"):
        ReleasePhase(world).run()
    say_tested(world, replace(artifact, t=artifact.t + 2))
    assert ReleasePhase(world).run().version == artifact.version


def test_nothing_to_release_is_said(world: LabContext) -> None:
    with pytest.raises(BadInput, match="Nothing was built"):
        ReleasePhase(world).run()
    git(world.shop, "reset", "--quiet", "--hard", "v1.0.0")
    say_tested(world, built(world, "docs: words"))
    with pytest.raises(BadInput, match="no feature and no fix"):
        ReleasePhase(world).run()


def test_a_version_is_never_overwritten(world: LabContext) -> None:
    artifact = built(world)
    say_tested(world, artifact)
    release = ReleasePhase(world).run()
    with pytest.raises(BadInput, match=r"is version 1\.1\.0 already"):
        ReleasePhase(world).run(artifact=artifact)
    other = built(world, "feat: more")
    forged = Artifact(**{**vars(other), "version": "1.1.0"})
    with pytest.raises(RegistryRefused, match="never changes"):
        ReleasePhase(world)._acceptable(forged)
    assert ReleasePhase(world).verify("1.1.0") == release


def test_a_version_that_another_branch_took_is_passed_over(world: LabContext) -> None:
    commit(world, "feat: lunch for two")
    git(world.shop, "branch", "aside")
    git(world.shop, "tag", "v1.1.0", git(world.shop, "commit-tree", "-m", "feat: aside", "aside^{tree}"))
    assert ReleasePhase(world).next_version("main").version == "1.2.0"


def test_an_artifact_that_others_overtook_is_stale(world: LabContext) -> None:
    first, second = built(world), built(world, "feat: more")
    say_tested(world, first)
    say_tested(world, second)
    ReleasePhase(world).run(artifact=first)
    with pytest.raises(BadInput, match="Build and test again"):
        ReleasePhase(world).run(artifact=second)
    say_tested(world, Build(world).run())
    assert ReleasePhase(world).run().version == "1.2.0"


def test_what_changed_after_the_tests_is_refused(world: LabContext) -> None:
    artifact = built(world)
    say_tested(world, artifact)
    before = tags(world)
    with (world.root / artifact.path).open("ab") as file:
        file.write(b"one more line")
    with pytest.raises(RegistryRefused, match="not the artifact that was tested"):
        ReleasePhase(world).run()
    assert tags(world) == before
    assert ReleasePhase(world).registry() == []


def test_what_changed_in_the_registry_is_refused(world: LabContext) -> None:
    say_tested(world, built(world))
    release = ReleasePhase(world).run()
    wheel = world.root / release.path
    wheel.chmod(0o644)
    wheel.write_bytes(wheel.read_bytes() + b" ")
    with pytest.raises(RegistryRefused, match="not what was released"):
        ReleasePhase(world).verify("1.1.0")
    wheel.unlink()
    with pytest.raises(RegistryRefused, match="no file"):
        ReleasePhase(world).verify("1.1.0")


def test_a_release_that_was_cut_short_is_undone_and_made_again(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    artifact = built(world)
    say_tested(world, artifact)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", cut)
        patch.setattr(ReleasePhase, "_mend", lambda _: None)  # as after a kill -9: nobody is there to undo it
        with pytest.raises(KeyboardInterrupt):
            ReleasePhase(world).run()
    assert all("v1.1.0" in names for names in tags(world))  # the tag is there, the artifact is not
    assert ReleasePhase(world).registry() == []
    assert ReleasePhase(world).run().version == "1.1.0"
    assert sorted(p.name for p in world.registry.iterdir()) == [".lock", "1.1.0"]
    assert all("v1.1.0" in names for names in tags(world))


def test_a_release_that_fails_leaves_no_trace(world: LabContext, monkeypatch: pytest.MonkeyPatch) -> None:
    say_tested(world, built(world))
    before = tags(world)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", full)
        with pytest.raises(OSError, match="No space"):
            ReleasePhase(world).run()
    assert tags(world) == before
    assert sorted(p.name for p in world.registry.iterdir()) == [".lock"]


def test_an_unknown_version_names_a_near_one(world: LabContext) -> None:
    with pytest.raises(BadInput, match="none yet"):
        ReleasePhase(world).find("1.0.0")
    say_tested(world, built(world))
    ReleasePhase(world).run()
    with pytest.raises(BadInput, match=r"Did you mean '1\.1\.0'"):
        ReleasePhase(world).find("1.1.1")


@pytest.mark.slow
def test_the_first_version_comes_from_its_tag(world: LabContext) -> None:
    release = ReleasePhase(world).release_tag("v1.0.0")
    assert release.commit == git(world.origin, "rev-parse", "v1.0.0^{commit}")
    assert "### Fixed" in release.notes
    with pytest.raises(RegistryRefused):
        ReleasePhase(world)._acceptable(world.store.all(Artifact)[-1])


def test_static_pages_need_no_release(world: LabContext) -> None:
    shown = ReleasePhase(world).non_step()
    assert shown.status == 200
    assert shown.bytes == (world.shop / "src/bento/static/index.html").stat().st_size
    assert shown.tags[0] == shown.tags[1]
    assert shown.releases == (0, 0)
