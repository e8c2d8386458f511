"""Writes the outputs of a clean run back into the committed notebooks, without a trace of machine or time."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import nbformat

from devops_lab.errors import LabError
from devops_lab.platform import settings
from devops_lab.workbook.options import find_notebooks
from devops_lab.workbook.summary import Summary

VOLATILE = ("papermill", "widgets", "execution")


def save_outputs(summary: Summary) -> list[Path]:
    """Put the outputs of a run into the notebooks that it ran; all of them, or none.

    Raises:
        LabError: an output shows a path or name of this machine, or comes from standard error.
    """
    out = Path(summary.out)
    traces = machine_traces(Path(summary.lab))
    sources = {path.stem: path for path in find_notebooks()}
    ready: list[tuple[Path, Any]] = []
    for result in summary.notebooks:
        source = nbformat.read(sources[result.name], as_version=4)
        executed = nbformat.read(out / f"{result.name}.ipynb", as_version=4)
        ready.append((sources[result.name], merged(source, executed)))
        check(result.name, source, traces)
    for path, notebook in ready:
        nbformat.write(notebook, path)
    return [path for path, _ in ready]


def merged(source: Any, executed: Any) -> Any:
    """The source with the executed cells' outputs, found by cell id, and counts from 1."""
    outputs = {cell.id: cell.outputs for cell in executed.cells if cell.cell_type == "code"}
    for name in VOLATILE:
        source.metadata.pop(name, None)
    source.metadata.get("language_info", {}).pop("version", None)
    count = 0
    for cell in source.cells:
        for name in VOLATILE:
            cell.metadata.pop(name, None)
        if cell.cell_type == "code":
            count += bool(cell.source.strip())
            cell.execution_count = count if cell.source.strip() else None
            cell.outputs = outputs.get(cell.id, [])
            for output in cell.outputs:
                if output.output_type == "execute_result":
                    output.execution_count = count
    return source


def machine_traces(lab: Path) -> list[str]:
    """What must not appear in a committed output."""
    places = [lab, settings.project_root(), Path.home()]
    found = [str(place) for place in places if len(place.parts) > 1]
    name = socket.gethostname()
    return [*found, name] if len(name) > 4 and name != "localhost" else found


def check(name: str, notebook: Any, traces: list[str]) -> None:
    """Refuse outputs that tell of this machine, or that are warnings."""
    for number, cell in enumerate((c for c in notebook.cells if c.cell_type == "code"), 1):
        for output in cell.outputs:
            if output.output_type == "error" or output.get("name") == "stderr":
                problem = f"{output.output_type} {output.get('name', '')}: {output.get('text', '')[:300]}"
            else:
                said = str(output.get("text", "")) + str(output.get("data", ""))
                problem = next((f"it shows {trace!r}" for trace in traces if trace in said), "")
            if problem:
                raise LabError(
                    f"{name}, code cell {number}: {problem.strip()}",
                    expected="an output that any machine could have made",
                    next_step="Mend the cell or what it calls, then run again; nothing was written.",
                )
