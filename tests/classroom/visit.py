"""A learner's browser at a hub: log in, open a notebook, order in the shop's frame, watch production."""

from __future__ import annotations

from typing import Any

import nbformat

from tests.classroom.hub import Hub, Learner
from tests.notebooks.test_browser import CHROMIUM_OPTIONS, is_elsewhere, ready, shown
from tests.notebooks.test_in_sight import press
from tests.patience import until

NAME = "shop.test"  # no secure context: plain http, and not localhost
OPENING = 'from devops_lab import Lab, views\nlab = Lab.open()\nprint("opened", lab.root.name)'
FRAME = "views.frame(lab.url)"
PANEL = "views.beside(lambda: views.now(lab.store, lab.operate.customers()))"
SAFE = "[isSecureContext, typeof crypto.randomUUID]"


async def write(learner: Learner) -> None:
    """Put the notebook of this visit into a learner's home."""
    new = nbformat.v4
    kernel = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}
    cells = [new.new_code_cell(code) for code in (OPENING, PANEL, FRAME)]
    notebook = new.new_notebook(cells=cells, metadata={"kernelspec": kernel})
    code, told = await learner.ask("api/contents/visit.ipynb", "PUT", type="notebook", content=notebook)
    assert code in (200, 201), told


def visit(hub: Hub, name: str, port: str, chromium: str) -> None:
    """All that a learner sees; nothing asks another machine."""
    from playwright.sync_api import sync_playwright

    options = [*CHROMIUM_OPTIONS, f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=options)
        page = browser.new_page(viewport={"width": 1400, "height": 1100})
        asked: list[str] = []
        page.context.on("request", lambda request: asked.append(request.url))
        log_in(page, hub, name)
        page.goto(f"{hub.url}/user/{name}/lab/tree/visit.ipynb?reset")
        shown(page)
        ready(page)
        press(page, "Lab.open")
        page.get_by_text("opened my-lab").first.wait_for(timeout=60_000)
        press(page, "views.beside")
        panel = page.locator(".jupyterlab-sidecar")
        panel.get_by_text("Replicas").first.wait_for(timeout=60_000)
        press(page, "views.frame")
        order(page, f"/user/{name}/proxy/{port}/")
        before = panel.inner_text()
        until(lambda: panel.inner_text() != before, "the panel to go on")
        by_name(page, port)
        assert asked
        assert not [each for each in asked if is_elsewhere(each) and f"//{NAME}:{port}/" not in each]
        browser.close()


def log_in(page: Any, hub: Hub, name: str) -> None:
    page.goto(f"{hub.url}/hub/login")
    page.locator("#username_input").fill(name)
    page.locator("#password_input").fill(hub.token)
    page.locator("#login_submit").click()
    page.wait_for_url(f"**/user/{name}/lab*", timeout=90_000)


def order(page: Any, source: str) -> None:
    """An order by hand, in the shop's frame."""
    assert page.locator("iframe").first.get_attribute("src", timeout=60_000) == source
    shop = page.frame_locator(f'iframe[src="{source}"]')
    shop.locator("#items > li").first.wait_for(timeout=60_000)
    shop.get_by_role("button", name="to the basket").first.click()
    shop.locator("#customer").fill("Ann")
    shop.get_by_role("button", name="Order", exact=True).click()
    shop.locator("#placed h3").filter(has_text="Order").wait_for(timeout=60_000)


def by_name(page: Any, port: str) -> None:
    """The shop by plain http under a name of its own: its menu is there."""
    page.goto(f"http://{NAME}:{port}/")
    assert page.evaluate(SAFE) == [False, "undefined"]
    page.locator("#items > li").first.wait_for(timeout=60_000)
