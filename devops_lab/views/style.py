"""What a view returns, and the look that all views share: colours that colour-blind readers can tell apart.

A picture reads well live, run by papermill, and on a page such as GitHub's.
"""

from __future__ import annotations

import base64
import io
import re
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING, Any

from devops_lab.model import Check

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Okabe & Ito, "Color Universal Design", 2008
BLUE, ORANGE, GREEN, SKY = "#0072B2", "#E69F00", "#009E73", "#56B4E9"
RED, PURPLE, YELLOW, BLACK = "#D55E00", "#CC79A7", "#F0E442", "#000000"
SERIES = (BLUE, ORANGE, GREEN, PURPLE, SKY, BLACK, YELLOW)  # red is kept for what went wrong
DASHES = ("-", "--", "-.", ":")
GREY, PALE = "#595959", "#d9d9d9"

# tone -> mark, text colour, background; the mark says it without the colour
TONES = {
    "good": ("✔", "#00452f", "#d5f0e5"),
    "bad": ("✘", "#6e2600", "#fbdccb"),
    "warn": ("▲", "#523c00", "#fdeebf"),
    "info": ("●", "#00365a", "#d8ebf8"),
    "quiet": ("○", "#444444", "#ececec"),
    "plain": ("", "#1a1a1a", "#ffffff"),
}
Bundle = tuple[dict[str, Any], dict[str, Any]]  # data and metadata of one output

WRAP = "overflow-wrap:anywhere"  # a digest or a path is longer than a narrow page
SMALL = f"color:#444444;background:#ffffff;font-size:13px;padding:2px 6px;margin:2px 0;line-height:1.4;{WRAP}"
INK = f"color:#1a1a1a;background:#ffffff;{WRAP}"
CELL = (  # what keeps a column wide enough is its own min-width
    f"{INK};padding:3px 9px;border:1px solid #d0d0d0;text-align:left;vertical-align:top;font-size:13px"
    ";line-height:1.4"
)
HEAD = CELL.replace("#ffffff", "#eef1f4") + ";font-weight:bold"
MONO = f"font-family:monospace;font-size:12px;white-space:pre-wrap;{WRAP}"
MAX_ROWS = 50  # of a table
WIDE = 8.0  # inches of every figure: 800 pixels as it is shown
LEAST = 660  # pixels: below that a figure's smallest text (7 points) can't be read, so that it is scrolled
# JupyterLab fits an image into any width; where this is dropped (GitHub, an untrusted page), it still does.
FLOOR = f'<style>.jp-RenderedImage img[width="800"]{{min-width:{LEAST}px}}</style>'
_DRAWING = threading.Lock()  # matplotlib draws in one thread at a time


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
        table: Bundle = ({"text/html": self.html + self._note(), "text/plain": words}, {})
        if not self.png:
            return [table]
        table[0]["text/html"] = FLOOR + table[0]["text/html"]
        facts = {"image/png": {"alt": self.alt, "width": self.width}}
        return [({"image/png": base64.b64encode(self.png).decode(), "text/plain": words}, facts), table]

    def as_html(self) -> str:
        """All of it as one piece of HTML, for a live widget."""
        image = ""
        if self.png:
            source = base64.b64encode(self.png).decode()
            style = f"width:{self.width}px;max-width:100%;min-width:{min(self.width, LEAST)}px;height:auto"
            image = f'<img alt="{escape(self.alt)}" style="{style}" src="data:image/png;base64,{source}">'
            image = f'<div style="overflow-x:auto" tabindex="0">{image}</div>'
        return image + self.html + self._note()

    def _note(self) -> str:
        return f'<div style="{SMALL}">{escape(self.caption)}</div>'

    def _ipython_display_(self) -> None:
        show(self)


def show(picture: Picture) -> None:
    """Display a picture as plain outputs, without a widget."""
    from IPython.display import display

    for data, metadata in picture.bundles():
        display(data, metadata=metadata, raw=True)  # type: ignore[no-untyped-call]


class Html(str):
    """Text that is HTML already; anything else is escaped."""


def safe(value: object) -> str:
    return value if isinstance(value, Html) else escape(str(value))


def badge(tone: str, text: str = "") -> Html:
    """A mark with a word on a quiet background."""
    mark, ink, ground = TONES[tone]
    style = f"color:{ink};background:{ground};padding:1px 6px;border-radius:4px;font-size:12px"
    return Html(f'<span style="{style};white-space:nowrap">{mark} {escape(text)}</span>')


