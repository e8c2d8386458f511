"""Exercises of Build."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Quiz, Said, Verdict, close, could_not, not_yet, number, right
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


EXERCISES = (
    Exercise(
        "build-1",
        "predict",
        "What does compiling bring?",
        "The search scorer exists in C and in pure Python. How many times as fast is C? Predict a "
        "number; the check "
        "measures both inside the built wheel, and a quarter to four times counts as right.",
        (
            "An interpreter does far more work for each step than a processor alone.",
            "It is not twice, and not a million times.",
            '`lab.build.scorers()` measures: divide "python" by "c".',
        ),
        speed_up,
    ),
    Exercise(
        "build-2",
        "change",
        "Break the build, and mend it",
        f"On a branch `{BRANCH}` commit a syntax error in the C code, build the branch and read the "
        "compiler's message. "
        "Then mend it with another commit, and build again.",
        (
            "`native/score.c` is what the compiler reads; one missing character is enough.",
            f'`lab.build.run("{BRANCH}")` raises BuildFailed; catch it, or let the cell fail.',
            "After that write the old text back with `lab.code.write`, commit with `fix: …`, and run "
            "the build again.",
        ),
        broken_then_mended,
        points=2,
    ),
)
QUIZ = Quiz(
    "build",
    "The same commit was built twice, and the digests are equal. What does that give us?",
    (
        "the tests need not run any more",
        "anyone can check that an artifact really comes from its commit",
        "the wheel is smaller",
    ),
    "b",
    "A reproducible build ties an artifact to its source; nobody has to trust the machine that built it.",
)
