"""The committed notebooks, and one whole run of them that several tests read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from devops_lab import workbook
from devops_lab.lab import clean
from devops_lab.model import Progress
from devops_lab.store import Store
from devops_lab.workbook import Summary

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]-*.ipynb"))


@dataclass(frozen=True)
class WholeRun:
    summary: Summary
    out: Path
    progress: list[Progress]  # of the lab, at the end of the run


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeRun]:
    """All notebooks by papermill, in one lab, at the quick pace."""
    if not NOTEBOOKS:
        pytest.skip("there are no notebooks yet")
    folder = tmp_path_factory.mktemp("run")
    try:
        summary = workbook.run_workbook(lab=folder / "lab", out=folder / "out")
        store = Store(folder / "lab/lab.db")
        progress = store.all(Progress)
        store.close()
        yield WholeRun(summary, folder / "out", progress)
    finally:
        if (folder / "lab/lab.toml").exists():
            clean(folder / "lab")
