"""The committed notebooks, and one whole run of them that several tests read."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from devops_lab.lab import clean
from devops_lab.model import Progress
from devops_lab.platform.store import Store
from devops_lab.workbook import run as workbook
from devops_lab.workbook.summary import Summary

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]-*.ipynb"))


@dataclass(frozen=True)
class WholeRun:
    summary: Summary
    out: Path
    progress: list[Progress]  # of the lab, at the end of the run
    lab: Path


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WholeRun]:
    """All notebooks by papermill, in one lab, at the quick pace.

    `DEVOPS_LAB_EXECUTED` names a folder whose `lab` and `out` come from such a run. It is read instead; its
    lab is used up, so that whoever asks a second time gets a run of his own.
    """
    if not NOTEBOOKS:
        pytest.skip("there are no notebooks yet")
    folder = Path(os.environ.get("DEVOPS_LAB_EXECUTED", ""))
    executed = (folder / "lab/lab.toml").is_file()
    if not executed:
        folder = tmp_path_factory.mktemp("run")
    try:
        if executed:
            summary = msgspec.json.decode((folder / "out/summary.json").read_bytes(), type=Summary)
        else:
            summary = workbook.run_workbook(lab=folder / "lab", out=folder / "out")
        store = Store(folder / "lab/lab.db")
        progress = store.all(Progress)
        store.close()
        yield WholeRun(summary, folder / "out", progress, folder / "lab")
    finally:
        if (folder / "lab/lab.toml").exists():
            clean(folder / "lab")
