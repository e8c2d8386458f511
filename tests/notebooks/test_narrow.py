"""Every picture in JupyterLab on a small screen: dark, at 200 %, and beside the panel nothing is cut off."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from devops_lab import views
from devops_lab.views import screen
from tests.notebooks.test_accessible import notebook_of_all
from tests.notebooks.test_browser import CHROMIUM_OPTIONS, TOKEN, Jupyter, jupyter, ready, shown
from tests.notebooks.test_in_sight import OPENING, PANEL, press
from tests.views import examples

__all__ = ["jupyter"]  # the fixture

MOST = 40  # outputs of a cell: of more, JupyterLab shows the first alone
POINTS = 7  # of the smallest text in a figure, which has 200 pixels an inch
# All cells in the page at once, and their HTML as after a run of one's own.
WHOLE = """() => { const notebook = window.jupyterapp.shell.currentWidget.content;
  notebook.notebookConfig = {...notebook.notebookConfig, windowingMode: 'none'};
  notebook.widgets.forEach(w => { w.model.trusted = true; }); }"""
DARK = "() => window.jupyterapp.commands.execute('apputils:change-theme', {theme: 'JupyterLab Dark'})"
DRAWN = """(count) => {
  const images = [...document.querySelectorAll('.jp-OutputArea-output img')];
  return images.length > count && images.every(i => i.complete && i.naturalWidth && i.clientWidth); }"""
BAD = """(points) => {
  const bad = [], outputs = document.querySelectorAll('.jp-Notebook .jp-OutputArea-output');
  const scrolls = e => ['auto', 'scroll'].includes(getComputedStyle(e).overflowX);
  const rgb = text => (text.match(/[\\d.]+/g) || [0, 0, 0, 0]).map(Number);
  const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
    .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = e => { for (; e; e = e.parentElement) {
    const found = rgb(getComputedStyle(e).backgroundColor);
    if (found.length < 4 || found[3] === 1) return found; } return [255, 255, 255]; };
  const boxed = (e, end) => { for (; e !== end; e = e.parentElement) if (scrolls(e)) return true; };
  for (const output of outputs) {
    const words = output.innerText.slice(0, 50).replace(/\\s+/g, ' ');
    const html = output.classList.contains('jp-RenderedHTML');
    if (html && output.scrollWidth > output.clientWidth + 1)
      bad.push(['cut off', output.scrollWidth, output.clientWidth, words]);
    for (const e of output.querySelectorAll('*')) {
      const style = getComputedStyle(e), box = e.getBoundingClientRect(), em = parseFloat(style.fontSize);
      if (e.tagName === 'IMG') {
        const px = points * 200 / 72 * e.clientWidth / e.naturalWidth;
        if (px < 8) bad.push(['small', px.toFixed(1), e.alt.slice(0, 50)]);
        if (!boxed(e.parentElement, output.parentElement)) bad.push(['no scroll', e.alt.slice(0, 50)]);
      } else if (['TD', 'TH'].includes(e.tagName)) {
        const text = e.innerText.trim();
        if (/\\s/.test(text) && box.height > 2.6 * em && box.width < 4 * em)
          bad.push(['a word a line', Math.round(box.width), text.slice(0, 40)]);
        if (!boxed(e, output)) bad.push(['a table without a box', words]);
      }
      if (html && [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) && e.tagName !== 'STYLE') {
        const [a, b] = [light(rgb(style.color)), light(ground(e))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) bad.push(['faint', style.color, ground(e).join(), words]);
      }
    }
  }
  return [outputs.length, bad]; }"""


def notebook(folder: Path) -> tuple[Any, int]:
    """All pictures, one as it is while it moves, and a cell for the panel; and how many are figures."""
    found, new = notebook_of_all(folder), nbformat.v4
    moving = screen._framed(views.pipeline(examples.PIPELINE), 300)
    outputs = [new.new_output("display_data", data=moving), *found.cells[1].outputs]
    figures = sum("image/png" in each.get("data", {}) for each in outputs)
    parts = [outputs[n : n + MOST] for n in range(0, len(outputs), MOST)]
    found.cells = [new.new_code_cell("0", id=f"part-{n}", outputs=part) for n, part in enumerate(parts)]
    found.cells += [new.new_code_cell(code.strip(), id=f"run-{n}") for n, code in enumerate((OPENING, PANEL))]
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    found.metadata["kernelspec"] = kernel
    return found, figures


def bad(page: Any, figures: int) -> list[Any]:
    page.wait_for_function(DRAWN, arg=figures)
    count, found = page.evaluate(BAD, POINTS)
    assert count > 2 * figures > 20
    return list(found)


@pytest.mark.browser
@pytest.mark.notebook
@pytest.mark.timeout(300)
def test_nothing_is_cut_off_or_too_small(jupyter: Jupyter, chromium: str, tmp_path: Path) -> None:
    pytest.importorskip("sidecar")
    from playwright.sync_api import sync_playwright

    written, figures = notebook(tmp_path)
    nbformat.write(written, jupyter.lab / "notebooks/live.ipynb")
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.goto(f"{jupyter.url}/lab/tree/notebooks/live.ipynb?token={TOKEN}&reset")
        shown(page)
        ready(page)
        page.evaluate(WHOLE)
        found = {"light": bad(page, figures)}
        press(page, "from pathlib")
        press(page, "the time")
        page.locator(".jupyterlab-sidecar table").wait_for(timeout=60_000)
        found["beside the panel"] = bad(page, figures)
        page.evaluate(DARK)
        page.wait_for_function("document.body.dataset.jpThemeLight === 'false'")
        found["dark"] = bad(page, figures)
        page.locator(".jupyterlab-sidecar").get_by_role("button", name="Close").click()
        page.set_viewport_size({"width": 640, "height": 450})  # what 200 % leaves of 1280 by 900
        found["200 %"] = bad(page, figures)
        browser.close()
    assert {setting: each for setting, each in found.items() if each} == {}
