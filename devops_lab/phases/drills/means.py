"""How a fault comes into production, and how all that is left of it is taken out again."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from devops_lab.errors import LabError
from devops_lab.git import git
from devops_lab.model import Pool, Release, Replica, Step
from devops_lab.phases import World
from devops_lab.phases.build import Build
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.drills.faults import Fault, change_of
from devops_lab.phases.drills.note import Note
from devops_lab.phases.release import Releasing
from devops_lab.phases.rollout import exclusive
from devops_lab.phases.test import Test
from devops_lab.processes import HOST, OWNER, clean_environment, created_at, end
from devops_lab.shop import apply_change
from devops_lab.traffic.detours import Detour

CANARY_PERCENT = 50


# ---- a release that carries the fault
def release_with(world: World, fault: Fault) -> Release:
    """The release of production plus the fault's change, all the way: commit > build > test > release.

    The learner's working clone stays as it is; a release that an earlier drill made is used again.
    """
    change, base = change_of(fault), Releasing(world).find(Deploy(world).current()).commit
    for known in Releasing(world).registry():
        subject, _, parent = git(world.origin, "log", "-1", "--format=%s%n%P", known.tag).partition("\n")
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
    return Releasing(world).run(why=change.title, who=_author(world, commit), artifact=artifact)


def _author(world: World, commit: str) -> str:
    return git(world.shop, "show", "-s", "--format=%an", commit)


# ---- into production
def inject(world: World, fault: Fault, note: Note) -> tuple[Job | None, float]:
    """Let the fault happen; return what runs beside, and when the first customer could meet it."""
    job = None
    try:
        if fault.job == "kitchen":  # is there when the release comes that needs it
            job = Job(world, "kitchen")
        if fault.change:
            at = _bring(world, fault, Releasing(world).find(note.faulty), job)
        elif fault.env:
            at = _misconfigure(world, fault.env)
        if fault.job == "kitchen" and job:
            at = time.time()
            job.stop()
        elif fault.job:
            job, begun = _beside(world, fault, note), time.time()
            at = begun if not fault.change or fault.job == "retry" else at
    except BaseException:
        if job:
            job.stop()
        raise
    return job, at


def _bring(world: World, fault: Fault, release: Release, job: Job | None) -> float:
    """Deploy as every other release, or half of the way; return when the first customers were sent to it."""
    who, why = _author(world, release.commit), change_of(fault).title
    if fault.half_way:
        return _stand_still(world, release, who, why)
    shifted: list[float] = []

    def watch(step: Step) -> None:
        if step.name.startswith("shift"):
            shifted.append(step.started)

    where = {"BENTO_KITCHEN_URL": f"http://{HOST}:{job.said['port']}/"} if job else {}
    Deploy(world).run(release, "rolling", who=who, why=why, on_step=watch, env=fault.env | where)
    return min(shifted, default=time.time())


def _stand_still(world: World, release: Release, who: str, why: str) -> float:
    """A canary whose rollout lost its process: it takes its share, and nobody watches it."""
    with exclusive(world):
        rollout = Deploy(world).begin(release.version, "canary", who, why)
        assert rollout.old
        world.engine.prepare(release)
        lone, share = replace(rollout.new, replicas=1), CANARY_PERCENT
        with rollout.step("start one canary") as said:
            rollout.want(replace(lone, weight=0), replace(rollout.old, weight=100))
            said.append(rollout.wait_healthy(lone, 1))
        began = time.time()
        rollout.want(replace(lone, weight=share), replace(rollout.old, weight=100 - share))
    return began


def _misconfigure(world: World, env: dict[str, str]) -> float:
    """Somebody changes what replicas are started with; then one of them has to be started."""
    pool, began = serving(world), time.time()
    world.store.put(replace(pool, env=pool.env | env))
    text, who = ", ".join(f"{name}={value}" for name, value in env.items()), "Dario Conti"
    world.store.event("operate", "operate.configured", f"pool:{pool.name}", text, who=who, why="to see more")
    world.engine.kill(_healthy(world))
    world.control.poke()
    return began


def serving(world: World) -> Pool:
    """The pool that takes the most traffic."""
    return max(world.store.all(Pool), key=lambda pool: pool.weight)


def _healthy(world: World) -> Replica:
    return next(replica for replica in world.store.all(Replica) if replica.state == "healthy")


# ---- processes beside production
class Job:
    """A process of a drill; it ends with the process that started it."""

    def __init__(self, world: World, do: str, **wish: Any) -> None:
        with (world.root / "run" / "beside.log").open("ab") as errors:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "devops_lab.phases.drills.jobs"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                cwd=Path(__file__).resolve().parents[3],
                env=clean_environment(**{OWNER: str(world.root.resolve())}),
                start_new_session=True,
            )
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


def _beside(world: World, fault: Fault, note: Note) -> Job:
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
def undo(world: World, fault: Fault, note: Note, job: Job | None = None) -> None:
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
