"""How a run of the workbook went: kept as summary.json, told to a person, written into the book."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

Status = Literal["ok", "failed", "interrupted", "not run"]


@dataclass(frozen=True)
class NotebookResult:
    """How one notebook went; `slowest_cell` is (number among the code cells, seconds)."""

    name: str
    title: str = ""
    status: Status = "not run"
    seconds: float = 0.0
    cells: int = 0
    slowest_cell: tuple[int, float] = (0, 0.0)
    warnings: int = 0  # outputs on standard error
    error: str = ""
    figures: dict[str, Any] = field(default_factory=dict)  # measured, as recorded by events "figure.*"


@dataclass(frozen=True)
class Summary:
    """How a run went; kept as summary.json."""

    seconds: float
    engine: str
    pace: str
    out: str
    lab: str
    notebooks: list[NotebookResult]
    versions: dict[str, str]

    @property
    def interrupted(self) -> bool:
        return any(result.status == "interrupted" for result in self.notebooks)

    @property
    def ok(self) -> bool:
        return all(result.status == "ok" for result in self.notebooks)

    def text(self) -> str:
        """The run in a few lines, for a person."""
        failed = [f"\n{result.error}" for result in self.notebooks if result.error]
        done = sum(result.status == "ok" for result in self.notebooks)
        head = f"{done} of {len(self.notebooks)} notebooks ran in {self.seconds:.1f} s."
        return "\n".join([head, f"Report: {self.out}/index.html", *failed])
