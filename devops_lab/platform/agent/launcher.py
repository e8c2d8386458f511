"""Replicas on their way: each is started aside, since a container takes its time and the loop must go on."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass

from devops_lab.errors import DeployRefused, LabError
from devops_lab.model import Pool, Release, Replica
from devops_lab.platform.engines.base import Engine
from devops_lab.platform.store import Store

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
        store: knows the releases.
        event: is told what was put right.
    """

    def __init__(self, engine: Engine, store: Store, event: Callable[..., None]) -> None:
        self.engine, self.store, self.event = engine, store, event
        self.under_way: list[Launch] = []
        self.threads = ThreadPoolExecutor(AT_ONCE, "launch")

    def begin(self, pool: Pool, replica_id: str, place: Vacancy | None) -> None:
        """Start a replica aside."""
        coming = self.threads.submit(self._launch, pool, replica_id, place)
        self.under_way.append(Launch(pool, place, coming))

    def _launch(self, pool: Pool, replica_id: str, place: Vacancy | None) -> Replica:
        """What it runs from is made again from the registry where it is gone, or may be damaged."""
        if place and place.crashes > 1:
            with suppress(LabError, OSError):  # it is tried in any case
                self._prepare_again(pool.release)
        try:
            return self.engine.launch(pool, replica_id)
        except DeployRefused as gone:
            try:
                self._prepare_again(pool.release)
            except LabError as error:
                raise LabError(f"{gone.wrong} It can't be installed again: {error.wrong}") from error
            self.event("replica.reinstalled", f"pool:{pool.name}", f"{gone.wrong} It was installed again.")
            return self.engine.launch(pool, replica_id)

    def _prepare_again(self, version: str) -> None:
        release = self.store.get(Release, version)
        if release is None:
            raise LabError(f"The lab keeps no record of release {version}.")
        self.engine.prepare(release)

    def count(self, pool: Pool) -> int:
        """How many replicas of a pool's release are on their way."""
        return sum((one.pool.name, one.pool.release) == (pool.name, pool.release) for one in self.under_way)

    def done(self, seconds: float) -> list[Launch]:
        """Those that have come to an end, good or bad; waits for all, `seconds` at the longest."""
        wait([one.replica for one in self.under_way], seconds)
        ended = [one for one in self.under_way if one.replica.done()]
        self.under_way = [one for one in self.under_way if one not in ended]
        return ended
