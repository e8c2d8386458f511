"""Exercises of Test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Quiz, Said, Verdict, could_not, not_yet, number, right
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
    if lab.test._plant("main", "nothing", [], new_test=text).caught:  # red without any fault?
        return not_yet(f"{added[0]} is red on main as well: it does not tell right from wrong.")
    before, after = lab.test.what_a_new_test_changes(FAULT, text)
    if before.caught:
        return could_not(f"The shop's own suite catches {FAULT} by now; nothing is left to find.")
    if not after.caught:
        return not_yet(f"With {added[0]} the planted bug {FAULT} still escapes.")
    return right(f"{FAULT} escaped before; now {after.by[0]} catches it.")


EXERCISES = (
    Exercise(
        "test-1",
        "predict",
        "How many bugs escape?",
        "The lab plants each prepared fault into the shop and lets the suite run. The suite has more "
        "than forty tests. "
        "How many of the bugs escape it? Predict before you plant them.",
        (
            "Tests find what somebody thought of.",
            "Leaks, slowness and lying health checks rarely make a unit test red.",
            "Count the bugs with `caught=False` in `lab.test.planted()`.",
        ),
        how_many_escape,
    ),
    Exercise(
        "test-2",
        "change",
        "A test that catches what escaped",
        f"The fault `{FAULT}` escapes the suite. On a branch `{BRANCH}` add one test module under "
        "`tests/unit/` that is "
        "green on main and red with the fault, and commit it.",
        (
            f'Read what the fault changes: `devops_lab.shop.change_diff("{FAULT}")`.',
            "Find an order whose total the fault gets wrong, and assert the right total.",
            "Look at the suite's tests of totals for how to price an order; then use quantities that "
            "they don't.",
        ),
        better_test,
        points=3,
    ),
)
QUIZ = Quiz(
    "test",
    "All tests are green. What do we know?",
    (
        "that there are no bugs",
        "that none of the bugs that these tests look for is there",
        "that the code was covered completely",
    ),
    "b",
    "Tests lower the risk; the bugs that escaped in Test were all released with a green suite.",
)
