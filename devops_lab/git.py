"""Git, as the whole lab calls it: the real program, without prompts or the reader's own configuration."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Mapping
from pathlib import Path

from devops_lab.errors import LabError, MissingTool

CONFIG = Path(__file__).with_name("gitconfig")


def git(repo: Path, *args: str, env: Mapping[str, str] | None = None, check: bool = True) -> str:
    """Run `git ARGS` in a repository and return what it printed, without the last line end.

    Args:
        repo: a working tree, a bare repository, or any folder for commands that need none (`init`, `clone`).
        args: git's own arguments.
        env: extra environment, e.g. `identity(…)`.
        check: raise when git fails; False returns its standard output in any case.

    Raises:
        MissingTool: there is no git on this machine.
        LabError: git failed; carries git's own words.
    """
    done = run(repo, *args, env=env)
    if check and done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()) or f"exit code {done.returncode}"
        raise LabError(f"`git {' '.join(args)}` failed in {repo}:\n{words}")
    return done.stdout.rstrip("\n")


def run(repo: Path, *args: str, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Run `git ARGS` and return exit code, output and error output, for callers that need all three.

    Raises:
        MissingTool: there is no git on this machine.
    """
    try:
        return subprocess.run(
            ["git", "-C", str(repo), *args],
            env=environment() | dict(env or {}),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            check=False,
        )
    except FileNotFoundError as error:
        raise MissingTool(
            "There is no git on this machine.",
            expected="the program `git` on the PATH",
            next_step="Install it (apt install git, brew install git, or from git-scm.com), then try again.",
        ) from error


def environment() -> dict[str, str]:
    """This process's environment without what would steer git: GIT_* (hooks set it), prompts, language."""
    dropped = ("GIT_", "PYTHONDONTWRITEBYTECODE", "SSH_ASKPASS", "LANGUAGE")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(dropped)}
    return clean | {
        "GIT_CONFIG_GLOBAL": str(CONFIG),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_PAGER": "cat",
        "LC_ALL": "C.UTF-8",  # git's words in one language, so that they can be shown and looked up
    }


def identity(name: str) -> dict[str, str]:
    """The environment that makes `name` author and committer."""
    address = f"{'.'.join(name.lower().split()) or 'learner'}@bento.example"
    return {
        "GIT_AUTHOR_NAME": name,
        "GIT_AUTHOR_EMAIL": address,
        "GIT_COMMITTER_NAME": name,
        "GIT_COMMITTER_EMAIL": address,
    }


def commit_file(
    repo: Path,
    path: str,
    text: str,
    message: str,
    *,
    env: Mapping[str, str] | None = None,
) -> str:
    """Commit one file's new text on main, whatever is checked out, and return the commit's id.

    Nothing else in the working tree or in the index changes: the commit is made in an index of its own.

    Raises:
        LabError: git failed, or somebody else moved main meanwhile.
    """
    before = git(repo, "rev-parse", "refs/heads/main")
    with tempfile.TemporaryDirectory(prefix="devops-lab-") as folder:
        content = Path(folder, "content")
        content.write_text(text, encoding="utf-8", newline="\n")
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        blob = git(repo, "hash-object", "-w", "--no-filters", str(content))
        git(repo, "read-tree", before, env=index)
        git(repo, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
        tree = git(repo, "write-tree", env=index)
    made = git(repo, "commit-tree", tree, "-p", before, "-m", message, env=env)
    git(repo, "update-ref", "refs/heads/main", made, before)
    if git(repo, "branch", "--show-current") == "main":
        git(repo, "checkout", "--quiet", "HEAD", "--", path)
    return made
