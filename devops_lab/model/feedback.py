"""Records of what production tells: alerts, objectives, log lines, what customers measured, post-mortems."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any, Literal

from devops_lab.model.lab import Keyed


@dataclass(frozen=True)
class AlertRule(Keyed, by="name"):
    """Fires when `metric` stays above a threshold for `for_seconds`; resolves at `resolve` or below."""

    name: str
    metric: str
    above: float
    for_seconds: float = 0.0
    resolve: float | None = None  # hysteresis; the threshold itself when None
    endpoint: str = ""
    summary: str = ""


@dataclass(frozen=True)
class Slo(Keyed, by="name"):
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
class Request:
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
class Crowd(Keyed, by="run"):
    """Customers who are in the shop: who sent them, and until when; rates in requests per second."""

    run: str
    who: str
    since: float
    until: float
    rate: float  # on the mean
    peak: float
    pid: int
    created: str

    def told(self, now: float) -> str:
        """In words; `now` is the lab's time."""
        rate = f"{self.rate:.0f} requests/s" + (f", at most {self.peak:.0f}" if self.peak > self.rate else "")
        left, ago = max(self.until - now, 0.0), now - self.since
        return f"run {self.run} of {self.who or 'somebody'}: {rate}; here for {ago:.0f} s, {left:.0f} s to go"


@dataclass(frozen=True)
class LoadSummary(Keyed, by="run"):
    """What a load run measured, of scheduled arrivals; latencies in seconds."""

    run: str
    requests: int  # that were sent
    failed: int
    seconds: float
    rate: float
    p50: float
    p95: float
    p99: float
    not_sent: int = 0  # due, but the customers' own limit was reached; in no other figure
    orders_accepted: int = 0
    orders_lost: int = 0
    orders_doubled: int = 0
    orders_retried: int = 0
    orders_wrong: int = 0  # their total is not what the menu says
    by_endpoint: dict[str, dict[str, float]] = field(default_factory=dict)
    by_release: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class EndpointRow:
    """One endpoint over a window; percentiles are as exact as the shop's buckets."""

    endpoint: str
    requests_per_second: float
    errors_per_second: float
    error_ratio: float
    p50_ms: float | None  # None: not measured in the window
    p95_ms: float | None
    p99_ms: float | None


@dataclass(frozen=True)
class EndpointFigures:
    """What customers measured at one endpoint, of one release or ("") of all; in seconds."""

    endpoint: str
    release: str
    requests: int
    failed: int
    rate: float
    p50: float
    p95: float
    p99: float
    first_seen: float


@dataclass(frozen=True)
class PostMortem(Keyed, by="drill"):
    """A draft: its place in the lab, its text in Markdown, and the backlog item that it asks for."""

    drill: int
    path: str
    text: str
    item: str


def percentile(values: Collection[float], share: float) -> float:
    """The smallest value that `share` (0..1) of the values do not exceed (nearest rank); 0 for none."""
    ordered = sorted(values)
    return ordered[max(0, -(-len(ordered) * round(share * 1000) // 1000) - 1)] if ordered else 0.0


def failed(outcome: Request) -> bool:
    """Whether a customer did not get what they asked for: no answer, an error, or a way out of the lab."""
    return not 200 <= outcome.status < 300
