"""The guides: they run from top to bottom and leave nothing, and what they point to is there."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import psutil
import pytest

from devops_lab.platform import settings
from devops_lab.workbook import kernel, options, outputs
from tests.notebooks.test_anatomy import MACHINE

FOLDER = settings.project_root() / "notebooks/guides"
GUIDES = sorted(FOLDER.glob("*.ipynb"))
each = pytest.mark.parametrize("path", GUIDES, ids=lambda path: path.stem)


def words(path: Path) -> str:
    if path.suffix == ".md":
        return path.read_text("utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def test_they_are_no_part_of_the_workbook() -> None:
    assert [path.stem for path in GUIDES] == ["authors", "teachers"]
    assert not set(GUIDES) & set(options.find_notebooks())


@pytest.mark.notebook
@pytest.mark.timeout(600)
@each
def test_it_runs_from_top_to_bottom_and_leaves_nothing(path: Path, tmp_path: Path) -> None:
    out, ipython, folder = (tmp_path / name for name in ("out", "ipython", "class"))
    for one in (out, ipython, folder):
        one.mkdir()
    with kernel.one_ahead([path], out, ipython) as kernels:
        parameters = {"folder": str(folder)}
        kernel.execute(path, out / path.name, parameters, next(kernels), ipython, lambda _: None)
    outputs.check(path.stem, nbformat.read(out / path.name, as_version=4), [])
    assert not folder.exists()
    left = [
        p.pid for p in psutil.process_iter(["cmdline"]) if str(folder) in " ".join(p.info["cmdline"] or [])
    ]
    assert left == []


@each
def test_its_outputs_are_those_of_a_clean_run(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    outputs.check(path.stem, notebook, outputs.machine_traces(Path()))
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    said = "".join(cell.source + str(cell.get("outputs", "")) for cell in notebook.cells)
    assert not (found := MACHINE.search(said)), found


@pytest.mark.parametrize("path", [*GUIDES, FOLDER / "hub.md"], ids=lambda path: path.name)
def test_its_links_lead_somewhere(path: Path) -> None:
    links = re.findall(r"\]\(([^)\s]+)\)", words(path))
    assert links
    for target, _, anchor in (link.partition("#") for link in links if not link.startswith("https://")):
        there = path.parent / target if target else path
        assert there.exists(), target
        headings = re.findall(r"(?m)^#+ (.+)$", words(there)) if anchor else []
        assert not anchor or anchor in [re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings]


def test_the_readme_leads_to_them() -> None:
    readme = (FOLDER.parents[1] / "README.md").read_text("utf-8")
    assert [
        name
        for name in ("authors.ipynb", "teachers.ipynb", "hub.md")
        if f"notebooks/guides/{name}" not in readme
    ] == []
