"""Live and static: what is displayed, by which thread, and what is told when something goes wrong."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable
from typing import Any

import pytest

from devops_lab import views
from devops_lab.errors import BadInput
from devops_lab.views import screen
from devops_lab.views.picture import Picture
from devops_lab.waits import until


class Page:
    """Stands where a notebook's page would: remembers what was displayed and updated."""

    def __init__(self) -> None:
        self.shown: list[Any] = []
        self.updated: list[Any] = []

    def display(self, what: Any, **_: Any) -> Page:
        self.shown.append(what)
        return self

    def update(self, what: Any, **_: Any) -> None:
        self.updated.append(what)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch) -> Page:
    import IPython.display

    found = Page()
    monkeypatch.setattr(IPython.display, "display", found.display)
    monkeypatch.setattr(screen, "_chosen", [])
    monkeypatch.delenv("DEVOPS_LAB_VIEW", raising=False)
    return found


def picture(text: str = "one") -> Picture:
    return Picture(text, f"alt {text}", html=f"<b>{text}</b>")


def texts(outputs: list[Any]) -> str:
    return " ".join(str(output) for output in outputs)


# ---- the mode
def test_auto_is_static_where_nobody_watches(page: Page) -> None:
    assert views.mode() == "static"


def test_the_environment_counts_until_a_mode_is_chosen(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVOPS_LAB_VIEW", "live")
    assert views.mode() == "live"
    assert views.mode("static") == "static"
    assert not views.live()


def test_an_unknown_mode_is_refused(page: Page) -> None:
    with pytest.raises(BadInput, match="Did you mean 'static'"):
        views.mode("statik")
    assert views.mode() == "static"


@pytest.mark.parametrize(("metadata", "live"), [({"cellId": "abc"}, True), ({}, False)])
def test_auto_is_live_where_a_page_names_its_cell(
    page: Page, monkeypatch: pytest.MonkeyPatch, metadata: dict[str, str], live: bool
) -> None:
    import IPython.core.getipython as where

    class Kernel:
        def get_parent(self) -> dict[str, Any]:
            return {"metadata": metadata}

    class Shell:
        kernel = Kernel()

    monkeypatch.setattr(where, "get_ipython", Shell)
    assert views.live() is live


# ---- pictures
def test_show_gives_figure_and_table_as_two_outputs(page: Page) -> None:
    views.show(Picture("caption", "alt", html="<b>t</b>", png=b"png"))
    assert [set(data) for data in page.shown] == [{"image/png", "text/plain"}, {"text/html", "text/plain"}]
    assert "caption" in page.shown[1]["text/html"]


def test_a_picture_at_the_end_of_a_cell_shows_itself(page: Page) -> None:
    picture()._ipython_display_()
    assert "<b>one</b>" in page.shown[0]["text/html"]


# ---- watching
def test_static_watching_shows_one_picture_after_the_block(page: Page) -> None:
    with views.watching(picture):
        assert page.shown == []
    assert len(page.shown) == 1


def test_static_watching_shows_its_picture_also_when_the_block_raises(page: Page) -> None:
    with pytest.raises(ZeroDivisionError), views.watching(picture):
        _ = 1 / 0
    assert "<b>one</b>" in texts(page.shown)


def test_a_view_that_fails_says_so_and_does_not_stop_the_work(page: Page) -> None:
    def broken() -> Picture:
        raise ValueError("no axes")

    with views.watching(broken):
        pass
    assert "ValueError: no axes" in texts(page.shown)


def test_live_watching_refreshes_from_a_thread_and_leaves_no_widget(page: Page) -> None:
    views.mode("live")
    threads: set[str] = set()
    drawings: list[int] = []

    def draw() -> Picture:
        threads.add(threading.current_thread().name)
        drawings.append(1)
        return picture(f"drawing {len(drawings)}")

    with views.watching(draw, every_seconds=0.0):
        widget = page.shown[0]
        until(lambda: "drawing 2" in widget.value, "the second drawing")
    assert len(threads) == 2  # the refreshing thread, and this one for the last picture
    assert set(page.updated[-1]) == {"text/html", "text/plain"}
    count = len(drawings)
    assert f"drawing {count}" in page.updated[-1]["text/html"]
    assert not any(thread.name in threads for thread in threading.enumerate() if thread.name != "MainThread")


def test_live_watching_is_bounded_to_five_updates_a_second(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []

    class Done(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            self.set()
            return True

    class Widget:
        value = ""

    screen._refresh(Widget(), picture, 0.001, Done())
    assert pauses == [0.2]


def test_live_watching_shows_a_failing_view_in_its_place(page: Page) -> None:
    views.mode("live")

    def broken() -> Picture:
        raise ValueError("no axes")

    with views.watching(broken, every_seconds=0.0):
        until(lambda: "no axes" in page.shown[0].value, "the error on the page")


# ---- buttons and forms
def widgets(page: Page) -> tuple[dict[str, Any], Any, Any]:
    """Fields by label, the button, and the place of the answer."""
    row, answer = page.shown[0].children
    *fields, button = row.children
    return {field.description: field for field in fields}, button, answer


def click(button: Any, answer: Any, what: str) -> None:
    button.click()
    until(lambda: what in answer.value and not button.disabled, what, evidence=lambda: str(answer.value))


def test_static_button_names_the_plain_call(page: Page) -> None:
    def deploy(version: str) -> None:
        raise AssertionError("a static button must not act")

    views.button("Deploy", deploy, version="1.1.0")
    assert "deploy(version=&#x27;1.1.0&#x27;)" in page.shown[0]["text/html"]
    assert "deploy(version='1.1.0')" in page.shown[0]["text/plain"]


def test_static_form_names_the_choices(page: Page) -> None:
    views.form("Deploy", lambda version, replicas: None, version=["1.0.0", "1.1.0"], replicas=range(1, 4))
    assert "(version='1.0.0', replicas=1)" in page.shown[0]["text/plain"]
    assert "1.0.0, 1.1.0" in page.shown[0]["text/plain"]


def test_button_runs_in_a_thread_and_tells_the_result(page: Page) -> None:
    views.mode("live")
    ran: list[str] = []

    def deploy(version: str) -> str:
        ran.append(threading.current_thread().name)
        return f"<{version}> serves"

    views.button("Deploy", deploy, version="1.1.0")
    _, button, answer = widgets(page)
    click(button, answer, "done in")
    assert "&lt;1.1.0&gt; serves" in answer.value
    assert ran != [threading.current_thread().name]
    assert len(ran) == 1


def test_a_second_click_while_it_runs_does_nothing(page: Page) -> None:
    views.mode("live")
    go, calls = threading.Event(), []

    def slow() -> None:
        calls.append(1)
        go.wait(10)

    views.button("Slow", slow)
    _, button, answer = widgets(page)
    button.click()
    until(lambda: calls, "the first call")
    assert button.disabled
    assert "running" in answer.value
    button.click()
    go.set()
    until(lambda: not button.disabled, "the end")
    assert calls == [1]


def refuse() -> None:
    raise BadInput("There is no release 9.9.9.", expected="1.0.0", next_step="Release it first.")


def crash() -> None:
    raise KeyError("lost")


@pytest.mark.parametrize(
    ("function", "told"), [(refuse, "What to do: Release it first."), (crash, "KeyError: &#x27;lost&#x27;")]
)
def test_an_error_is_told_in_words_and_the_button_works_again(
    page: Page, function: Callable[[], None], told: str
) -> None:
    views.mode("live")
    views.button("Deploy", function)
    _, button, answer = widgets(page)
    click(button, answer, "failed after")
    assert told in answer.value


def test_form_passes_what_is_chosen(page: Page) -> None:
    views.mode("live")
    seen: list[Any] = []
    views.form(
        "Go", lambda **options: seen.append(options), version=["a", "b"], n=range(2, 9), fast=True, why="x"
    )
    fields, button, answer = widgets(page)
    fields["version"].value, fields["n"].value = "b", 5
    click(button, answer, "done in")
    assert seen == [{"version": "b", "n": 5, "fast": True, "why": "x"}]


def test_a_picture_as_result_is_shown(page: Page) -> None:
    views.mode("live")
    views.button("Look", picture)
    _, button, answer = widgets(page)
    click(button, answer, "<b>one</b>")


# ---- the frame
def test_static_frame_is_text(page: Page) -> None:
    views.frame("http://127.0.0.1:4711", text="Bento, release 1.1.0")
    assert "Bento, release 1.1.0" in page.shown[0]["text/html"]
    assert "iframe" not in page.shown[0]["text/html"]


@pytest.mark.parametrize("hub", ["/user/ann/", "/user/ann"])
def test_a_frame_goes_through_the_hub(page: Page, monkeypatch: pytest.MonkeyPatch, hub: str) -> None:
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", hub)
    views.mode("live")
    views.frame("http://127.0.0.1:4711/menu?a=1", height=300)
    assert 'src="/user/ann/proxy/4711/menu?a=1"' in page.shown[0]["text/html"]


def test_a_frame_goes_through_the_server_that_started_this_kernel(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    monkeypatch.delenv("JUPYTERHUB_SERVICE_PREFIX", raising=False)
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    assert screen.proxied("http://127.0.0.1:4711") == "http://127.0.0.1:4711"
    (tmp_path / f"jpserver-{os.getppid()}.json").write_text(json.dumps({"base_url": "/lab/"}))
    assert screen.proxied("http://127.0.0.1:4711") == "/lab/proxy/4711/"
