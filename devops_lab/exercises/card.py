"""A card: a task, its state, a field for an answer, and a button for each call; in live notebooks only."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from html import escape
from typing import Any

from devops_lab.errors import LabError
from devops_lab.views.screen import live
from devops_lab.views.style import INK, MONO, badge

TONES = {"right": "good", "told": "info", "not yet": "warn", "could not check": "warn"}
Key = tuple[str, str]  # the lab's store, the exercise
Face = Callable[[], tuple[str, str, str]]
Calls = Callable[[Callable[[str], None]], Mapping[str, Callable[..., None]]]
_newest: dict[Key, Card] = {}


def show(key: Key, face: Face, calls: Calls, field: str = "") -> None:
    """Show a card.

    Args:
        face: the state in a word, the task in Markdown, what was done so far.
        calls: makes the calls behind the buttons, given where their words go.
        field: the words in a field for the answer; "" = it has none.

    Raises:
        NotImplementedError: no person looks on; IPython then shows the text instead.
    """
    if not live():
        raise NotImplementedError
    from IPython.display import display

    card = _newest[key] = Card(face, calls, field)
    display(card.box)  # type: ignore[no-untyped-call]


def renew(key: Key) -> None:
    """What was done in another cell shows on the card, too."""
    if card := _newest.get(key):
        card.renew()


class Card:
    """The widgets of one card, and what its buttons do; see `show`."""

    def __init__(self, face: Face, calls: Calls, field: str = "") -> None:
        from ipywidgets import HTML, Button, HBox, Layout, Text, VBox

        self._face, self._doing = face, ""
        self._head, self._said = HTML(), HTML()
        self._calls = calls(self._say)
        wide = Layout(width="auto")
        self.field = Text(placeholder=field)
        self.buttons = {name: Button(description=name, layout=wide) for name in self._calls}
        for name, button in self.buttons.items():
            button.on_click(lambda _, name=name: self.click(name))
        row = HBox([*([self.field] if field else []), *self.buttons.values()])
        row.layout.flex_flow = "row wrap"
        frame = Layout(border="1px solid #b8b8b8", padding="4px 8px", margin="2px 0")
        self.box = VBox([self._head, row, self._said], layout=frame)
        self.renew()

    def renew(self) -> None:
        """Draw the state again."""
        try:
            state, task, done = self._face()
        except LabError as error:
            self._say(_sentence(error))
            return
        inside = f"{badge(TONES.get(state, 'quiet'), state)} {_html(task)}<i>{escape(done)}</i>"
        self._head.value = f'<div style="{INK};padding:4px 8px">{inside}</div>'

    def click(self, name: str) -> None:
        """What a button does: its call, in a thread; a second click meanwhile is told to wait."""
        if self._doing:
            self._say(f"{self._doing} is still at work: wait until it has answered.")
            return
        self._doing = name
        for button in self.buttons.values():
            button.disabled = True
        given = (self.field.value,) if name == "Answer" else ()
        self._say(f"{name} …")
        threading.Thread(target=self._work, args=(name, given), daemon=True).start()

    def _work(self, name: str, given: tuple[Any, ...]) -> None:
        try:
            self._calls[name](*given)
        except LabError as error:
            self._say(_sentence(error))
        except Exception as error:  # a thread's exception would be lost in silence
            self._say(f"{name} failed: {type(error).__name__}: {error}")
        finally:
            self._doing = ""
            for button in self.buttons.values():
                button.disabled = False
            self.renew()

    def _say(self, text: str) -> None:
        self._said.value = f'<div style="{INK};{MONO};padding:4px 8px">{escape(text)}</div>'


def _sentence(error: LabError) -> str:
    return " ".join(str(error).splitlines())


def _html(markdown: str) -> str:
    import mistune  # nbconvert's own way with it takes two seconds to import

    return str(mistune.html(markdown))
