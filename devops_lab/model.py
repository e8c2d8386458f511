"""The lab's records: frozen, typed, with units in their names, and no input or output.

Times are POSIX seconds (float). A record that the store keeps has a `key`, unique within its kind.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Phase = Literal[
    "plan", "code", "build", "test", "release", "deploy", "operate", "monitor", "repeat", "continuous"
]
PHASES: tuple[Phase, ...] = ("plan", "code", "build", "test", "release", "deploy", "operate", "monitor")


@dataclass(frozen=True)
class Event:
    """Something that happened: who did what to which subject, and why."""

    t: float
    phase: str
    kind: str  # e.g. "build.done", "deploy.started", "replica.died", "alert.firing"
    subject: str  # e.g. "release:1.1.0", "replica:r3", "commit:ab12cd3"
    message: str = ""
    who: str = ""
    why: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    id: int = 0


# ---- Plan
@dataclass(frozen=True)
class Need:
    """What a backlog item asks of the platform; limits are per replica where that makes sense."""

    service: str = ""
    memory_mb: float = 0
    cpu_millicores: float = 0
    storage_mb: float = 0
    log_mb_per_minute: float = 0
    replicas: int = 0


@dataclass(frozen=True)
class Alternative:
    title: str
    effort: float
    value: float
    needs: list[Need] = field(default_factory=list)
    change: str = ""


@dataclass(frozen=True)
class Item:
    """One backlog item; effort in story points, the three value figures on the same open scale."""

    id: str
    title: str
    kind: Literal["feature", "bug", "operations"]
    effort: float
    value: float
    story: str = ""
    time_criticality: float = 0
    risk_reduction: float = 0
    needs: list[Need] = field(default_factory=list)
    depends_on: list[str] = field(default_factory=list)
    alternatives: list[Alternative] = field(default_factory=list)
    change: str = ""
    risk: str = ""  # what operations fears, in words; empty when nothing
    status: Literal["ready", "done"] = "ready"
    done_on: str = ""  # ISO date
    sprint: int = 0
    evidence: list[str] = field(default_factory=list)  # subjects in the trail, e.g. "alert:memory"

    @property
    def wsjf(self) -> float:
        """Weighted shortest job first: cost of delay over effort (Reinertsen; SAFe)."""
        return (self.value + self.time_criticality + self.risk_reduction) / self.effort


@dataclass(frozen=True)
class Finding:
    """What the review of an item against the platform found, and what it proposes instead."""

    item: str
    problem: str
    severity: Literal["blocks", "risk"]
    proposal: str = ""
    alternative: int = -1  # index into the item's alternatives

    @property
    def key(self) -> str:
        return f"{self.item}:{self.severity}"


@dataclass(frozen=True)
class Decision:
    """Advice taken or ignored, kept because it comes back in Operate."""

    item: str
    taken: bool
    who: str
    t: float
    advice: str

    @property
    def key(self) -> str:
        return self.item


@dataclass(frozen=True)
class Sprint:
    number: int
    capacity: float
    items: list[str]
    effort: float
    value: float
    chosen_by: str  # "hand" or "wsjf"
    t: float

    @property
    def key(self) -> str:
        return str(self.number)


@dataclass(frozen=True)
class Forecast:
    """Monte Carlo forecast: sprints needed, by share of trials (0..1), from the team's own throughput."""

    trials: int
    throughput: list[int]  # finished items of each past sprint
    remaining: int
    sprints: dict[int, float]  # sprints needed -> share of trials
    p50: int
    p85: int


# ---- Code, Build, Test, Release
@dataclass(frozen=True)
class Commit:
    id: str
    subject: str
    author: str
    t: float
    parents: list[str] = field(default_factory=list)

    @property
    def short(self) -> str:
        return self.id[:8]


@dataclass(frozen=True)
class Step:
    """One step of a build, a pipeline or a rollout, with what it took and what it said."""

    name: str
    seconds: float
    ok: bool = True
    started: float = 0.0
    bytes: int = 0
    output: str = ""


@dataclass(frozen=True)
class Artifact:
    """What a build made: a wheel with its content digest."""

    commit: str
    version: str
    path: str  # relative to the lab directory
    digest: str  # "sha256:…"
    bytes: int
    steps: list[Step]
    t: float
    scorer: str = "c"

    @property
    def key(self) -> str:
        return self.digest

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.steps)


@dataclass(frozen=True)
class Case:
    name: str
    suite: str  # unit, integration, contract
    outcome: Literal["passed", "failed", "error", "skipped"]
    seconds: float
    message: str = ""


