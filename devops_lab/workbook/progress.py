"""What a run shows while it goes on: bars on a terminal, a line a notebook elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID


class Watcher:
    """Told what happens in a run; this one keeps quiet."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        return

    def begin(self, names: list[str]) -> None:
        """The run begins with these notebooks."""

    def notebook(self, name: str, cells: int) -> None:
        """A notebook with so many cells begins."""

    def cell(self, index: int) -> None:
        """The cell with this index, from 0, begins."""

    def done(self, name: str, status: str, seconds: float) -> None:
        """A notebook has ended."""


class Lines(Watcher):
    """A line for each notebook, on standard error."""

    def begin(self, names: list[str]) -> None:
        self.left = len(names)
        self.all = len(names)

    def done(self, name: str, status: str, seconds: float) -> None:
        self.left -= 1
        print(
            f"[{self.all - self.left}/{self.all}] {name:<14} {status:<6} {seconds:6.1f} s",
            file=sys.stderr,
            flush=True,
        )


class Bars(Watcher):
    """A bar for the notebooks and one for the cells of the present one."""

    def __enter__(self) -> Self:
        from rich.console import Console
        from rich.progress import Progress, TimeElapsedColumn

        console = Console(stderr=True)
        self.bars: Progress = Progress(*Progress.get_default_columns(), TimeElapsedColumn(), console=console)
        self.bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bars.stop()

    def begin(self, names: list[str]) -> None:
        self.notebooks: TaskID = self.bars.add_task("notebooks", total=len(names))
        self.cells: TaskID = self.bars.add_task("cells", total=None)

    def notebook(self, name: str, cells: int) -> None:
        self.bars.reset(self.cells, description=name, total=cells)

    def cell(self, index: int) -> None:
        self.bars.update(self.cells, completed=index)

    def done(self, name: str, status: str, seconds: float) -> None:
        self.bars.advance(self.notebooks)
        self.bars.console.print(f"{name:<14} {status:<6} {seconds:6.1f} s", highlight=False)


def for_this_terminal() -> Watcher:
    """Bars where standard error is a terminal, else lines."""
    return Bars() if sys.stderr.isatty() else Lines()
