"""Deploy: a release goes to production, and only now is its value realised.

Here is how a deployment begins, is recorded, and ends, also badly; `strategies.py` tells how traffic moves.
Both only write the pools that are wanted; the agent and the proxy make production follow.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from devops_lab.errors import BadInput, Inconclusive, LabError
from devops_lab.model import Deployment, DeploymentState, EventKind, Pool, Release
from devops_lab.phases.plan import Plan
from devops_lab.phases.release import ReleasePhase
from devops_lab.planning.sprint import value_clock
from devops_lab.platform.agent.autoscaler import MAX_REPLICAS
from devops_lab.platform.context import LabContext, exclusive, try_exclusive
from devops_lab.platform.monitoring.notify import notify
from devops_lab.platform.settings import choice
from devops_lab.production.rollout import Baseline, OnStep, Rollout
from devops_lab.production.strategies import blue_green, canary, first, rollback, rolling

STRATEGIES = ("rolling", "blue/green", "canary")


class Deploy:
    """Brings releases to production.

    Args:
        world: the lab to work on.
    """

    def __init__(self, world: LabContext) -> None:
        self.world, self.store = world, world.store

    def run(
        self,
        version: str | Release,
        strategy: str = "rolling",
        *,
        who: str = "",
        why: str = "",
        replicas: int | None = None,
        canary_steps: Sequence[int] = (5, 25, 50),
        on_step: OnStep | None = None,
        gate: Callable[[], None] | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Deployment:
        """Bring a release to production: check artifact > migrate > start new > shift traffic > stop old.

        Args:
            version: of the registry; or a Release that is just being made (see `gate`).
            strategy: rolling, blue/green, canary; "first" when production is empty.
            replicas: of the new version; as many as serve now when None.
            canary_steps: percent of the traffic that the canary takes, growing.
            on_step: called with each finished step.
            gate: called before the new version takes traffic; what it raises refuses the deployment.
            env: the configuration of the new replicas, beside what every replica gets. With it, the version
                that serves can be deployed again: a configuration is rolled out like a release.

        Raises:
            BadInput: no such version or strategy, or the version serves already.
            RegistryRefused: the artifact is not the one that was released; nothing was started.
            DeployRefused: it failed, and the old version serves on; or another deployment runs.
            Inconclusive: too few customers came to tell whether it is good; the old version serves on.
        """
        candidate = isinstance(version, Release)
        release = version if isinstance(version, Release) else ReleasePhase(self.world).find(version)
        self._check(strategy, replicas, canary_steps)
        plans: dict[str, Callable[[Rollout], None]] = {
            "first": first,
            "rolling": rolling,
            "blue/green": blue_green,
            "canary": lambda go: canary(go, canary_steps),
        }
        with exclusive(self.world):
            self._settle()
            current = self.current()
            if release.version == current and env is None:
                raise BadInput(f"Version {current} serves already.", next_step="Deploy another version.")
            if current and strategy == "first":
                raise BadInput(f"Version {current} serves already.", expected=", ".join(STRATEGIES))
            strategy = strategy if current else "first"
            self.world.control.ensure()
            go = self.begin(release.version, strategy, who, why, replicas, env)
            go.on_step, go.gate = on_step, gate
            return self._carry_out(go, release, plans[strategy], migrate=True, candidate=candidate)

    def rollback(self, why: str = "", who: str = "", on_step: OnStep | None = None) -> Deployment:
        """Go back by one step, to the version that served before the current one, with its configuration.

        Raises:
            BadInput: there was none.
            DeployRefused: the previous version does not start; the current one serves on.
        """
        with exclusive(self.world):
            self._settle()
            release = ReleasePhase(self.world).find(self.previous())
            self.world.control.ensure()
            came = (d for d in reversed(self.history()) if d.state == "done" and d.version == release.version)
            env = next((deployment.env for deployment in came), {})
            go = self.begin(release.version, "rollback", who, why, env=env)
            go.on_step = on_step
            return self._carry_out(go, release, rollback, migrate=False)

    def scale(self, replicas: int, who: str = "", why: str = "") -> Pool:
        """Change the number of replicas of what serves, and wait until it is so.

        Raises:
            BadInput: a number that is not possible, or nothing serves.
            DeployRefused: a deployment runs right now.
        """
        self._check("rolling", replicas, (1,))
        with exclusive(self.world):
            self._settle()
            pool = self._serving()
            if pool is None:
                raise BadInput("Nothing serves yet.", next_step="Deploy a version first.")
            scaled = replace(pool, replicas=replicas)
            self.world.control.ensure()
            self.store.put(scaled)
            who = who or self.world.settings.learner
            text = f"{pool.replicas} > {replicas} replicas"
            event = self.store.event(
                "operate", "operate.scaled", f"pool:{pool.name}", text, who=who, why=why,
                before=pool.replicas, after=replicas,
            )  # fmt: skip
            self.world.control.wait_settled()
            notify(self.world, event)
            return scaled

    def install(self, release: Release, *, candidate: bool = False) -> None:
        """Have a release ready to start in production: the one way there, and nothing changed passes it.

        Args:
            candidate: it is only being made; there is no record yet to hold its files against.

        Raises:
            RegistryRefused: it is not what was released.
        """
        if not candidate:
            ReleasePhase(self.world).verify(release.version)
        self.world.engine.prepare(release)

    # ---- questions
    def current(self) -> str:
        """The version that takes the most traffic; empty when nothing serves."""
        pool = self._serving()
        return pool.release if pool else ""

    def previous(self) -> str:
        """The version that served before the current one came.

        Raises:
            BadInput: there was none.
        """
        current = self.current()
        done = [d for d in self.history() if d.state == "done" and d.version != d.previous]
        came = [d for d in done if d.version == current]
        came = [d for d in came if d.strategy != "rollback"] or came
        if not came or not came[-1].previous:
            raise BadInput(
                f"There is no version before {current or 'the first'} to go back to.",
                next_step="Deploy a second version first.",
            )
        return came[-1].previous

    def pools(self) -> list[Pool]:
        """The desired state: who shall run, how many, with which share of the traffic."""
        return self.store.all(Pool)

    def history(self) -> list[Deployment]:
        """All deployments, oldest first."""
        return sorted(self.store.all(Deployment), key=lambda d: d.id)

    def value_clock(self) -> list[tuple[float, str, float]]:
        """When which version came to serve customers, and the backlog value in it: (t, version, value)."""
        plan = Plan(self.world)
        return value_clock(self.world, self.history(), [*plan.backlog(), *plan.finished()])

    def settle(self) -> Deployment | None:
        """Finish or undo a deployment whose process died in the middle; None when there is none."""
        with try_exclusive(self.world) as free:
            return self._settle() if free else None

    # ---- how a deployment begins, is carried out, and ends
    def _check(self, strategy: str, replicas: int | None, shares: Sequence[int]) -> None:
        choice("strategy", strategy, (*STRATEGIES, "first"))
        if replicas is not None and not 1 <= replicas <= MAX_REPLICAS:
            raise BadInput(f"{replicas} replicas", expected=f"1 to {MAX_REPLICAS}")
        if not shares or list(shares) != sorted(set(shares)) or not 0 < shares[0] <= shares[-1] < 100:
            raise BadInput(f"canary_steps = {tuple(shares)}", expected="growing percentages between 1 and 99")

    def _serving(self) -> Pool | None:
        return max((p for p in self.pools() if p.weight > 0), key=lambda p: p.weight, default=None)

    def begin(
        self,
        version: str,
        strategy: str,
        who: str,
        why: str,
        replicas: int | None = None,
        env: Mapping[str, str] | None = None,
    ) -> Rollout:
        """Write down who does what, and what to go back to, before anything changes."""
        old, before = self._serving(), self.pools()
        number = max((d.id for d in self.history()), default=0) + 1
        who = who or self.world.settings.learner
        wanted = replicas or (old.replicas if old else self.world.settings.replicas)
        rolls = self.world.engine.capabilities().rolls
        name = f"shop-{number}" if rolls else f"v{version}-{number}"  # one that rolls outlives its version
        if old and rolls and strategy in ("rolling", "rollback"):
            name = old.name
        new = Pool(name, version, wanted, 100, env=dict(env or {}))
        previous = old.release if old else ""
        record = Deployment(
            number,
            version,
            previous,
            strategy,
            who,
            why,
            "running",
            self.store.now(),
            owner_pid=os.getpid(),
            env=new.env,
        )
        self.store.put(Baseline(record.key, before, new.name))
        self.store.put(record)
        text = f"{strategy}: {previous or 'nothing'} > {version}"
        begun = self.store.event("deploy", "deploy.started", f"deployment:{number}", text, who=who, why=why)
        self.store.link(f"deployment:{number}", "brings", f"release:{version}")
        return Rollout(self.world, record, before, old, new, begun=begun.id)

    def _carry_out(
        self,
        go: Rollout,
        release: Release,
        plan: Callable[[Rollout], None],
        *,
        migrate: bool,
        candidate: bool = False,
    ) -> Deployment:
        try:
            with go.step("check and install the artifact"):
                self.install(release, candidate=candidate)
            if migrate:
                with go.step("migrate the database") as said:
                    said.append(self.world.engine.migrate(release))
            plan(go)
        except LabError as error:
            go.restore()
            ending: DeploymentState = "rolled back" if go.took_traffic else "refused"
            self._end(go.record, "inconclusive" if isinstance(error, Inconclusive) else ending, str(error))
            raise
        except BaseException as error:  # also an interrupt: production must not stay half-way
            go.restore()
            self._end(go.record, "interrupted", f"{type(error).__name__}: {error}")
            raise
        return self._end(go.record, "done")

    def _end(self, record: Deployment, state: DeploymentState, error: str = "") -> Deployment:
        """Write down how it ended, and tell the operations team."""
        record = replace(record, state=state, error=error, ended=self.store.now())
        self.store.put(record)
        kind: EventKind = "rollback.done" if record.strategy == "rollback" else "deploy.done"
        text = f"{record.previous or 'nothing'} > {record.version}, {record.strategy}, {record.seconds:.2f} s"
        if state != "done":
            kind, text = "deploy.refused", f"{record.version} was {state}: {error.splitlines()[0]}"
        event = self.store.event(
            "deploy", kind, f"deployment:{record.id}", text, who=record.who, why=record.why,
            state=state, version=record.version, previous=record.previous, seconds=record.seconds,
        )  # fmt: skip
        notify(self.world, event)
        return record

    def _settle(self) -> Deployment | None:
        """We hold the lock, so a deployment that still says "running" has lost its process."""
        left = next((d for d in reversed(self.history()) if d.state == "running"), None)
        if left is None:
            return None
        baseline = self.store.get(Baseline, left.key)
        before, name = (baseline.pools, baseline.new) if baseline else (self.pools(), "")
        pools = {p.name: p for p in self.pools()}
        taking = [p for p in pools.values() if p.weight > 0]
        self.world.control.ensure()
        arrived = len(taking) == 1 and (taking[0].name, taking[0].release) == (name, left.version)
        if arrived and taking[0].replicas >= max((p.replicas for p in before), default=1):
            self.store.replace_all(Pool, [taking[0]])  # all traffic is on the new version: stop the old one
            self.world.control.poke()
            return self._end(left, "done")
        Rollout(self.world, left, before, self._serving(), Pool(name, left.version, 1, 0)).restore()
        return self._end(left, "interrupted", f"its process {left.owner_pid} ended in the middle")
