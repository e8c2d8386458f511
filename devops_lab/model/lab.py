"""Records of the lab as a whole: its phases, events, checks, and the learner's progress."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal


class Keyed:
    """A record that the store keeps under a key, unique within its kind: the field that `by` names."""

    _by = ""

    def __init_subclass__(cls, by: str = "", **more: Any) -> None:
        super().__init_subclass__(**more)
        cls._by = by

    @property
    def key(self) -> str:
        return str(getattr(self, self._by))


Phase = Literal[
    "plan", "code", "build", "test", "release", "deploy", "operate", "monitor", "repeat", "continuous"
]
PHASES: tuple[Phase, ...] = ("plan", "code", "build", "test", "release", "deploy", "operate", "monitor")


# What may happen in a lab, each kind once. Rollouts, alerts and drills act on what others recorded, so the
# type checker holds each word against this list, wherever one is recorded, asked for or compared.
EventKind = Literal[
    "agent.clock", "agent.error", "agent.gap", "agent.restarted", "alert.firing", "alert.resolved",
    "alert.stale", "autoscaler.blind", "build.done", "build.failed", "build.started",
    "cluster.unreachable", "code.committed", "code.merged", "complaint", "deploy.done",
    "deploy.refused", "deploy.started", "deploy.step", "drill.diagnosed", "drill.ended",
    "drill.postmortem", "drill.started", "engine.chosen", "envoy.restarted", "envoy.started",
    "exercise.checked", "exercise.said", "exercise.skipped", "exercise.started", "image.built",
    "lab.asleep", "lab.awake", "lab.copied", "lab.founded", "lab.leftovers", "lab.moved",
    "lab.restored", "load.done", "load.gap", "load.started", "log.truncated", "monitor.rules",
    "node.back", "node.down", "notify.failed", "notify.inbox", "operate.autoscale",
    "operate.configured", "operate.scaled", "pipeline.done",
    "pipeline.failed", "pipeline.started", "plan.added", "plan.chosen", "plan.decided", "plan.finished",
    "plan.removed", "pool.rolled_back", "process.ended", "profile.done", "release.done",
    "release.non_step", "release.refused", "repeat.closed", "replica.crash_loop", "replica.died",
    "replica.draining", "replica.failed", "replica.healthy", "replica.hung", "replica.reinstalled",
    "replica.replaced", "replica.started", "replica.stopped", "replica.unhealthy", "rollback.done",
    "story.caught_up", "test.done", "test.planted"
]  # fmt: skip
EventPattern = Literal["alert.*", "build.*", "figure.*", "replica.*"]


@dataclass(frozen=True)
class Event:
    """Something that happened: who did what to which subject, and why."""

    t: float
    phase: str
    kind: EventKind
    subject: str  # e.g. "release:1.1.0", "replica:r3", "commit:ab12cd3"
    message: str = ""
    who: str = ""
    why: str = ""
    data: dict[str, Any] = field(default_factory=dict)
    id: int = 0


@dataclass(frozen=True)
class Progress(Keyed, by="exercise"):
    """What a learner has done of one exercise.

    Args:
        state: "told" = a prediction that met the truth; "skipped" = the lab did it.
        attempts: checks; `tries` are those of them that count as honest ones.
        first: what the first check said; "" before it, and in records of earlier versions.
        shown: the solution was looked at.
    """

    exercise: str
    state: Literal["right", "not yet", "could not check", "told", "skipped"]
    seen: str
    t: float
    attempts: int = 1
    hints_used: int = 0
    prediction: str = ""
    first: str = ""
    tries: int = 0
    shown: bool = False


@dataclass(frozen=True)
class Prediction(Keyed, by="id"):
    """What a learner was asked to say before a run, what was said, and what was measured then.

    Args:
        options: of a choice, or the things to bring into order.
        answer, truth: None until kept, and measured: a number in `unit`, one option, or all in order.
        answered, met: POSIX seconds; a truth that was met is shown, and closes the question.
    """

    id: str
    kind: Literal["number", "choice", "order"]
    question: str
    unit: str = ""
    options: list[str] = field(default_factory=list)
    answer: float | str | list[str] | None = None
    answered: float = 0.0
    truth: float | str | list[str] | None = None
    met: float = 0.0

    @property
    def ratio(self) -> float:
        """Guess to truth of a number: 1 is exact, 0 and infinity where one of them is none."""
        if not isinstance(self.answer, float) or not isinstance(self.truth, float):
            return math.nan
        if self.answer == self.truth:
            return 1.0
        if self.truth <= 0:
            return math.inf if self.answer > self.truth else 0.0
        return max(self.answer / self.truth, 0.0)

    @property
    def right(self) -> bool:
        """A choice or an order as it came, or a number within a factor of two."""
        return 0.5 <= self.ratio <= 2 if self.kind == "number" else self.answer == self.truth


@dataclass(frozen=True)
class Check:
    """One thing that was looked for, on this machine or in a change.

    Args:
        ok: None where it can't be told, or is missing and only makes something better.
        detail: what was found.
        what_to_do: empty when all is well.
    """

    name: str
    ok: bool | None
    detail: str
    what_to_do: str = ""


@dataclass(frozen=True)
class Command:
    """Something that was run outside of Python, or a line of shell that does what Python did itself.

    Args:
        args: the program and its arguments; an engine's method and path; the words of a note.
        folder: where it ran; absolute, or empty where that does not matter.
        t: when it began, seconds of the machine's steady clock.
        seconds: how long it took; 0 for what was too quick to be measured.
        exit_code: None where it was left running, or did not come to its end; an engine's HTTP status.
        environment: what was set for it and decides what comes out; never all of it, and no secret.
        by: a program that was run, Python itself, an engine that was called, or words alone.
        looks: whether it changed nothing.
        text: what it read from its standard input.
        given: the command whose output it read, `given | args`.
        passed: the command that read its output, `args | passed`.
        log: the file that it wrote its output to.
        pid: the process that was left running.
        cell: of the notebook; 0 outside of one.
        who: the process that ran it: "" for the one that asks, else "pipeline" or "agent".
    """

    args: list[str]
    folder: str
    t: float
    seconds: float = 0.0
    exit_code: int | None = 0
    environment: dict[str, str] = field(default_factory=dict)
    by: Literal["program", "python", "engine", "note"] = "program"
    looks: bool = False
    text: str = ""
    given: list[str] = field(default_factory=list)
    passed: list[str] = field(default_factory=list)
    log: str = ""
    pid: int = 0
    cell: int = 0
    who: str = ""
