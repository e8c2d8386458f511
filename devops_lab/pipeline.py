"""The pipeline: `git push` carries a commit through the phases, as far as its mode goes.

Continuous Delivery stops after Test, Continuous Integration after Release, Continuous Deployment goes on to
production. (The text's own names; much of the industry uses the first two the other way round.) A failure is
fed back to the developers and releases nothing.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from devops_lab import settings
from devops_lab.errors import BadInput, LabError
from devops_lab.git import run as run_git
from devops_lab.model import PipelineMode, PipelineRun, Step
from devops_lab.phases import World
from devops_lab.phases.versions import locate
from devops_lab.phases.walk import MODES, OnStep, Walk
from devops_lab.processes import created_at, process_of, replace_file
from devops_lab.store import Store

PUSHED_AT = "DEVOPS_LAB_PUSHED_AT"
HOOK = """#!/bin/sh
# Installed by the lab: each push to main runs its pipeline, in front of the person who pushes.
[ "$DEVOPS_LAB_PIPELINE" = skip ] && exit 0  # a changed backlog is nothing to build
while read old new ref; do
  if [ "$ref" = refs/heads/main ]; then
    PYTHONPATH={home} {python} -m devops_lab.pipeline {lab} "$new" || true
  fi
done
"""


@dataclass(frozen=True)
class Trigger:
    """What the hook does on a push to main, while the process that asked for it (a kernel) lives."""

    mode: PipelineMode
    pid: int = 0
    created: float = 0.0
    key: str = "push"

    @property
    def armed(self) -> bool:
        return process_of(self.pid, self.created) is not None


class Pipeline:
    """The three continuous modes over the phases of one lab."""

    def __init__(self, world: World) -> None:
        self.world = world

    # ---- one run
    def run(
        self,
        mode: str,
        commit: str = "main",
        on_step: OnStep | None = None,
        who: str = "",
        pushed_at: float = 0.0,
    ) -> PipelineRun:
        """Carry a commit through the phases of a mode. A failure ends up in the record, it is not raised.

        Args:
            mode: "delivery", "integration" or "deployment".
            commit: any of git's names for it.
            on_step: called with each phase's step as it ends.
            who: for the record; default: the learner.
            pushed_at: POSIX seconds at which `git push` began, for the measured time; 0 when nobody pushed.

        Raises:
            BadInput: there is no such mode or commit.
        """
        chosen = cast(PipelineMode, settings.choice("mode", mode, tuple(MODES)))
        _, whole = locate(self.world, commit)
        with self._one_at_a_time():
            walk = Walk(self.world, chosen, whole, who or self.world.settings.learner, on_step, pushed_at)
            return walk.through()

    def runs(self) -> list[PipelineRun]:
        return self.world.store.all(PipelineRun)

    @contextmanager
    def _one_at_a_time(self) -> Iterator[None]:
        self.world.work.mkdir(exist_ok=True)
        with (self.world.work / "pipeline.lock").open("w") as handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            yield

    # ---- triggered by git push
    def install_hook(self, mode: str = "delivery") -> Path:
        """Let `git push` run the pipeline in this mode: write origin's post-receive hook; safe to repeat.

        It sleeps when this process has ended, so that a notebook left half-way surprises nobody's next merge.
        """
        chosen = cast(PipelineMode, settings.choice("mode", mode, tuple(MODES)))
        self.world.store.put(Trigger(chosen, os.getpid(), created_at(os.getpid())))
        names = {
            "home": shlex.quote(str(Path(__file__).resolve().parent.parent)),
            "python": shlex.quote(sys.executable),
            "lab": shlex.quote(str(self.world.root.resolve())),
        }
        hook = self.world.origin / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        replace_file(hook, HOOK.format(**names))
        hook.chmod(0o755)
        return hook

    def remove_hook(self) -> None:
        """A push only stores commits again; safe to repeat."""
        (self.world.origin / "hooks" / "post-receive").unlink(missing_ok=True)

    def push(self, branch: str = "main") -> tuple[PipelineRun, str]:
        """Push the shop's clone to origin, as a developer does in a terminal; the hook runs the pipeline.

        Returns:
            The run that it triggered, and what git printed ("remote: …" are the pipeline's own lines).

        Raises:
            BadInput: there is nothing to push, or no hook.
            LabError: git refused the push; carries git's words.
        """
        trigger = self.world.store.last(Trigger)
        if not (trigger and trigger.armed and (self.world.origin / "hooks" / "post-receive").exists()):
            raise BadInput(
                "No pipeline listens to a push.", next_step="First lab.pipeline.install_hook(mode)."
            )
        before = {run.id for run in self.runs()}
        done = run_git(self.world.shop, "push", "origin", branch, env={PUSHED_AT: repr(time.time())})
        said = done.stderr.strip().replace(str(self.world.origin), "origin")
        if done.returncode:
            raise LabError(f"git refused the push:\n{said}", next_step="Often: pull first.")
        new = [run for run in self.runs() if run.id not in before]
        if not new and "up-to-date" in said:
            raise BadInput("There is nothing to push: origin has it all.", next_step="Commit a change first.")
        if not new:
            raise LabError(f"The push ran no pipeline:\n{said}", next_step="Only a push to main runs it.")
        return new[-1], said


def main(arguments: list[str]) -> int:
    """What the hook runs: LABDIR COMMIT. Git shows each printed line as "remote: …" to the one who pushes."""
    lab, commit = Path(arguments[0]), arguments[1]
    if not commit.strip("0"):
        return 0  # main was deleted
    world = World(lab, settings.read(lab), Store(lab / "lab.db"))
    trigger = world.store.last(Trigger)
    if not (trigger and trigger.armed):
        print("pipeline: asleep, for the notebook that set it has ended (lab.pipeline.install_hook wakes it)")
        return 0
    print(f"pipeline: continuous {trigger.mode} of {commit[:8]}", flush=True)

    def tell(step: Step) -> None:
        print(f"{step.name} {'ok' if step.ok else 'FAILED'} {step.seconds:.2f} s", flush=True)

    pushed_at = float(os.environ.get(PUSHED_AT) or time.time())
    run = Pipeline(world).run(trigger.mode, commit, tell, pushed_at=pushed_at)
    if run.cause:
        print(("stopped: " if run.ok else "FAILED: ") + run.cause, flush=True)
    if run.push_seconds:
        print(f"version {run.version} serves, {run.push_seconds:.2f} s after the push", flush=True)
    return 0 if run.ok else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
