"""The book, and every picture in it, as axe sees them: nothing serious for those who use it differently."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nbformat
import pytest

from devops_lab.platform.store import Store
from devops_lab.workbook.book import write_index, write_page
from devops_lab.workbook.summary import NotebookResult, Summary
from tests.notebooks.test_browser import CHROMIUM_OPTIONS
from tests.views import examples

CODE = '''# a comment, and all else that is coloured
@property
async def price(self, boxes: int = 3) -> float:
    """A text."""
    return self.total(boxes) * 1.19 if boxes >= 2 and not None else f"{boxes!r}\\n"
'''
WORDS = "# A *title*\n\nSee [the plan](01-plan.ipynb) beside `code`, and [Docker](https://www.docker.com).\n"


def notebook_of_all(folder: Path) -> Any:
    """A notebook with prose, code, text, a result, an error, and every picture that there is."""
    new, store = nbformat.v4, Store(folder / "lab.db")
    examples.fill(store)
    outputs = [
        new.new_output("stream", text="printed\n"),
        new.new_output("execute_result", data={"text/plain": "42"}, execution_count=1),
        new.new_output("error", ename="BadInput", evalue="no", traceback=["\x1b[31mBadInput\x1b[0m: no"]),
    ]
    drawn = [*examples.pictures(store).values(), *(draw() for draw in examples.empties(store).values())]
    for picture in drawn:
        outputs += [new.new_output("display_data", data=d, metadata=m) for d, m in picture.bundles()]
    store.close()
    code = new.new_code_cell(CODE, id="code", execution_count=1, outputs=outputs)
    return new.new_notebook(cells=[new.new_markdown_cell(WORDS, id="words"), code])


@pytest.mark.browser
def test_axe_finds_nothing_serious_in_the_book(tmp_path: Path, chromium: str) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    from playwright.sync_api import sync_playwright

    nbformat.write(notebook_of_all(tmp_path), tmp_path / "00-all.ipynb")
    figures = {"seconds": 1.5}
    results = [NotebookResult(name="00-all", title="All", status="ok", figures=figures)]
    summary = Summary(1.5, "process", "quick", str(tmp_path), "", results, {})
    write_page(results, 0, 1, tmp_path)
    write_index(summary, tmp_path)
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=CHROMIUM_OPTIONS)
        page = browser.new_page(viewport={"width": 1100, "height": 900})
        for path in (tmp_path / "index.html", tmp_path / "00-all.html"):
            page.goto(path.as_uri())
            found = axe.run(page).response["violations"]
            bad = [v for v in found if v["impact"] in ("serious", "critical") or "table" in v["id"]]
            assert [(v["id"], [node["html"][:150] for node in v["nodes"][:3]]) for v in bad] == []
            wide = page.evaluate("() => document.documentElement.scrollWidth - window.innerWidth")
            assert wide <= 0, f"{path.name} is {wide} pixels wider than a window of 1100"
        browser.close()