def bar(share: float, text: str, colour: str = SKY) -> Html:
    """A bar of `share` (0..1) of the full width, with its value as text before it."""
    wide = f"width:{max(1, round(90 * min(max(share, 0), 1)))}px;background:{colour}"
    strip = f'<span style="display:inline-block;height:10px;{wide}">&nbsp;</span>'
    return Html(f'<span style="display:inline-block;min-width:62px">{escape(text)}</span> {strip}')


def lines(*parts: object) -> Html:
    return Html("<br>".join(safe(part) for part in parts if str(part)))


def bold(text: object) -> Html:
    return Html(f"<b>{safe(text)}</b>")


def code(text: object) -> Html:
    return Html(f'<span style="{MONO}">{safe(text)}</span>') if text else Html("")


def pre(text: str) -> Html:
    style = f"{INK};{MONO};padding:6px;border:1px solid #d0d0d0;overflow-x:auto"
    return Html(f'<pre style="{style}">{safe(text)}</pre>')


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> Html:
    """A plain HTML table; every cell has its own text and background colour, so both themes can show it.

    No column gets narrower than a few words; where the page is narrower than the table, it is scrolled.
    """
    lines = [[safe(cell) for cell in row] for row in rows]
    longest = [max(map(_letters, column)) for column in zip(head, *lines, strict=True)]
    widths = [f";min-width:{min(9 * letters, 120)}px" for letters in longest]
    top = "".join(f'<th style="{HEAD}{w}">{escape(cell)}</th>' for cell, w in zip(head, widths, strict=True))
    cells = [
        [f'<td style="{CELL}{w}">{cell}</td>' for cell, w in zip(row, widths, strict=True)] for row in lines
    ]
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in cells)
    inside = f'<table style="border-collapse:collapse;margin:4px 0"><tr>{top}</tr>{body}</table>'
    return Html(f'<div style="overflow-x:auto" tabindex="0">{inside}</div>')


def _letters(cell: str) -> int:
    """How long a cell's longest line is, without its tags."""
    return max(len(re.sub(r"<[^>]*>|&\w+;", "", line)) for line in cell.split("<br>"))


def page(caption: str, alt: str, *parts: str) -> Picture:
    """A picture made of HTML alone."""
    return Picture(caption, alt, html="".join(parts))


def checklist(rows: Iterable[Check], title: str, words: dict[bool | None, str]) -> Picture:
    """Checks, each with a mark and a word for its outcome."""
    found = list(rows)
    if not found:
        return nothing(f"the {title.lower()}")
    tones = {True: "good", False: "bad", None: "quiet"}
    cells = [(badge(tones[c.ok], words[c.ok]), c.name, lines(c.detail, c.what_to_do)) for c in found]
    bad = [check.name for check in found if check.ok is False]
    counts = f"{sum(check.ok is True for check in found)} {words[True]}, {len(bad)} {words[False]}"
    caption = f"{title}: {counts}{': ' if bad else ''}{', '.join(bad)}."
    alt = f"{caption} {'; '.join(f'{check.name}: {check.detail}' for check in found)}"
    return page(caption, alt, table(("result", "what", "what was seen"), cells))


def nothing(what: str, hint: str = "") -> Picture:
    """The picture of an empty lab: says what will stand here."""
    text = f"Nothing yet: {what}."
    style = f"{INK};border:1px dashed #767676;padding:8px 12px"
    note = f'<div style="{style}">{escape(text)} {escape(hint)}</div>'
    return Picture(f"{what[:1].upper()}{what[1:]} will show here.", f"{text} {hint}".strip(), html=note)


def seconds(value: float) -> str:
    """A duration as a person says it: 12 ms, 3.4 s, 5 min 02 s."""
    if value < 0.001:
        return "0" if value == 0 else "< 1 ms"
    if value < 1:
        return f"{value * 1000:.3g} ms" if value < 0.9995 else "1 s"
    return f"{value:.3g} s" if value < 100 else f"{value // 60:.0f} min {value % 60:02.0f} s"


def size(count: float) -> str:
    """A size in bytes, kB or MB (powers of 1000)."""
    if count < 1000:
        return f"{count:.0f} B"
    return f"{count / 1000:.1f} kB" if count < 1_000_000 else f"{count / 1_000_000:.1f} MB"


