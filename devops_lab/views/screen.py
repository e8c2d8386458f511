"""Where pictures appear: live widgets in a notebook that a person runs, plain outputs everywhere else."""

from __future__ import annotations

import json
import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from devops_lab.errors import LabError
from devops_lab.platform.settings import choice
from devops_lab.views.records import MAX_TEXT, record
from devops_lab.views.style import INK, Picture, badge, nothing, page, seconds, show

MODES = ("auto", "live", "static")
PAUSE_SECONDS = 0.5  # between two pictures of the same work
BESIDE_SECONDS = 1.0  # and of what stays in sight
# JupyterLab holds the next cell still, so that what appears above it may be pushed out of sight: back to it.
SIGHT = """const back = () => element.closest('.jp-OutputArea')?.scrollIntoView({block: 'center'});
[100, 300, 600].forEach(ms => setTimeout(back, ms));"""
TO_SIGHT = {"application/javascript": SIGHT, "text/plain": ""}
CALM_SECONDS = 1.5  # after that it stays where it is
NOTHING = {"text/html": "", "text/plain": ""}
_chosen: list[str] = []
_panels: dict[str, Callable[[], None]] = {}  # by title: what closes it


def mode(wanted: str = "") -> str:
    """Choose how views show ("auto", "live" or "static"), and return "live" or "static".

    Without an argument only say it. $DEVOPS_LAB_VIEW counts where nothing was chosen.

    Raises:
        BadInput: there is no such mode.
    """
    if wanted:
        _chosen[:] = [choice("view mode", wanted, MODES)]
    asked = _chosen[0] if _chosen else choice("view mode", os.environ.get("DEVOPS_LAB_VIEW") or "auto", MODES)
    if asked == "auto":
        return "live" if _a_person_runs_this() else "static"
    return asked


def live() -> bool:
    return mode() == "live"


def _a_person_runs_this() -> bool:
    """Whether a page asked for this cell: a page names its cell; papermill, nbconvert and nbval don't."""
    try:
        from IPython.core.getipython import get_ipython

        kernel = getattr(get_ipython(), "kernel", None)
        return bool(kernel and kernel.get_parent().get("metadata", {}).get("cellId"))
    except ImportError:
        return False


