"""Predictions: said before a run, kept, and shown beside what was measured after it, in the same place.

predict(lab, "wheel-size", "How large will the wheel be?", unit="kB")  # a control; static: the plain call
predict(lab, "wheel-size", "How large will the wheel be?", unit="kB", answer=140)  # what the control does
truth(lab, "wheel-size", artifact.bytes / 1000)                        # guess, truth, how far
"""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

from devops_lab.errors import BadInput, LabError
from devops_lab.exercises.base import MOST, NotYet, Said, number
from devops_lab.model import Prediction
from devops_lab.platform.store import Store
from devops_lab.views.screen import live
from devops_lab.views.style import CELL, MONO, SMALL, Bundle, badge

if TYPE_CHECKING:
    from devops_lab.lab import Lab

Answer = float | str | list[str]
_KEEPING = (
    threading.Lock()
)  # a button may be pressed (in a thread of the kernel's) while a cell shows the truth
_controls: dict[tuple[Path, str], Any] = {}  # on the page now; a page loaded anew still shows them


def predict(
    lab: Lab,
    id: str,
    question: str,
    *,
    unit: str = "",
    choices: Sequence[object] = (),
    order: Sequence[object] = (),
    answer: object = None,
) -> None:
    """Ask for a prediction, or keep one; the last that is kept before the truth is shown counts.

    Live: a control with a button. Static, or with an `answer`: text, and nothing waits.

    Args:
        id: names the prediction in this lab, e.g. "build-wheel-size".
        unit: of a number, e.g. "kB".
        choices: to choose one of, in the order shown.
        order: things to bring into order; shown from A to Z.
        answer: what the control would keep: 140 or "140 kB", one of the choices, or all things in order.
            `None` or `...` leaves the question open.

    Raises:
        BadInput: the answer is of another type or unit, or none of the choices; what was kept stays.
    """
    options = [str(each) for each in choices] or sorted(str(each) for each in order)
    kind: Any = "order" if order else "choice" if choices else "number"
    asked, store, note = Prediction(id, kind, question, unit, options), lab.store, ""
    with _KEEPING:
        kept = store.get(Prediction, id)
        if kept is None or kept.truth is None:
            same = kept and (kept.kind, kept.unit, kept.options) == (kind, unit, options)
            kept = replace(kept, question=question) if kept and same else asked
            store.put(kept)
    if answer is not None and answer is not ...:
        kept, note = _keep(store, kept, answer)
    elif live() and kept.truth is None:
        _show_control(store, kept)
        return
    _display(kept, f"{_told(kept)} {note}".strip(), display_id=_place(id))


def truth(lab: Lab, id: str, value: object) -> None:
    """Show what was measured beside the prediction, where it was asked and here, and close the question.

    Args:
        id: of the prediction.
        value: a number in its unit, the choice that came true, or all things in their order; None where it
            could not be measured here, which leaves the question open.
    """
    with _KEEPING:
        kept = lab.store.get(Prediction, id)
        if kept is None:
            print(f"Measured: {value}. Nobody was asked: the cell with predict(lab, {id!r}, …) comes first.")
            return
        now = _measured(kept, value)
        if kept.truth is None and now is not None:
            kept = replace(kept, truth=now, met=lab.store.now())
            lab.store.put(kept)
    told = _told(kept)
    if now is None:
        told += " It could not be measured here."
    elif now != kept.truth:
        told += f" This time: {_said(kept, now)}."
    if kept.truth is not None and (control := _controls.pop((lab.store.path, id), None)):
        from ipywidgets import HTML

        control.children = [HTML(_html(kept, told))]
    _display(kept, told, display_id=_place(id), update=True)
    _display(kept, told)


# ---- answers
def _keep(store: Store, asked: Prediction, answer: object) -> tuple[Prediction, str]:
    """Keep an answer unless the truth was shown; returns what is kept now, and a sentence on it."""
    with _KEEPING:
        kept = store.get(Prediction, asked.id) or asked
        if kept.truth is not None:
            return kept, _refusal(kept, answer)
        wanted = _read(kept, answer)
        if wanted == kept.answer:
            return kept, "That is kept already."
        instead = "" if kept.answer is None else f" Kept instead of {_said(kept, kept.answer)}."
        kept = replace(kept, answer=wanted, answered=store.now())
        store.put(kept)
    return kept, instead


def _refusal(kept: Prediction, answer: object) -> str:
    if kept.answer is None:
        return "Too late to predict: the truth was shown."
    try:
        same = _read(kept, answer) == kept.answer
    except BadInput:
        same = False
    return "" if same else "The first prediction stands, for the truth was shown."


def _read(asked: Prediction, answer: object) -> Answer:
    """An answer of the kind that was asked for.

    Raises:
        BadInput: it is another; one sentence says what to write.
    """
    listed = ", ".join(asked.options)
    if asked.kind == "number":
        try:
            value = number(Said(str(answer)), asked.unit)
        except NotYet as problem:
            raise BadInput(str(problem)) from None
        if not abs(value) < MOST:
            raise BadInput(f"{answer!r} is too large to be kept: say it below {MOST:g}.")
        return value
    if asked.kind == "choice":
        if str(answer).strip() not in asked.options:
            raise BadInput(f"{answer!r} is none of the choices: {listed}.")
        return str(answer).strip()
    parts = re.split(r"\s*[,>]\s*", answer.strip()) if isinstance(answer, str) else answer
    things = [str(each) for each in parts] if isinstance(parts, (list, tuple)) else []
    if sorted(things) != sorted(asked.options):
        raise BadInput(f"{answer!r} is no order of these, each once: {listed}.")
    return things


