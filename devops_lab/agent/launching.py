"""Replicas on their way: each is started aside, since a container takes its time and the loop must go on."""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass

from devops_lab.engines.base import Engine
from devops_lab.model import Pool, Replica

AT_ONCE = 4


@dataclass
class Vacancy:
    """The place of a replica that died, to be taken by its replacement."""

    died: str
    restarts: int
    crashes: int  # quick deaths in a row
    due: float  # monotonic seconds

    @classmethod
    def after(cls, died: str, restarts: int, crashes: int) -> Vacancy:
        """The first replacement comes at once, then after 0.5, 1, 2 … 10 seconds."""
        wait = 0.0 if crashes <= 1 else min(0.5 * 2 ** (crashes - 2), 10.0)
        return cls(died, restarts, crashes, time.monotonic() + wait)


@dataclass
class Launch:
    """One replica that is being started, and whose place it takes."""

    pool: Pool
    place: Vacancy | None
    replica: Future[Replica]


class Launches:
    """What is being started.

    Args:
        engine: starts it.
    """

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.under_way: list[Launch] = []
        self.threads = ThreadPoolExecutor(AT_ONCE, "launch")

    def begin(self, pool: Pool, replica_id: str, place: Vacancy | None) -> None:
        """Start a replica aside."""
        coming = self.threads.submit(self.engine.launch, pool, replica_id)
        self.under_way.append(Launch(pool, place, coming))

    def count(self, pool: Pool) -> int:
        """How many replicas of a pool's release are on their way."""
        return sum((one.pool.name, one.pool.release) == (pool.name, pool.release) for one in self.under_way)

    def done(self, seconds: float) -> list[Launch]:
        """Those that have come to an end, good or bad; waits for all, `seconds` at the longest."""
        wait([one.replica for one in self.under_way], seconds)
        ended = [one for one in self.under_way if one.replica.done()]
        self.under_way = [one for one in self.under_way if one not in ended]
        return ended
