"""The sample application `bento`: its repository, its history, and its developers' coming changes.

`template/` is the repository at v1.0.0, `history.yaml` how it came to be, `changes/` what comes next.
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from email.utils import format_datetime
from fnmatch import fnmatch
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml

from devops_lab.errors import LabError
from devops_lab.platform import commands
from devops_lab.platform.git import environment, git, run
from devops_lab.platform.settings import choice

HERE = Path(__file__).parent
TEMPLATE = HERE / "template"
BUILT = (".venv", "__pycache__", ".pytest_cache", "dist", "build", "_score.so", "app.js")


@dataclass(frozen=True)
class Change:
    """One prepared piece of the developers' work: a commit that lies ready as a patch.

    `suite` is what the shop's own tests say about it: green, red, or none when it doesn't even build.
    `after` names the change on which it builds (a fix on its fault), empty when it stands on main alone;
    `instead` the fault in whose place it comes where the advice against that was taken.
    """

    id: str
    kind: Literal["feature", "fault"]
    subject: str
    title: str
    summary: str
    notebook: str
    expect: str
    suite: Literal["green", "red", "none"] = "green"
    after: str = ""
    instead: str = ""


@cache
def changes() -> list[Change]:
    """All prepared changes, in the order of `changes.yaml`."""
    listed = yaml.safe_load((HERE / "changes.yaml").read_text("utf-8"))
    return [Change(**each) for each in listed]


def find_change(change_id: str) -> Change:
    """A prepared change by its id.

    Raises:
        BadInput: there is no such change; the message names the closest one.
    """
    known = {change.id: change for change in changes()}
    return known[choice("change", change_id, tuple(known))]


def change_diff(change_id: str) -> str:
    """What a change will do, as a unified diff.

    Raises:
        BadInput: there is no such change.
    """
    _, _, diff = _patch(change_id).read_text("utf-8").partition("\ndiff --git ")
    return f"diff --git {diff}"


def apply_change(clone: Path, change_id: str) -> str:
    """Commit a change on the clone's current branch, as its developer, now.

    Args:
        clone: the working clone; its working tree has to be clean.
        change_id: one of `changes()`.

    Returns:
        The new commit's id.

    Raises:
        BadInput: there is no such change.
        LabError: it doesn't fit what is on the branch; the branch is as it was before.
    """
    patch, date = _patch(change_id), format_datetime(datetime.now().astimezone())
    mail = re.sub(r"(?m)^Date: .*", f"Date: {date}", patch.read_text("utf-8"))
    redate = ["sed", f"s/^Date: .*/Date: {date}/", str(patch)]
    before = find_change(change_id).after
    done = run(clone, "am", "--3way", "--quiet", given=mail, by=redate)
    if done.returncode:
        run(clone, "am", "--abort")
        raise LabError(
            f"The change {change_id!r} does not fit this branch:\n{(done.stdout + done.stderr).strip()}",
            expected=f"a branch that has {before!r}" if before else "a clean branch that doesn't have it yet",
            next_step=f"Apply {before!r} first." if before else "Look at `git status` and `git log`.",
        )
    return git(clone, "rev-parse", "HEAD")


def found_repository(origin: Path, clone: Path, today: date) -> None:
    """Make the shop's bare origin with its whole history, and a working clone of it.

    The same day gives the same commits, down to their ids.

    Args:
        origin: where the bare repository comes to be.
        clone: where the working clone comes to be, on branch main.
        today: the day that the history leads up to.

    Raises:
        MissingTool: there is no git on this machine.
        LabError: git failed.
    """
    git(origin.parent, "init", "--quiet", "--bare", "--initial-branch=main", "--template=", str(origin))
    with commands.ran(["git", "fast-import", "--quiet"], origin) as running:
        done = subprocess.run(
            ["git", "-C", str(origin), "fast-import", "--quiet"],
            input=_stream(today),
            env=environment(),
            capture_output=True,
            check=False,
        )
        running.exit_code = done.returncode
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise LabError(f"The shop's history could not be made: {words}")
    git(origin.parent, "clone", "--quiet", "--template=", str(origin), str(clone))
    git(clone, "remote", "set-url", "origin", os.path.relpath(origin, clone))  # both may be moved together
    for name, value in CLONE_CONFIG.items():
        git(clone, "config", name, value)


CLONE_CONFIG = {
    "user.name": "Learner",
    "user.email": "learner@bento.example",
    "commit.gpgSign": "false",  # the reader's own settings must not interfere, also in a terminal
    "tag.gpgSign": "false",
    "core.hooksPath": ".git/hooks",
    "core.autocrlf": "false",
    "push.default": "simple",
    "protocol.file.allow": "always",  # the origin is a folder
}


def template_files() -> dict[str, bytes]:
    """The repository's files at v1.0.0: path to content, without what a build or a test run left there."""
    found = sorted(path for path in TEMPLATE.rglob("*") if path.is_file())
    relative = [(path.relative_to(TEMPLATE), path) for path in found]
    return {
        short.as_posix(): path.read_bytes() for short, path in relative if not set(short.parts) & set(BUILT)
    }


def _stream(today: date) -> bytes:
    """The history in the format of `git fast-import`: one process for all commits."""
    history = yaml.safe_load((HERE / "history.yaml").read_text("utf-8"))
    files = template_files()
    parts: list[bytes] = []
    for number, commit in enumerate(history["commits"], 1):
        day = today - timedelta(commit["days_ago"])
        moment = datetime.combine(day, time.fromisoformat(commit["at"]), UTC)
        who = f"{history['people'][commit['by']]} {int(moment.timestamp())} +0000"
        message = f"{commit['subject']}\n\n{commit.get('body', '')}".rstrip() + "\n"
        parts.append(f"commit refs/heads/main\nmark :{number}\nauthor {who}\ncommitter {who}\n".encode())
        parts += [_data(message.encode()), f"from :{number - 1}\n".encode() if number > 1 else b""]
        for path, content in _files_of(commit, files).items():
            parts += [f"M 100644 inline {path}\n".encode(), _data(content)]
        if tag := commit.get("tag"):
            text = _data(f"bento {tag.removeprefix('v')}\n".encode())
            parts.append(f"tag {tag}\nfrom :{number}\ntagger {who}\n".encode() + text)
    return b"".join(parts)


def _files_of(commit: dict[str, Any], files: dict[str, bytes]) -> dict[str, bytes]:
    """A commit's files: as in the template, but for what was written otherwise at that time."""
    chosen = {p: c for p, c in files.items() if any(fnmatch(p, pattern) for pattern in commit["add"])}
    for edit in commit.get("then", []):
        content = chosen[edit["path"]]
        if content.count(edit["now"].encode()) != 1:
            raise LabError(f"history.yaml: {edit['path']} doesn't have {edit['now']!r} exactly once.")
        chosen[edit["path"]] = content.replace(edit["now"].encode(), edit["was"].encode())
    return chosen


def _data(content: bytes) -> bytes:
    return b"data %d\n%s\n" % (len(content), content)


def _patch(change_id: str) -> Path:
    return HERE / "changes" / f"{find_change(change_id).id}.patch"
