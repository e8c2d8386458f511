"""The shop's page in a real Chromium, where it is no secure context: plain http, and not localhost."""

from __future__ import annotations

import functools
import shutil
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.notebooks.test_browser import CHROMIUM_OPTIONS
from tests.shop.test_suite import transpile

TEMPLATE = Path(__file__).parents[2] / "devops_lab" / "shop" / "template"


@pytest.mark.browser
def test_the_page_starts_under_a_name_that_is_not_localhost(chromium: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    source = shutil.copytree(TEMPLATE, tmp_path / "shop")
    assert transpile(source).returncode == 0
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(source / "src/bento/static"))
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    options = [*CHROMIUM_OPTIONS, "--host-resolver-rules=MAP shop.example 127.0.0.1"]
    with sync_playwright() as play, server:
        browser = play.chromium.launch(executable_path=chromium, headless=True, args=options)
        page = browser.new_page()
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(f"http://shop.example:{server.server_port}/index.html", timeout=90_000)
        page.add_script_tag(path=str(source / "src/bento/static/app.js"))
        with_keys = page.evaluate("[isSecureContext, typeof newKey === 'function' && newKey().length > 8]")
        browser.close()
        server.shutdown()
    assert with_keys == [False, True]
    assert not [error for error in errors if "crypto" in error], errors
