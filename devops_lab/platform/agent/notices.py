"""What the agent notices of time itself, and how it records events while nothing can be written.

A gap, in which nobody looked at production, is called a gap. Nothing is judged over it: neither what
production did not do while it slept, nor the moments in which all wake up.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from typing import Any

from devops_lab.errors import LabError
from devops_lab.model import Alert, Event, EventKind
from devops_lab.platform.agent.autoscaler import Memory
from devops_lab.platform.context import LabContext, try_exclusive
from devops_lab.platform.store import Store

GAP_SECONDS = 5.0  # without a look at production, which is due every second
SETTLE_SECONDS = 5.0  # until all have woken up
STEP_SECONDS = 0.5
QUIET_SECONDS = 10.0  # without customers: nobody measures
MOST = 1000  # events that wait in memory


class Gaps:
    """Keeps an eye on the clocks.

    Args:
        world: the lab.
        now: the lab's time.
    """

    def __init__(self, world: LabContext, now: float) -> None:
        self.world, self.store = world, world.store
        self.looked, self.settled = now, 0.0
        self.apart = time.time() - now  # how far the wall clock is from the lab's

    def look(self, now: float) -> bool:
        """Tell of a gap or a step, if there was one; whether this is a moment to judge production in."""
        gap, self.looked = now - self.looked, now
        if gap > GAP_SECONDS:
            self.settled = now + SETTLE_SECONDS
            self._tell_gap(gap)
        step, self.apart = time.time() - now - self.apart, time.time() - now
        if abs(step) > STEP_SECONDS:
            self._tell_step(step, now)
        return now >= self.settled

    def _tell_gap(self, seconds: float) -> None:
        text = f"a gap of {seconds:.0f} s, over which nothing is judged: "
        text += "the machine slept, or the agent was stopped"
        self.store.event("operate", "agent.gap", "agent", text, who="agent", seconds=seconds)
        for alert in self.store.all(Alert):
            if alert.state == "pending":  # it has to hold without a gap
                self.store.remove(Alert, alert.key)
        self.store.replace_all(Memory, [])  # the autoscaler begins anew, from the replicas that there are

    def _tell_step(self, seconds: float, now: float) -> None:
        """The lab's clock goes on as it did; it follows only when that can't be felt."""
        text = f"the wall clock went {'forward' if seconds > 0 else 'back'} by {abs(seconds):.0f} s"
        with try_exclusive(self.world) as free:
            if free and not self.store.requests(since=now - QUIET_SECONDS, limit=1):
                self.store.wind_clock()
            else:
                text += "; the lab's own goes on without that step"
        self.store.event("operate", "agent.clock", "agent", text, who="agent", seconds=seconds)


class Teller:
    """Records the agent's events, in their order; several threads may tell.

    Args:
        store: of the lab.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self.waiting: list[Event] = []
        self.turn = threading.Lock()
        self.complained: set[tuple[str, str]] = set()

    def event(self, kind: EventKind, subject: str, message: str, **data: Any) -> None:
        """Record that something happened; where nothing can be written, as soon as it can."""
        if len(self.waiting) < MOST:
            self.waiting.append(
                Event(self.store.now(), "operate", kind, subject, message, "agent", data=data)
            )
        self.catch_up()

    def complain(self, kind: EventKind, subject: str, message: str) -> None:
        """An event that is recorded once, however often it happens."""
        if (subject, message) not in self.complained:
            self.complained.add((subject, message))
            self.event(kind, subject, message)

    def catch_up(self) -> None:
        """Record what waits, if it can be."""
        with self.turn, suppress(LabError):
            while self.waiting:
                self.store.add_event(self.waiting[0])
                del self.waiting[0]
