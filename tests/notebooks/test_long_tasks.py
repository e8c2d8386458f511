"""The page stays quick to the touch while four replicas take 200 requests a second and pictures move."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devops_lab.lab import clean
from tests.notebooks.test_browser import CHROMIUM_OPTIONS, TOKEN, Jupyter, jupyter, ready, shown
from tests.notebooks.test_in_sight import press, write
from tests.notebooks.test_reader import WATCH
from tests.patience import until

__all__ = ["jupyter"]  # the fixture

LONGEST_MS = 100
OPENING = """
import os
from devops_lab import Lab, views
lab = Lab.open(os.environ["DEVOPS_LAB_DIR"] + "-rush", engine="process")
lab.catch_up("operate")
lab.deploy.scale(4, why="a rush")
"""
ALONE = 'print("alone:", lab.operate.load(rate=200, seconds=10).wait().requests)'
PANEL = 'views.beside(lambda: views.now(lab.store, lab.operate.customers()))\nprint("panel:", 1)'
WATCHED = """
began = lab.store.now()
with views.watching(lambda: views.golden_signals(lab.store, began)):
    summary = lab.operate.load(rate=200, seconds=10).wait()
print("watched:", summary.requests)
"""
SAID = r"""(word) => { const found = [...document.querySelectorAll('.jp-OutputArea-output')]
  .map(output => output.innerText.match(new RegExp('^' + word + ': (\\d+)', 'm'))).find(each => each);
  return found ? Number(found[1]) : 0; }"""
PICTURES = """() => { window.pictures = new Set(); window.setInterval(() =>
  document.querySelectorAll('.jp-OutputArea-output img').forEach(i => window.pictures.add(i.src.length)),
  100); }"""


def tasks(page: Any, browser: Any, cell: str, word: str) -> tuple[list[float], list[float], int]:
    """Run a cell: the page's long tasks by the clock, all its tasks in ms of CPU, and what the cell said."""
    page.evaluate("window.longTasks.length = 0")
    browser.start_tracing(page=page, categories=["-*", "disabled-by-default-devtools.timeline"])
    press(page, cell)
    until(lambda: page.evaluate(SAID, word), word, seconds=120, every_seconds=0.5)
    events = json.loads(browser.stop_tracing())["traceEvents"]
    main = {(e["pid"], e["tid"]) for e in events if e.get("args", {}).get("name") == "CrRendererMain"}
    ran = [e for e in events if e["name"] == "RunTask" and (e["pid"], e["tid"]) in main]
    cpu = sorted((e.get("tdur", 0) / 1000 for e in ran), reverse=True)
    return sorted(page.evaluate("window.longTasks"), reverse=True), cpu, page.evaluate(SAID, word)


@pytest.fixture
def rush(tmp_path: Path) -> Iterator[Path]:
    """Where the cell founds its lab; what runs there ends."""
    yield tmp_path / "lab-rush"
    if (tmp_path / "lab-rush/lab.toml").exists():
        clean(tmp_path / "lab-rush")


@pytest.mark.browser
@pytest.mark.notebook
@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(600)
def test_no_long_task_while_pictures_move(jupyter: Jupyter, rush: Path, chromium: str) -> None:
    """By CPU time, so that what else the machine does is no part of it; and less JupyterLab's own."""
    from playwright.sync_api import sync_playwright

    write(jupyter, OPENING + 'print("ready:", 1)', ALONE, PANEL, WATCHED)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        page.add_init_script(WATCH)
        page.goto(f"{jupyter.url}/lab/tree/notebooks/live.ipynb?token={TOKEN}&reset")
        shown(page)
        ready(page)
        press(page, "catch_up")
        until(lambda: page.evaluate(SAID, "ready"), "four replicas", seconds=180)
        clock, own, count = tasks(page, browser, "alone", "alone")
        press(page, "views.beside")
        page.locator(".jupyterlab-sidecar").get_by_text("Replicas", exact=True).wait_for(timeout=60_000)
        page.evaluate(PICTURES)
        clock_too, ours, count_too = tasks(page, browser, "began =", "watched")
        pictures = page.evaluate("window.pictures.size")
        browser.close()
    print(f"alone: {count} requests; by the clock {clock[:5]}, CPU {own[:5]} of {len(own)} tasks, ms")
    print(f"watched: {count_too} requests; by the clock {clock_too[:5]}, CPU {ours[:5]} of {len(ours)}, ms")
    print(f"{pictures} pictures")
    assert min(count, count_too) > 1000
    assert pictures > 3
    assert 0 < ours[0] <= own[0] + LONGEST_MS
