"""Exercises of Plan."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Quiz, Said, Verdict, not_yet, number, right

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


EXERCISES = (
    Exercise(
        "plan-1",
        "predict",
        "How long for twenty more?",
        f"The team's past sprints say how many items it finishes. If {MORE_ITEMS} items were left, "
        "how many sprints "
        'would be enough in 85 of 100 futures? Predict with `exercise(lab, "plan-1").predict(...)`, '
        "then check.",
        (
            "A forecast draws past sprints at random until the items are done.",
            "Divide the items by what a typical past sprint finished; then be a bit more careful than that.",
            f"Look at `lab.plan.forecast(remaining={MORE_ITEMS})`: its `p85` is the answer.",
        ),
        forecast,
    ),
    Exercise(
        "plan-2",
        "change",
        "Put operations work into the backlog",
        f"Nobody backs up the orders. Add an item with the id `{BACKUP}`, of kind `operations`, that "
        "says how much "
        "storage it needs, and that the platform can carry.",
        (
            "The backlog holds operations work beside features; `lab.plan.add` writes it.",
            "An `Item` has `needs`, a list of `Need`; compare with the limits of `lab.plan.platform()`.",
            f'lab.plan.add(Item("{BACKUP}", "…", "operations", effort=2, value=3, '
            'needs=[Need("database", storage_mb=20)]))',
        ),
        backup_item,
        points=2,
    ),
)
QUIZ = Quiz(
    "plan",
    "An item asks for a service that the platform does not offer. When is the cheapest moment to notice?",
    (
        "when the review before the sprint compares needs and platform",
        "when its tests fail",
        "when the first customers complain",
    ),
    "a",
    "Before code is written a change of plan costs a talk; later it costs a release and customers.",
)
