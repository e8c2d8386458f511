"""Checks of the exercises of Release; their texts are in the YAML file beside."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, could_not, not_yet, number, right
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
