"""Checks of the exercises of Continuous; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, close, not_yet, number, right
from devops_lab.git import run
from devops_lab.model import PipelineRun

if TYPE_CHECKING:
    from devops_lab.lab import Lab

FILE = "CONTRIBUTING.md"


def own_push(lab: Lab, said: Said) -> Verdict:
    runs = [r for r in lab.store.all(PipelineRun) if has_file(lab, r.commit)]
    if not runs:
        return not_yet(f"The pipeline has not seen a commit with a {FILE} yet.")
    delivered = [r for r in runs if r.mode == "delivery"]
    if not delivered:
        return not_yet(
            f"Your push ran in the mode {runs[0].mode}; asked for is delivery: nothing is released."
        )
    if not delivered[-1].ok:
        return not_yet(f"Your push stopped at {delivered[-1].stopped_at}: {delivered[-1].cause}")
    return right(f"{delivered[-1].commit[:8]} went through Plan > Code > Build > Test, and was not released.")


def has_file(lab: Lab, commit: str) -> bool:
    return run(lab.world.origin, "cat-file", "-e", f"{commit}:{FILE}").returncode == 0


def lead_time(lab: Lab, said: Said) -> Verdict:
    number(said)
    done = [r for r in lab.store.all(PipelineRun) if r.mode == "deployment" and r.ok and r.started > said.t]
    if not done:
        return not_yet(
            "Kept. No push was deployed since your prediction: push in the mode deployment, then check."
        )
    return close(said, done[-1].push_seconds, 2, "s")
