"""The pipeline: `git push` carries a commit through the phases, as far as its mode goes.

Continuous Delivery stops after Test, Continuous Integration after Release, Continuous Deployment goes on to
production. (The text's own names; much of the industry uses the first two the other way round.) A failure is fed
back to the developers and releases nothing.
"""

from __future__ import annotations

import fcntl
import os
import shlex
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Literal, TypeVar, cast

from devops_lab import settings
from devops_lab.errors import BadInput, ChecksFailed, LabError
from devops_lab.git import git
from devops_lab.git import run as run_git
from devops_lab.model import (
    Artifact,
    Deployment,
    PipelineMode,
    PipelineRun,
    Release,
    Sprint,
    Step,
    TestReport,
)
from devops_lab.phases import World
from devops_lab.phases.build import Build
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.release import Releasing
from devops_lab.phases.test import Test
from devops_lab.phases.verify import check_production, first_answer, not_alarmed
from devops_lab.phases.versions import VersionPlan, locate, plan_version
from devops_lab.store import Store

MODES: dict[PipelineMode, tuple[str, ...]] = {
    "delivery": ("plan", "code", "build", "test"),
    "integration": ("plan", "code", "build", "test", "release"),
    "deployment": ("plan", "code", "build", "test", "release", "deploy", "operate", "monitor"),
}
INDUSTRY = {  # what much of the industry calls the same
    "delivery": "continuous integration",
    "integration": "continuous delivery",
    "deployment": "continuous deployment",
}
MIGRATIONS = "src/bento/migrations"
PUSHED_AT = "DEVOPS_LAB_PUSHED_AT"
HOOK = """#!/bin/sh
# Installed by the lab: each push to main runs its pipeline, in front of the person who pushes.
while read old new ref; do
  if [ "$ref" = refs/heads/main ]; then
    PYTHONPATH={home} {python} -m devops_lab.pipeline {lab} "$new" || true
  fi
done
"""
T = TypeVar("T")
OnStep = Callable[[Step], None]


@dataclass(frozen=True)
class Trigger:
    """What the hook does on a push to main; its mode is kept in the store."""

    mode: PipelineMode
    key: str = "push"


class _Stopped(Exception):
    """A mode ends early with nothing wrong: there is nothing left to do."""


class Pipeline:
    """The three continuous modes over the phases of one lab."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.build, self.test, self.release = Build(world), Test(world), Releasing(world)

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
            walk = _Walk(self, chosen, whole, who or self.world.settings.learner, on_step, pushed_at)
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
        """Let `git push` run the pipeline in this mode: write origin's post-receive hook; safe to repeat."""
        chosen = cast(PipelineMode, settings.choice("mode", mode, tuple(MODES)))
        self.world.store.put(Trigger(chosen))
        names = {
            "home": shlex.quote(str(Path(__file__).resolve().parent.parent)),
            "python": shlex.quote(sys.executable),
            "lab": shlex.quote(str(self.world.root.resolve())),
        }
        hook = self.world.origin / "hooks" / "post-receive"
        hook.parent.mkdir(exist_ok=True)
        aside = hook.with_name("post-receive.new")
        aside.write_text(HOOK.format(**names), encoding="utf-8")
        aside.chmod(0o755)
        os.replace(aside, hook)
        return hook

    def push(self, branch: str = "main") -> tuple[PipelineRun, str]:
        """Push the shop's clone to origin, as a developer does in a terminal; the hook runs the pipeline.

        Returns:
            The run that it triggered, and what git printed ("remote: …" are the pipeline's own lines).

        Raises:
            BadInput: there is nothing to push, or no hook.
            LabError: git refused the push; carries git's words.
        """
        if not (self.world.origin / "hooks" / "post-receive").exists():
            raise BadInput(
                "No pipeline listens to a push.", next_step="lab.pipeline.install_hook(mode) first."
            )
        before = {run.id for run in self.runs()}
        done = run_git(self.world.shop, "push", "origin", branch, env={PUSHED_AT: repr(time.time())})
        said = done.stderr.strip()
        if done.returncode:
            raise LabError(
                f"git refused the push:\n{said}", next_step="See what git says; often: pull first."
            )
        new = [run for run in self.runs() if run.id not in before]
        if not new and "up-to-date" in said:
            raise BadInput(
                "There is nothing to push: origin has all commits.", next_step="Commit a change first."
            )
        if not new:
            raise LabError(f"The push ran no pipeline:\n{said}", next_step="Only a push to main runs it.")
        return new[-1], said


