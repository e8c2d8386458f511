"""Git is the real one, and the reader's own configuration never reaches the lab's repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from devops_lab.errors import LabError, MissingTool
from devops_lab.platform.git import git, identity, run


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet", "repo")
    return tmp_path / "repo"


def commit(repo: Path, name: str, text: str, **env: str) -> None:
    (repo / name).write_text(text, encoding="utf-8")
    git(repo, "add", name)
    git(repo, "commit", "-m", f"feat: {name}", env=env)


def test_commits_on_main_with_the_identity_that_is_given(repo: Path) -> None:
    commit(repo, "menü.txt", "ä\n", **identity("Mia Developer"))
    assert (
        git(repo, "log", "-1", "--format=%an <%ae>|%s")
        == "Mia Developer <mia.developer@bento.example>|feat: menü.txt"
    )
    assert git(repo, "branch", "--show-current") == "main"
    assert git(repo, "ls-files") == "menü.txt"  # not quoted as octal escapes


def test_the_readers_configuration_does_not_interfere(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = tmp_path / "hooks"
    hooks.mkdir()
    hook = hooks / "pre-commit"
    hook.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    hook.chmod(0o755)
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text(
        "[commit]\n\tgpgSign = true\n[gpg]\n\tprogram = /no/such/gpg\n"
        f"[core]\n\thooksPath = {hooks.as_posix()}\n",
        encoding="utf-8",
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(home / ".gitconfig"))
    commit(repo, "a.txt", "a\n")
    assert git(repo, "log", "--format=%s") == "feat: a.txt"


def test_a_hooks_environment_does_not_send_git_to_another_repository(
    repo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GIT_DIR", str(repo / "elsewhere"))
    monkeypatch.setenv("GIT_INDEX_FILE", str(repo / "index-of-somebody"))
    commit(repo, "a.txt", "a\n")
    assert git(repo, "ls-files") == "a.txt"


def test_a_failure_carries_gits_own_words(repo: Path) -> None:
    with pytest.raises(LabError, match="pathspec 'nowhere' did not match"):
        git(repo, "checkout", "nowhere")
    assert run(repo, "checkout", "nowhere").stdout == ""
    assert run(repo, "checkout", "nowhere").returncode == 1


def test_a_machine_without_git_is_told_what_to_do(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(repo))
    with pytest.raises(MissingTool, match="Install it"):
        git(repo, "status")
