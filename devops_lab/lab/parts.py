"""The parts of a lab: its phases, its pipeline, and what all of them stand on."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

from devops_lab.errors import BadInput
from devops_lab.model import Race, Replica, ScalingPolicy
from devops_lab.phases.build import Build
from devops_lab.phases.code import Code
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.operate import Operate
from devops_lab.phases.plan import Plan
from devops_lab.phases.release import ReleasePhase
from devops_lab.phases.test import Test
from devops_lab.pipeline.hook import Pipeline
from devops_lab.platform.agent.autoscaler import check_policy
from devops_lab.platform.context import LabContext
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.platform.traffic.load import curve_of_day
from devops_lab.production import drills
from devops_lab.production.drills import Drill, DrillRun, Fault


class Operations(Operate):
    """Operate, with what stands on the other phases, too: incident drills, and races of scaling policies."""

    # ---- incidents
    def drill(self, fault: str | None = None, *, seed: object = None) -> Drill:
        """Let something real go wrong in production, with customers in the shop: an incident drill.

        Args:
            fault: one of `faults()`; None draws one, and does not tell which.
            seed: what the draw depends on, beside the learner; None is the number of drills so far.

        Raises:
            BadInput: no such fault, this lab can't have it now, or a drill runs already.
        """
        return drills.start(self.world, fault, seed)

    def drills(self) -> list[DrillRun]:
        """All drills of this lab, oldest first: what was wrong, and how long each step took."""
        return self.store.all(DrillRun)

    def current_drill(self) -> Drill | None:
        """The drill that runs, found again."""
        return drills.current(self.world)

    def faults(self) -> list[Fault]:
        """What may go wrong in a drill: what customers see, and what shows it."""
        return list(drills.catalogue().values())

    # ---- scale
    def race(
        self,
        policies: Mapping[str, ScalingPolicy | int],
        seconds: float = 20.0,
        peak: float = 90.0,
        low: float = 5.0,
        *,
        seed: int = 7,
        shape: str = "lunch",
    ) -> list[Race]:
        """Give each policy the same day, one after the other, each from its least number of replicas.

        Args:
            policies: by name; a number stands for so many replicas, all day long.
            seconds, peak, low, shape: the day, as in `day`.
            seed: the same seed brings the same customers.

        Raises:
            BadInput: no policies, or one whose limits contradict each other; nothing was played.
        """
        curve = curve_of_day(seconds, peak, low, shape)  # refused before anything is scaled
        if not policies:
            raise BadInput("There is nobody to race.", expected="policies by name")
        for policy in policies.values():
            if isinstance(policy, ScalingPolicy):
                check_policy(policy)
        before = sum(pool.replicas for pool in Deploy(self.world).pools())
        try:
            return [self._play(name, policy, curve, seed) for name, policy in policies.items()]
        finally:
            self.autoscale(None)
            Deploy(self.world).scale(before, why="the race is over")

    def _play(
        self, name: str, policy: ScalingPolicy | int, curve: list[tuple[float, float]], seed: int
    ) -> Race:
        self.autoscale(None)
        least = policy if isinstance(policy, int) else policy.min_replicas
        Deploy(self.world).scale(least, why=f"start of the race of {name}")
        if isinstance(policy, ScalingPolicy):
            self.autoscale(policy)
        began = self.store.now()
        with self.load(curve=curve, seed=seed) as run:
            summary = run.wait()
        ended = began + run.spec.seconds  # checking the orders afterwards is no part of the day
        counts = [(t, value) for t, *_, value in self.store.samples("replicas", since=began, until=ended)]
        edges = [(began, counts[0][1] if counts else float(least)), *counts, (ended, 0.0)]
        changes = self.store.events(kind="operate.scaled", since=began)
        return Race(
            name, summary.run, began, ended, summary.requests, summary.failed, summary.p95, summary.p99,
            most_replicas=int(max(count for _, count in edges)),
            replica_seconds=sum(count * (later - t) for (t, count), (later, _) in pairwise(edges)),
            changes=sum(event.who == "autoscaler" and event.t <= ended for event in changes),
        )  # fmt: skip


class Parts:
    """What the story, and all that helps along, work with; `Lab` is these parts, opened.

    Args:
        world: the lab's directory, settings and store.
    """

    def __init__(self, world: LabContext) -> None:
        self.world = world
        self.plan, self.code, self.build, self.test = Plan(world), Code(world), Build(world), Test(world)
        self.release, self.deploy = ReleasePhase(world), Deploy(world)
        self.operate, self.monitor, self.pipeline = Operations(world), Monitor(world), Pipeline(world)

    @property
    def root(self) -> Path:
        return self.world.root

    @property
    def settings(self) -> Settings:
        return self.world.settings

    @property
    def store(self) -> Store:
        return self.world.store

    @property
    def url(self) -> str:
        """Where customers reach the shop; empty while there is no production."""
        return self.world.control.url() if self.world.control.keep() else ""

    def replicas(self) -> list[Replica]:
        """What runs in production right now, as the agent last saw it."""
        if not self.world.control.keep():
            return []
        return [r for r in self.store.all(Replica) if r.state != "dead"]
