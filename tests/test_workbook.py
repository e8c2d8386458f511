"""The run of the workbook, on small notebooks of its own: selection, report, failures, what is saved back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import nbformat
import psutil
import pytest

from devops_lab import lab as labs
from devops_lab.errors import BadInput, EngineUnavailable, LabError, LabInUse, NotALab
from devops_lab.lab import Lab
from devops_lab.platform import settings
from devops_lab.platform.store import Store
from devops_lab.workbook import options, outputs
from devops_lab.workbook import run as workbook
from tests.patience import until

PARAMETERS = 'lab_dir = None\nengine = "process"\npace = "quick"\nview = "auto"\nrate = 5'


def write_notebook(path: Path, *cells: str) -> None:
    """A notebook with a title, a parameters cell and some code cells."""
    new = nbformat.v4
    parameters = new.new_code_cell(PARAMETERS, id="parameters", metadata={"tags": ["parameters"]})
    code = [new.new_code_cell(text, id=f"code-{number}") for number, text in enumerate(cells, 1)]
    title = new.new_markdown_cell(f"# {path.stem} · a *title*", id="title")
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells_ = [title, parameters, *code]
    nbformat.write(new.new_notebook(cells=cells_, metadata={"kernelspec": kernel}), path)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with two small notebooks."""
    root = tmp_path / "a próject"
    (root / "notebooks").mkdir(parents=True)
    write_notebook(root / "notebooks/00-welcome.ipynb", "import sys", "print(view, engine, rate)\n1 + 1")
    opened = "from devops_lab import Lab\nlab = Lab.open(lab_dir)"
    noted = 'e = lab.store.event("learning", "figure.answer", "lab", value=42)'
    write_notebook(root / "notebooks/01-plan.ipynb", opened, noted)
    monkeypatch.setattr(settings, "project_root", lambda: root)
    return root


def outputs_of(path: Path) -> str:
    return json.dumps([c.get("outputs") for c in nbformat.read(path, as_version=4).cells])


@pytest.fixture
def no_labs_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A temporary folder of its own for the run's labs; checked to be empty afterwards by the test."""
    folder = tmp_path / "t"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    return folder


def test_a_run_executes_all_and_reports(project: Path, no_labs_left: Path, tmp_path: Path) -> None:
    summary = workbook.run_workbook(out=tmp_path / "out", parameters={"rate": 7})
    assert summary.ok
    assert [(r.name, r.status, r.warnings) for r in summary.notebooks] == [
        ("00-welcome", "ok", 0),
        ("01-plan", "ok", 0),
    ]
    assert "static process 7" in outputs_of(tmp_path / "out/00-welcome.ipynb")
    report = json.loads((tmp_path / "out/summary.json").read_text("utf-8"))
    assert report["ok"] is True
    assert report["notebooks"][1]["figures"] == {"answer": 42}
    assert report["notebooks"][1]["cells"] == 3
    assert "papermill" in report["versions"]
    assert list(no_labs_left.iterdir()) == []


def test_the_book_has_pages_with_navigation_and_needs_no_network(
    project: Path, no_labs_left: Path, tmp_path: Path
) -> None:
    path = project / "notebooks/01-plan.ipynb"
    notebook = nbformat.read(path, as_version=4)
    links = "[before](00-welcome.ipynb#top) [elsewhere](99-other.ipynb)"
    notebook.cells.append(nbformat.v4.new_markdown_cell(links, id="links"))
    nbformat.write(notebook, path)
    workbook.run_workbook(out=tmp_path / "out")
    second = (tmp_path / "out/01-plan.html").read_text("utf-8")
    assert 'href="00-welcome.html#top"' in second
    assert 'href="99-other.ipynb"' in second
    index = (tmp_path / "out/index.html").read_text("utf-8")
    assert 'href="00-welcome.html"' in index
    page = (tmp_path / "out/00-welcome.html").read_text("utf-8")
    assert 'href="01-plan.html" rel="next"' in page
    assert "static process 5" in page
    for fetched in ('src="http', "import('http", "cdnjs", "<link", "@import"):
        assert fetched not in page + index


