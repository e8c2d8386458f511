"""Checks of the exercises of Plan; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, not_yet, number, right

if TYPE_CHECKING:
    from devops_lab.lab import Lab

MORE_ITEMS = 20
BACKUP = "nightly-backup"


def forecast(lab: Lab, said: Said) -> Verdict:
    value, truth = number(said), lab.plan.forecast(remaining=MORE_ITEMS)
    seen = f"You predicted {value:g} sprints; of {truth.trials} futures, 85 % need at most {truth.p85}."
    return right(seen) if abs(value - truth.p85) <= 1 else not_yet(f"{seen} Look at the throughput again.")


def backup_item(lab: Lab, said: Said) -> Verdict:
    found = [item for item in lab.plan.backlog() if item.id == BACKUP]
    if not found:
        return not_yet(f"The backlog has no ready item {BACKUP!r}; its items: {ids(lab)}.")
    item = found[0]
    if item.kind != "operations":
        return not_yet(f"{BACKUP} is a {item.kind}; work that keeps the shop running is `operations`.")
    if not any(need.storage_mb > 0 for need in item.needs):
        return not_yet(f"{BACKUP} does not say how much storage it needs.")
    if blocked := [f for f in lab.plan.review(BACKUP) if f.severity == "blocks"]:
        return not_yet(f"The platform can't carry it: {blocked[0].problem}")
    return right(f"{BACKUP} is in the backlog, its needs are declared, and the platform can carry them.")


def ids(lab: Lab) -> str:
    return ", ".join(item.id for item in lab.plan.backlog())
