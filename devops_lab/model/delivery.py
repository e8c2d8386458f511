"""Records of Code, Build, Test and Release, and of the pipeline: from a commit to a release."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Literal

from devops_lab.model.lab import Keyed


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
class CommitGraph:
    """A repository's newest commits on all branches, with what points at them and what is half done.

    Args:
        commits: newest first; a commit never stands above one that comes from it.
        refs: "heads/main", "remotes/origin/main", "tags/v1.0.0", by the id of the commit that they point at.
        head: id of the commit that is checked out.
        branch: name of the branch that is checked out; "" for none.
        count: of all commits, whatever was asked for.
        under_way: the command of git that is half done ("merge", "rebase", …); "" for none.
        incoming: id of the commit that is being merged in.
        conflicts: files that both sides changed, not settled yet.
    """

    commits: list[Commit]
    refs: dict[str, list[str]]
    head: str
    branch: str
    count: int
    under_way: str = ""
    incoming: str = ""
    conflicts: list[str] = field(default_factory=list)


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
class Artifact(Keyed, by="digest"):
    """What a build made: a wheel with its content digest."""

    commit: str
    version: str
    path: str  # relative to the lab directory
    digest: str  # "sha256:…"
    bytes: int
    steps: list[Step]
    t: float
    scorer: str = "c"
    lock: str = ""  # digest of what is to be installed beside it

    @property
    def seconds(self) -> float:
        return sum(s.seconds for s in self.steps)

    @property
    def files(self) -> dict[str, str]:
        """What a build made, by name, with its digests."""
        wheel = PurePath(self.path)
        return {wheel.name: self.digest} | ({wheel.with_suffix(".lock").name: self.lock} if self.lock else {})


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
    coverage: dict[str, float] = field(default_factory=dict)  # percent of each file of the shop

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
class Release(Keyed, by="version"):
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
    files: dict[str, str] = field(default_factory=dict)  # all beside this record, by name: digests
    tag_object: str = ""  # git's id of the annotated tag, which its message and its commit decide


@dataclass(frozen=True)
class Layer:
    """One layer of an image: what made it, and what it adds."""

    made_by: str
    bytes: int
    digest: str = ""


@dataclass(frozen=True)
class Image(Keyed, by="id"):
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
    lock: str = ""  # digest of the lock whose packages are inside


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
