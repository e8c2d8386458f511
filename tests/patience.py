"""Waiting in tests: the limit is for a machine that is busy with other things, and no bar of speed."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from devops_lab.platform import waits

PATIENCE_SECONDS = 60.0  # the least that anything is waited for, and for production to settle

T = TypeVar("T")


def until(
    probe: Callable[[], T],
    what: str,
    *,
    seconds: float = PATIENCE_SECONDS,
    every_seconds: float = 0.02,
    evidence: Callable[[], str] | None = None,
) -> T:
    """As the lab's own, whose ten seconds are too few where every process waits for a core."""
    limit = max(seconds, PATIENCE_SECONDS)
    return waits.until(probe, what, seconds=limit, every_seconds=every_seconds, evidence=evidence)
