"""Git as people have it: any configuration of the reader's, a repository in any state, an old git."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from devops_lab.commands import doctor
from devops_lab.errors import BadInput, LabError, MissingTool
from devops_lab.lab import Lab
from devops_lab.phases.code import Code
from devops_lab.pipeline.hook import Pipeline
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git, run
from tests.shoplab import found

HOSTILE = {  # what people really have in ~/.gitconfig, and what gets into the way of a push or a commit
    "a folder for all hooks": "[core]\n\thooksPath = {here}/hooks\n",
    "nothing is pushed by default": "[push]\n\tdefault = nothing\n",
    "signatures": "[commit]\n\tgpgSign = true\n[tag]\n\tgpgSign = true\n[gpg]\n\tprogram = /no/such/gpg\n",
    "no pushes to folders": "[protocol.file]\n\tallow = never\n",
    "only bare repositories that are named": "[safe]\n\tbareRepository = explicit\n",
    "objects are checked": "[transfer]\n\tfsckObjects = true\n[receive]\n\tdenyNonFastForwards = true\n",
    "colours, a pager, a merge style": "[color]\n\tui = always\n[core]\n\tpager = less\n"
    "[merge]\n\tconflictStyle = diff3\n[log]\n\tshowSignature = true\n"
    "[pull]\n\trebase = true\n[user]\n\tuseConfigOnly = true\n",
    "a filter that is not installed": '[filter "lfs"]\n\tclean = /no/such/lfs\n\trequired = true\n'
    "[core]\n\tattributesFile = {here}/attributes\n\tautocrlf = true\n",
}


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    """A lab whose pipeline runs are as quick as can be: they end at Build."""
    made = found(tmp_path_factory.mktemp("labs") / "ein Läb", tmp_path_factory)
    git(made.shop, "rm", "--quiet", "pyproject.toml")
    git(made.shop, "commit", "--quiet", "-m", "fix: nothing to build")
    return made


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "ein Läb", tmp_path_factory)


def in_a_terminal(home: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Run git as a reader does: with a home and a configuration of their own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("GIT_", "XDG_"))}
    environment = kept | {"HOME": str(home)}
    return subprocess.run(
        ["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("named", HOSTILE)
def test_a_push_from_a_terminal_runs_the_pipeline_under_any_global_configuration(
    named: str, founded: LabContext, tmp_path: Path
) -> None:
    """10a: with a global core.hooksPath, the push succeeded, nothing ran, and nothing was said."""
    (tmp_path / "hooks").mkdir()
    (tmp_path / "attributes").write_text("*.md filter=lfs\n")
    (tmp_path / ".gitconfig").write_text(HOSTILE[named].format(here=tmp_path))
    pipeline = Pipeline(founded)
    pipeline.install_hook("delivery")
    before = len(pipeline.runs())
    for words in (("add", "--all"), ("commit", "--allow-empty", "-m", f"fix: {named}"), ("push",)):
        done = in_a_terminal(tmp_path, founded.shop, *words)
        assert done.returncode == 0, done.stderr
    assert "pipeline: continuous delivery of" in done.stderr
    assert len(pipeline.runs()) == before + 1


def test_the_readers_ignored_files_are_committed_all_the_same(
    world: LabContext, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """~/.config/git/ignore and attributes are read also where another global configuration is named."""
    (tmp_path / "git").mkdir()
    (tmp_path / "git" / "ignore").write_text("*.sql\n")
    (tmp_path / "git" / "attributes").write_text("*.sql text eol=crlf\n")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    Code(world).branch("work/migration")
    Code(world).write("src/bento/migrations/9999_more.sql", "select 1;\n")
    Code(world).commit("feat: more")
    assert git(world.shop, "show", "--format=", "--name-only", "HEAD").endswith("9999_more.sql")
    Code(world).checkout()
    Code(world).checkout("work/migration")
    assert (world.shop / "src/bento/migrations/9999_more.sql").read_bytes() == b"select 1;\n"


def test_a_push_from_a_second_clone_by_name_by_force_and_a_deleted_branch(
    founded: LabContext, tmp_path: Path
) -> None:
    """The hook hangs on the origin, wherever a push comes from; a deleted branch is nothing to build."""
    pipeline = Pipeline(founded)
    pipeline.install_hook("delivery")
    second = tmp_path / "second"
    git(tmp_path, "clone", "--quiet", str(founded.origin), str(second))
    git(second, "config", "user.name", "Kai Berg")
    git(second, "commit", "--quiet", "--allow-empty", "-m", "fix: from a second clone")
    count = len(pipeline.runs())
    for words in (("HEAD:main",), ("--force", "HEAD^:main"), ("HEAD:refs/heads/other",), (":other",)):
        done = in_a_terminal(tmp_path, second, "push", "origin", *words)
        assert done.returncode == 0, done.stderr
    assert len(pipeline.runs()) == count + 2


# ---- 10b: a repository in any state
def write_and_commit(world: LabContext, branch: str, text: str) -> None:
    git(world.shop, "checkout", "--quiet", "-B", branch, "v1.0.0")
    (world.shop / "README.md").write_text(text)
    git(world.shop, "commit", "--quiet", "--all", "-m", f"docs: {branch}")


HALF_DONE = {
    "merge": ("merge", "theirs"),
    "rebase": ("rebase", "theirs"),
    "cherry-pick": ("cherry-pick", "theirs"),
    "revert": ("revert", "--no-edit", "HEAD^"),
    "am": ("am", "--3way", "theirs.patch"),
    "bisect": ("bisect", "start", "HEAD", "v1.0.0^"),
}


@pytest.mark.parametrize("command", HALF_DONE)
def test_in_the_middle_of_something_the_advice_is_how_to_end_that(command: str, world: LabContext) -> None:
    """10b: in a conflict, every phase call said "commit wip, or stash", neither of which git allows there."""
    code = Code(world)
    write_and_commit(world, "theirs", "theirs\n")
    patch = git(world.shop, "format-patch", "--stdout", "-1")
    write_and_commit(world, "ours", "ours\n")
    if command == "revert":
        (world.shop / "README.md").write_text("ours, changed\n")
        git(world.shop, "commit", "--quiet", "--all", "-m", "docs: again")
    (world.shop.parent / "theirs.patch").write_text(patch + "\n")
    words = [word.replace("theirs.patch", "../theirs.patch") for word in HALF_DONE[command]]
    run(world.shop, *words)
    for act in (lambda: code.branch("new"), lambda: code.checkout(), lambda: code.apply("daily-special")):
        with pytest.raises(LabError, match=rf"a `git {command}` is under way in the shop") as refused:
            act()
        assert f"git {command} --abort" in str(refused.value) or "git bisect reset" in str(refused.value)
        assert "stash" not in str(refused.value)
    if command != "bisect":
        assert "conflicts in README.md" in str(refused.value)
        with pytest.raises(LabError, match="Can't commit"):  # the markers would go into the commit
            code.commit("docs: settled")


def test_a_settled_conflict_is_committed(world: LabContext) -> None:
    """The refusal is for files that still hold a conflict's marks."""
    write_and_commit(world, "theirs", "theirs\n")
    write_and_commit(world, "ours", "ours\n")
    run(world.shop, "merge", "theirs")
    (world.shop / "README.md").write_text("both\n")
    assert len(Code(world).commit("docs: both").parents) == 2


