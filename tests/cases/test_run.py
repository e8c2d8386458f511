"""`run` and a kernel that dies: notebook and cell are named, and the report is there, whatever happened."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import SimpleNamespace

import nbformat
import psutil
import pytest

from devops_lab.errors import BadInput
from devops_lab.platform import settings
from devops_lab.workbook import kernel
from devops_lab.workbook import run as workbook
from devops_lab.workbook.summary import Summary
from tests.patience import until
from tests.test_workbook import outputs_of, write_notebook

KILLED = "import os, signal\nos.kill(os.getpid(), signal.SIGKILL)"
FINE = 'print("still here")'


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project with two small notebooks; nothing of its runs may be left."""
    root, scratch = tmp_path / "a próject", tmp_path / "t"
    (root / "notebooks").mkdir(parents=True)
    scratch.mkdir()
    write_notebook(root / "notebooks/00-welcome.ipynb", FINE)
    write_notebook(root / "notebooks/01-plan.ipynb", FINE)
    monkeypatch.setattr(settings, "project_root", lambda: root)
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    yield root
    assert list(scratch.iterdir()) == []
    assert [process for process in psutil.Process().children(recursive=True) if is_kernel(process)] == []


def is_kernel(process: psutil.Process) -> bool:
    with suppress(psutil.Error):  # ended, and not yet waited for
        return "ipykernel" in " ".join(process.cmdline())
    return False


def run(project: Path, *cells: str) -> Summary:
    write_notebook(project / "notebooks/00-welcome.ipynb", *cells)
    return workbook.run_workbook(out=project / "out")


def reported(project: Path) -> dict[str, object]:
    """The report is whole: summary, book, and the notebook as far as it came."""
    out = project / "out"
    assert "00-welcome" in (out / "index.html").read_text("utf-8")
    assert (out / "00-welcome.html").exists()
    report: dict[str, object] = json.loads((out / "summary.json").read_text("utf-8"))
    return report


@pytest.mark.parametrize(
    ("cell", "how"),
    [
        (KILLED, r"SIGKILL, as the system ends a process when memory runs out \(now .* GB are free\)"),
        ("import os\nos._exit(0)", "exit code 0"),
    ],
)
def test_a_kernel_that_dies_is_named_with_its_cell(project: Path, cell: str, how: str) -> None:
    """9a: `kill -9` of the kernel: a traceback of `run`, no summary, no book, no notebook."""
    summary = run(project, FINE, cell, "print('never')")
    first, second = summary.notebooks
    assert (first.status, second.status) == ("failed", "not run")
    assert re.fullmatch(f"00-welcome, code cell 3: the kernel died: {how}", first.error), first.error
    assert first.error in summary.text()
    assert reported(project)["ok"] is False
    seen = outputs_of(project / "out/00-welcome.ipynb")
    assert "still here" in seen
    assert "the kernel died" in seen
    assert "never" not in seen


@pytest.mark.parametrize(("code", "how"), [(7, "exit code 7"), (-11, "SIGSEGV"), (None, "")])
def test_how_a_kernel_ended_is_told(code: int | None, how: str) -> None:
    process = SimpleNamespace(poll=lambda: code)
    assert kernel.how_it_ended(SimpleNamespace(provisioner=SimpleNamespace(process=process))) == how


def test_a_kernel_may_die_in_the_first_cell_and_in_a_later_notebook(project: Path) -> None:
    notebook = nbformat.read(project / "notebooks/01-plan.ipynb", as_version=4)
    notebook.cells[1].source += f"\n{KILLED}"
    nbformat.write(notebook, project / "notebooks/01-plan.ipynb")
    summary = run(project, FINE)
    assert [r.status for r in summary.notebooks] == ["ok", "failed"]
    assert "01-plan, code cell 1: the kernel died: SIGKILL" in summary.notebooks[1].error
    assert (project / "out/01-plan.html").exists()


