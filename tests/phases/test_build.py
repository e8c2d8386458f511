"""Build: steps, digests that depend on the commit alone, and failures in the compiler's own words."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
from pathlib import Path
from zipfile import ZipFile

import pytest

from devops_lab.delivery.materials import unpack
from devops_lab.errors import BadInput, BuildFailed
from devops_lab.model import Artifact, Step
from devops_lab.phases.build import Build
from devops_lab.platform.context import LabContext
from devops_lab.shop import apply_change
from tests.shoplab import commit, found

needs_cc = pytest.mark.skipif(not any(map(shutil.which, ("cc", "gcc", "clang"))), reason="no C compiler")


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "ein Läb", tmp_path_factory)


def builds(world: LabContext) -> list[str]:
    home = world.work / "builds"
    return sorted(os.listdir(home)) if home.exists() else []


@needs_cc
def test_a_commit_becomes_a_wheel(world: LabContext) -> None:
    told: list[Step] = []
    artifact = Build(world).run(on_step=told.append)
    assert [step.name for step in told] == ["export", "transpile", "compile", "wheel"]
    assert artifact.steps == told
    assert all(step.seconds > 0 and step.bytes > 0 for step in told)
    assert "-O2 -Wall" in told[2].output
    assert artifact.scorer == "c"
    wheel = world.root / artifact.path
    assert artifact.bytes == wheel.stat().st_size
    with ZipFile(wheel) as archive:
        names = archive.namelist()
        assert {"bento/_score.so", "bento/static/app.js", "bento/app.py"} <= set(names)
        assert not [name for name in names if name.startswith("tests")]
        javascript = archive.read("bento/static/app.js").decode()
    assert "interface " not in javascript
    assert wheel.name.startswith(f"bento-{artifact.version}-py3-none-")
    assert not wheel.name.endswith("-any.whl")
    assert world.store.last(Artifact) == artifact
    assert world.store.trail(f"artifact:{artifact.digest}")[0][2] == f"commit:{artifact.commit}"
    assert [e.kind for e in world.store.events(kind="build.*")] == ["build.started", "build.done"]


@needs_cc
def test_the_same_commit_gives_the_same_digest_wherever_it_is_built(
    world: LabContext, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    first, second = Build(world).twice()
    assert first.digest == second.digest
    assert first.path != second.path
    elsewhere = found(tmp_path / "b" / "another", tmp_path_factory)
    assert Build(elsewhere).run().digest == first.digest
    commit(world, "feat: something else", "src/bento/more.py")
    assert Build(world).run().digest != first.digest


def test_the_version_is_what_the_commits_ask_for(world: LabContext) -> None:
    assert Build(world).run("v1.0.0").version == "1.0.0"
    commit(world, "feat: more")
    artifact = Build(world).run()
    assert artifact.version == "1.1.0"
    with ZipFile(world.root / artifact.path) as archive:
        assert b"\nVersion: 1.1.0\n" in archive.read("bento-1.1.0.dist-info/METADATA")


@pytest.mark.parametrize(
    ("change", "place"),
    [
        pytest.param("syntax-error-c", r"native/score\.c:(\d+)", marks=needs_cc),
        ("syntax-error-ts", r"frontend/app\.ts:(\d+)"),
    ],
)
def test_a_syntax_error_shows_the_compilers_words_at_its_line(
    world: LabContext, change: str, place: str
) -> None:
    apply_change(world.shop, change)
    with pytest.raises(BuildFailed) as caught:
        Build(world).run()
    where = re.search(place, str(caught.value))
    assert where, caught.value
    changed = world.shop / ("native/score.c" if "score" in place else "frontend/app.ts")
    assert 1 < int(where[1]) <= len(changed.read_text("utf-8").splitlines())
    assert re.search(r"error", str(caught.value), re.IGNORECASE)
    assert builds(world) == []
    assert world.store.last(Artifact) is None
    assert world.store.events(kind="build.failed")[0].message == caught.value.wrong


def test_without_a_compiler_the_wheel_has_the_python_scorer_and_says_so(
    world: LabContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bare = tmp_path / "bin"
    bare.mkdir()
    git = shutil.which("git")
    assert git
    (bare / "git").symlink_to(git)
    monkeypatch.setenv("PATH", str(bare))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(
        "devops_lab.delivery.compilers.find_spec", lambda name: None if name == "ziglang" else spec(name)
    )
    artifact = Build(world).run()
    assert artifact.scorer == "python"
    assert artifact.path.endswith("-py3-none-any.whl")
    assert "no C compiler" in artifact.steps[2].output
    assert set(Build(world).scorers(artifact)) == {"python"}


def spec(name: str) -> object:
    from importlib.util import find_spec

    return find_spec(name)


def test_an_interrupted_build_leaves_nothing(world: LabContext) -> None:
    def interrupt(step: Step) -> None:
        if step.name == "compile":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Build(world).run(on_step=interrupt)
    assert builds(world) == []
    dead = world.work / "builds" / ".0123abcd-999999999-abc"  # a number above any process's
    dead.mkdir()
    Build(world).run()
    assert not dead.exists()
    assert len(builds(world)) == 1


def test_an_unknown_commit_names_a_near_one(world: LabContext) -> None:
    with pytest.raises(BadInput, match=r"v1\.0\.0"):
        Build(world).run("v1.0.1")
    with pytest.raises(BadInput):
        Build(world).run("--help")


@needs_cc
def test_c_scores_faster_than_python(world: LabContext) -> None:
    seconds = Build(world).scorers(Build(world).run())
    assert seconds["c"] * 3 < seconds["python"]


def test_gits_own_environment_inside_a_hook_leads_nobody_astray(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(world.root / "nowhere"))
    assert Build(world).run().version


@pytest.mark.parametrize("old", [False, True], ids=["today", "before 3.11.4"])
def test_an_archive_is_unpacked_by_every_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bool
) -> None:
    (tmp_path / "menu").write_text("bento")
    with tarfile.open(tmp_path / "a.tar", "w") as made:
        made.add(tmp_path / "menu", "menu")
    if old:
        extractall = tarfile.TarFile.extractall
        monkeypatch.delattr(tarfile, "data_filter")
        monkeypatch.setattr(tarfile.TarFile, "extractall", lambda self, into: extractall(self, into))
    with tarfile.open(tmp_path / "a.tar") as archive:
        unpack(archive, tmp_path / "into")
    assert (tmp_path / "into" / "menu").read_text() == "bento"
