"""What every phase works on: one lab's directory, settings and store; and the right to change production."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from devops_lab.errors import DeployRefused, TimedOut
from devops_lab.model import Deployment
from devops_lab.platform import locks
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.platform.waits import until

if TYPE_CHECKING:
    from devops_lab.platform.control import Control
    from devops_lab.platform.engines.base import Engine


@dataclass(frozen=True)
class LabContext:
    """What every phase works on: one lab's directory, settings and store.

    Args:
        root: the lab directory.
        settings: its validated configuration.
        store: its memory.
    """

    root: Path
    settings: Settings
    store: Store

    @property
    def shop(self) -> Path:
        """The learner's working clone of the shop's repository."""
        return self.root / "shop"

    @property
    def origin(self) -> Path:
        """The bare repository that everybody pushes to."""
        return self.root / "origin.git"

    @property
    def registry(self) -> Path:
        return self.root / "registry"

    @property
    def production(self) -> Path:
        return self.root / "production"

    @property
    def work(self) -> Path:
        """Scratch space of builds and tests; may be removed at any time."""
        return self.root / "work"

    @cached_property
    def engine(self) -> Engine:
        from devops_lab.platform.engines import choose, chosen

        engine, choice = choose(self.root, self.settings), chosen(self.root, self.settings)
        if self.settings.engine == "auto" and not self.store.events(kind="engine.chosen", limit=1):
            text = f"{choice.engine}: {choice.why}"
            self.store.event("welcome", "engine.chosen", "lab", text, who="the lab", engine=choice.engine)
        return engine

    @cached_property
    def control(self) -> Control:
        """The line to this lab's agent."""
        from devops_lab.platform.control import Control

        return Control(self.root)

    def relative(self, path: Path) -> str:
        """A path as records keep it: relative to the lab, with forward slashes."""
        return path.relative_to(self.root).as_posix()


# ---- the right to change production's pools: one rollout, or the autoscaler, at a time
@contextmanager
def try_exclusive(world: LabContext) -> Iterator[bool]:
    """Hold the right to change production's pools, at most as long as this process lives; False: taken."""
    with ExitStack() as stack:
        free = False
        with suppress(BlockingIOError):
            stack.enter_context(locks.held(world.root / "run" / "deploy.lock", wait=False))
            free = True
        yield free


@contextmanager
def exclusive(world: LabContext) -> Iterator[None]:
    """Like `try_exclusive`, for people: waits a moment for the autoscaler, and refuses when a rollout runs.

    Raises:
        DeployRefused: another deployment changes production right now.
    """
    with ExitStack() as stack:
        try:
            until(
                lambda: stack.enter_context(try_exclusive(world)),
                "the right to change production",
                seconds=1.0,
            )
        except TimedOut as error:
            last = world.store.last(Deployment)
            which = f": deployment {last.id}, {last.version}, by {last.who}" if last else ""
            raise DeployRefused(
                f"Somebody else changes production right now{which}.",
                expected="one change at a time",
                next_step="Wait until it has ended, then try again.",
            ) from error
        yield
