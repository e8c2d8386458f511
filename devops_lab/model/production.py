"""Records of Deploy and Operate: what shall run, what runs, how it came there, and how it scales."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from devops_lab.model.delivery import Step
from devops_lab.model.lab import Keyed


@dataclass(frozen=True)
class Pool(Keyed, by="name"):
    """Desired state: so many replicas of one release, with a share of the traffic."""

    name: str
    release: str
    replicas: int
    weight: int  # 0 = takes no traffic
    env: dict[str, str] = field(default_factory=dict)


ReplicaState = Literal["starting", "healthy", "unhealthy", "draining", "dead"]


@dataclass(frozen=True)
class Replica(Keyed, by="id"):
    """Actual state: one running copy of the shop, as an engine reports it."""

    id: str
    pool: str
    release: str
    host: str
    port: int
    pid: int  # on this machine; 0 where its process can't be seen from here
    born: str = ""  # when its process started, so that a recycled pid is never mistaken for it
    state: ReplicaState = "starting"
    started: float = 0.0
    restarts: int = 0
    engine: str = "process"
    reason: str = ""  # why it is not healthy, or how it ended
    handle: str = ""  # what its engine calls it (container or task id); empty for a process
    node: str = ""  # the machine of a cluster that it runs on


@dataclass(frozen=True)
class Detour:
    """The way to one replica leads through a relay of this machine (an incident drill puts one there).

    Args:
        host, port: the replica's own address.
        via_port: the relay's, on this machine.
        pid, born: the relay's process; when it ends, the proxy goes straight again.
    """

    host: str
    port: int
    via_port: int
    pid: int
    born: str = ""

    @property
    def key(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Usage:
    cpu_percent: float  # of one core
    memory_bytes: int


DeploymentState = Literal["running", "done", "refused", "rolled back", "inconclusive", "interrupted"]


@dataclass(frozen=True)
class Deployment:
    """Who brought which version to production, from what, why, how, and how it ended."""

    id: int
    version: str
    previous: str
    strategy: str  # rolling, blue/green, canary, rollback, first
    who: str
    why: str
    state: DeploymentState
    started: float
    ended: float = 0.0
    steps: list[Step] = field(default_factory=list)
    error: str = ""
    owner_pid: int = 0
    env: dict[str, str] = field(default_factory=dict)  # the configuration that its replicas got

    @property
    def key(self) -> str:
        return f"{self.id:06d}"

    @property
    def seconds(self) -> float:
        return max(self.ended - self.started, 0.0)


@dataclass(frozen=True)
class Comparison:
    """One statistical test of a canary against the stable version."""

    what: str  # an endpoint (means in seconds), or "errors" (shares, 0..1)
    test: str
    canary: float
    stable: float
    canary_count: int
    stable_count: int
    p: float
    level: float  # p below it is hard to explain by chance
    bad: bool  # and the difference is large enough to be felt


CanaryVerdict = Literal["goes on", "worse", "inconclusive", "too little data"]  # the last: older labs'


@dataclass(frozen=True)
class Analysis:
    """What the canary analysis saw at one share of the traffic, and what it made of it."""

    deployment: int
    share: int  # percent
    t: float
    canary: str  # release, as stable
    stable: str
    verdict: CanaryVerdict
    checks: list[Comparison]

    @property
    def key(self) -> str:
        return f"{self.deployment:06d}-{self.share:02d}"


@dataclass(frozen=True)
class StepLimit:
    """At most so many replicas (Kubernetes: Pods), or percent of them, may come or go within a period."""

    kind: Literal["replicas", "percent"]
    value: float
    period_seconds: float = 15.0


@dataclass(frozen=True)
class Behaviour:
    """How fast the autoscaler may go in one direction (Kubernetes: spec.behavior)."""

    window_seconds: float = 0.0  # stabilisation: the most cautious recommendation of this time counts
    limits: tuple[StepLimit, ...] = (StepLimit("percent", 100),)
    select: Literal["max", "min", "disabled"] = "max"  # of several limits, the one that allows most or least


@dataclass(frozen=True)
class ScalingPolicy:
    """Autoscaling after the Kubernetes Horizontal Pod Autoscaler: desired = ceil(now * value / target).

    The defaults are Kubernetes' own, but for the window of a scale-in (300 s there): the lab's day is short.
    """

    metric: Literal["requests_per_second", "cpu_percent", "p95_ms"]
    target: float  # per replica
    min_replicas: int
    max_replicas: int
    tolerance: float = 0.1
    scale_out: Behaviour = Behaviour(limits=(StepLimit("replicas", 4), StepLimit("percent", 100)))
    scale_in: Behaviour = Behaviour(window_seconds=5.0)

    key = "policy"


@dataclass(frozen=True)
class Race:
    """One policy's day: what customers felt, and what it cost."""

    policy: str
    run: str
    started: float
    ended: float
    requests: int
    failed: int
    p95: float  # seconds, as p99
    p99: float
    most_replicas: int
    replica_seconds: float
    changes: int


@dataclass(frozen=True)
class Loops:
    """What an open and a closed loop measured on one server that froze once; seconds, ascending."""

    rate: float
    freeze_seconds: float
    open: list[float]
    closed: list[float]


@dataclass(frozen=True)
class Profile:
    """Where a live replica's time went, by py-spy's samples.

    Args:
        functions: share (0..1) of the samples in which a function was the one that ran.
        application: share in which a function of the shop's own code was the innermost such one.
        stacks: whole stacks, outermost first and joined by ";", with their number of samples.
        waiting: samples of threads that had nothing to do; they count in none of the others.
    """

    replica: str
    release: str
    t: float
    seconds: float
    samples: int
    functions: dict[str, float]
    application: dict[str, float]
    stacks: dict[str, int]
    waiting: int = 0

    @property
    def key(self) -> str:
        return f"{self.replica}@{self.t:.3f}"

    @property
    def cause(self) -> str:
        """The function of the shop that takes the most time; empty when none was seen."""
        return next(iter(self.application), "")
