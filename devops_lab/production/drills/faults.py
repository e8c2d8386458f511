"""The faults that a drill may inject: what each does, how it comes into production, and the way back."""

from __future__ import annotations

import json
import random
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml

from devops_lab.errors import LabError
from devops_lab.model import Detour, Pool, Release, Replica, Step
from devops_lab.phases.build import Build
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.operate import Operate
from devops_lab.phases.release import ReleasePhase
from devops_lab.phases.test import Test
from devops_lab.platform.context import LabContext, exclusive
from devops_lab.platform.git import git, run
from devops_lab.platform.processes import HOST, companion, created_at, end
from devops_lab.platform.settings import choice
from devops_lab.platform.waits import until
from devops_lab.production.drills.record import DrillRun, Note
from devops_lab.shop import Change, apply_change, changes

Mend = Literal["rollback", "settle", "configuration", "end process", "replace replica"]


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong in production; see faults.yaml for the meaning of each field."""

    name: str
    customers: str
    signal: str
    mend: Mend
    action: str
    alerts: list[str] = field(default_factory=list)
    sign: Literal["", "customers", "clock"] = ""
    change: str = ""
    half_way: bool = False
    rate: float = 40.0
    env: dict[str, str] = field(default_factory=dict)
    job: Literal["", "lock", "kitchen", "delay", "retry"] = ""


@cache
def catalogue() -> dict[str, Fault]:
    """All faults by name."""
    rows = yaml.safe_load(Path(__file__).with_name("faults.yaml").read_text("utf-8"))
    return {fault.name: fault for fault in msgspec.convert(rows, list[Fault])}


def find(name: str) -> Fault:
    """A fault by its name.

    Raises:
        BadInput: there is none of this name; the message names the closest one.
    """
    return catalogue()[choice("fault", name, tuple(catalogue()))]


def why_not(world: LabContext, fault: Fault) -> str:
    """Why this lab can't have a fault, in plain words; empty when it can."""
    contained = any(replica.handle for replica in world.store.all(Replica))
    if fault.job == "lock" and not world.engine.database_url().startswith("sqlite:"):
        return "The lock is held by a process of this machine, which can't reach the engine's own database."
    if fault.job == "kitchen" and contained:
        return "The dependency listens on this machine's loopback, where a container can't reach it."
    if fault.change and has(world, change_of(fault).subject):
        return f"The version in production has {fault.change!r} already, and perhaps its mend."
    return ""


def change_of(fault: Fault) -> Change:
    return next(change for change in changes() if change.id == fault.change)


def has(world: LabContext, subject: str) -> bool:
    """Whether the version in production contains a commit with this subject."""
    release = ReleasePhase(world).find(Deploy(world).current())
    log = run(world.origin, "log", "--format=%s", release.commit)
    return subject in log.stdout.splitlines()


def pick(world: LabContext, seed: object, met: list[str]) -> Fault:
    """A fault by chance: the same for the same seed, and none twice before all were met."""
    dice = random.Random(f"{world.settings.learner}:{seed}")
    possible = [fault for fault in catalogue().values() if not why_not(world, fault)]
    fresh = [fault for fault in possible if fault.name not in met]
    return dice.choice(fresh or possible)


def draw(world: LabContext, seed: str) -> str:
    """A fault's name by the seed alone: the same in all labs that can have it."""
    names = random.Random(seed).sample(sorted(catalogue()), len(catalogue()))
    serves = bool(Deploy(world).current())  # else there is nothing to ask about, and no drill
    return next(name for name in names if not (serves and why_not(world, catalogue()[name])))


# ---- the reference way back, by the calls that a reader has
WAYS: dict[Mend, str] = {
    "rollback": "lab.deploy.rollback(): back to the version before; the cause can wait.",
    "settle": "lab.deploy.settle(): undo the rollout that stands still.",
    "configuration": "lab.deploy.run(lab.deploy.current(), env={}): roll out the right configuration.",
    "end process": "lab.operate.processes() tells who has the database open; lab.operate.end_process(pid).",
    "replace replica": "lab.operate.lost_on_the_way() names the replica; lab.operate.kill(it) replaces it.",
}


