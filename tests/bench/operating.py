"""Bars of Operate: a rollback, a peak, and what the agent itself costs."""

from __future__ import annotations

import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

from devops_lab.lab import Lab
from devops_lab.lab.story import FIRST_FEATURE, first, ship
from devops_lab.model import Behaviour, ScalingPolicy
from devops_lab.platform.agent.autoscaler import measure
from devops_lab.platform.processes import process_of
from devops_lab.platform.waits import pause, until
from devops_lab.production.verify import ask

QUIET, PEAK, TARGET = 5.0, 90.0, 25.0  # requests per second; the target is a replica's
QUIET_SECONDS = 4.0
# What the agent looks after while its cost is measured.
BUSY_REPLICAS, BUSY_RATE, BUSY_SECONDS = 4, 200.0, 15.0


def rolled_back(lab: Lab) -> float:
    """Seconds from the decision to roll back until the last answer of the version that goes."""
    previous, url, over = lab.deploy.previous(), lab.url, Event()

    def answers() -> list[tuple[float, str]]:
        seen = []
        while not over.is_set():
            _, release, _ = ask(f"{url}/api/info")
            seen.append((time.time(), release))
        return seen

    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(answers)
        until(lambda: ask(f"{url}/api/info")[0] == 200, "answers")
        began = time.time()
        try:
            lab.deploy.rollback(why="bench")
        finally:
            over.set()
        return max((t for t, release in asked.result() if release != previous), default=began) - began


def peak_served(lab: Lab) -> float:
    """Seconds from the start of a peak until the autoscaler has brought as many replicas as it needs."""
    needed = -(-PEAK // TARGET)
    lab.deploy.scale(1, why="bench")
    until(lambda: asked_of_each(lab) < TARGET, "those who came before to be forgotten", seconds=30)
    policy = ScalingPolicy("requests_per_second", TARGET, 1, int(needed), scale_in=Behaviour(60.0))
    curve = [(0.0, QUIET), (QUIET_SECONDS, QUIET), (QUIET_SECONDS + 0.1, PEAK), (60.0, PEAK)]
    lab.operate.autoscale(policy)
    try:
        with lab.operate.load(curve=curve) as run:
            began = lab.store.events(kind="load.started", subject=f"load:{run.id}")[0].t + QUIET_SECONDS
            until(
                lambda: sum(r.state == "healthy" for r in lab.replicas()) >= needed,
                f"{needed:.0f} replicas at the peak",
                seconds=60,
            )
            return lab.store.now() - began
    finally:
        lab.operate.autoscale(None)


def asked_of_each(lab: Lab) -> float:
    """Requests per second of the busiest replica, as the autoscaler sees them; endless when it sees none."""
    healthy = {r.id for r in lab.replicas() if r.state == "healthy"}
    return max(measure(lab.world, "requests_per_second", healthy, lab.store.now()), default=math.inf)


def rolled_back_on(engine: str, folder: Path) -> float:
    """The same on another engine, in a lab of its own that is removed again."""
    lab = Lab.open(folder / engine, engine=engine)
    try:
        first(lab)
        lab.deploy.run(ship(lab, FIRST_FEATURE, why="bench").version, why="bench")
        return rolled_back(lab)
    finally:
        lab.clean()


def agent_cost(lab: Lab, seconds: float = BUSY_SECONDS) -> tuple[float, float]:
    """What the agent needs to look after busy production: (percent of one core, resident megabytes)."""
    lab.deploy.scale(BUSY_REPLICAS, why="bench")
    identity = lab.world.control.identity()
    agent = process_of(*identity) if identity else None
    assert agent
    with lab.operate.load(BUSY_RATE, seconds + 30.0) as run:
        until(lambda: len(lab.store.requests(run=run.id)) > BUSY_RATE, "customers", seconds=30)
        before, began = agent.cpu_times(), time.perf_counter()
        pause(seconds)
        after, took = agent.cpu_times(), time.perf_counter() - began
        memory = agent.memory_info().rss
        run.stop()
    spent = after.user + after.system - before.user - before.system
    return 100 * spent / took, memory / 1e6
