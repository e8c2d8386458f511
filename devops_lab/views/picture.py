"""What a view returns: a picture that reads well live, run by papermill, and on a page such as GitHub's."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from html import escape
from typing import Any

Bundle = tuple[dict[str, Any], dict[str, Any]]  # data and metadata of one output

SMALL = "color:#444444;background:#ffffff;font-size:13px;padding:2px 6px;margin:2px 0"


@dataclass(frozen=True)
class Picture:
    """A figure, a table, or both, with words for those who can't see it.

    Args:
        caption: one visible line: what is shown and what to notice.
        alt: the key facts in words.
        html: tables and boards; inline styles only, no script, no SVG.
        png: the figure, at twice its shown size.
        width: shown width of the figure in pixels.
    """

    caption: str
    alt: str
    html: str = ""
    png: bytes = b""
    width: int = 800

    def bundles(self) -> list[Bundle]:
        """The outputs that show this picture without a widget.

        The figure and the HTML are two outputs: from a single one JupyterLab would pick the HTML alone, and
        an untrusted notebook (or GitHub) drops a figure that is *inside* HTML.
        """
        words = f"{self.caption}\n{self.alt}"
        note = f'<div style="{SMALL}">{escape(self.caption)}</div>'
        found: list[Bundle] = []
        if self.png:
            encoded = base64.b64encode(self.png).decode()
            facts = {"alt": self.alt, "width": self.width}
            found.append(({"image/png": encoded, "text/plain": words}, {"image/png": facts}))
        found.append(({"text/html": self.html + note, "text/plain": words}, {}))
        return found

    def as_html(self) -> str:
        """All of it as one piece of HTML, for a live widget."""
        image = ""
        if self.png:
            source = base64.b64encode(self.png).decode()
            style = f"width:{self.width}px;max-width:100%;height:auto"
            image = f'<img alt="{escape(self.alt)}" style="{style}" src="data:image/png;base64,{source}">'
        return f'{image}{self.html}<div style="{SMALL}">{escape(self.caption)}</div>'

    def _ipython_display_(self) -> None:
        from devops_lab.views.screen import show

        show(self)

    def _repr_mimebundle_(self, include: Any = None, exclude: Any = None) -> Bundle:
        """One output, for a frontend that asks for one: the figure if there is one, else the table."""
        return self.bundles()[0]