def mend(world: LabContext, fault: Fault, run: DrillRun) -> None:
    """Mend a fault as the reference solution does.

    Raises:
        LabError: it is not there any more, or a step was refused.
    """
    why = f"incident {run.id}: {fault.name}"
    deploy = Deploy(world)
    ways: dict[Mend, Callable[[], object]] = {
        "rollback": lambda: deploy.rollback(why=why),
        "settle": deploy.settle,
        "configuration": lambda: deploy.run(deploy.current(), env={}, why=why),
        "end process": lambda: Operate(world).end_process(_holder(world), why),
        "replace replica": lambda: _replace_late(world, run),
    }
    ways[fault.mend]()


def _holder(world: LabContext) -> int:
    """Who beside production has the database open."""
    for each in Operate(world).processes():
        if each.what == "other" and any(file.startswith("data/") for file in each.opens):
            return each.pid
    raise LabError("Nobody beside the replicas has the database open.")


def _replace_late(world: LabContext, run: DrillRun) -> None:
    """End the replica on whose way most time is lost; its replacement has another address."""
    measured = until(  # a request counts once both its customer and its replica have told of it
        lambda: Operate(world).lost_on_the_way(run.injected), "requests whose way was measured", seconds=20
    )
    Operate(world).kill(next(iter(measured)))


# ---- into production, and out again
CANARY_PERCENT = 50


# ---- a release that carries the fault
def release_with(world: LabContext, fault: Fault) -> Release:
    """The release of production plus the fault's change, all the way: commit > build > test > release.

    The learner's working clone stays as it is; a release that an earlier drill made is used again.
    """
    change, base = change_of(fault), ReleasePhase(world).find(Deploy(world).current()).commit
    for known in ReleasePhase(world).registry():
        subject, _, parent = git(world.origin, "log", "-1", "--format=%s%n%P", known.commit).partition("\n")
        if (subject, parent) == (change.subject, base):
            return known
    with tempfile.TemporaryDirectory(dir=world.work, prefix="change-") as folder:
        clone = Path(folder) / "clone"
        git(world.root, "clone", "--quiet", "--shared", "--no-checkout", str(world.origin), str(clone))
        git(clone, "checkout", "--quiet", "-B", "next", base)
        commit = apply_change(clone, change.id)
        git(clone, "push", "--quiet", str(world.shop), f"+HEAD:refs/heads/next/{commit[:8]}")
    artifact = Build(world).run(commit)
    if Test(world).passing(artifact) is None:
        Test(world).run(artifact)
    return ReleasePhase(world).run(why=change.title, who=_author(world, commit), artifact=artifact)


def _author(world: LabContext, commit: str) -> str:
    return git(world.shop, "show", "-s", "--format=%an", commit)


# ---- into production
def inject(world: LabContext, fault: Fault, note: Note) -> tuple[Job | None, float]:
    """Let the fault happen; return what runs beside, and when the first customer could meet it."""
    job = None
    try:
        if fault.job == "kitchen":  # is there when the release comes that needs it
            job = Job(world, "kitchen")
        if fault.change:
            at = _bring(world, fault, ReleasePhase(world).find(note.faulty), job)
        elif fault.env:
            at = _misconfigure(world, fault.env)
        if fault.job == "kitchen" and job:
            at = world.store.now()
            job.stop()
        elif fault.job:
            job, begun = _beside(world, fault, note), world.store.now()
            at = begun if not fault.change or fault.job == "retry" else at
    except BaseException:
        if job:
            job.stop()
        raise
    return job, at


def _bring(world: LabContext, fault: Fault, release: Release, job: Job | None) -> float:
    """Deploy as every other release, or half of the way; return when the first customers were sent to it."""
    who, why = _author(world, release.commit), change_of(fault).title
    if fault.half_way:
        return _stand_still(world, release, who, why)
    shifted: list[float] = []

    def watch(step: Step) -> None:
        if step.name.startswith("shift"):
            shifted.append(step.started)

    where = {"BENTO_KITCHEN_URL": f"http://{HOST}:{job.said['port']}/"} if job else {}
    Deploy(world).run(release.version, "rolling", who=who, why=why, on_step=watch, env=fault.env | where)
    return min(shifted, default=world.store.now())


