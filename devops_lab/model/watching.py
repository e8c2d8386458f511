"""Records of Monitor: alert rules and alerts, log lines, and what customers measured."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from devops_lab.model.kept import Kept


@dataclass(frozen=True)
class AlertRule(Kept, by="name"):
    """Fires when `metric` stays above a threshold for `for_seconds`; resolves at `resolve` or below."""

    name: str
    metric: str
    above: float
    for_seconds: float = 0.0
    resolve: float | None = None  # hysteresis; the threshold itself when None
    endpoint: str = ""
    summary: str = ""


@dataclass(frozen=True)
class Slo(Kept, by="name"):
    """A service level objective: this share of the requests shall be good; the rest is the error budget."""

    name: str
    objective: float  # 0..1
    within_seconds: float = 0.0  # good = answered within; 0 = answered without a server's error
    endpoint: str = ""  # "" = all


@dataclass(frozen=True)
class Burn:
    """How many times too fast an error budget burns, over a long and a short window; NaN = no requests."""

    name: str
    factor: float  # alerts when both exceed it
    long_seconds: float
    short_seconds: float
    long: float
    short: float

    @property
    def both(self) -> float:
        """What both windows exceed."""
        return math.nan if math.isnan(self.long + self.short) else min(self.long, self.short)


@dataclass(frozen=True)
class Budget:
    """An error budget over a window of time."""

    slo: Slo
    requests: float
    bad: float
    points: list[tuple[float, float]]  # time -> share that was left then; below 0 = overspent
    burns: list[Burn]

    @property
    def left(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True)
class Alert:
    rule: str
    state: Literal["pending", "firing", "resolved"]
    since: float
    value: float
    subject: str = ""
    resolved: float = 0.0
    evidence: list[str] = field(default_factory=list)

    @property
    def key(self) -> str:
        return f"{self.rule}@{self.since:.3f}"


@dataclass(frozen=True)
class LogLine:
    t: float
    level: str
    message: str
    replica: str = ""
    release: str = ""
    endpoint: str = ""
    request_id: str = ""
    status: int = 0
    seconds: float = 0.0
    extra: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Outcome:
    """One customer request: latency counts from the scheduled send time (open loop)."""

    t: float  # scheduled
    endpoint: str
    status: int  # 0 = no answer
    seconds: float
    release: str = ""
    run: str = ""
    session: str = ""
    request_id: str = ""
    error: str = ""
    order_key: str = ""


@dataclass(frozen=True)
class Complaint:
    """A customer's ticket, written from their own measured waiting."""

    session: str
    endpoint: str
    waited_seconds: float
    t: float
    text: str

    @property
    def key(self) -> str:
        return f"{self.session}@{self.t:.3f}"


@dataclass(frozen=True)
class LoadSummary(Kept, by="run"):
    """What a load run measured, of scheduled arrivals; latencies in seconds."""

    run: str
    requests: int
    failed: int
    seconds: float
    rate: float
    p50: float
    p95: float
    p99: float
    orders_accepted: int = 0
    orders_lost: int = 0
    orders_doubled: int = 0
    orders_retried: int = 0
    orders_wrong: int = 0  # their total is not what the menu says
    by_endpoint: dict[str, dict[str, float]] = field(default_factory=dict)
    by_release: dict[str, int] = field(default_factory=dict)


def percentile(values: Collection[float], share: float) -> float:
    """The smallest value that `share` (0..1) of the values do not exceed (nearest rank); 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)] if ordered else 0.0


def failed(outcome: Outcome) -> bool:
    """Whether a customer did not get what they asked for: no answer, an error, or a way out of the lab."""
    return not 200 <= outcome.status < 300
