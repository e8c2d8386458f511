"""A way to do each exercise; what *Show a solution* shows, *Skip* runs, and the tests try twice."""

from __future__ import annotations

from devops_lab.lab import Lab
from devops_lab.platform.git import git


def commit_on(lab: Lab, branch: str, message: str, files: dict[str, str]) -> None:
    """Commit files (path: text) on a new branch; one of that name is kept, under another one."""
    lab.code.checkout("main")
    if branch in (there := lab.code.branches()):
        aside = next(name for n in range(1, 1000) if (name := f"{branch}-{n}") not in there)
        git(lab.world.shop, "branch", "--move", branch, aside)
    lab.code.branch(branch)
    for path, text in files.items():
        lab.code.write(path, text)
    lab.code.commit(message)
    lab.code.checkout("main")
