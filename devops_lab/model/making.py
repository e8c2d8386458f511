"""Records of Code, Build, Test and Release: from a commit to an artifact that production can reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from devops_lab.model.kept import Kept


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
class Artifact(Kept, by="digest"):
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
class Release(Kept, by="version"):
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
    image: str = ""  # digest of the container image around that wheel; empty where none was pushed


@dataclass(frozen=True)
class Layer:
    """One layer of an image: what made it, and what it adds."""

    made_by: str
    bytes: int
    digest: str = ""


@dataclass(frozen=True)
class Image(Kept, by="id"):
    """A container image around a wheel."""

    id: str  # "sha256:…" of its configuration, as the engine that built it names it
    version: str
    wheel: str  # digest of the wheel inside
    bytes: int
    layers: list[Layer]
    steps: list[Step]  # of its Dockerfile; `output` says "cached" where nothing had to be done
    seconds: float
    t: float
    digest: str = ""  # of its manifest in the registry, once it was pushed
