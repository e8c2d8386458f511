"""Every poll and every deadline of the lab; a time-out carries the evidence."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from devops_lab.errors import TimedOut
from devops_lab.platform.clock import Awake

T = TypeVar("T")


def until(
    probe: Callable[[], T],
    what: str,
    *,
    seconds: float = 10.0,
    every_seconds: float = 0.02,
    evidence: Callable[[], str] | None = None,
    next_step: str = "",
) -> T:
    """Call `probe` until it answers something true, and return that answer.

    Args:
        probe: called without arguments; a false value means "not yet", an exception is passed on.
        what: what is being waited for, for the message.
        seconds: the deadline, of time awake: one that is slept through has not passed.
        every_seconds: pause between two calls.
        evidence: called once after a time-out; its text (last status, last log lines) joins the message.
        next_step: what the reader can do after a time-out.

    Raises:
        TimedOut: the deadline passed; carries the last answer and the evidence.
    """
    waited = Awake()
    while True:
        answer = probe()
        if answer:
            return answer
        if waited() >= seconds:
            seen = f" Last seen: {answer!r}." if answer is not None and answer is not False else ""
            proof = f"\n{evidence()}" if evidence else ""
            raise TimedOut(f"Waited {seconds:g} s for {what} in vain.{seen}{proof}", next_step=next_step)
        time.sleep(every_seconds)


def pause(seconds: float) -> None:
    """Let measured time go by while something else works (load, a compressed day)."""
    waited = Awake()
    while (left := seconds - waited()) > 0:
        time.sleep(min(left, 0.1))
