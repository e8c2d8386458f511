"""Records of Plan: the backlog's items, what the review says to them, sprints and forecasts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from devops_lab.model.lab import Keyed


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
class Decision(Keyed, by="item"):
    """Advice taken or ignored, kept because it comes back in Operate."""

    item: str
    taken: bool
    who: str
    t: float
    advice: str


@dataclass(frozen=True)
class Sprint(Keyed, by="number"):
    number: int
    capacity: float
    items: list[str]
    effort: float
    value: float
    chosen_by: str  # "hand" or "wsjf"
    t: float


@dataclass(frozen=True)
class Forecast:
    """Monte Carlo forecast: sprints needed, by share of trials (0..1), from the team's own throughput."""

    trials: int
    throughput: list[int]  # finished items of each past sprint
    remaining: int
    sprints: dict[int, float]  # sprints needed -> share of trials
    p50: int
    p85: int


@dataclass(frozen=True)
class Service:
    """One thing that the platform offers to the developers, and how their code talks to it."""

    name: str
    summary: str
    use: str
    variable: str = ""  # of the environment, where it takes one
    example: str = ""
    path: str = ""  # of the shop's HTTP interface, where it can be seen at work
