"""Live pictures in JupyterLab in a real Chromium: in sight while they move, and there when opened again."""

from __future__ import annotations

from typing import Any

import nbformat
import pytest

from devops_lab.views import screen
from tests.notebooks.test_browser import CHROMIUM_OPTIONS, TOKEN, Jupyter, jupyter, ready, shown
from tests.patience import until

__all__ = ["jupyter"]  # the fixture

LAST = "endless: 1 steps in 1 s"  # begins a caption
HIGH = 900  # pixels of the window
OPENING = """
import time
from pathlib import Path
from devops_lab import views
from devops_lab.model import Step
"""
GROWING = """
steps = []
with views.watching(lambda: views.pipeline(steps, "growing")):
    for number in range(8):
        steps.append(Step(f"step {number}", 0.4, number != 7, output="a word\\n" * 9))
        time.sleep(0.8)
"""
ENDLESS = """
with views.watching(lambda: views.pipeline([Step("never ending", 1.0)], "endless")):
    time.sleep(600)
"""
PANEL = """
draw = lambda: views.checks([("the time", True, f"{time.monotonic():.3f}")], "panel")
views.beside(draw, "Production now", go_home=lambda: "all are gone")
"""
# Where the moving picture is on the screen, if it is there: its top and its bottom.
FIGURE = """() => [...document.querySelectorAll('.jp-OutputArea-output img')]
  .filter(i => (i.alt || '').includes('step 0') || i.naturalHeight > 0)
  .map(i => i.getBoundingClientRect()).map(r => [Math.round(r.top), Math.round(r.bottom)])"""
ACTIVATE = """(text) => {
  const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.deselectAll();
  notebook.activeCellIndex = notebook.widgets.findIndex(w => w.model.sharedModel.getSource().includes(text));
  return notebook.scrollToItem(notebook.activeCellIndex, 'center');
}"""


def opened(browser: Any, jupyter: Jupyter) -> Any:
    page = browser.new_page(viewport={"width": 1100, "height": HIGH})
    page.goto(f"{jupyter.url}/lab/tree/notebooks/live.ipynb?token={TOKEN}&reset")
    shown(page)
    return page


def write(jupyter: Jupyter, *codes: str) -> None:
    """A notebook with prose before and after each cell, so that there is something to scroll."""
    new, cells = nbformat.v4, []
    for number, code in enumerate(codes):
        cells += [
            new.new_markdown_cell("Some words.\n\n" * 12, id=f"words-{number}"),
            new.new_code_cell(code.strip(), id=f"code-{number}"),
        ]
    cells.append(new.new_markdown_cell("The end.\n\n" * 12, id="end"))
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    nbformat.write(
        new.new_notebook(cells=cells, metadata={"kernelspec": kernel}), jupyter.lab / "notebooks/live.ipynb"
    )


@pytest.mark.browser
@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_a_live_picture_is_in_sight_and_stays(jupyter: Jupyter, chromium: str) -> None:
    from playwright.sync_api import sync_playwright

    write(jupyter, OPENING, GROWING, ENDLESS)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        page = opened(browser, jupyter)
        ready(page)
        press(page, "from pathlib")
        press(page, "growing")
        frames: list[list[int]] = []
        until(
            lambda: seen(page, frames, "stopped at step 7"), "the last step", seconds=60, every_seconds=0.05
        )
        assert len(frames) >= 3
        assert all(top > 100 and bottom < HIGH - 30 for top, bottom in frames), frames
        press(page, "endless")
        until(lambda: LAST in page.content(), "the endless picture")
        page.wait_for_timeout(1000 * screen.CALM_SECONDS)
        page.keyboard.press("Control+s")
        until(lambda: LAST in saved(jupyter), "the notebook to be saved")
        page.close()  # while it runs
        page = opened(browser, jupyter)
        page.evaluate(ACTIVATE, "endless")
        page.locator(".jp-OutputArea-output", has_text=LAST).first.wait_for(timeout=60_000)
        assert "Error displaying widget" not in page.content()
        assert not any(word in saved(jupyter) for word in ("widget-view", "javascript"))
        browser.close()


def press(page: Any, text: str) -> None:
    """Run a cell as a reader does: put the cursor on it, Shift+Enter."""
    page.evaluate(ACTIVATE, text)
    page.keyboard.press("Shift+Enter")


def seen(page: Any, frames: list[list[int]], last: str) -> bool:
    found = page.evaluate(FIGURE)
    if found and (not frames or frames[-1] != found[0]):
        frames.append(found[0])
    return last in page.content()


def saved(jupyter: Jupyter) -> str:
    return (jupyter.lab / "notebooks/live.ipynb").read_text("utf-8")


@pytest.mark.browser
@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_the_panel_stays_beside_the_notebook_until_it_is_closed(jupyter: Jupyter, chromium: str) -> None:
    pytest.importorskip("sidecar")
    from playwright.sync_api import sync_playwright

    write(jupyter, OPENING, PANEL, "1 + 1")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        page = opened(browser, jupyter)
        ready(page)
        press(page, "from pathlib")
        press(page, "the time")
        panel = page.locator(".jupyterlab-sidecar")
        panel.wait_for(timeout=60_000)
        panel.locator("table").wait_for(timeout=60_000)
        before = panel.inner_text()
        press(page, "1 + 1")
        until(lambda: panel.inner_text() != before, "the panel to go on")
        panel.get_by_role("button", name="Go home").click()
        until(lambda: "all are gone" in panel.inner_text(), "the answer")
        box = panel.locator("table").bounding_box()
        assert box is not None
        page.keyboard.press("Control+s")
        until(lambda: "the time" in saved(jupyter), "the notebook to be saved")
        assert "widget-view" not in saved(jupyter)
        panel.get_by_role("button", name="Close").click()
        until(lambda: panel.count() == 0, "the panel to go")
        browser.close()
