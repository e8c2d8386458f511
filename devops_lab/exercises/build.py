"""Checks of the exercises of Build; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, close, could_not, not_yet, number, right
from devops_lab.exercises.code import own_commits
from devops_lab.git import git

if TYPE_CHECKING:
    from devops_lab.lab import Lab

BRANCH = "learn/broken-build"


def speed_up(lab: Lab, said: Said) -> Verdict:
    number(said)
    seconds = lab.build.scorers()
    if "c" not in seconds:
        return could_not("This build has no C scorer: is there a C compiler?")
    return close(said, seconds["python"] / seconds["c"], 4, "times as fast")  # a busy machine is noisy


def broken_then_mended(lab: Lab, said: Said) -> Verdict:
    own_commits(lab, BRANCH)
    commits = git(lab.world.shop, "rev-list", f"main..{BRANCH}").splitlines()
    kinds = [
        (event.kind, event.subject.removeprefix("commit:"))
        for event in lab.store.events(kind="build.*", limit=100_000)
    ]
    failed = [commit for kind, commit in kinds if kind == "build.failed" and commit in commits]
    if not failed:
        return not_yet(f"No build of a commit on {BRANCH} has failed so far.")
    if ("build.done", commits[0]) not in kinds:
        return not_yet(
            f"A build of {BRANCH} failed, well done; its newest commit {commits[0][:8]} was not built yet."
        )
    return right(
        f"{failed[0][:8]} did not build, {commits[0][:8]} does: noticed by the compiler, not by a customer."
    )
