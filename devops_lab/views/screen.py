"""Where pictures appear: live widgets in a notebook that a person runs, plain outputs everywhere else."""

from __future__ import annotations

import os
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from html import escape
from typing import Any
from urllib.parse import urlsplit

from devops_lab.errors import LabError
from devops_lab.settings import choice
from devops_lab.views.picture import Picture
from devops_lab.views.style import INK, badge, nothing, page, seconds

MODES = ("auto", "live", "static")
UPDATES_PER_SECOND = 5
MAX_TEXT = 4000  # characters of a result that are shown
_chosen: list[str] = []


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


def show(picture: Picture) -> None:
    """Display a picture as plain outputs, without a widget."""
    from IPython.display import display

    for data, metadata in picture.bundles():
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]


@contextmanager
def watching(make_picture: Callable[[], Picture], every_seconds: float = 0.5) -> Iterator[None]:
    """Show a picture of the work inside the `with` block; the last one stays, also when the block raises.

    Args:
        make_picture: draws what there is now; called from a thread of its own in live mode.
        every_seconds: pause between two pictures; at most 5 a second are drawn.
    """
    if not live():
        try:
            yield
        finally:
            show(_picture_or_error(make_picture))
        return
    from IPython.display import display
    from ipywidgets import HTML

    widget, done = HTML(nothing("the first picture").as_html()), threading.Event()
    output = display(widget, display_id=True)  # type: ignore[no-untyped-call]
    thread = threading.Thread(target=_refresh, args=(widget, make_picture, every_seconds, done), daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=10)
        # The widget makes room for a plain output, so a saved notebook holds no widget that nothing can draw.
        first, *others = _picture_or_error(make_picture).bundles()
        output.update(first[0], metadata=first[1], raw=True)
        for data, metadata in others:
            display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]
        widget.close()


def _refresh(widget: Any, make: Callable[[], Picture], every_seconds: float, done: threading.Event) -> None:
    pause = max(every_seconds, 1 / UPDATES_PER_SECOND)
    while not done.is_set():
        value = _picture_or_error(make).as_html()
        if not done.is_set() and value != widget.value:
            widget.value = value
        done.wait(pause)


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
def button(label: str, function: Callable[..., Any], **parameters: Any) -> None:
    """Show a button that runs `function(**parameters)` in a thread; static: the plain call instead."""
    _panel(label, function, {}, parameters)


def form(label: str, function: Callable[..., Any], **options: Any) -> None:
    """Show a button with a control for each option, and run `function` with what is chosen.

    Args:
        options: a list is a menu, a `range` a slider, a bool a switch; anything else is passed on.
    """
    kinds = (list, range, bool)
    controls = {name: value for name, value in options.items() if isinstance(value, kinds)}
    fixed = {name: value for name, value in options.items() if name not in controls}
    _panel(label, function, controls, fixed)


def _panel(label: str, function: Callable[..., Any], controls: dict[str, Any], fixed: dict[str, Any]) -> None:
    if not live():
        first = {n: v[0] if isinstance(v, (list, range)) else v for n, v in controls.items()}
        call = call_text(function, first | fixed)
        menus = {n: v for n, v in controls.items() if isinstance(v, list)}
        other = "; ".join(f"{n}: {', '.join(map(str, v))}" for n, v in menus.items())
        text = f"[{label}] is a button in a live notebook; above, the call behind it."
        show(page(text, f"{text} {call}{f' (choices: {other})' if other else ''}", _box("info", label, call)))
        return
    from IPython.display import display
    from ipywidgets import HTML, Button, HBox, Layout, VBox

    fields = {name: _control(name, value) for name, value in controls.items()}
    click = Button(description=label, button_style="primary", layout=Layout(width="auto"))
    answer = HTML()

    def clicked(_: Any) -> None:
        if click.disabled:
            return  # a second click that was under way before the first was seen
        click.disabled = True
        chosen = {name: field.value for name, field in fields.items()} | fixed
        threading.Thread(target=_work, args=(function, chosen, click, answer), daemon=True).start()

    click.on_click(clicked)
    display(VBox([HBox([*fields.values(), click], layout=Layout(flex_flow="row wrap")), answer]))  # type: ignore[no-untyped-call]


def _control(name: str, value: Any) -> Any:
    from ipywidgets import Dropdown, IntSlider, ToggleButton

    text = name.replace("_", " ")
    if isinstance(value, bool):
        return ToggleButton(value=value, description=text)
    if isinstance(value, range):
        return IntSlider(value=value[0], min=value[0], max=value[-1], step=value.step, description=text)
    return Dropdown(options=value, description=text)


def _work(function: Callable[..., Any], parameters: dict[str, Any], click: Any, answer: Any) -> None:
    """Run the plain function, tell how long it has been going on, then what came of it."""
    started, over = time.monotonic(), threading.Event()

    def tell() -> None:
        while not over.wait(0.5):
            answer.value = _box("info", f"running for {time.monotonic() - started:.0f} s")

    answer.value = _box("info", "running")
    ticker = threading.Thread(target=tell, daemon=True)
    ticker.start()
    try:
        result = function(**parameters)
        took = f"done in {seconds(time.monotonic() - started)}"
        said = result.as_html() if isinstance(result, Picture) else ""
        told = _box("good", took, "" if result is None or said else str(result)) + said
    except BaseException as error:  # a thread's exception would be lost in silence
        told = _box("bad", f"failed after {seconds(time.monotonic() - started)}", _error_text(error))
    over.set()
    ticker.join()
    answer.value = told
    click.disabled = False


def call_text(function: Callable[..., Any], parameters: dict[str, Any]) -> str:
    """The plain call that a button makes, as the reader would type it."""
    name = getattr(function, "__name__", str(function)).replace("<lambda>", "the function in this cell")
    owner = getattr(function, "__self__", None)
    module = type(owner).__module__ if owner is not None else ""
    if module.startswith("devops_lab."):
        name = f"lab.{module.rpartition('.')[2]}.{name}"
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
    import json
    from pathlib import Path

    if hub := os.environ.get("JUPYTERHUB_SERVICE_PREFIX"):
        return hub.rstrip("/") + "/"
    from jupyter_core.paths import jupyter_runtime_dir

    server = Path(jupyter_runtime_dir()) / f"jpserver-{os.getppid()}.json"
    try:
        return str(json.loads(server.read_text(encoding="utf-8"))["base_url"])
    except (OSError, ValueError, KeyError):
        return ""
