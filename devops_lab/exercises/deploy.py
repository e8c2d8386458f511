"""Exercises of Deploy."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Quiz, Said, Verdict, close, could_not, not_yet, number, right
from devops_lab.model import Pool, Replica

if TYPE_CHECKING:
    from devops_lab.lab import Lab

WANTED = 3


def rolling_seconds(lab: Lab, said: Said) -> Verdict:
    number(said)
    done = [d for d in lab.deploy.history() if d.strategy == "rolling" and d.state == "done"]
    later = [d for d in done if d.started > said.t]
    if not later:
        return not_yet("Kept. There was no rolling deployment since your prediction: do one, then check.")
    return close(said, later[-1].seconds, 2, "s")


def three_replicas(lab: Lab, said: Said) -> Verdict:
    pools = [pool for pool in lab.store.all(Pool) if pool.weight > 0]
    if not pools:
        return could_not("Production is empty: deploy a release first.")
    if len(pools) > 1:
        return not_yet(f"{len(pools)} pools share the traffic; finish the deployment first.")
    healthy = [r for r in lab.store.all(Replica) if r.pool == pools[0].name and r.state == "healthy"]
    if pools[0].replicas != WANTED or len(healthy) != WANTED:
        return not_yet(
            f"{pools[0].replicas} replicas are wanted and {len(healthy)} healthy; {WANTED} are asked for."
        )
    return right(f"{WANTED} replicas of {pools[0].release} are healthy and share the traffic.")


EXERCISES = (
    Exercise(
        "deploy-1",
        "predict",
        "How long does a rolling deployment take?",
        "Production is replaced one replica at a time, and no request may fail. How many seconds "
        "does that take? Predict, "
        'then deploy another released version with the strategy "rolling", then check. Half to '
        "double counts as right.",
        (
            "For each replica: start, wait until healthy, route, drain the old one, stop it.",
            "A start takes a few tenths of a second, and so does draining; there are two replicas.",
            'Deploy with `lab.deploy.run(version, "rolling")`; `lab.deploy.history()[-1].seconds` tells.',
        ),
        rolling_seconds,
    ),
    Exercise(
        "deploy-2",
        "change",
        "Three of them",
        f"Lunch is near. Have exactly {WANTED} healthy replicas of the present release share the "
        "traffic, and leave it so.",
        (
            "You say what is wanted; the agent makes it so.",
            "Scaling is part of Deploy: it takes a number, who asks, and why.",
            f'`lab.deploy.scale({WANTED}, who="…", why="lunch")`.',
        ),
        three_replicas,
        points=2,
    ),
)
QUIZ = Quiz(
    "deploy",
    "A new release never gets healthy. What do customers notice in a rolling deployment?",
    ("errors until somebody rolls back", "slower answers", "nothing: the old release keeps the traffic"),
    "c",
    "Traffic moves only to replicas that are healthy; the old ones are stopped last.",
)
