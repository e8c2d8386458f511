"""A reader plays through notebooks in a real Chromium, at the class pace: predicts, types, solves, clicks.

Plan only; with --all-notebooks all eleven, one after the other, in one lab (half an hour).
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from devops_lab.exercises import catalogue, quizzes
from devops_lab.exercises.inlab import source
from devops_lab.platform.waits import until
from tests.notebooks.conftest import NOTEBOOKS
from tests.notebooks.test_browser import (
    CHROMIUM_OPTIONS,
    KERNEL_IS_READY,
    TOKEN,
    Jupyter,
    is_elsewhere,
    jupyter,
)

__all__ = ["jupyter"]  # the fixture

LONGEST_SECONDS = 300  # of one cell
LONGEST_TASK_MS = 100  # of the page
NOTEBOOK = "const notebook = window.jupyterapp.shell.currentWidget.content;"
CELLS = f"""() => {{ {NOTEBOOK}
  return notebook.widgets.map(w => [w.model.id, w.model.type, w.model.sharedModel.getSource()]); }}"""
ACTIVATE = f"""async (id) => {{ {NOTEBOOK}
  notebook.deselectAll();
  notebook.activeCellIndex = notebook.widgets.findIndex(w => w.model.id === id);
  notebook.mode = 'command';
  await notebook.scrollToItem(notebook.activeCellIndex, 'smart');
  notebook.activate(); }}"""
# Has it run, and its errors: cells off the screen are not in the page, so the model is asked.
DONE = f"""(id) => {{ {NOTEBOOK}
  const cell = notebook.widgets.find(w => w.model.id === id).model.sharedModel;
  const kernel = window.jupyterapp.shell.currentWidget.sessionContext.session.kernel;
  return [cell.execution_count !== null && cell.executionState !== 'running' && kernel.status === 'idle',
    cell.outputs.filter(o => o.output_type === 'error').map(o => o.ename + ': ' + o.evalue)]; }}"""
WORDS = f"""(id) => {{ {NOTEBOOK}
  const area = notebook.widgets.find(w => w.model.id === id).outputArea.node;
  return area.innerText.split(/\\s+/).filter(word => /[a-z]/i.test(word)).length; }}"""
WATCH = """window.longTasks = []; new PerformanceObserver(list => window.longTasks.push(
  ...list.getEntries().map(entry => entry.duration))).observe({type: 'longtask'});"""


@dataclass
class Played:
    """What one notebook took, and what went wrong in it."""

    name: str
    cells: int = 0
    waited: float = 0.0  # seconds, for cells and buttons
    shown: int = 0  # words in outputs
    wrong: list[str] = field(default_factory=list)
    long_tasks: list[float] = field(default_factory=list)

    def __str__(self) -> str:
        longest = max(self.long_tasks, default=0.0)
        slow = sum(each > LONGEST_TASK_MS for each in self.long_tasks)
        return (
            f"{self.name:14} {self.cells:3} cells, waited {self.waited:5.1f} s, {self.shown:5} words shown, "
            f"longest task {longest:.0f} ms ({slow} above {LONGEST_TASK_MS}); wrong: {self.wrong}"
        )


class Reader:
    """One reader at one notebook, with hands on keyboard and mouse."""

    def __init__(self, page: Any, name: str, after: Callable[[str], None] = lambda _: None) -> None:
        self.page, self.played, self.after = page, Played(name), after
        self.solved = 0
        wrong = self.played.wrong
        page.on("pageerror", lambda error: wrong.append(f"page: {error}"))
        page.on("request", lambda r: wrong.append(f"left: {r.url}") if is_elsewhere(r.url) else None)

    def open(self, url: str) -> None:
        self.page.add_init_script(WATCH)
        self.page.goto(f"{url}/lab/tree/notebooks/{self.played.name}.ipynb?token={TOKEN}&reset")
        self.page.locator(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Cell").first.wait_for(timeout=90_000)
        self.page.wait_for_function(KERNEL_IS_READY, timeout=90_000)
        self.page.evaluate("window.longTasks.length = 0")  # loading JupyterLab is not ours

    def play(self) -> Played:
        """Go from cell to cell as the text says."""
        card = ""
        for id, type, code in self.page.evaluate(CELLS):
            if type != "code" or not code.strip():
                continue
            if found := re.fullmatch(r'exercise\(lab, "([\w-]+)"\)', code):
                card = found[1]
            if card and code.startswith("# Your turn"):
                self.solve(id, card)
            elif code.startswith("# drill.diagnose"):
                self.write(id, 'print(drill.diagnose("packet delay"))')
            self.run(id)
            if code.startswith("predict("):
                self.predict(id)
            elif code.startswith("quiz("):
                self.answer(id, code)
            elif card and code.startswith("# Your turn"):
                self.check(card)
                card = ""
            self.after(id)
        self.played.long_tasks = self.page.evaluate("window.longTasks")
        return self.played

    def run(self, id: str) -> None:
        """Shift+Enter, and wait."""
        self.page.evaluate(ACTIVATE, id)
        began = time.monotonic()
        self.page.keyboard.press("Shift+Enter")
        until(lambda: self.page.evaluate(DONE, id)[0], id, seconds=LONGEST_SECONDS, every_seconds=0.05)
        self.played.waited += time.monotonic() - began
        self.played.cells += 1
        self.played.wrong += [f"{id}: {error}" for error in self.page.evaluate(DONE, id)[1]]
        self.played.shown += self.page.evaluate(WORDS, id)

    def write(self, id: str, text: str) -> None:
        """Type into a cell, below what is in it."""
        self.page.evaluate(ACTIVATE, id)
        self.page.keyboard.press("Enter")
        self.page.keyboard.press("Control+End")
        self.page.keyboard.insert_text("\n" + text)
        self.page.keyboard.press("Escape")

    def cell(self, id: str) -> Any:
        """The cell on the page, brought into sight."""
        self.page.evaluate(ACTIVATE, id)
        index = [each[0] for each in self.page.evaluate(CELLS)].index(id)
        return self.page.locator(f'.jp-Notebook [data-windowed-list-index="{index}"]')

    # ---- controls
    def predict(self, id: str) -> None:
        """By the keyboard alone: a figure, or the first choice, and on to Keep."""
        cell = self.cell(id)
        if (text := cell.locator("input[type=text]")).count():
            text.focus()
            self.page.keyboard.type("5")
        else:
            cell.locator(".widget-toggle-button").first.focus()
            self.page.keyboard.press("Space")
        for _ in range(12):
            self.page.keyboard.press("Tab")
            if self.page.evaluate("document.activeElement.innerText") == "Keep":
                break
        self.page.keyboard.press("Enter")
        self.told(cell, "You predicted")

    def answer(self, id: str, code: str) -> None:
        """A quiz: what is right, by the keyboard."""
        right = quizzes()[code.split('"')[1]].right
        cell = self.cell(id)
        cell.get_by_role("button", name=right, exact=True).focus()
        self.page.keyboard.press("Enter")
        self.told(cell, "✔")

    def solve(self, id: str, name: str) -> None:
        """Two of three are solved in the cell."""
        self.solved += 1
        if self.solved % 3:
            self.write(id, source(catalogue()[name]))

    def check(self, name: str) -> None:
        """By the buttons: what was solved is right; the others get a check, a hint, and Skip."""
        found = [i for i, type, code in self.page.evaluate(CELLS) if code == f'exercise(lab, "{name}")']
        cell = self.cell(found[0])
        steps = ("Check ✔",) if self.solved % 3 else ("Check name", "Hint Hint 1", "Skip done by the lab")
        for step in steps:
            button, _, told = step.partition(" ")
            cell.get_by_role("button", name=button, exact=True).click()
            self.told(cell, name if told == "name" else told)

    def told(self, cell: Any, words: str) -> None:
        """Wait for what a control says."""
        began = time.monotonic()
        try:
            cell.get_by_text(words).first.wait_for(timeout=60_000)
        except Exception:
            said = cell.inner_text()[-400:]
            self.played.wrong.append(f"waited for {words!r}, but was told {said!r}")
        self.played.waited += time.monotonic() - began


@pytest.mark.browser
@pytest.mark.notebook
@pytest.mark.timeout(7200)
def test_a_reader_plays_through(
    jupyter: Jupyter, chromium: str, pytestconfig: pytest.Config, tmp_path: Path
) -> None:
    from playwright.sync_api import sync_playwright

    chosen = NOTEBOOKS if pytestconfig.getoption("--all-notebooks") else NOTEBOOKS[1:2]
    played = []
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        for path in chosen:
            page = browser.new_page(viewport={"width": 1100, "height": 900})
            reader = Reader(page, path.stem)
            reader.open(jupyter.url)
            played.append(reader.play())
            print(played[-1])
            page.close()
        browser.close()
    assert not [str(each) for each in played if each.wrong]