def test_a_failing_cell_stops_the_run_and_is_named(project: Path, no_labs_left: Path, tmp_path: Path) -> None:
    write_notebook(
        project / "notebooks/00-welcome.ipynb",
        "from devops_lab.errors import BadInput",
        'raise BadInput("Such a version is not there.", next_step="Choose another.")',
    )
    summary = workbook.run_workbook(out=tmp_path / "out")
    assert not summary.ok
    assert [r.status for r in summary.notebooks] == ["failed", "not run"]
    for part in ("00-welcome, code cell 3: BadInput: Such a version", "What to do: Choose another."):
        assert part in summary.notebooks[0].error
        assert part in summary.text()
    assert (tmp_path / "out/00-welcome.html").exists()
    assert list(no_labs_left.iterdir()) == []


@pytest.mark.parametrize("name", ["01", "1", "plan", "01-plan", "01-plan.ipynb"])
def test_a_notebook_has_several_names(project: Path, name: str) -> None:
    notebooks = options.find_notebooks()
    assert [p.stem for p in options.choose(notebooks, [name], "")] == ["01-plan"]
    assert [p.stem for p in options.choose(notebooks, [], name)] == ["01-plan"]


def test_an_unknown_notebook_is_refused_with_the_nearest(project: Path) -> None:
    with pytest.raises(BadInput, match="01-plan"):
        workbook.run_workbook(only=["plann"])
    with pytest.raises(BadInput, match="None of"):
        workbook.run_workbook(only=["00"], first="01")
    assert not (project / "out").exists()


def test_an_unknown_parameter_engine_or_pace_is_refused(project: Path, no_labs_left: Path) -> None:
    with pytest.raises(BadInput, match=r"(?s)ratee.*rate"):
        workbook.run_workbook(parameters={"ratee": 1})
    with pytest.raises(BadInput, match="slow"):
        workbook.run_workbook(pace="slow")
    with pytest.raises(BadInput, match="podman"):
        workbook.run_workbook(engine="podman")
    assert list(no_labs_left.iterdir()) == []


def test_parameters_are_python_values_or_texts() -> None:
    assert options.parse_parameters(["a=5", "b=[1, 2]", "c=v1.0.0", "d="]) == {
        "a": 5,
        "b": [1, 2],
        "c": "v1.0.0",
        "d": "",
    }
    with pytest.raises(BadInput, match="NAME=VALUE"):
        options.parse_parameters(["rate"])


