"""Checks of the exercises of Test; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, could_not, not_yet, number, right
from devops_lab.exercises.code import own_commits
from devops_lab.git import git

if TYPE_CHECKING:
    from devops_lab.lab import Lab

BRANCH = "learn/better-test"
FAULT = "wrong-total"


def how_many_escape(lab: Lab, said: Said) -> Verdict:
    value = number(said)
    if not lab.store.events(kind="test.planted"):
        return could_not("No bugs were planted in this lab yet: run `lab.test.planted()`.")
    bugs = lab.test.planted()  # known ones are not planted again
    escaped = sorted(bug.change for bug in bugs if not bug.caught)
    seen = f"You predicted {value:g}; of {len(bugs)} planted bugs {len(escaped)} escaped"
    return right(f"{seen}: {', '.join(escaped)}.") if value == len(escaped) else not_yet(f"{seen}.")


def better_test(lab: Lab, said: Said) -> Verdict:
    own_commits(lab, BRANCH)
    repo = lab.world.shop
    added = git(
        repo, "diff", "--name-only", "--diff-filter=A", f"main...{BRANCH}", "--", "tests"
    ).splitlines()
    if len(added) != 1 or not added[0].endswith(".py"):
        return not_yet(
            f"{BRANCH} adds {', '.join(added) or 'no file'} under tests/; one new test module is asked for."
        )
    text = git(repo, "show", f"{BRANCH}:{added[0]}") + "\n"
    if lab.test.plant(new_test=text).caught:  # red without any fault?
        return not_yet(f"{added[0]} is red on main as well: it does not tell right from wrong.")
    before, after = lab.test.what_a_new_test_changes(FAULT, text)
    if before.caught:
        return could_not(f"The shop's own suite catches {FAULT} by now; nothing is left to find.")
    if not after.caught:
        return not_yet(f"With {added[0]} the planted bug {FAULT} still escapes.")
    return right(f"{FAULT} escaped before; now {after.by[0]} catches it.")
