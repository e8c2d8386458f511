"""All notebooks run from end to end by papermill; one run, read by several tests."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import pytest

from devops_lab.exercises import catalogue
from devops_lab.exercises.inlab import source
from devops_lab.model import Progress
from devops_lab.platform import settings
from devops_lab.platform.store import Store
from devops_lab.workbook import run as workbook
from tests.notebooks.conftest import NOTEBOOKS

if TYPE_CHECKING:
    from tests.notebooks.conftest import WholeRun

pytestmark = [pytest.mark.notebook, pytest.mark.timeout(1200)]


def test_every_notebook_runs(whole_run: WholeRun) -> None:
    assert whole_run.summary.ok, whole_run.summary.text()
    assert len(whole_run.summary.notebooks) == 11


def test_no_warning_is_on_a_page(whole_run: WholeRun) -> None:
    noisy = []
    for result in whole_run.summary.notebooks:
        notebook = nbformat.read(whole_run.out / f"{result.name}.ipynb", as_version=4)
        outputs = [o for c in notebook.cells if c.cell_type == "code" for o in c.outputs]
        noisy += [(result.name, o.text) for o in outputs if o.get("name") == "stderr"]
        noisy += [(result.name, o.text) for o in outputs if "Warning:" in o.get("text", "")]
    assert noisy == []


def test_no_widget_is_saved(whole_run: WholeRun) -> None:
    for path in whole_run.out.glob("*.ipynb"):
        text = path.read_text("utf-8")
        assert "jupyter.widget" not in text, path.name


def test_the_report_is_complete(whole_run: WholeRun) -> None:
    report = json.loads((whole_run.out / "summary.json").read_text("utf-8"))
    assert report["ok"] is True
    assert {r["name"] for r in report["notebooks"]} == {p.stem for p in whole_run.out.glob("*.ipynb")}
    for result in report["notebooks"]:
        assert result["seconds"] > 0
        assert result["cells"] > 3
        assert (whole_run.out / f"{result['name']}.html").stat().st_size > 10_000


def test_no_exercise_is_passed_by_running_its_notebook(whole_run: WholeRun) -> None:
    states = {p.exercise: p.state for p in whole_run.progress}
    assert set(catalogue()) <= set(states)
    assert [name for name, state in states.items() if state == "right"] == []


def test_every_notebook_ends_well_with_the_solutions_in_it(
    whole_run: WholeRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second time in one lab, and each exercise solved where the reader would solve it."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    for path in NOTEBOOKS:
        nbformat.write(with_solutions(path), folder / path.name)
    monkeypatch.setattr(settings, "project_root", lambda: tmp_path)
    summary = workbook.run_workbook(lab=whole_run.lab, out=tmp_path / "out")
    assert summary.ok, summary.text()
    store = Store(whole_run.lab / "lab.db")
    states = {each.exercise: (each.state, each.seen) for each in store.all(Progress)}
    store.close()
    assert {name: states[name] for name in catalogue() if states[name][0] != "right"} == {}


def with_solutions(path: Path) -> nbformat.NotebookNode:
    """A notebook with the reference solution in each of the reader's cells."""
    notebook, name = nbformat.read(path, as_version=4), ""
    for cell in notebook.cells:
        if found := re.fullmatch(r'exercise\(lab, "([\w-]+)"\)', cell.source):
            name = found[1]
        elif name and cell.source.startswith("# Your turn"):
            cell.source = source(catalogue()[name])
            name = ""
    assert not name, f"{path.name} has no cell for {name}"
    return notebook  # type: ignore[no-any-return]


def test_no_check_failed_by_itself(whole_run: WholeRun) -> None:
    assert [p.seen for p in whole_run.progress if "The check itself failed" in p.seen] == []