def test_an_engine_that_is_not_there_leaves_nothing(
    project: Path, no_labs_left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(EngineUnavailable):
        workbook.run_workbook(engine="swarm", out=tmp_path / "out")
    assert list(no_labs_left.iterdir()) == []


def test_a_folder_with_other_things_is_no_place_for_a_report(project: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/thesis.txt").write_text("precious")
    with pytest.raises(BadInput, match="holds something else"):
        workbook.run_workbook(out=tmp_path / "out")
    assert (tmp_path / "out/thesis.txt").exists()


def test_a_named_lab_is_kept(project: Path, tmp_path: Path) -> None:
    summary = workbook.run_workbook(only=["plan"], lab=tmp_path / "lab", out=tmp_path / "out")
    assert summary.ok
    assert settings.read(tmp_path / "lab").engine == "process"
    assert summary.lab == str(tmp_path / "lab")
    labs.clean(tmp_path / "lab")


def test_a_lab_in_use_and_a_folder_that_is_no_lab_are_refused(project: Path, tmp_path: Path) -> None:
    with Lab.open(tmp_path / "lab") as lab, pytest.raises(LabInUse, match="in use"):
        workbook.run_workbook(lab=lab.root, out=tmp_path / "out")
    with pytest.raises(NotALab):
        workbook.run_workbook(lab=project, out=tmp_path / "out")
    labs.clean(tmp_path / "lab")


def test_the_kernel_is_this_python_whatever_else_is_installed(
    project: Path, no_labs_left: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "jupyter/kernels/python3"
    other.mkdir(parents=True)
    spec = {"argv": ["/bin/false", "{connection_file}"], "display_name": "another", "language": "python"}
    (other / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    write_notebook(project / "notebooks/00-welcome.ipynb", "import sys\nprint(sys.executable)")
    assert workbook.run_workbook(only=["00"], out=tmp_path / "out").ok
    assert sys.executable in outputs_of(tmp_path / "out/00-welcome.ipynb")


def test_saved_outputs_are_clean_and_counted(project: Path, no_labs_left: Path, tmp_path: Path) -> None:
    summary = workbook.run_workbook(out=tmp_path / "out")
    outputs.save_outputs(summary)
    notebook = nbformat.read(project / "notebooks/00-welcome.ipynb", as_version=4)
    code = [c for c in notebook.cells if c.cell_type == "code"]
    assert [c.execution_count for c in code] == [1, 2, 3]
    assert [o.get("text") or o["data"]["text/plain"] for o in code[2].outputs] == ["static process 5\n", "2"]
    assert code[2].outputs[1].execution_count == 3
    whole = json.dumps(notebook)
    assert "papermill" not in whole
    assert "injected" not in whole
    outputs.save_outputs(workbook.run_workbook(out=tmp_path / "again"))
    assert nbformat.read(project / "notebooks/00-welcome.ipynb", as_version=4) == notebook


def test_outputs_that_tell_of_the_machine_are_not_saved(
    project: Path, no_labs_left: Path, tmp_path: Path
) -> None:
    write_notebook(project / "notebooks/01-plan.ipynb", "print(lab_dir)")
    before = (project / "notebooks/00-welcome.ipynb").read_bytes()
    summary = workbook.run_workbook(out=tmp_path / "out")
    with pytest.raises(LabError, match="01-plan, code cell 2: it shows"):
        outputs.save_outputs(summary)
    assert (project / "notebooks/00-welcome.ipynb").read_bytes() == before


def test_warnings_and_errors_are_not_saved(project: Path) -> None:
    notebook = nbformat.read(project / "notebooks/00-welcome.ipynb", as_version=4)
    outputs.check("00", notebook, outputs.machine_traces(project / "lab"))
    for kind, values in (
        ("stream", {"name": "stderr", "text": "careful"}),
        ("error", {"ename": "E", "evalue": "", "traceback": []}),
        ("display_data", {"data": {"text/html": f"<b>{Path.home()}/x</b>"}}),
    ):
        notebook.cells[2].outputs = [nbformat.v4.new_output(kind, **values)]
        if str(Path.home()) != "/" or kind != "display_data":
            with pytest.raises(LabError, match="00, code cell 2"):
                outputs.check("00", notebook, outputs.machine_traces(project / "lab"))


def test_a_terminated_run_leaves_no_kernel_and_no_lab(project: Path, tmp_path: Path) -> None:
    began = tmp_path / "began"
    wait = f"import os, pathlib, threading\npathlib.Path({str(began)!r}).write_text(str(os.getpid()))"
    write_notebook(project / "notebooks/00-welcome.ipynb", wait, "threading.Event().wait(120)")
    script = (
        "import sys, pathlib\nfrom devops_lab.platform import settings\n"
        "from devops_lab.workbook import run as workbook\n"
        f"settings.project_root = lambda: pathlib.Path({str(project)!r})\n"
        f"with workbook.terminated_as_interrupted(): sys.exit(not "
        f"workbook.run_workbook(out=pathlib.Path({str(tmp_path / 'out')!r})).ok)"
    )
    folder = tmp_path / "t"
    folder.mkdir()
    env = os.environ | {"TMPDIR": str(folder), "PYTHONPATH": str(Path(workbook.__file__).parents[2])}
    with subprocess.Popen([sys.executable, "-c", script], env=env, stderr=subprocess.DEVNULL) as run:
        until(lambda: began.exists() and began.read_text(), "the cell to run")
        kernel = int(began.read_text())
        run.send_signal(signal.SIGTERM)
        assert run.wait(60) != 0
    until(lambda: not psutil.pid_exists(kernel), "the kernel to end")
    assert list(folder.iterdir()) == []


def test_figures_are_only_those_of_the_notebook(tmp_path: Path) -> None:
    store = Store(tmp_path / "lab.db")
    store.event("learning", "figure.old", "lab", value=1)  # type: ignore[arg-type]  # a reader's own
    after = workbook.events(tmp_path, limit=1)[0].id
    store.event("learning", "figure.new", "lab", value=2)  # type: ignore[arg-type]
    assert workbook.figures(tmp_path, after) == {"new": 2}
    store.close()
