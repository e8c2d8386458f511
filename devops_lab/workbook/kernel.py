"""One notebook through papermill, in a kernel of this very Python and a clean environment.

The next notebook's kernel starts while a notebook runs, so that nobody waits for it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import nbformat
import papermill
import psutil
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import ensure_event_loop, run_sync
from nbclient.exceptions import CellExecutionError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NBClientEngine, papermill_engines
from traitlets import default

from devops_lab.errors import LabError
from devops_lab.platform import variables

LOG = "kernels.log"
START_SECONDS = 60
DIED = "the kernel died"  # stands where an exception's name stands
NO_HISTORY = "--HistoryManager.hist_file=:memory:"  # nobody scrolls back in it
FIRST = "for name in ('devops_lab.exercises', 'devops_lab.lab', 'devops_lab.views'): __import__(name)\n"
OWN_PYTHON = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]


class OwnKernel(AsyncKernelManager):
    """A kernel of this Python, whatever other "python3" kernel is installed on the machine."""

    @default("transport_encryption")
    def _encrypted(self) -> str:
        return "auto"

    @property
    def kernel_spec(self) -> KernelSpec:
        encrypted = {"supported_encryption": ["curve"]}  # ipykernel warns where nothing is offered
        return KernelSpec(
            argv=OWN_PYTHON, display_name="Python 3 (ipykernel)", language="python", metadata=encrypted
        )


class Client(PapermillNotebookClient):  # type: ignore[misc] # papermill has no types
    """papermill's own, but a cell in which the kernel dies has failed, as one that raises has."""

    def execute_cell(self, cell: Any, cell_index: int, **more: Any) -> Any:
        try:
            return super().execute_cell(cell, cell_index, **more)
        except KeyboardInterrupt:  # left waiting, they would call the kernel's end a failure
            loop = ensure_event_loop()
            waiting = asyncio.all_tasks(loop)
            for task in waiting:
                task.cancel()
            loop.run_until_complete(asyncio.gather(*waiting, return_exceptions=True))
            raise
        except (RuntimeError, OSError) as error:  # the kernel is dead, or silent
            words = how_it_ended(self.km) or str(error)
            output = nbformat.v4.new_output("error", ename=DIED, evalue=words, traceback=[f"{DIED}: {words}"])
            cell.outputs.append(output)
            raise CellExecutionError(words, DIED, words) from error


def how_it_ended(manager: Any) -> str:
    """What the system knows of a kernel's end; nothing while it runs."""
    process = getattr(manager.provisioner, "process", None)
    code = process.poll() if process else None
    if code is None:
        return ""
    if code != -signal.SIGKILL:
        return f"exit code {code}" if code >= 0 else signal.Signals(-code).name
    memory = psutil.virtual_memory()
    return (
        "SIGKILL, as the system ends a process when memory runs out "
        f"(now {memory.available / 1e9:.1f} of {memory.total / 1e9:.1f} GB are free)"
    )


class LabEngine(NBClientEngine):  # type: ignore[misc] # papermill has no types
    """papermill's own engine, less the choice of kernel, plus the kernel's environment."""

    @classmethod
    def execute_managed_notebook(
        cls,
        nb_man: Any,
        kernel_name: str,
        *,
        manager: OwnKernel,
        env: dict[str, str],
        on_cell: Callable[[int], None],
        target: Path,
        **_: Any,
    ) -> Any:
        client = Client(
            nb_man,
            manager,
            kernel_name=kernel_name,
            startup_timeout=START_SECONDS,
            shell_timeout_interval=1,  # seconds after which a silent kernel is looked at
            timeout=None,
            store_widget_state=False,
            on_cell_start=lambda cell, cell_index: on_cell(cell_index),
        )
        # At its end a kernel is interrupted first, and may say so; that belongs into a log, not on the page.
        try:
            with target.with_name(LOG).open("ab") as errors:
                return client.execute(env=env, stderr=errors, cleanup_kc=True)  # ends the kernel, too
        except (RuntimeError, OSError) as error:
            if any(cell.metadata.papermill["exception"] for cell in nb_man.nb.cells):
                return nb_man.nb  # the cell says it
            words = how_it_ended(client.km) if client.km else ""
            raise LabError(
                f"The kernel can't be used: {error} {words}".strip(),
                next_step=f"See {LOG} beside the report.",
            ) from error
        finally:
            nb_man.output_path = str(target)  # where papermill saves what was executed, however it ended


papermill_engines.register("devops-lab", LabEngine)


@contextmanager
def one_ahead(notebooks: list[Path], out: Path, ipython: Path) -> Iterator[Iterator[OwnKernel]]:
    """Kernels for notebooks, in their order: who takes one has the next one started. Ends what is left.

    Args:
        notebooks: theirs.
        out: the folder for what kernels say beside their pages.
        ipython: a folder for IPython's files, so that nobody's start-up files play a part.
    """
    first = ipython / "profile_default" / "startup" / "first.py"  # runs before anybody asks for a cell
    first.parent.mkdir(parents=True, exist_ok=True)
    first.write_text(FIRST, "utf-8")
    begun: list[OwnKernel] = []

    def start() -> None:
        source = notebooks[len(begun)]
        begun.append(OwnKernel(connection_file=str(ipython / f"{source.stem}.json")))
        with (
            suppress(OSError),
            (out / LOG).open("ab") as errors,
        ):  # its turn tells why
            env, folder = environment(ipython, source), str(source.parent)
            run_sync(begun[-1].start_kernel)(env=env, stderr=errors, cwd=folder, extra_arguments=[NO_HISTORY])

    def each() -> Iterator[OwnKernel]:
        for number in range(len(notebooks)):
            while len(begun) < min(number + 2, len(notebooks)):
                start()
            yield begun[number]

    try:
        yield each()
    finally:
        for manager in begun:  # an interrupt may have left the event loop in the middle of a cell
            if process := getattr(manager.provisioner, "process", None):
                process.kill()
                process.wait()


def execute(
    source: Path,
    target: Path,
    parameters: dict[str, Any],
    manager: OwnKernel,
    ipython: Path,
    on_cell: Callable[[int], None],
) -> None:
    """Execute one notebook in a kernel of its own, and save it with its outputs.

    Args:
        source: the notebook.
        target: where the executed one goes; written also when a cell fails.
        parameters: for its parameters cell.
        manager: its kernel, from `one_ahead`.
        ipython: as there.
        on_cell: called with the index of each cell before it runs.

    Raises:
        papermill.exceptions.PapermillExecutionError: a cell failed, or the kernel died in it.
        LabError: there is no kernel to be had, or it died between two cells.
    """
    papermill.execute_notebook(
        source,
        target,
        parameters,
        engine_name="devops-lab",
        kernel_name="python3",
        language="python",
        cwd=source.parent,
        progress_bar=False,
        request_save_on_cell_execute=False,
        manager=manager,
        env=environment(ipython, source),
        target=target,
        on_cell=on_cell,
    )


def environment(ipython: Path, source: Path) -> dict[str, str]:
    """The environment of a notebook's kernel: what this package's own commands get, without their lab."""
    env = variables.command(
        IPYTHONDIR=str(ipython),
        DEVOPS_LAB_VIEW="static",
        JPY_SESSION_NAME=source.name,  # as a Jupyter server names it
        PYDEVD_DISABLE_FILE_VALIDATION="1",  # ipykernel's debugger warns about frozen modules otherwise
    )
    env.pop("DEVOPS_LAB_DIR", None)
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    return env
