"""Git, as the whole lab calls it: the real program, without prompts or the reader's own configuration."""

from __future__ import annotations

import re
import shlex
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from devops_lab.errors import DiskFull, LabError, MissingTool
from devops_lab.platform import commands, variables

CONFIG = Path(__file__).with_name("gitconfig")
OLDEST = (2, 32)  # GIT_CONFIG_GLOBAL; before it, the reader's own configuration would be obeyed
MAKING = ("am", "cherry-pick", "commit", "commit-tree", "merge", "rebase", "revert", "tag")  # what has a date
UNDER_WAY = {  # what lies in git's folder while a command is half done
    "rebase-apply/applying": "am",
    "rebase-apply": "rebase",
    "rebase-merge": "rebase",
    "MERGE_HEAD": "merge",
    "CHERRY_PICK_HEAD": "cherry-pick",
    "REVERT_HEAD": "revert",
    "BISECT_LOG": "bisect",
}


def git(repo: Path, *args: str, env: Mapping[str, str] | None = None, given: str = "") -> str:
    """Run `git ARGS` in a repository and return what it printed, without the last line end.

    Args:
        repo: a working tree, a bare repository, or any folder for commands that need none (`init`, `clone`).
        args: git's own arguments.
        env: extra environment, e.g. `identity(…)`.
        given: what it reads from its standard input; nothing by default: nobody is asked.

    Raises:
        MissingTool: there is no git on this machine, or it is too old.
        LabError: git failed; says what is missing in the repository, else carries git's own words.
    """
    done = run(repo, *args, env=env, given=given)
    if done.returncode:
        words = (done.stderr.strip() or done.stdout.strip()) or f"exit code {done.returncode}"
        failed = LabError(f"`git {' '.join(args)}` failed in {repo}:\n{words}")
        raise trouble(repo, words) or failed
    return done.stdout.rstrip("\n")


def run(
    repo: Path,
    *args: str,
    env: Mapping[str, str] | None = None,
    given: str = "",
    by: Sequence[str] = (),
) -> subprocess.CompletedProcess[str]:
    """Run `git ARGS` and return exit code, output and error output, for callers that need all three.

    Args:
        repo, args, env, given: see `git`.
        by: the command whose output is `given`, for the record.

    Raises:
        MissingTool: there is no git on this machine.
    """
    kept = environment(args) | {"GIT_CEILING_DIRECTORIES": str(repo.parent)} | dict(env or {})
    try:
        text = "" if by else given
        with commands.ran(["git", *args], repo, kept, text=text, given=[*by]) as running:
            done = subprocess.run(
                ["git", "-C", str(repo), *args],
                env=kept,
                input=given,
                capture_output=True,
                encoding="utf-8",
                errors="replace",
                check=False,
            )
            running.exit_code = done.returncode
        return done
    except FileNotFoundError as error:
        raise MissingTool(
            "There is no git on this machine.",
            expected="the program `git` on the PATH",
            next_step="Install it (apt install git, brew install git, or from git-scm.com), then try again.",
        ) from error


def version() -> str:
    """What `git --version` prints, for example "git version 2.39.5".

    Raises:
        MissingTool: there is no git on this machine, or it is too old.
    """
    said = run(Path("/"), "--version").stdout.strip()
    found = re.search(r"(\d+)\.(\d+)", said)
    if found and (int(found[1]), int(found[2])) < OLDEST:
        raise MissingTool(
            f"This machine's git is too old: {said}.",
            expected=f"git {OLDEST[0]}.{OLDEST[1]} or newer",
            next_step="Update it (apt install git, brew install git, or from git-scm.com), then try again.",
        )
    return said


def half_done(repo: Path) -> tuple[str, str]:
    """The command of git that a working tree is in the middle of, and the way out; empty for none."""
    folder = Path(run(repo, "rev-parse", "--absolute-git-dir").stdout.strip())
    command = next((command for name, command in UNDER_WAY.items() if (folder / name).exists()), "")
    if command in ("", "bisect"):
        return command, "`git bisect reset` in the shop ends it." * bool(command)
    on, back = f"git {command} --continue", f"git {command} --abort"
    return command, f"In the shop, settle the files, `git add` them, `{on}`; or take it all back: `{back}`."


def trouble(repo: Path, words: str) -> LabError | None:
    """Why git failed in a repository, where its state tells, with the way back; None: its own words must do.

    Args:
        repo: the repository that it was called in.
        words: what it printed.

    Raises:
        MissingTool: this git is too old.
    """
    version()
    if "No space left" in words:
        return DiskFull(f"No room left: {words}")
    if lock := re.search(r"'(\S.*\.lock)': File exists", words):
        return _lost(
            f"Another git works in {repo}, or one that was killed left its lock behind.",
            f"When none runs any more: rm {shlex.quote(lock[1])}",
        )
    if repo.name not in ("shop", "origin.git"):  # a scratch repository, of which nothing is known
        return None
    bare = repo.suffix == ".git"
    other = repo.with_name("shop" if bare else "origin.git")
    copy = f"git clone {'--bare ' * bare}{shlex.quote(str(other))} {shlex.quote(str(repo))}"
    if run(repo, "rev-parse", "--git-dir").returncode:
        gone = "is not there" if not repo.exists() else "is no git repository any more"
        return _lost(f"The repository {repo} {gone}.", f"Move away what is left of it, then: {copy}")
    if without := _without_main(repo, bare):
        return without
    if re.search(r"corrupt|object file|loose object|bad object|unable to read|bad tree", words):
        return _lost(
            f"The repository {repo} is damaged: {words.splitlines()[0]}",
            f"`git fsck` in it names what. Move it away, then: {copy}",
        )
    return _without_origin(repo, bare, words) or _in_between(repo, bare, words)


