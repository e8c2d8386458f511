"""Live and static: what is displayed, by which thread, and what is told when something goes wrong."""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from devops_lab import views
from devops_lab.errors import BadInput
from devops_lab.lab.parts import Operations
from devops_lab.model import Sprint
from devops_lab.views import screen
from devops_lab.views.style import Picture
from tests.patience import until


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


def test_live_watching_renews_one_plain_output_of_a_fixed_height(page: Page) -> None:
    views.mode("live")
    threads: set[str] = set()
    drawings: list[int] = []

    def draw() -> Picture:
        threads.add(threading.current_thread().name)
        drawings.append(1)
        return picture(f"drawing {len(drawings)}")

    with views.watching(draw, height=333):
        until(lambda: "drawing 2" in texts(page.updated), "the second drawing")
    assert len(threads) == 2  # the refreshing thread, and this one for the last picture
    frame, to_sight = page.shown
    assert all("height:333px" in output["text/html"] for output in [frame, *page.updated[:-2]])
    assert "scrollIntoView" in to_sight["application/javascript"]
    assert all(set(output) == {"text/html", "text/plain"} for output in page.updated)  # no script stays
    *_, last, below = page.updated
    assert f"drawing {len(drawings)}" in last["text/html"]
    assert below == screen.NOTHING
    assert not any(thread.name in threads for thread in threading.enumerate() if thread.name != "MainThread")


def test_live_watching_is_bounded_to_two_updates_a_second_and_puts_only_what_is_new() -> None:
    pauses: list[float] = []
    put: list[Picture] = []

    class Done(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            pauses.append(timeout or 0)
            if len(pauses) == 3:
                self.set()
            return self.is_set()

    screen._refresh(put.append, picture, Done())
    assert pauses == [0.5] * 3
    assert len(put) == 1


def test_live_watching_shows_a_failing_view_in_its_place(page: Page) -> None:
    views.mode("live")

    def broken() -> Picture:
        raise ValueError("no axes")

    with views.watching(broken):
        until(lambda: "no axes" in texts(page.updated), "the error on the page")


# ---- what stays in sight
class Panel:
    """Stands where JupyterLab's panel would."""

    def __init__(self, title: str) -> None:
        self.title, self.closed = title, False
        panels.append(self)

    def append_display_data(self, content: Any) -> None:
        self.content = content

    def close(self) -> None:
        self.closed = True


panels: list[Panel] = []


def test_a_panel_is_renewed_until_it_is_closed_and_there_is_one_of_a_title(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    views.mode("live")
    monkeypatch.setitem(sys.modules, "sidecar", SimpleNamespace(Sidecar=Panel))
    monkeypatch.setattr(screen, "BESIDE_SECONDS", 0.01)
    panels.clear()
    drawings: list[int] = []

    def draw() -> Picture:
        drawings.append(1)
        return picture(f"drawing {len(drawings)}")

    for _ in range(2):
        views.beside(draw, "Now", send_home=lambda: ["ann"])
    assert [panel.closed for panel in panels] == [True, False]
    row, answer, body = panels[1].content.children
    home, close = row.children
    seen = len(drawings)
    until(lambda: len(drawings) > seen + 2 and "drawing" in body.value, "the panel to go on")
    home.click()
    until(lambda: "ann" in answer.value, "the answer")
    close.click()
    assert panels[1].closed
    until(lambda: not any("_refresh" in thread.name for thread in threading.enumerate()), "the thread's end")
    assert all("<b>drawing" in texts([output]) for output in page.shown)  # the cell keeps what there was


def test_a_static_panel_is_a_picture_and_the_calls_behind_its_buttons(page: Page) -> None:
    views.beside(picture, "Now", send_home=refuse)
    assert "<b>one</b>" in page.shown[0]["text/html"]
    assert "refuse()" in page.shown[1]["text/html"]


# ---- buttons and forms
def widgets(page: Page) -> tuple[dict[str, Any], Any]:
    """Fields by label, and the button."""
    *fields, button = page.shown[0].children
    return {field.description: field for field in fields}, button


def click(page: Page, button: Any, what: str) -> str:
    """Click and wait for an answer, which is a plain output: it stays when the notebook is opened again."""
    button.click()
    until(
        lambda: what in texts(page.updated[-1:]) and not button.disabled,
        what,
        evidence=lambda: texts(page.updated),
    )
    return str(page.updated[-1]["text/html"])


def test_static_form_names_the_plain_call(page: Page) -> None:
    def deploy(version: str) -> None:
        raise AssertionError("a static form must not act")

    views.form("Deploy", deploy, version=["1.1.0"])
    assert "deploy(version=&#x27;1.1.0&#x27;)" in page.shown[0]["text/html"]
    assert "deploy(version='1.1.0')" in page.shown[0]["text/plain"]


def test_static_form_names_the_choices(page: Page) -> None:
    views.form("Deploy", lambda version, replicas: None, version=["1.0.0", "1.1.0"], replicas=[1, 2, 3])
    assert "(version='1.0.0', replicas=1)" in page.shown[0]["text/plain"]
    assert "1.0.0, 1.1.0" in page.shown[0]["text/plain"]


def test_button_runs_in_a_thread_and_tells_the_result(page: Page) -> None:
    views.mode("live")
    ran: list[str] = []

    def deploy(version: str) -> str:
        ran.append(threading.current_thread().name)
        return f"<{version}> serves"

    views.form("Deploy", deploy, version=["1.1.0"])
    _, button = widgets(page)
    assert "&lt;1.1.0&gt; serves" in click(page, button, "done in")
    assert ran != [threading.current_thread().name]
    assert len(ran) == 1


def test_a_second_click_while_it_runs_does_nothing(page: Page) -> None:
    views.mode("live")
    go, calls = threading.Event(), []

    def slow() -> None:
        calls.append(1)
        go.wait(60)

    views.form("Slow", slow)
    _, button = widgets(page)
    button.click()
    until(lambda: calls, "the first call")
    assert button.disabled
    assert "running" in texts(page.updated)
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
    views.form("Deploy", function)
    _, button = widgets(page)
    assert told in click(page, button, "failed after")


def test_form_passes_what_is_chosen(page: Page) -> None:
    views.mode("live")
    seen: list[Any] = []
    views.form("Go", lambda **options: seen.append(options), version=["a", "b"], n=[2, 5])
    fields, button = widgets(page)
    fields["version"].value, fields["n"].value = "b", 5
    click(page, button, "done in")
    assert seen == [{"version": "b", "n": 5}]


def test_a_picture_as_result_is_shown(page: Page) -> None:
    views.mode("live")
    views.form("Look", picture)
    _, button = widgets(page)
    click(page, button, "<b>one</b>")
    assert "done in" in texts(page.updated[-1:])


def test_a_record_as_result_is_a_table_and_no_repr(page: Page) -> None:
    views.mode("live")
    views.form("Choose", lambda: Sprint(4, 10, ["B-15", "B-9"], 5, 10, "wsjf", 1_750_000_000.0))
    _, button = widgets(page)
    answer = click(page, button, "done in")
    assert "B-15, B-9" in answer
    assert "chosen by" in answer
    assert "Sprint(" not in answer
    assert "1750000000" not in answer


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


def test_a_button_names_the_part_of_the_lab_that_it_calls() -> None:
    assert screen.call_text(Operations.__new__(Operations).send_home, {}) == "lab.operate.send_home()"