@pytest.mark.parametrize(
    "python", [["-c", "raise SystemExit('no such module')"], ["/nowhere/python"], ["-c", "input()"]]
)
def test_a_kernel_that_never_starts_is_told(
    project: Path, python: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, *python] if python[0] == "-c" else python
    monkeypatch.setattr(kernel, "OWN_PYTHON", command)
    monkeypatch.setattr(kernel, "START_SECONDS", 3)
    summary = run(project, FINE)
    assert summary.notebooks[0].status == "failed"
    assert summary.notebooks[0].error.startswith("00-welcome: The kernel can't be used: ")
    assert "kernels.log" in summary.notebooks[0].error
    assert reported(project)["ok"] is False


def test_a_folder_that_no_kernel_may_write_to_plays_no_part(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_DATA_DIR", "JUPYTER_CONFIG_DIR"):
        monkeypatch.setenv(name, "/proc/nowhere")
    assert run(project, FINE).ok


def test_while_a_notebook_runs_the_next_kernel_starts_and_a_page_is_written(project: Path) -> None:
    begin = "import os, psutil\nfrom devops_lab.platform.waits import until\n"
    all_of_them = "psutil.process_iter(['ppid', 'cmdline'])"  # survives who ends meanwhile
    mine = "p.info['ppid'] == os.getppid() and '01-plan.json' in ' '.join(p.info['cmdline'] or [])"
    others = f"[p for p in {all_of_them} if {mine}]"
    page = f"os.path.exists({str(project / 'out/00-welcome.html')!r})"
    write_notebook(
        project / "notebooks/01-plan.ipynb", f"{begin}until(lambda: {page}, 'the page', seconds=60)"
    )
    summary = run(project, f"{begin}until(lambda: {others}, 'the next kernel', seconds=60)")
    assert summary.ok, [result.error for result in summary.notebooks]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_its_report(project: Path, tmp_path: Path, number: int) -> None:
    """Ctrl-C, or a CI job that is cancelled: `out` held a log, and the notebooks before."""
    began = tmp_path / "began"
    wait = f"import os, pathlib, threading\nopen({str(began)!r}, 'w').write(str(os.getpid()))"
    write_notebook(project / "notebooks/00-welcome.ipynb", FINE, f"{wait}\nthreading.Event().wait(120)")
    script = (
        "import pathlib\nfrom devops_lab.commands import cli\nfrom devops_lab.platform import settings\n"
        f"settings.project_root = lambda: pathlib.Path({str(project)!r})\n"
        f"cli.main(['run', '--out', {str(project / 'out')!r}])"
    )
    env = os.environ | {"TMPDIR": str(tmp_path / "t")}
    with subprocess.Popen(
        [sys.executable, "-c", script], env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as going:
        until(lambda: began.exists() and began.read_text(), "the cell to run")
        going.send_signal(number)
        said, _ = going.communicate(timeout=60)
    assert going.returncode == 130
    assert "00-welcome, code cell 3: interrupted" in said
    assert "Traceback" not in said
    notebooks = reported(project)["notebooks"]
    assert isinstance(notebooks, list)
    assert [one["status"] for one in notebooks] == ["interrupted", "not run"]
    assert "still here" in outputs_of(project / "out/00-welcome.ipynb")
    until(lambda: not psutil.pid_exists(int(began.read_text())), "the kernel to end")


@pytest.mark.parametrize("text", ["", "{", "{}", "[]", "null", '{"cells": 3, "nbformat": 4}', "\xff\xfe"])
def test_a_file_that_is_no_notebook_is_refused_before_anything_runs(project: Path, text: str) -> None:
    (project / "notebooks/01-plan.ipynb").write_text(text, "latin-1")
    with pytest.raises(BadInput, match=r"01-plan\.ipynb can't be run"):
        workbook.run_workbook(out=project / "out")
    assert not (project / "out").exists()


def test_a_file_that_is_no_notebook_keeps_no_other_from_being_run(project: Path) -> None:
    (project / "notebooks/01-plan.ipynb").write_text("{")
    assert workbook.run_workbook(only=["00"], out=project / "out").ok
