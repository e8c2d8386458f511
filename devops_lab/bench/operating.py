"""Bars of Operate: how soon a rollback serves everybody, and how soon a peak has enough replicas."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from threading import Event

from devops_lab.lab import Lab
from devops_lab.model import Behaviour, ScalingPolicy
from devops_lab.phases.verify import ask
from devops_lab.waits import until

QUIET, PEAK, TARGET = 5.0, 90.0, 25.0  # requests per second; the target is a replica's
QUIET_SECONDS = 4.0


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
            return time.time() - began
    finally:
        lab.operate.autoscale(None)
