"""The pipeline: `git push` carries a commit through the phases, as far as its mode goes.

Continuous Delivery stops after Test, Continuous Integration after Release, Continuous Deployment goes on to
production. (The text's own names; much of the industry uses the first two the other way round.) A failure is
fed back to the developers and releases nothing.
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from devops_lab.delivery.versions import locate
from devops_lab.errors import BadInput, LabError
from devops_lab.model import PipelineMode, PipelineRun, Step
from devops_lab.pipeline.run import MODES, OnStep, Run
from devops_lab.platform import commands, locks, settings, variables
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git, trouble
from devops_lab.platform.git import run as run_git
from devops_lab.platform.identity import identity
from devops_lab.platform.processes import created_at, process_of, replace_file
from devops_lab.platform.relocation import settle
from devops_lab.platform.store import Store

PUSHED_AT = "DEVOPS_LAB_PUSHED_AT"
HOOK = """#!/bin/sh
# Installed by the lab: each push to main runs its pipeline, in front of the person who pushes.
# (git calls this in origin.git, which lies in the lab.)
[ "$DEVOPS_LAB_PIPELINE" = skip ] && exit 0  # a changed backlog is nothing to build
while read old new ref; do
  if [ "$ref" = refs/heads/main ]; then
    {python} -IS {variables} -m devops_lab.pipeline.hook "$(cd .. && pwd)" "$new" || true
  fi
done
"""


@dataclass(frozen=True)
class Trigger:
    """What the hook does on a push to main, while the process that asked for it (a kernel) lives."""

    mode: PipelineMode
    pid: int = 0
    born: str = ""
    lab: str = ""  # its identity: a copy has the original's trigger, too
    key: str = "push"

    @property
    def armed(self) -> bool:
        return process_of(self.pid, self.born) is not None


def listening(world: LabContext) -> Trigger | None:
    """What a push to main sets off in this lab now, if anything."""
    trigger = world.store.last(Trigger)
    ours = trigger and trigger.armed and trigger.lab in ("", identity(world.root))
    return trigger if ours else None


class Pipeline:
    """The three continuous modes over the phases of one lab."""

    def __init__(self, world: LabContext) -> None:
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
        with locks.held(self.world.work / "pipeline.lock"):
            run = Run(self.world, chosen, whole, who or self.world.settings.learner, on_step, pushed_at)
            return run.through()

    def runs(self) -> list[PipelineRun]:
        return self.world.store.all(PipelineRun)

    # ---- triggered by git push
    def install_hook(self, mode: str = "delivery") -> Path:
        """Let `git push` run the pipeline in this mode: write origin's post-receive hook; safe to repeat.

        It sleeps when this process has ended, so that a notebook left half-way surprises nobody's next merge.
        """
        chosen = cast(PipelineMode, settings.choice("mode", mode, tuple(MODES)))
        pid, lab = os.getpid(), identity(self.world.root)
        self.world.store.put(Trigger(chosen, pid, created_at(pid), lab))
        self.write_hook()
        return self.hook

    @property
    def hook(self) -> Path:
        return self.world.origin / "hooks" / "post-receive"

    def write_hook(self) -> None:
        """Write the hook, with where this package and its Python are now."""
        names = {
            "variables": shlex.quote(variables.__file__),
            "python": shlex.quote(sys.executable),
        }
        self.hook.parent.mkdir(exist_ok=True)
        replace_file(self.hook, HOOK.format(**names))
        self.hook.chmod(0o755)
        # A push runs with the reader's configuration, where a folder for all hooks would silence this one.
        git(self.world.origin, "config", "core.hooksPath", "hooks")

    def remove_hook(self) -> None:
        """A push only stores commits again; safe to repeat."""
        self.hook.unlink(missing_ok=True)

    def push(self, branch: str = "main") -> tuple[PipelineRun, str]:
        """Push the shop's clone to origin, as a developer does in a terminal; the hook runs the pipeline.

        Returns:
            The run that it triggered, and what git printed ("remote: …" are the pipeline's own lines).

        Raises:
            BadInput: there is nothing to push, or no hook.
            LabError: git refused the push; carries git's words.
        """
        if not (listening(self.world) and self.hook.exists()):
            raise BadInput(
                "No pipeline listens to a push.", next_step="First lab.pipeline.install_hook(mode)."
            )
        before = {run.id for run in self.runs()}
        began = {PUSHED_AT: repr(self.world.store.now())}
        done = run_git(self.world.shop, "push", "origin", branch, env=began)
        said = re.sub(r"(?m)^To \S.*origin\.git$", "To origin", done.stderr.strip())
        if done.returncode:
            refused = LabError(f"git refused the push:\n{said}", next_step="Often: pull first.")
            raise trouble(self.world.shop, said) or refused
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
    settle(lab)
    world = LabContext(lab, settings.read(lab), Store(lab / "lab.db"))
    trigger = listening(world)
    if not trigger:
        print("pipeline: asleep, for the notebook that set it has ended (lab.pipeline.install_hook wakes it)")
        return 0
    print(f"pipeline: continuous {trigger.mode} of {commit[:8]}", flush=True)

    def tell(step: Step) -> None:
        print(f"{step.name} {'ok' if step.ok else 'FAILED'} {step.seconds:.2f} s", flush=True)

    pushed_at = float(os.environ.get(PUSHED_AT) or world.store.now())
    run = Pipeline(world).run(trigger.mode, commit, tell, pushed_at=pushed_at)
    if run.cause:
        print(("stopped: " if run.ok else "FAILED: ") + run.cause, flush=True)
    if run.push_seconds:
        print(f"version {run.version} serves, {run.push_seconds:.2f} s after the push", flush=True)
    return 0 if run.ok else 1


if __name__ == "__main__":
    commands.speak_as("pipeline", Path(sys.argv[1]))
    sys.exit(main(sys.argv[1:]))