def lose_main(world: LabContext) -> None:
    git(world.shop, "checkout", "--quiet", "--detach")
    git(world.shop, "branch", "--quiet", "-D", "main")


def lock_index(world: LabContext) -> None:
    (world.shop / ".git" / "index.lock").touch()


def hold_main_elsewhere(world: LabContext) -> None:
    git(world.shop, "checkout", "--quiet", "-b", "here")
    git(world.shop, "worktree", "add", "--quiet", str(world.root / "work" / "second"), "main")


def damage(world: LabContext) -> None:
    for file in (world.shop / ".git" / "objects").rglob("*"):
        if file.is_file():
            file.chmod(0o600)
            file.write_bytes(b"damaged")


LOST = {  # what is done to the repository > what is named, and the way back
    "main deleted": (lose_main, "has no branch main", "git branch main origin/main"),
    "main renamed": (
        lambda w: git(w.shop, "branch", "--move", "main", "trunk"),
        "has no branch main",
        "git branch --move trunk main",
    ),
    "origin removed": (
        lambda w: git(w.shop, "remote", "remove", "origin"),
        "no remote origin",
        "git remote add origin ../origin.git",
    ),
    "origin elsewhere": (
        lambda w: git(w.shop, "remote", "set-url", "origin", "/nowhere.git"),
        "/nowhere.git, where no repository answers",
        "git remote set-url origin ../origin.git",
    ),
    "origin's folder deleted": (
        lambda w: shutil.rmtree(w.origin),
        "origin.git is not there",
        "git clone --bare . ../origin.git",
    ),
    "shop deleted": (lambda w: shutil.rmtree(w.shop), "shop is not there", "git clone"),
    "shop's .git deleted": (
        lambda w: shutil.rmtree(w.shop / ".git"),
        "shop is no git repository any more",
        "git clone",
    ),
    "a lock left behind": (lock_index, "was killed left its lock behind", "index.lock"),
    "main in another working tree": (hold_main_elsewhere, "in another working tree", "git worktree remove"),
    "damaged objects": (damage, "is damaged", "git fsck"),
    "no commit yet": (
        lambda w: git(w.shop, "checkout", "--quiet", "--orphan", "fresh"),
        "has no commit yet",
        "git checkout --force main",
    ),
}


