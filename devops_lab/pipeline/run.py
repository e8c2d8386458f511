"""One commit on its way through the phases, as far as the pipeline's mode goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from importlib import import_module
from typing import Any, Literal, ParamSpec, TypeVar

from devops_lab.delivery.versions import VersionPlan, locate, plan_version
from devops_lab.errors import ChecksFailed, LabError
from devops_lab.model import (
    Artifact,
    Deployment,
    EventKind,
    PipelineMode,
    PipelineRun,
    Release,
    Sprint,
    Step,
    TestReport,
)
from devops_lab.phases.build import Build
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.release import ReleasePhase, candidate
from devops_lab.phases.test import Test
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git
from devops_lab.production.verify import check_production, first_answer, not_alarmed

P = ParamSpec("P")
T = TypeVar("T")
OnStep = Callable[[Step], None]
MIGRATIONS = "src/bento/migrations"
MODES: dict[PipelineMode, tuple[str, ...]] = {
    "delivery": ("plan", "code", "build", "test"),
    "integration": ("plan", "code", "build", "test", "release"),
    "deployment": ("plan", "code", "build", "test", "release", "deploy", "operate", "monitor"),
}


class _Stopped(Exception):
    """A mode ends early with nothing wrong: there is nothing left to do."""


class Run:
    """One run on its way: keeps the record as it goes, so that it can be watched."""

    def __init__(
        self,
        world: LabContext,
        mode: PipelineMode,
        commit: str,
        who: str,
        on_step: OnStep | None,
        pushed_at: float,
    ) -> None:
        self.world, self.on_step, self.pushed_at = world, on_step, pushed_at
        self.build, self.test, self.release = Build(world), Test(world), ReleasePhase(world)
        number = max((run.id for run in world.store.all(PipelineRun)), default=0) + 1
        self.record = PipelineRun(number, mode, commit, who, "running", world.store.now())
        self.stopped_at = ""
        self.lock = threading.RLock()  # tests and deployment report from threads of their own

    def through(self) -> PipelineRun:
        """Run the phases of the mode, and record how it ended."""
        self._event("pipeline.started", f"{self.record.mode}: {' > '.join(MODES[self.record.mode])}")
        self._keep()
        try:
            plan = self._plan_and_code()
            artifact = self._step("build", self._build)
            if self.record.mode == "deployment":
                self._deployment(plan, artifact)
            else:
                self._step("test", self._tested, artifact)
                if self.record.mode == "integration":
                    self._step("release", self._released, artifact, plan)
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
        artifact = self.build.run(self.record.commit)
        self._keep(version=artifact.version, digest=artifact.digest)
        parts = ", ".join(f"{step.name} {step.seconds:.2f} s" for step in artifact.steps)
        return artifact, f"{artifact.version}: {parts}"

    def _tested(self, artifact: Artifact) -> tuple[TestReport, str]:
        if report := self.test.passing(artifact):
            return report, f"{len(report.cases)} tests were green for these very bytes already"
        report = self.test.run(artifact)
        if not report.passed:
            raise ChecksFailed(
                f"The quality gate is closed: {'; '.join(report.gate)}.",
                next_step="Mend it, commit, and push again; nothing was released.",
            )
        return report, f"{len(report.cases)} tests green, coverage {report.coverage_percent:.0f} %"

    def _released(self, artifact: Artifact, plan: VersionPlan) -> tuple[Release, str]:
        known = {r.version: r for r in self.release.registry()}
        if release := known.get(artifact.version):
            if release.digest == artifact.digest:
                return self.release.verify(release.version), f"{release.version} is released already"
        elif plan.bump == "none":
            raise _Stopped(f"nothing to release: {plan.reason}")
        why = f"pipeline {self.record.id}"
        release = self.release.run(why=why, who=self.record.who, artifact=artifact)
        return release, f"{release.tag}, {release.digest[:19]}…"

    # ---- Deploy > Operate > Monitor
    def _deployment(self, plan: VersionPlan, artifact: Artifact) -> None:
        """The new version is installed and started while the tests run; only the switch waits for green."""
        deploy, version = Deploy(self.world), artifact.version
        self.world.control.ensure()
        before = deploy.current()
        images = self.world.engine.capabilities().images
        if not before or plan.bump == "none" or images or self._migrates(before):
            # One after the other: the database must not change for a version that may never come, and an
            # image is published by its release.
            self._step("test", self._tested, artifact)
            self._step("release", self._released, artifact, plan)
            if before == version:
                self.stopped_at = "deploy"
                raise _Stopped(f"{version} is in production already")
            self._switch(deploy, version, plan, lambda: None)
        else:
            with ThreadPoolExecutor(max_workers=1) as pool:
                tests = pool.submit(self._step, "test", self._tested, artifact)
                import_module("cyclonedx.output.json")  # a quarter of a second, while the tests run

                def gate() -> None:
                    tests.result()
                    self._step("release", self._released, artifact, plan)

                self._switch(deploy, candidate(artifact), plan, gate)
        self._verify(deploy, version)

    def _migrates(self, before: str) -> bool:
        """Whether the commit changes the schema that the version in production works on."""
        repo, commit = locate(self.world, self.record.commit)
        old = self.release.find(before).commit
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
                url, store = self.world.control.url(), self.world.store
                answers.append(pool.submit(first_answer, url, version, over.is_set, store.now))

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
        lead = max(serving - committed, push_seconds)  # a commit's time is the wall clock's
        self._keep(lead_time_seconds=lead, push_seconds=push_seconds)

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
    def _step(self, name: str, work: Callable[P, tuple[T, str]], *args: P.args, **kwargs: P.kwargs) -> T:
        """Do one phase's work, which returns its result and what to say of it; keep and tell how it went."""
        started, began = self.world.store.now(), time.perf_counter()
        ok, output = True, ""
        try:
            result, output = work(*args, **kwargs)
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
        self._keep(state=state, cause=cause, stopped_at=stopped_at, ended=self.world.store.now())
        if state == "done":
            self._event("pipeline.done", cause or f"{self.record.mode} in {self.record.seconds:.2f} s")
        else:
            self._event("pipeline.failed", f"stopped at {stopped_at}: {cause}", back_to="code")

    def _event(self, kind: EventKind, message: str, **data: Any) -> None:
        subject = f"commit:{self.record.commit}"
        data |= {"run": self.record.id, "mode": self.record.mode}
        self.world.store.event("continuous", kind, subject, message, who=self.record.who, **data)
