"""One module a phase, the same word as its notebook and its test; each reads like its story."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from devops_lab.settings import Settings
from devops_lab.store import Store

if TYPE_CHECKING:
    from devops_lab.control import Control
    from devops_lab.engines.base import Engine


@dataclass(frozen=True)
class World:
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
        from devops_lab.engines import choose, chosen

        engine, choice = choose(self.root, self.settings), chosen(self.root, self.settings)
        if self.settings.engine == "auto" and not self.store.events(kind="engine.chosen", limit=1):
            text = f"{choice.engine}: {choice.why}"
            self.store.event("welcome", "engine.chosen", "lab", text, who="the lab", engine=choice.engine)
        return engine

    @cached_property
    def control(self) -> Control:
        """The line to this lab's agent."""
        from devops_lab.control import Control

        return Control(self.root)

    def relative(self, path: Path) -> str:
        """A path as records keep it: relative to the lab, with forward slashes."""
        return path.relative_to(self.root).as_posix()