def a_round(code: Code) -> None:
    code.head()
    code.branch("work/next")
    code.write("next.md", "next\n")
    code.commit("docs: next")
    code.merge()


@pytest.mark.parametrize("loss", LOST)
def test_what_is_gone_is_named_with_the_way_back(loss: str, world: LabContext) -> None:
    """10b: where main, origin or a repository is gone, git's raw words were all that a reader got."""
    code = Code(world)
    write_and_commit(world, "work/mine", "mine\n")
    git(world.shop, "checkout", "--quiet", "main")
    lose, named, way = LOST[loss]
    lose(world)
    with pytest.raises(LabError) as refused:
        a_round(code)
    assert named in refused.value.wrong
    assert way in refused.value.next_step


def test_a_shop_without_its_repository_never_reaches_the_one_around_it(world: LabContext) -> None:
    """A lab lies in the project's own clone: a commit would have gone there."""
    git(world.root, "init", "--quiet")
    shutil.rmtree(world.shop / ".git")
    Code(world).write("next.md", "next\n")
    with pytest.raises(LabError, match="is no git repository any more"):
        Code(world).commit("docs: next")
    assert run(world.root, "rev-parse", "--verify", "HEAD").returncode


def test_nothing_is_pushed_or_merged_from_a_detached_head(world: LabContext) -> None:
    code = Code(world)
    code.checkout("v1.0.0")
    for act in (code.merge, code.review):
        with pytest.raises(BadInput, match="detached head"):
            act()


# ---- an old git, or none
@pytest.fixture
def old_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bin").mkdir()
    shim = tmp_path / "bin" / "git"
    shim.write_text('#!/bin/sh\ncase "$*" in *--version*) echo git version 2.25.1; exit;; esac\nexit 129\n')
    shim.chmod(0o755)
    monkeypatch.setenv("PATH", f"{shim.parent}{os.pathsep}{os.environ['PATH']}")


@pytest.mark.usefixtures("old_git")
def test_an_old_git_is_named_by_doctor_and_before_a_lab_is_made(tmp_path: Path) -> None:
    """Doctor praised any git; founding failed with `unknown option initial-branch`."""
    row = doctor.git()
    assert row.ok is False
    assert "2.25.1" in row.detail
    assert "2.32" in row.what_to_do
    with pytest.raises(MissingTool, match=r"2\.25\.1"):
        Lab.open(tmp_path / "lab")
    assert not (tmp_path / "lab").exists()


def test_a_missing_git_is_named_before_a_lab_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert doctor.git().ok is False
    with pytest.raises(MissingTool, match="no git"):
        Lab.open(tmp_path / "lab")
    assert not (tmp_path / "lab").exists()
