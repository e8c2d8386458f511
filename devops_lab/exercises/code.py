"""Exercises of Code."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, NotYet, Quiz, Said, Verdict, not_yet, right, text
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


EXERCISES = (
    Exercise(
        "code-1",
        "change",
        "A change that a reviewer likes",
        f"On a branch `{BRANCH}` change something small in the shop's code (a text on the page will "
        "do), touch or add a "
        "test for it, and commit with a conventional message. Don't merge.",
        (
            "Branch, write, commit; the review checklist tells what reviewers look for.",
            f'`lab.code.branch("{BRANCH}")`, then `lab.code.write(path, text)` for code and for a test.',
            'End with `lab.code.commit("feat: …")`; `lab.code.review()` shows what is missing.',
        ),
        own_change,
        points=2,
    ),
    Exercise(
        "code-2",
        "find",
        "Who changed the database last?",
        f"Migrations lie in `{MIGRATIONS}`, numbered. Who brought the newest one that main has? "
        "Answer with the name.",
        (
            "Git knows who added each file.",
            "The newest has the highest number; look for the commit that added it.",
            "`git log --diff-filter=A --format=%an main -- FILE`, by "
            "`devops_lab.git.git(lab.world.shop, …)`.",
        ),
        migration_author,
    ),
)
QUIZ = Quiz(
    "code",
    "Why does the shop read its database's address from the environment?",
    (
        "because environment variables are faster than files",
        "so that the same artifact runs in test and in production",
        "because Python requires it",
    ),
    "b",
    "What differs between places is configuration; the artifact stays the same, byte for byte.",
)