@dataclass(frozen=True)
class TestReport:
    """One run of the shop's suite against one built artifact."""

    __test__ = False  # not a test class, whatever pytest thinks of its name

    commit: str
    digest: str
    cases: list[Case]
    coverage_percent: float
    seconds: float
    t: float
    gate: list[str] = field(default_factory=list)  # why the quality gate is closed; empty = open

    @property
    def key(self) -> str:
        return f"{self.digest}@{self.t:.3f}"

    @property
    def passed(self) -> bool:
        return not self.gate

    def count(self, outcome: str) -> int:
        return sum(c.outcome == outcome for c in self.cases)


@dataclass(frozen=True)
class Bug:
    """A planted bug in the caught/escaped matrix."""

    change: str
    caught: bool
    by: list[str]  # names of the cases that went red
    suites: list[str]


@dataclass(frozen=True)
class Release:
    """A version that production can reach: tag, artifact in the registry, digest, bill of materials."""

    version: str
    commit: str
    tag: str
    digest: str
    path: str  # wheel, relative to the lab directory
    bytes: int
    notes: str
    sbom: str  # relative path
    t: float

    @property
    def key(self) -> str:
        return self.version


# ---- Deploy, Operate, Monitor
@dataclass(frozen=True)
class Pool:
    """Desired state: so many replicas of one release, with a share of the traffic."""

    name: str
    release: str
    replicas: int
    weight: int  # 0 = takes no traffic
    env: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.name


ReplicaState = Literal["starting", "healthy", "unhealthy", "draining", "dead"]


@dataclass(frozen=True)
class Replica:
    """Actual state: one running copy of the shop, as an engine reports it."""

    id: str
    pool: str
    release: str
    host: str
    port: int
    pid: int
    created: float  # the process's own start time, so that a recycled pid is never mistaken for it
    state: ReplicaState = "starting"
    started: float = 0.0
    restarts: int = 0
    engine: str = "process"
    reason: str = ""  # why it is not healthy, or how it ended

    @property
    def key(self) -> str:
        return self.id


@dataclass(frozen=True)
class Usage:
    cpu_percent: float  # of one core
    memory_bytes: int
    disk_bytes: int = 0
    threads: int = 0


DeploymentState = Literal["running", "done", "refused", "rolled back", "interrupted"]


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

    @property
    def key(self) -> str:
        return f"{self.id:06d}"

    @property
    def seconds(self) -> float:
        return max(self.ended - self.started, 0.0)


@dataclass(frozen=True)
class ScalingPolicy:
    """Autoscaling after the Kubernetes Horizontal Pod Autoscaler: desired = ceil(now * value / target)."""

    metric: Literal["requests_per_second", "cpu_percent", "p95_ms"]
    target: float  # per replica
    min_replicas: int
    max_replicas: int
    tolerance: float = 0.1
    scale_in_seconds: float = 5.0  # stabilisation window

    key = "policy"


@dataclass(frozen=True)
class AlertRule:
    """Fires when `metric` stays above a threshold for `for_seconds`; resolves at `resolve` or below."""

    name: str
    metric: str
    above: float
    for_seconds: float = 0.0
    resolve: float | None = None  # hysteresis; the threshold itself when None
    endpoint: str = ""
    summary: str = ""

    @property
    def key(self) -> str:
        return self.name


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
class LoadSummary:
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
    by_endpoint: dict[str, dict[str, float]] = field(default_factory=dict)
    by_release: dict[str, int] = field(default_factory=dict)

    @property
    def key(self) -> str:
        return self.run


# ---- Continuous
PipelineMode = Literal["delivery", "integration", "deployment"]


@dataclass(frozen=True)
class PipelineRun:
    """One run of the pipeline: how far its mode goes, what each phase took, where it stopped and why."""

    id: int
    mode: PipelineMode
    commit: str
    who: str
    state: Literal["running", "done", "failed"]
    started: float
    steps: list[Step] = field(default_factory=list)  # one a phase; in deployment mode some overlap
    ended: float = 0.0
    stopped_at: str = ""  # the phase that ended it early; empty when it went as far as its mode goes
    cause: str = ""
    version: str = ""
    digest: str = ""
    lead_time_seconds: float = 0.0  # oldest new commit > the new version serves; 0 when it never did
    push_seconds: float = 0.0  # git push > the new version serves

    @property
    def key(self) -> str:
        return f"{self.id:06d}"

    @property
    def ok(self) -> bool:
        return self.state == "done"

    @property
    def seconds(self) -> float:
        return max(self.ended - self.started, 0.0)


# ---- Learning
@dataclass(frozen=True)
class Progress:
    """What a learner has done of one exercise."""

    exercise: str
    state: Literal["right", "not yet", "could not check"]
    seen: str
    t: float
    attempts: int = 1
    hints_used: int = 0
    prediction: str = ""

    @property
    def key(self) -> str:
        return self.exercise