def _stand_still(world: LabContext, release: Release, who: str, why: str) -> float:
    """A canary whose rollout lost its process: it takes its share, and nobody watches it."""
    with exclusive(world):
        rollout = Deploy(world).begin(release.version, "canary", who, why)
        assert rollout.old
        Deploy(world).install(release)
        lone, share = replace(rollout.new, replicas=1), CANARY_PERCENT
        with rollout.step("start one canary") as said:
            rollout.want(replace(lone, weight=0), replace(rollout.old, weight=100))
            said.append(rollout.wait_healthy(lone, 1))
        began = world.store.now()
        rollout.want(replace(lone, weight=share), replace(rollout.old, weight=100 - share))
    return began


def _misconfigure(world: LabContext, env: dict[str, str]) -> float:
    """Somebody changes what replicas are started with; then one of them has to be started."""
    pool, began = serving(world), world.store.now()
    world.store.put(replace(pool, env=pool.env | env))
    text, who = ", ".join(f"{name}={value}" for name, value in env.items()), "Dario Conti"
    world.store.event("operate", "operate.configured", f"pool:{pool.name}", text, who=who, why="to see more")
    world.engine.kill(_healthy(world))
    world.control.poke()
    return began


def serving(world: LabContext) -> Pool:
    """The pool that takes the most traffic."""
    return max(world.store.all(Pool), key=lambda pool: pool.weight)


def _healthy(world: LabContext) -> Replica:
    return next(replica for replica in world.store.all(Replica) if replica.state == "healthy")


# ---- processes beside production
class Job:
    """A process of a drill; it ends with the process that started it."""

    def __init__(self, world: LabContext, do: str, **wish: Any) -> None:
        with (world.root / "run" / "beside.log").open("ab") as errors:
            module = "devops_lab.production.drills.jobs"
            self.process = companion(world.root, module, stdout=subprocess.PIPE, stderr=errors)
        self.created = created_at(self.process.pid)
        assert self.process.stdin
        assert self.process.stdout
        self.process.stdin.write(json.dumps({"do": do, **wish}).encode() + b"\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            self.stop()
            raise LabError("A process beside production did not start.", next_step="Read run/beside.log.")
        self.said: dict[str, Any] = json.loads(answer)

    def stop(self) -> None:
        """End it; safe to repeat."""
        end([(self.process.pid, self.created)], 1.0)
        self.process.wait(5)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe:
                pipe.close()


def _beside(world: LabContext, fault: Fault, note: Note) -> Job:
    """Start the process that makes the trouble."""
    if fault.job == "lock":
        return Job(world, "lock", path=world.engine.database_url().removeprefix("sqlite:///"))
    if fault.job == "retry":
        return Job(world, "retry", url=f"{world.control.url()}/api/orders", key=f"regular-{note.drill}")
    replica = _healthy(world)
    job = Job(world, "delay", host=replica.host, port=replica.port)
    way = Detour(replica.host, replica.port, job.said["port"], job.process.pid, job.created)
    world.store.put(way)
    world.control.poke()
    return job


# ---- out of production
def undo(world: LabContext, fault: Fault, note: Note, job: Job | None = None) -> None:
    """Take out what is left of a fault; what the reader has mended already is not touched."""
    if job:
        job.stop()
    world.store.replace_all(Detour, [])
    world.control.ensure()
    deploy, why = Deploy(world), "the drill is over"
    deploy.settle()
    if note.faulty and deploy.current() == note.faulty:
        deploy.rollback(why=why, who="the lab")
    elif fault.env.items() & serving(world).env.items():
        deploy.run(deploy.current(), who="the lab", why=why, env=note.env)
    world.control.wait_settled()