def clock(t: float) -> str:
    """Local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(t)) if t else "–"


def digest(value: str) -> Html:
    return code(value.removeprefix("sha256:")[:12] or "–")


# ---- figures
def figure(
    rows: int = 1,
    columns: int = 1,
    *,
    height: float = 3.0,
    margins: dict[str, float] | None = None,
    **options: Any,
) -> tuple[Figure, list[Axes]]:
    """A figure 8 inches wide and its plain axes, apart from pyplot's state.

    Args:
        rows, columns: of axes.
        height: inches.
        margins: of `Figure.subplots_adjust`; found by measuring all texts when not given, which takes as
            long as all the rest of the drawing.
        options: of `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    fig = Figure(figsize=(WIDE, height), facecolor="white", layout=None if margins else "constrained")
    if margins:
        fig.subplots_adjust(**margins)
    axes = list(fig.subplots(rows, columns, squeeze=False, **options).flat)
    for ax in axes:
        ax.set_facecolor("white")
        ax.spines[["top", "right"]].set_visible(False)
        ax.tick_params(labelsize=9, colors="#333333")
        ax.grid(axis="y", color="#e6e6e6", linewidth=0.8)
        ax.set_axisbelow(True)
    return fig, axes


def bars(
    ax: Axes,
    values: Sequence[tuple[str, float]],
    words: Sequence[str],
    colours: Sequence[str],
    lefts: Sequence[float] = (),
) -> None:
    """Bars from top to bottom, named on the left, with words at their ends."""
    starts = lefts or [0.0] * len(values)
    end = max((start + value for start, (_, value) in zip(starts, values, strict=True)), default=1) or 1
    for row, (start, (_, value)) in enumerate(zip(starts, values, strict=True)):
        ax.barh(row, max(value, end / 400), left=start, color=colours[row % len(colours)], height=0.62)
        ax.text(start + value + end * 0.012, row, words[row], va="center", fontsize=9)
    ax.set_yticks(range(len(values)), [name for name, _ in values])
    ax.invert_yaxis()
    ax.set_xlim(0, end * 1.16)
    ax.grid(axis="y", visible=False)


def label(ax: Axes, title: str = "", x: str = "", y: str = "") -> None:
    ax.set_title(title, fontsize=10, loc="left", color="#1a1a1a")
    ax.set_xlabel(x, fontsize=9, color="#333333")
    ax.set_ylabel(y, fontsize=9, color="#333333")


def canvas(height: float) -> tuple[Figure, Axes]:
    """A figure without axes to see: x and y are inches from its upper left corner.

    Args:
        height: inches.
    """
    fig, (ax,) = figure(height=height, margins={"left": 0, "right": 1, "top": 1, "bottom": 0})
    ax.set(xlim=(0, WIDE), ylim=(height, 0))
    ax.axis("off")
    return fig, ax


def inches(text: str, fontsize: float, **font: Any) -> float:
    """How wide a text will be drawn."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path  # outlines would take a hundred times as long

    asked: Any = FontProperties(size=fontsize, **font)
    return float(text_to_path.get_text_width_height_descent(text, asked, False)[0]) / 72


def fitted(text: str, room: float, fontsize: float) -> str:
    """A text cut to so many inches."""
    wide = inches(text, fontsize)
    if wide <= room:
        return text
    text = text[: int(len(text) * room / wide) + 1]  # about right, so that few are measured
    while text and inches(text + "…", fontsize) > room:
        text = text[:-1]
    return text.rstrip() + "…"


def legend(ax: Axes, columns: int = 4) -> None:
    """A legend above the axes, where it hides no data."""
    if ax.get_legend_handles_labels()[0]:
        at: dict[str, Any] = {"loc": "lower right", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.2}
        ax.legend(**at, fontsize=8, frameon=False, ncols=columns)


def drawn(fig: Figure, caption: str, alt: str, html: str = "") -> Picture:
    """Make the picture of a figure: twice the shown size, few colours, so that it is sharp and small."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    fig.set_dpi(200)
    canvas, file = FigureCanvasAgg(fig), io.BytesIO()
    with _DRAWING:
        canvas.draw()  # type: ignore[no-untyped-call]  # half the time of savefig, which draws twice
    image = (
        Image.frombuffer("RGBA", canvas.get_width_height(), canvas.buffer_rgba())  # type: ignore[no-untyped-call]
        .convert("RGB")
        .quantize(96, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    )
    image.save(file, "png")
    return Picture(caption, alt, html=html, png=file.getvalue())