@contextmanager
def watching(make_picture: Callable[[], Picture], height: int = 520) -> Iterator[None]:
    """Show a picture of the work inside the `with` block; the last one stays, also when the block raises.

    It is a plain output that is renewed, no widget: a tab that is closed meanwhile, or a kernel that is
    restarted, leaves the picture that was there.

    Args:
        make_picture: draws what there is now; called from a thread of its own in live mode.
        height: pixels that are kept free from the beginning, so that the page never jumps while it grows.
    """
    if not live():
        try:
            yield
        finally:
            show(_picture_or_error(make_picture))
        return
    from IPython.display import display

    empty, done = _framed(nothing("the first picture"), height), threading.Event()
    output = display(empty, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    below = display(TO_SIGHT, raw=True, display_id=True)  # type: ignore[no-untyped-call]

    def put(picture: Picture) -> None:
        output.update(_framed(picture, height), raw=True)

    thread = threading.Thread(target=_refresh, args=(put, make_picture, done), daemon=True)
    # what was done once is not to be done again where the notebook is opened
    calm = threading.Timer(CALM_SECONDS, below.update, (NOTHING,), {"raw": True})
    calm.daemon = True
    thread.start()
    calm.start()
    try:
        yield
    finally:
        done.set()
        calm.cancel()
        calm.join(timeout=10)
        thread.join(timeout=10)
        first, second = [*_picture_or_error(make_picture).bundles(), (NOTHING, {})][:2]
        output.update(first[0], metadata=first[1], raw=True)
        below.update(second[0], metadata=second[1], raw=True)


def _framed(picture: Picture, height: int) -> dict[str, str]:
    """A picture in a place of a fixed height; what is longer is scrolled inside of it."""
    inside = f'<div style="{INK};height:{height}px;overflow:auto" tabindex="0">{picture.as_html()}</div>'
    return {"text/html": inside, "text/plain": f"{picture.caption}\n{picture.alt}"}


def _refresh(
    put: Callable[[Picture], None],
    make: Callable[[], Picture],
    done: threading.Event,
    pause_seconds: float = PAUSE_SECONDS,
) -> None:
    """Put each picture that differs from the one before where it is seen, until it is done."""
    before = None
    while not done.is_set():
        picture = _picture_or_error(make)
        if not done.is_set() and picture != before:
            put(picture)
        before = picture
        done.wait(pause_seconds)


# ---- what stays in sight
def beside(
    make_picture: Callable[[], Picture], title: str = "Production now", **buttons: Callable[[], Any]
) -> None:
    """Keep a picture in sight in a panel beside the notebook, renewed every second, with buttons above it.

    The cell keeps the picture of this moment. The panel goes with its own button, with the kernel, or
    when this is called again. Static: the picture of this moment, and the calls behind the buttons.

    Args:
        make_picture: draws what there is now, in a thread of its own.
        title: of the panel; there is one panel of a title.
        buttons: what each one runs, by its label with _ for spaces.
    """
    show(_picture_or_error(make_picture))
    labels = {name.replace("_", " ").capitalize(): function for name, function in buttons.items()}
    if not live():
        for label, function in labels.items():
            form(label, function)
        return
    from ipywidgets import HTML, Button, HBox, Layout, VBox

    if close_the_one_before := _panels.pop(title, None):
        close_the_one_before()
    body, done = HTML(), threading.Event()
    answer = HTML(layout=Layout(max_height="130px", overflow="auto"))

    def tell(picture: Picture) -> None:
        answer.value = picture.as_html()

    clicks = [_button(label, function, dict, tell) for label, function in labels.items()]
    close = Button(description="Close", layout=Layout(width="auto"))
    row = HBox([*clicks, close], layout=Layout(flex_flow="row wrap"))
    panel = _docked(VBox([row, answer, body], layout=Layout(padding="4px")), title)

    def end(_: Any = None) -> None:
        done.set()
        panel.close()

    close.on_click(end)
    _panels[title] = end

    def put(picture: Picture) -> None:
        body.value = picture.as_html()

    refreshing = (put, make_picture, done, BESIDE_SECONDS)
    threading.Thread(target=_refresh, args=refreshing, daemon=True).start()


def _docked(content: Any, title: str) -> Any:
    """Content in a panel on the right of JupyterLab; where that can't be had, in the cell."""
    from IPython.display import display

    try:
        from sidecar import Sidecar
    except ImportError:  # an environment from before it was asked for
        display(content)  # type: ignore[no-untyped-call]
        return content
    panel = Sidecar(title=title)  # shows itself, so that the notebook holds no widget of it
    panel.append_display_data(content)
    return panel


def _picture_or_error(make: Callable[[], Picture]) -> Picture:
    """A view that fails says so in its place; the work that it watches goes on."""
    try:
        return make()
    except Exception as error:
        told = _error_text(error)
        return page("This view could not be drawn.", told, _box("bad", "could not draw", told))


def _error_text(error: BaseException) -> str:
    if isinstance(error, LabError):
        return str(error)
    return "".join(traceback.format_exception_only(error)).strip()


def _box(tone: str, title: str, text: str = "") -> str:
    body = f'<div style="white-space:pre-wrap;font-size:13px">{escape(text[:MAX_TEXT])}</div>' if text else ""
    return f'<div style="{INK};border:1px solid #d0d0d0;padding:6px 10px">{badge(tone, title)}{body}</div>'


# ---- work started by hand
def form(label: str, function: Callable[..., Any], **menus: Sequence[Any]) -> None:
    """Show a button with choices for each parameter, and run `function` with what is chosen, in a thread.

    Static: the plain call with the first choices instead.
    """
    if not live():
        call = call_text(function, {name: choices[0] for name, choices in menus.items()})
        other = "; ".join(f"{name}: {', '.join(map(str, choices))}" for name, choices in menus.items())
        text = f"[{label}] is a button in a live notebook; above, the call behind it."
        show(page(text, f"{text} {call} {other and f'(choices: {other})'}", _box("info", label, call)))
        return
    from IPython.display import display
    from ipywidgets import HBox, Layout, ToggleButtons

    # no menus: JupyterLab takes the keys that these need, and moves or cuts cells
    shown = {name: [(str(v) or "all", v) for v in values] for name, values in menus.items()}
    fields = {name: ToggleButtons(options=v, description=name) for name, v in shown.items()}

    def tell(picture: Picture) -> None:
        output.update(_plain(picture), raw=True)

    click = _button(label, function, lambda: {name: f.value for name, f in fields.items()}, tell)
    display(HBox([*fields.values(), click], layout=Layout(flex_flow="row wrap")))  # type: ignore[no-untyped-call]
    # an output of its own, and no widget: the answer stays when the notebook is opened again
    output = display(_plain(Picture("", "")), raw=True, display_id=True)  # type: ignore[no-untyped-call]


def _plain(picture: Picture) -> dict[str, str]:
    return {"text/html": picture.as_html(), "text/plain": f"{picture.caption}\n{picture.alt}".strip()}


def _button(
    label: str,
    function: Callable[..., Any],
    chosen: Callable[[], dict[str, Any]],
    tell: Callable[[Picture], None],
) -> Any:
    """A button that runs a function in a thread with what is chosen, once at a time."""
    from ipywidgets import Button, Layout

    click = Button(description=label, button_style="primary", layout=Layout(width="auto"))

    def clicked(_: Any) -> None:
        if click.disabled:
            return  # a second click that was under way before the first was seen
        click.disabled = True
        threading.Thread(target=_work, args=(function, chosen(), click, tell), daemon=True).start()

    click.on_click(clicked)
    return click


def _work(
    function: Callable[..., Any], parameters: dict[str, Any], click: Any, tell: Callable[[Picture], None]
) -> None:
    """Run the plain function, tell how long it has been going on, then what came of it."""
    started, over = time.monotonic(), threading.Event()

    def still() -> None:
        while not over.wait(0.5):
            tell(_boxed("info", f"running for {time.monotonic() - started:.0f} s"))

    tell(_boxed("info", "running"))
    ticker = threading.Thread(target=still, daemon=True)
    ticker.start()
    try:
        result = function(**parameters)
        took = f"done in {seconds(time.monotonic() - started)}"
        told = _boxed("good", took, after=record(result))
    except BaseException as error:  # a thread's exception would be lost in silence
        told = _boxed("bad", f"failed after {seconds(time.monotonic() - started)}", _error_text(error))
    over.set()
    ticker.join()
    tell(told)
    click.disabled = False


def _boxed(tone: str, title: str, text: str = "", after: Picture | None = None) -> Picture:
    """How far the work is, and below it what came of it."""
    if after is None:
        return Picture(title, text, html=_box(tone, title, text))
    return replace(after, html=_box(tone, title) + after.html)


def call_text(function: Callable[..., Any], parameters: dict[str, Any]) -> str:
    """The plain call that a button makes, as the reader would type it."""
    name = getattr(function, "__name__", str(function)).replace("<lambda>", "the function in this cell")
    owner = getattr(function, "__self__", None)
    module = type(owner).__module__ if owner is not None else ""
    if module.startswith("devops_lab."):
        name = f"lab.{module.rpartition('.')[2].replace('parts', 'operate')}.{name}"  # Operate's heir
    given = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
    return f"{name}({given})"


# ---- the running shop
def frame(url: str, height: int = 420, *, text: str = "") -> None:
    """Show a server of this machine (the shop) in a frame on the page; static: its address and `text`.

    Args:
        url: "http://127.0.0.1:PORT" with or without a path.
        height: of the frame, in pixels.
        text: what the page says, fetched by the caller, for places where no frame can be.
    """
    if not live():
        caption = f"The page at {url}, as text; a live notebook shows it in a frame here."
        show(page(caption, f"{caption} {text}", _box("info", url, text)))
        return
    from IPython.display import display

    name, source = escape(url), escape(proxied(url))
    style = f"width:100%;height:{int(height)}px;border:1px solid #767676;background:#ffffff"
    inside = f'<iframe title="{name}" src="{source}" style="{style}"></iframe>'
    display({"text/html": inside, "text/plain": url}, raw=True)  # type: ignore[no-untyped-call]


def proxied(url: str) -> str:
    """Where the browser finds a server of this machine: through the notebook's own server if there is one."""
    parts, base = urlsplit(url), _base_url()
    query = f"?{parts.query}" if parts.query else ""
    return f"{base}proxy/{parts.port}{parts.path or '/'}{query}" if base else url


def _base_url() -> str:
    """The notebook server's base URL, e.g. "/" or "/user/ann/"; "" when none started this kernel."""
    if hub := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        return hub.rstrip("/") + "/"
    from jupyter_core.paths import jupyter_runtime_dir

    server = Path(jupyter_runtime_dir()) / f"jpserver-{os.getppid()}.json"
    try:
        return str(json.loads(server.read_text(encoding="utf-8"))["base_url"])
    except (OSError, ValueError, KeyError):
        return ""
