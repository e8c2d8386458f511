"""Checks of the exercises of Repeat; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, could_not, not_yet, right, text

if TYPE_CHECKING:
    from devops_lab.lab import Lab

ITEM = "from-production"


def evidenced_item(lab: Lab, said: Said) -> Verdict:
    seen = {
        event.subject
        for kind in ("alert.*", "complaint")
        for event in lab.store.events(kind=kind, limit=100_000)
    }
    if not seen:
        return could_not("Production has not told anything yet: no alert, no complaint.")
    found = [item for item in (*lab.plan.backlog(), *lab.plan.finished()) if item.id == ITEM]
    if not found:
        return not_yet(f"The backlog has no item {ITEM!r}.")
    if not found[0].evidence:
        return not_yet(f"{ITEM} carries no evidence: what did production say?")
    if not (known := [subject for subject in found[0].evidence if subject in seen]):
        return not_yet(f"{found[0].evidence[0]!r} is no alert or complaint of this lab.")
    return right(f"{ITEM} carries its evidence into the backlog: {known[0]}.")


def origin_of_production(lab: Lab, said: Said) -> Verdict:
    answered = text(said).removeprefix("commit:")
    version = lab.deploy.current()
    if not version:
        return could_not("Production is empty.")
    commit = lab.release.find(version).commit
    if len(answered) >= 7 and commit.startswith(answered):
        return right(f"{version} was built from {commit[:8]}.")
    return not_yet(f"{version}, which serves now, does not come from {answered!r}.")
