"""Exercises of Release."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Quiz, Said, Verdict, could_not, not_yet, number, right
from devops_lab.exercises.code import own_commits

if TYPE_CHECKING:
    from devops_lab.lab import Lab

BRANCH = "learn/breaking"


def breaking_change(lab: Lab, said: Said) -> Verdict:
    own_commits(lab, BRANCH)
    plan = lab.release.next_version(BRANCH)
    if plan.bump != "major":
        return not_yet(f"{BRANCH} would become {plan.version}: {plan.reason}.")
    return right(f"{BRANCH} would become {plan.version}: {plan.reason}.")


def components(lab: Lab, said: Said) -> Verdict:
    value = number(said)
    releases = lab.release.registry()
    if not releases:
        return could_not("Nothing was released in this lab yet.")
    bill = json.loads((lab.root / releases[-1].sbom).read_text("utf-8"))
    count = len(bill.get("components", []))
    if value == count:
        return right(f"{releases[-1].version} brings {count} components along.")
    return not_yet(f"The bill of materials of {releases[-1].version} does not list {value:g} components.")


EXERCISES = (
    Exercise(
        "release-1",
        "change",
        "Make it 2.0.0",
        f"The version comes from the commits. On a branch `{BRANCH}` make a commit (any small change) "
        "for which the next "
        'version is a *major* one. Look with `lab.release.next_version("' + BRANCH + '")`; release nothing.',
        (
            "A major version says: who uses this has to change something.",
            "Conventional commits have a sign for a breaking change.",
            "An exclamation mark before the colon: `feat!: …`.",
        ),
        breaking_change,
        points=2,
    ),
    Exercise(
        "release-2",
        "find",
        "What is inside?",
        "Each release has a bill of materials (SBOM). How many components does that of the newest "
        "release list?",
        (
            "When a library has a hole, this list tells who is concerned.",
            "`lab.release.registry()[-1].sbom` is the path of a JSON file in the lab.",
            'Count the entries of its "components".',
        ),
        components,
    ),
)
QUIZ = Quiz(
    "release",
    "Why does the registry refuse to overwrite a version?",
    (
        "to save space",
        "because a version must mean the same bytes for everyone, for ever",
        "because tags can't be moved in git",
    ),
    "b",
    "If 1.1.0 could change, neither a rollback nor a test report would mean anything.",
)