def _lost(wrong: str, next_step: str, expected: str = "") -> LabError:
    return LabError(wrong, expected=expected, next_step=next_step)


def _without_main(repo: Path, bare: bool) -> LabError | None:
    if run(repo, "rev-parse", "--verify", "--quiet", "refs/heads/main").returncode == 0:
        return None
    renamed = run(repo, "config", "--get-regexp", r"^branch\..*\.merge$", "^refs/heads/main$").stdout
    if renamed and not bare:
        name = renamed.split(" ", 1)[0].removeprefix("branch.").removesuffix(".merge")
        way = f"It seems to be called {name} now; in {repo}: git branch --move {name} main"
    elif bare:
        way = f"In {repo.with_name('shop')}: git push origin main"
    else:
        way = f"In {repo}: git branch main origin/main"
    return _lost(f"The repository {repo} has no branch main.", way, "main, from which all is built")


def _without_origin(repo: Path, bare: bool, words: str) -> LabError | None:
    if bare:
        return None
    url = run(repo, "remote", "get-url", "origin").stdout.strip()
    if not url:
        way = f"In {repo}: git remote add origin ../origin.git && git fetch origin"
        return _lost(f"The repository {repo} has no remote origin.", way)
    if not re.search(r"repository|remote end|resolve host|not allowed", words):
        return None
    home = repo.with_name("origin.git")
    if (home / "HEAD").exists():
        way = f"In {repo}: git remote set-url origin ../origin.git"
        return _lost(f"The remote origin of {repo} is {url}, where no repository answers.", way)
    way = f"In {repo}: git clone --bare . ../origin.git (a pipeline that listened to it: install_hook again)"
    return _lost(f"The shop's origin {home} is not there, or is no git repository any more.", way)


def _in_between(repo: Path, bare: bool, words: str) -> LabError | None:
    """States that are in order for git, and in the way of what was asked for."""
    if held := re.search(r"'?(\S+)'? is already (?:checked out|used by worktree) at '(.+)'", words):
        way = f"Work there, or give it up: git worktree remove {shlex.quote(held[2])}"
        return _lost(f"{held[1]} is checked out in another working tree, {held[2]}.", way)
    if re.search(r"\[rejected\]|non-fast-forward|fetch first|Not possible to fast-forward", words):
        way = f"In {repo}: git pull --rebase origin main; then try again."
        return _lost("main and the origin's main have gone different ways.", way)
    if not bare and run(repo, "rev-parse", "--verify", "--quiet", "HEAD").returncode:
        return _lost(
            f"What is checked out in {repo} has no commit yet.",
            "Commit there, or go back: git checkout --force main",
        )
    command, way = half_done(repo)
    if command:
        return _lost(f"In {repo}, a `git {command}` is under way.", way)
    if missing := re.search(r"(?:unknown|bad|ambiguous).*?'([^']+)'", words):
        way = f"In {repo}: git fetch --tags origin; and see `git log --all`." if not bare else ""
        return _lost(f"The repository {repo} knows no {missing[1]!r}.", way, "a commit, a branch or a tag")
    return None


def environment(args: tuple[str, ...] = ()) -> dict[str, str]:
    """What git gets: nothing that steers it (hooks and readers set GIT_*), no prompts; English.

    A push passes on what the lab's own pipeline needs, which origin's hook runs.
    """
    kept = variables.command if args[:1] == ("push",) else variables.child
    now = (
        f"@{int(time.time())} {time.strftime('%z')}"  # said aloud, so that who runs it again gets the same id
    )
    dates = {"GIT_AUTHOR_DATE": now, "GIT_COMMITTER_DATE": now} if args[:1] and args[0] in MAKING else {}
    return kept(
        GIT_CONFIG_GLOBAL=str(CONFIG),
        GIT_CONFIG_NOSYSTEM="1",
        GIT_ATTR_NOSYSTEM="1",
        GIT_TERMINAL_PROMPT="0",
        GIT_PAGER="cat",
        **dates,
    )


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
    env: Mapping[str, str] | None = None,
) -> str:
    """Commit one file's new text on main, whatever is checked out, and return the commit's id.

    Nothing else in the working tree or in the index changes: the commit is made in an index of its own.

    Raises:
        LabError: git failed, or somebody else moved main meanwhile.
    """
    before = git(repo, "rev-parse", "refs/heads/main")
    with tempfile.TemporaryDirectory(prefix="devops-lab-") as folder:
        commands.did("mkdir", "-p", folder)
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        blob = git(repo, "hash-object", "-w", "--no-filters", "--stdin", given=text)
        git(repo, "read-tree", before, env=index)
        git(repo, "update-index", "--add", "--cacheinfo", f"100644,{blob},{path}", env=index)
        tree = git(repo, "write-tree", env=index)
    made = git(repo, "commit-tree", tree, "-p", before, "-m", message, env=env)
    git(repo, "update-ref", "refs/heads/main", made, before)
    if git(repo, "branch", "--show-current") == "main":
        git(repo, "checkout", "--quiet", "HEAD", "--", path)
    return made
