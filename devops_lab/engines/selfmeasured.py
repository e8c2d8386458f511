"""What a replica says of itself: for one on another machine, whose engine can't be asked."""

from __future__ import annotations

import time
import urllib.request
from dataclasses import dataclass
from http.client import HTTPException

from devops_lab.model import Replica, Usage


@dataclass(frozen=True)
class Told:
    """What a process said of itself at one time, by the metrics that Prometheus' clients add to each."""

    t: float
    cpu_seconds: float
    memory_bytes: int

    def usage(self, before: Told | None) -> Usage:
        """The figures since `before`; no CPU when there is nothing to compare with."""
        spent = (self.cpu_seconds - before.cpu_seconds) / max(self.t - before.t, 0.001) if before else 0.0
        return Usage(100.0 * max(spent, 0.0), self.memory_bytes)


def told_by(replica: Replica) -> Told | None:
    """A replica's own figures, from its /metrics; None when it does not answer, or leaves them out."""
    found: dict[str, float] = {}
    try:
        with urllib.request.urlopen(f"http://{replica.host}:{replica.port}/metrics", timeout=0.5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(("process_cpu_seconds_total ", "process_resident_memory_bytes ")):
                    name, _, value = line.partition(" ")
                    found[name] = float(value)
    except (OSError, ValueError, HTTPException):
        return None
    if len(found) < 2:
        return None
    return Told(
        time.monotonic(), found["process_cpu_seconds_total"], int(found["process_resident_memory_bytes"])
    )