def _measured(kept: Prediction, value: Any) -> Answer | None:
    if value is None:
        return None
    if kept.kind == "order":
        return [str(each) for each in value]
    return float(value) if kept.kind == "number" else str(value)


# ---- words
def _said(kept: Prediction, value: Answer) -> str:
    if isinstance(value, float):
        figure = f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        return f"{figure} {kept.unit}".rstrip()
    return value if isinstance(value, str) else ", ".join(value)


def _told(kept: Prediction) -> str:
    """What is known by now: guess, truth, and how far they are apart."""
    guess = f"You predicted {_said(kept, kept.answer)}" if kept.answer is not None else ""
    if kept.truth is None:
        return f"{guess}; the run will tell." if guess else ""
    came = f"was {_said(kept, kept.truth)}"
    if not guess:
        return f"It {came}. You kept no prediction before it, which is fine: the next one counts."
    return f"{guess}, it {came}: {_how_far(kept)}."


def _how_far(kept: Prediction) -> str:
    if isinstance(kept.answer, float) and isinstance(kept.truth, float):
        if kept.answer == kept.truth:
            return "exactly right"
        off = _said(kept, abs(kept.answer - kept.truth))
        ratio, way = kept.ratio, "high" if kept.answer > kept.truth else "low"
        factor = f", a factor of {max(ratio, 1 / ratio):.3g}" if 0 < ratio < 1e6 else ""
        return f"{off} too {way}{factor}"
    if not isinstance(kept.answer, list) or not isinstance(kept.truth, list) or kept.right:
        return "right" if kept.right else "not what you thought"
    place = {each: n for n, each in enumerate(kept.answer)}
    pairs = list(combinations([place[each] for each in kept.truth if each in place], 2))
    return f"{sum(a < b for a, b in pairs)} of {len(pairs)} pairs are in order"


def _plain_call(asked: Prediction) -> str:
    """What stands behind the control; it names no figure, for that would be remembered when guessing."""
    meant = {
        "number": f"a number in {asked.unit}" if asked.unit else "a number",
        "choice": f"one of {', '.join(map(repr, asked.options))}",
        "order": f"in your order: {asked.options}",
    }[asked.kind]
    return f"predict(lab, {asked.id!r}, …, answer=…)  # {meant}"


# ---- the place on the page
def _place(id: str) -> str:
    """The name of an output, by which a later cell of the same kernel finds it."""
    return f"prediction-{id}"


def _html(kept: Prediction, told: str) -> str:
    tone = "info" if kept.truth is None or kept.answer is None else "good" if kept.right else "warn"
    call = "" if told else f'<div style="{MONO}">{escape(_plain_call(kept))}</div>'
    note = f'<div style="{SMALL}">{escape(told or "Say it before the run, by this call:")}</div>'
    return f'<div style="{CELL}">{badge(tone, "prediction")} <b>{escape(kept.question)}</b>{note}{call}</div>'


def _display(kept: Prediction, told: str, **place: Any) -> None:
    from IPython.display import display

    words = f"Predict: {kept.question}\n{told or _plain_call(kept)}"
    bundle: Bundle = ({"text/html": _html(kept, told), "text/plain": words}, {})
    display(bundle[0], raw=True, **place)  # type: ignore[no-untyped-call]


def _show_control(store: Store, asked: Prediction) -> None:
    from IPython.display import display
    from ipywidgets import HTML, Button, HBox, Layout, VBox

    field = _field(asked)
    button = Button(description="Keep", button_style="primary", layout=Layout(width="auto"))
    button.tooltip = f"Keep this prediction: {asked.question}"
    note = HTML(
        _html(asked, _told(asked) or "Say it before the run; you may change it until the truth is shown.")
    )

    def keep(_: Any) -> None:
        nonlocal asked
        try:
            if not field.value:
                raise BadInput("Say your guess, then press Keep.")
            asked, said = _keep(store, asked, field.value)
        except LabError as error:  # in a button it would be lost in silence
            said = str(error)
        note.value = _html(asked, f"{_told(asked)} {said}".strip())

    def changed(_: Any) -> None:  # as by the Enter key
        note.value = _html(asked, f"{_told(asked)} Not kept yet: press Keep.".strip())

    button.on_click(keep)
    field.observe(changed, "value")
    control = VBox([note, HBox([field, button], layout=Layout(flex_flow="row wrap"))])
    _controls[store.path, asked.id] = control
    display(control, display_id=_place(asked.id))  # type: ignore[no-untyped-call]


def _field(asked: Prediction) -> Any:
    """A labelled field, with what was kept in it.

    No menu and no round buttons: JupyterLab takes the keys that these need, and moves or cuts cells.
    """
    from ipywidgets import Layout, Text, ToggleButtons

    style = {"description_width": "initial"}
    look: Any = {"layout": Layout(width="auto"), "style": style}
    label, kept = "Your guess:", asked.answer
    if asked.kind == "choice":
        style["button_width"] = "auto"
        return ToggleButtons(options=asked.options, value=kept, description=label, **look)
    if asked.kind == "order":
        label, kept = "Your order:", ", ".join(kept if isinstance(kept, list) else [])
    else:
        label = f"Your guess, in {asked.unit}:" if asked.unit else label
        kept = "" if kept is None else f"{kept:.12g}"
    # Sent when the field is left: letter by letter, a busy kernel would get Keep before the last ones.
    hint = ", ".join(asked.options)
    return Text(kept, placeholder=hint, description=label, continuous_update=False, **look)
