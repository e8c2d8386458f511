"""Exercises of Continuous."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Said, Verdict, close, not_yet, number, right
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


EXERCISES = (
    Exercise(
        "continuous-1",
        "change",
        "Your own push",
        f"Put a file `{FILE}` (a few lines for the team) into the shop's main branch and push, with "
        "the pipeline in the mode "
        "*delivery*: it is to be built and tested, but not released.",
        (
            "A push to the lab's origin starts the pipeline in the mode that is set.",
            f'Commit on main: `lab.code.write("{FILE}", …)`, `lab.code.commit("docs: …")`.',
            '`lab.pipeline.install_hook("delivery")` sets the mode, `lab.pipeline.push()` pushes.',
        ),
        own_push,
        points=2,
    ),
    Exercise(
        "continuous-2",
        "predict",
        "From push to customer",
        "How many seconds pass from `git push` until the new version serves customers, tests "
        "included? Predict; then push "
        "a change in the mode *deployment* and check. Half to double counts as right.",
        (
            "Add up what Build, Test and Deploy took, then think about what can run at the same time.",
            "The suite is the longest part; the new replicas start while it runs.",
            "It is `push_seconds` of the newest run in the mode deployment.",
        ),
        lead_time,
    ),
)
