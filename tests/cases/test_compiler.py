"""A machine without a C compiler, or with one that doesn't work: all goes on with the Python scorer."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from devops_lab.commands import doctor
from devops_lab.delivery import compilers
from devops_lab.errors import BuildFailed
from devops_lab.model import Artifact
from devops_lab.phases.build import Build
from devops_lab.phases.release import ReleasePhase
from devops_lab.phases.test import Test
from devops_lab.platform.context import LabContext
from devops_lab.shop import apply_change
from tests.shoplab import commit, found

NEEDED = ("git", "sh", "env", "tar")
needs_cc = pytest.mark.skipif(not shutil.which("cc"), reason="no C compiler")


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A PATH with what the lab needs, and without a compiler."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        if program := shutil.which(name):
            (folder / name).symlink_to(program)
    monkeypatch.setenv("PATH", str(folder))
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(compilers, "find_spec", lambda name: None if name == "ziglang" else spec(name))
    return folder


def spec(name: str) -> object:
    from importlib.util import find_spec

    return find_spec(name)


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "lab", tmp_path_factory)


def shim(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(script, encoding="utf-8")
    path.chmod(0o755)
    return path


def compile_step(artifact: Artifact) -> str:
    return next(step.output for step in artifact.steps if step.name == "compile")


@pytest.mark.slow
def test_a_release_is_made_without_a_compiler(bare: Path, world: LabContext) -> None:
    """6a: one skipped test closed the gate; nothing could be released."""
    apply_change(world.shop, "taste-in-c")
    artifact = Build(world).run()
    assert artifact.scorer == "python"
    report = Test(world).run(artifact)
    assert report.gate == []
    assert report.count("skipped") == 0
    assert ReleasePhase(world).run().digest == artifact.digest


@needs_cc
@pytest.mark.slow
def test_a_scorer_that_was_built_and_does_not_load_closes_the_gate(world: LabContext) -> None:
    """The gate is not blind: the wheel has a library, and the shop can't use it."""
    source = (world.shop / "native/score.c").read_text("utf-8")
    commit(world, "fix: a new name", "native/score.c", source.replace("bento_score", "bento_points"))
    artifact = Build(world).run()
    assert artifact.scorer == "c"
    report = Test(world).run(artifact)
    assert [case.name for case in report.cases if case.outcome == "failed"] == [
        "unit/test_search::test_c_and_python_agree"
    ]


@pytest.mark.slow
def test_any_other_skipped_test_still_closes_the_gate(bare: Path, world: LabContext) -> None:
    text = 'import pytest\n\n\ndef test_later():\n    pytest.skip("the C scorer was not built")\n'
    commit(world, "fix: later", "tests/unit/test_later.py", text)
    assert Test(world).run(Build(world).run()).gate == ["1 tests were skipped, more than 0"]


BROKEN = {
    "a stub": (
        "#!/bin/sh\necho 'xcrun: error: invalid active developer path' >&2\nexit 1\n",
        "xcrun: error: invalid active developer path",
    ),
    "silent": ("#!/bin/sh\nexit 3\n", "it ends with an error"),
    "makes nothing": ("#!/bin/sh\nexit 0\n", "it makes no library"),
    "no program": ("\0\0\0\0", "Exec format error"),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_compiler_that_does_not_work_counts_as_none_and_is_named(
    bare: Path, world: LabContext, kind: str
) -> None:
    """Where `cc` only asks to install the real one, every build failed, and the code got the blame."""
    script, words = BROKEN[kind]
    shim(bare, "cc", script)
    artifact = Build(world).run()
    assert artifact.scorer == "python"
    assert f"cc does not work: {words}" in compile_step(artifact)
    row = doctor.compiler()
    assert row.ok is None
    assert words in row.detail
    assert row.what_to_do


@needs_cc
@pytest.mark.parametrize("flags", ["-nostdinc", "-fuse-ld=nowhere"], ids=["no headers", "no linker"])
def test_a_compiler_without_headers_or_linker_counts_as_none(
    world: LabContext, tmp_path: Path, bare: Path, flags: str, request: pytest.FixtureRequest
) -> None:
    real = shutil.which("cc", path="/usr/bin:/usr/local/bin:/bin")
    if not real:
        pytest.skip("the compiler is somewhere else")
    shim(bare, "cc", f'#!/bin/sh\nPATH=/usr/bin:/bin exec {real} {flags} "$@"\n')
    artifact = Build(world).run()
    assert artifact.scorer == "python"
    assert "cc does not work" in compile_step(artifact)


@needs_cc
@pytest.mark.parametrize("value", ["nowhere-cc", '"', "nowhere-cc -m64", "/"])
def test_cc_that_names_no_program_is_said_and_passed_over(
    world: LabContext, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    """`CC='"'` was a traceback; another name was passed over without a word."""
    monkeypatch.setenv("CC", value)
    artifact = Build(world).run()
    assert artifact.scorer == "c"
    assert "$CC is" in compile_step(artifact)


@needs_cc
def test_a_broken_choice_leaves_the_next_compiler(
    world: LabContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = shim(tmp_path, "my-cc", "#!/bin/sh\nexit 1\n")
    monkeypatch.setenv("CC", str(broken))
    artifact = Build(world).run()
    assert artifact.scorer == "c"
    assert "my-cc does not work" in compile_step(artifact)


@needs_cc
def test_a_mistake_in_the_code_still_fails_the_build(world: LabContext) -> None:
    apply_change(world.shop, "syntax-error-c")
    with pytest.raises(BuildFailed, match=r"native/score\.c:\d+"):
        Build(world).run()
    assert world.store.all(Artifact) == []