class _Walk:
    """One run on its way: keeps the record as it goes, so that it can be watched."""

    def __init__(
        self,
        pipeline: Pipeline,
        mode: PipelineMode,
        commit: str,
        who: str,
        on_step: OnStep | None,
        pushed_at: float,
    ) -> None:
        self.pipeline, self.world, self.on_step, self.pushed_at = pipeline, pipeline.world, on_step, pushed_at
        number = max((run.id for run in pipeline.runs()), default=0) + 1
        self.record = PipelineRun(number, mode, commit, who, "running", time.time())
        self.stopped_at = ""
        self.lock = threading.RLock()  # tests and deployment report from threads of their own

    def through(self) -> PipelineRun:
        """Walk the phases of the mode, and record how it ended."""
        self._event("pipeline.started", f"{self.record.mode}: {' > '.join(MODES[self.record.mode])}")
        self._keep()
        try:
            plan = self._plan_and_code()
            artifact = self._step("build", self._build)
            if self.record.mode == "deployment":
                self._deployment(plan, artifact)
            else:
                self._test(artifact)
                if self.record.mode == "integration":
                    self._release(artifact, plan)
        except _Stopped as reason:
            self._end("done", str(reason))
        except LabError as error:
            self._end("failed", str(error))
        except BaseException as error:
            self._end("failed", f"interrupted: {error!r}")
            raise
        else:
            self._end("done")
        return self.record

    # ---- Plan > Code > Build > Test > Release
    def _plan_and_code(self) -> VersionPlan:
        repo, commit = locate(self.world, self.record.commit)
        plan = plan_version(repo, commit)
        sprint = self.world.store.last(Sprint)
        items = f"sprint {sprint.number}: {', '.join(sprint.items)}" if sprint else "no sprint was chosen"
        self._step("plan", lambda: (None, items))
        new = [f"{c.short} {c.subject}" for c in plan.commits]
        self._step("code", lambda: (None, "\n".join(new) or f"{commit[:8]}, nothing new"))
        return plan

    def _build(self) -> tuple[Artifact, str]:
        artifact = self.pipeline.build.run(self.record.commit)
        self._keep(version=artifact.version, digest=artifact.digest)
        parts = ", ".join(f"{step.name} {step.seconds:.2f} s" for step in artifact.steps)
        return artifact, f"{artifact.version}: {parts}"

    def _test(self, artifact: Artifact) -> None:
        self._step("test", lambda: self._tested(artifact))

    def _tested(self, artifact: Artifact) -> tuple[TestReport, str]:
        report = self.pipeline.test.run(artifact)
        if not report.passed:
            raise ChecksFailed(
                f"The quality gate is closed: {'; '.join(report.gate)}.",
                next_step="Mend it, commit, and push again; nothing was released.",
            )
        return report, f"{len(report.cases)} tests green, coverage {report.coverage_percent:.0f} %"

    def _release(self, artifact: Artifact, plan: VersionPlan) -> Release:
        return self._step("release", lambda: self._released(artifact, plan))

    def _released(self, artifact: Artifact, plan: VersionPlan) -> tuple[Release, str]:
        known = {r.version: r for r in self.pipeline.release.registry()}
        if release := known.get(artifact.version):
            if release.digest == artifact.digest:
                return release, f"{release.version} is released already"
        elif plan.bump == "none":
            raise _Stopped(f"nothing to release: {plan.reason}")
        why = f"pipeline {self.record.id}"
        release = self.pipeline.release.run(why=why, who=self.record.who, artifact=artifact)
        return release, f"{release.tag}, {release.digest[:19]}…"

    # ---- Deploy > Operate > Monitor
    def _deployment(self, plan: VersionPlan, artifact: Artifact) -> None:
        """The new version is installed and started while the tests run; only the switch waits for green."""
        deploy, version = Deploy(self.world), artifact.version
        self.world.control.ensure()
        before = deploy.current()
        if not before or plan.bump == "none" or self._migrates(before):
            # One after the other: the database must not change for a version that may never come.
            self._test(artifact)
            self._release(artifact, plan)
            if before == version:
                self.stopped_at = "deploy"
                raise _Stopped(f"{version} is in production already")
            self._switch(deploy, version, plan, lambda: None)
        else:
            with ThreadPoolExecutor(max_workers=1) as pool:
                tests = pool.submit(self._test, artifact)
                import_module("cyclonedx.output.json")  # a quarter of a second, while the tests run

                def gate() -> None:
                    tests.result()
                    self._release(artifact, plan)

                self._switch(deploy, candidate(artifact), plan, gate)
        self._verify(deploy, version)

    def _migrates(self, before: str) -> bool:
        """Whether the commit changes the schema that the version in production works on."""
        repo, commit = locate(self.world, self.record.commit)
        old = self.pipeline.release.find(before).commit
        return bool(git(repo, "diff", "--name-only", old, commit, "--", MIGRATIONS))

    def _switch(
        self, deploy: Deploy, what: str | Release, plan: VersionPlan, gate: Callable[[], None]
    ) -> None:
        """Deploy behind the gate, and measure as a customer does when the new version first answers."""
        version = plan.version
        over = threading.Event()
        with ThreadPoolExecutor(max_workers=1) as pool:
            answers: list[Future[float]] = []

            def gate_and_watch() -> None:
                gate()
                url = self.world.control.url()
                answers.append(pool.submit(first_answer, url, version, over.is_set))

            def deployed() -> tuple[Deployment, str]:
                why = f"pipeline {self.record.id}"
                done = deploy.run(what, "blue/green", who=self.record.who, why=why, gate=gate_and_watch)
                return done, ", ".join(f"{step.name} {step.seconds:.2f} s" for step in done.steps)

            try:
                self._step("deploy", deployed)
                serving = answers[0].result()
            finally:
                over.set()
        committed = min((commit.t for commit in plan.commits), default=serving)
        push_seconds = serving - self.pushed_at if self.pushed_at else 0.0
        self._keep(lead_time_seconds=serving - committed, push_seconds=push_seconds)

    def _verify(self, deploy: Deploy, version: str) -> None:
        """Operate and Monitor look at production; what they refuse is rolled back by one step."""
        url, since = self.world.control.url(), self.record.steps[-1].started
        try:
            self._step("operate", lambda: (None, check_production(url, version)))
            self._step("monitor", lambda: (None, not_alarmed(self.world, version, since)))
        except LabError as error:
            if deploy.history()[-1].previous:
                deploy.rollback(why=error.wrong, who="the pipeline")
            raise

    # ---- the record
    def _step(self, name: str, work: Callable[[], tuple[T, str]]) -> T:
        """Do one phase's work, which returns its result and what to say of it; keep and tell how it went."""
        started, began = time.time(), time.perf_counter()
        ok, output = True, ""
        try:
            result, output = work()
            return result
        except _Stopped as reason:
            self.stopped_at, output = name, str(reason)
            raise
        except BaseException as error:
            ok, output = False, str(error)
            raise
        finally:
            step = Step(name, time.perf_counter() - began, ok, started, output=output)
            with self.lock:
                self._keep(steps=[*self.record.steps, step])
            if self.on_step:
                self.on_step(step)

    def _keep(self, **changed: Any) -> None:
        with self.lock:
            self.record = replace(self.record, **changed)
            self.world.store.put(self.record)

    def _end(self, state: Literal["done", "failed"], cause: str = "") -> None:
        order = MODES[self.record.mode]
        red = sorted((step.name for step in self.record.steps if not step.ok), key=order.index)
        stopped_at = red[0] if red else self.stopped_at
        self._keep(state=state, cause=cause, stopped_at=stopped_at, ended=time.time())
        if state == "done":
            self._event("pipeline.done", cause or f"{self.record.mode} in {self.record.seconds:.2f} s")
        else:
            self._event("pipeline.failed", f"stopped at {stopped_at}: {cause}", back_to="code")

    def _event(self, kind: str, message: str, **data: Any) -> None:
        subject = f"commit:{self.record.commit}"
        data |= {"run": self.record.id, "mode": self.record.mode}
        self.world.store.event("continuous", kind, subject, message, who=self.record.who, **data)


def candidate(artifact: Artifact) -> Release:
    """What an artifact will be as a release, should its tests be green; production can be prepared for it."""
    version = artifact.version
    return Release(
        version,
        artifact.commit,
        f"v{version}",
        artifact.digest,
        artifact.path,
        artifact.bytes,
        "",
        "",
        artifact.t,
    )


def main(arguments: list[str]) -> int:
    """What the hook runs: LABDIR COMMIT. Git shows each printed line as "remote: …" to the one who pushes."""
    lab, commit = Path(arguments[0]), arguments[1]
    if not commit.strip("0"):
        return 0  # main was deleted
    world = World(lab, settings.read(lab), Store(lab / "lab.db"))
    trigger = world.store.get(Trigger, "push") or Trigger("delivery")
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
