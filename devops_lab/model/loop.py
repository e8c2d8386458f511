"""Records of the whole loop: its phases, events, the pipeline's runs, and the learner's progress."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from devops_lab.model.kept import Kept
from devops_lab.model.making import Step

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


@dataclass(frozen=True)
class Progress(Kept, by="exercise"):
    """What a learner has done of one exercise."""

    exercise: str
    state: Literal["right", "not yet", "could not check"]
    seen: str
    t: float
    attempts: int = 1
    hints_used: int = 0
    prediction: str = ""
