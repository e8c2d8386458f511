"""One notebook in JupyterLab in a real Chromium: run all cells, use a widget, see the lab change."""

from __future__ import annotations

import re
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from devops_lab.exercises import exercise
from devops_lab.lab import Lab, clean
from devops_lab.model import Sprint
from devops_lab.platform import variables
from devops_lab.platform.waits import until

SOURCE = Path(__file__).parents[2] / "notebooks" / "01-plan.ipynb"
BUTTON = "Choose a sprint by hand"
CARD = 'exercise(lab, "plan-4")'
TOKEN = "only-for-this-test"
CHROMIUM_OPTIONS = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"]
CHROMIUM_OPTIONS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]

# The page's "idle" mark shows before the session is ready, and a Run All sent then is lost: ask the session.
KERNEL_IS_READY = """() => {
  const session = window.jupyterapp?.shell?.currentWidget?.sessionContext;
  const kernel = session?.session?.kernel;
  return session?.isReady && kernel?.connectionStatus === 'connected' && kernel?.status === 'idle';
}"""
KERNEL_STATE = """() => {
  const widget = window.jupyterapp?.shell?.currentWidget, session = widget?.sessionContext;
  const kernel = session?.session?.kernel;
  return {widget: widget?.title?.label, ready: session?.isReady, shown: session?.kernelDisplayStatus,
    connection: kernel?.connectionStatus, status: kernel?.status,
    dialog: document.querySelector('.jp-Dialog')?.innerText};
}"""
# Cells off the screen are not in the page: ask the model.
RESULTS = """() => window.jupyterapp.shell.currentWidget.content.model.sharedModel.cells
  .filter(cell => cell.cell_type === 'code' && cell.getSource().trim())
  .map(cell => [cell.execution_count,
    (cell.outputs || []).filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)])"""
SCROLL_TO = """(text) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  const index = notebook.widgets.findIndex(w => w.model.sharedModel.getSource().includes(text)
    && w.model.type === 'code');
  notebook.activeCellIndex = index;
  return notebook.scrollToItem(index, 'center');
}"""


@dataclass(frozen=True)
class Jupyter:
    url: str
    lab: Path


@pytest.fixture
def jupyter(tmp_path: Path) -> Iterator[Jupyter]:
    """`devops-lab open`, as a reader calls it, with Jupyter's configuration and data of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    folders = {f"JUPYTER_{n}_DIR": str(tmp_path / n.lower()) for n in ("CONFIG", "DATA", "RUNTIME")}
    (tmp_path / "config").mkdir()
    (tmp_path / "config/jupyter_lab_config.json").write_text('{"LabApp": {"expose_app_in_browser": true}}')
    env = variables.command() | folders | {"JUPYTER_TOKEN": TOKEN}
    command = [sys.executable, "-m", "devops_lab", "open", "--no-browser", "--port", str(port)]
    command += ["--lab", str(tmp_path / "lab")]
    with (tmp_path / "jupyter.log").open("w") as log:
        server = subprocess.Popen(command, env=env, stdout=log, stderr=log, start_new_session=True)
    try:
        until(
            lambda: answers(server, port),
            "JupyterLab",
            seconds=90,
            evidence=(tmp_path / "jupyter.log").read_text,
        )
        yield Jupyter(f"http://127.0.0.1:{port}", tmp_path / "lab")
    finally:
        server.terminate()  # gracefully: the server ends its kernels
        try:
            server.wait(30)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()
        print((tmp_path / "jupyter.log").read_text("utf-8", "replace")[-3000:])  # shown where the test failed
        if (tmp_path / "lab/lab.toml").exists():
            assert (tmp_path / "lab/kept" / SOURCE.stem).is_dir()
            clean(tmp_path / "lab")


def answers(server: subprocess.Popen[bytes], port: int) -> bool:
    assert server.poll() is None, "JupyterLab has ended"
    try:
        return bool(urlopen(f"http://127.0.0.1:{port}/api/status?token={TOKEN}", timeout=1))
    except OSError:
        return False


def shown(page: Any) -> None:
    """Wait until the notebook's cells are on the page."""
    cells = page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook .jp-Cell")
    cells.first.wait_for(timeout=90_000)


def ready(page: Any) -> None:
    """Wait until the page's kernel answers; a page that none reaches is loaded again, as a reader does."""
    from playwright.sync_api import TimeoutError as TooLong

    try:
        page.wait_for_function(KERNEL_IS_READY, timeout=60_000)
    except TooLong:
        warnings.warn(f"no kernel for a minute: {page.evaluate(KERNEL_STATE)}", stacklevel=2)
        page.reload()
        shown(page)
        page.wait_for_function(KERNEL_IS_READY, timeout=90_000)


def run_all(page: Any) -> None:
    """Send Run All by the menu, wait until each cell has run, and see that none failed."""
    ready(page)
    page.evaluate("async () => window.jupyterapp.shell.currentWidget.sessionContext.session.kernel.info")
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name=re.compile("^Run All Cells")).click()

    def done() -> bool:
        results = page.evaluate(RESULTS)
        assert not (errors := [error for _, found in results for error in found]), errors
        return all(count is not None for count, _ in results) and bool(page.evaluate(KERNEL_IS_READY))

    until(done, "all cells to run", seconds=120, every_seconds=0.2)


@pytest.mark.browser
@pytest.mark.notebook
@pytest.mark.timeout(300)
@pytest.mark.skipif(not SOURCE.exists(), reason="there are no notebooks yet")
def test_run_all_click_and_see_the_lab_change(jupyter: Jupyter, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        elsewhere: set[str] = set()
        page.on("request", lambda request: elsewhere.add(request.url) if is_elsewhere(request.url) else None)
        page.goto(f"{jupyter.url}/lab/tree/notebooks/{SOURCE.name}?token={TOKEN}")
        shown(page)
        run_all(page)
        assert page.locator(".jp-Notification-Toast, .Toastify__toast").count() == 0, "nothing pops up"
        with Lab.open(jupyter.lab) as lab:
            assert chosen_by(lab) == "wsjf"
            page.evaluate(SCROLL_TO, BUTTON)
            button = page.locator("button.jupyter-button", has_text=BUTTON)
            button.wait_for(timeout=20_000)
            button.click()
            until(lambda: chosen_by(lab) == "hand", "a sprint chosen by hand", seconds=30)
            checked = exercise(lab, "plan-4").progress.attempts
            page.evaluate(SCROLL_TO, CARD)
            cell = page.locator(".jp-CodeCell").filter(has_text=CARD).first
            for name, told in (("Hint", "Hint 1 of 3"), ("Check", "no branch"), ("Skip", "done by the lab")):
                cell.get_by_role("button", name=name, exact=True).click()
                cell.get_by_text(told).first.wait_for(timeout=20_000)
            kept = exercise(lab, "plan-4").progress
            assert (kept.state, kept.attempts, kept.hints_used) == ("skipped", checked + 1, 1)
        assert elsewhere == set()
        browser.close()


def chosen_by(lab: Lab) -> str:
    newest = lab.store.last(Sprint)
    return newest.chosen_by if newest else ""


def is_elsewhere(url: str) -> bool:
    return url.startswith("http") and "//127.0.0.1" not in url
