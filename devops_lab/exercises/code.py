"""Checks of the exercises of Code; their texts are in the YAML file beside."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devops_lab.exercises.base import NotYet, Said, Verdict, not_yet, right, text
from devops_lab.git import git

if TYPE_CHECKING:
    from devops_lab.lab import Lab

BRANCH = "learn/greeting"
CONVENTIONAL = re.compile(r"\w+(\([^)]*\))?!?: .+")  # https://www.conventionalcommits.org
MIGRATIONS = "src/bento/migrations"


def own_commits(lab: Lab, branch: str) -> list[str]:
    """The subjects of a branch's own commits, newest first; tells when there are none."""
    if not git(lab.world.shop, "branch", "--list", branch):
        raise NotYet(f"The shop's repository has no branch {branch}.")
    subjects = git(lab.world.shop, "log", "--format=%s", f"main..{branch}").splitlines()
    if not subjects:
        raise NotYet(f"{branch} has no commit that main has not.")
    return subjects


def own_change(lab: Lab, said: Said) -> Verdict:
    subjects = own_commits(lab, BRANCH)
    if bad := [subject for subject in subjects if not CONVENTIONAL.match(subject)]:
        return not_yet(f"{bad[0]!r} is no conventional commit: it needs a type and a colon, as in `fix: …`.")
    files = git(lab.world.shop, "diff", "--name-only", f"main...{BRANCH}").splitlines()
    if not any(name.startswith("tests/") for name in files):
        return not_yet(f"{BRANCH} changes {', '.join(files)}, but no test.")
    if not any(name.startswith(("src/", "frontend/", "native/")) for name in files):
        return not_yet(f"{BRANCH} changes {', '.join(files)}: a test alone, no code.")
    return right(f"{BRANCH} has {len(subjects)} commits of yours, with code and test: {subjects[0]!r}.")


def migration_author(lab: Lab, said: Said) -> Verdict:
    answered = text(said)
    names = git(lab.world.shop, "ls-tree", "--name-only", "main", f"{MIGRATIONS}/").splitlines()
    newest = max(name for name in names if name.endswith(".sql"))
    author = git(lab.world.shop, "log", "--diff-filter=A", "--format=%an", "main", "--", newest).splitlines()[
        -1
    ]
    if answered.casefold() == author.casefold():
        return right(f"{author} brought {newest.rpartition('/')[2]}.")
    return not_yet(f"The newest migration was not brought by {answered}.")
