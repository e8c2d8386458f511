"""One tree of errors: each says what was wrong, what was expected, and what to do next."""

from __future__ import annotations

import errno


class LabError(Exception):
    """The root of every error that the lab raises on purpose.

    Args:
        wrong: what was found, with names and numbers.
        expected: what would have been right.
        next_step: what the reader can do now.
    """

    def __init__(self, wrong: str, *, expected: str = "", next_step: str = "") -> None:
        self.wrong = wrong
        self.expected = expected
        self.next_step = next_step
        super().__init__(str(self))

    def __str__(self) -> str:
        parts = [self.wrong.rstrip()]
        if self.expected:
            parts.append(f"Expected: {self.expected}")
        if self.next_step:
            parts.append(f"What to do: {self.next_step}")
        return "\n".join(parts)

    def __reduce__(self) -> tuple[object, ...]:
        # Keyword arguments are not kept by Exception's own pickling, and errors cross process borders here.
        return (_rebuild, (type(self), self.wrong, self.expected, self.next_step))


def _rebuild(kind: type[LabError], wrong: str, expected: str, next_step: str) -> LabError:
    return kind(wrong, expected=expected, next_step=next_step)


class BadInput(LabError):
    """A value from the reader (engine, pace, name, version, file) that the lab can't use."""


class NotALab(LabError):
    """The directory is not a lab, or its format is newer than this package."""


class Damaged(LabError):
    """A file or record of the lab is not what was written there; the message names it, and the field."""


class LabInUse(LabError):
    """Another run holds this lab."""


class MissingTool(LabError):
    """A program that the step needs (git, a C compiler, Envoy) is not on this machine."""


class DiskFull(LabError):
    """Too little free space to go on safely."""

    def __init__(self, wrong: str, *, expected: str = "some free megabytes", next_step: str = "") -> None:
        step = next_step or "Free some space (`devops-lab clean` removes a lab), then try again."
        super().__init__(wrong, expected=expected, next_step=step)


def is_full(error: BaseException) -> bool:
    """Whether something could not be written because there is no room, or no more is allowed."""
    numbers = (errno.ENOSPC, errno.EDQUOT)
    return isinstance(error, DiskFull) or (isinstance(error, OSError) and error.errno in numbers)


class PortTaken(LabError):
    """A port that was asked for by number is in use."""


class BuildFailed(LabError):
    """A build step failed; the message carries the compiler's own words and the line."""


class ChecksFailed(LabError):
    """The quality gate is closed: tests failed or coverage is below its bar."""


class RegistryRefused(LabError):
    """The registry would not take, or would not give, an artifact."""


class DeployRefused(LabError):
    """A deployment was stopped before or while it took traffic; the old release stays."""


class Inconclusive(DeployRefused):
    """A deployment was stopped because too little was seen to tell whether it is good; the old one stays."""


class AgentDown(LabError):
    """The lab's agent does not answer."""


class EngineUnavailable(LabError):
    """The engine that was asked for can't be used on this machine."""


class TimedOut(LabError):
    """A deadline passed; the message carries the last state that was seen."""
