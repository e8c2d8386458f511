"""All notebooks run from end to end by papermill; one run, read by several tests."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import nbformat
import pytest

from devops_lab.exercises import catalogue

if TYPE_CHECKING:
    from tests.notebooks.conftest import WholeRun

pytestmark = [pytest.mark.alone, pytest.mark.notebook, pytest.mark.timeout(900)]


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


def test_no_check_failed_by_itself(whole_run: WholeRun) -> None:
    assert [p.seen for p in whole_run.progress if "The check itself failed" in p.seen] == []
