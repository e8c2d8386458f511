"""The HTML book of a run: a page a notebook, with navigation, readable without a network."""

from __future__ import annotations

import functools
import re
from html import escape
from pathlib import Path
from typing import Any

import nbformat
from jinja2 import DictLoader
from nbconvert import HTMLExporter

from devops_lab.workbook.summary import NotebookResult, Summary

# The lab template, less the scripts that it would fetch from elsewhere (require.js, MathJax, Mermaid).
PAGE = """{%- extends 'lab/index.html.j2' -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}<style>{{ resources.book_style }}</style>{%- endblock -%}
{%- block body_header -%}
<body class="jp-Notebook" data-jp-theme-light="true" data-jp-theme-name="JupyterLab Light">
{{ resources.book_navigation }}<main>
{%- endblock body_header -%}
{%- block body_footer -%}</main>{{ resources.book_navigation }}</body>{%- endblock body_footer -%}
"""
STYLE = """
:root { --jp-cell-prompt-not-active-opacity: 1; --jp-cell-prompt-not-active-font-color: #4a4a4a;
  --jp-cell-inprompt-font-color: #1f5f96; --jp-cell-outprompt-font-color: #8c3a1c;
  --jp-mirror-editor-comment-color: #2f6464; --jp-mirror-editor-operator-color: #7a14bd;
  --jp-mirror-editor-meta-color: #7a14bd; --jp-mirror-editor-error-color: #b00000;
  --jp-mirror-editor-keyword-color: #006b00; --jp-mirror-editor-number-color: #006b00; }
a { text-decoration: underline !important; }
.ansi-red-fg, .ansi-red-intense-fg { color: #a80000 !important; }
.ansi-green-fg, .ansi-green-intense-fg { color: #00661f !important; }
.ansi-yellow-fg, .ansi-yellow-intense-fg { color: #6b5000 !important; }
.ansi-cyan-fg, .ansi-cyan-intense-fg { color: #005f6b !important; }
nav.book { font: 14px sans-serif; margin: 8px 0; } nav.book a { margin-right: 1.5em; }
main { max-width: 1100px; margin: auto; } img { max-width: 100%; height: auto; }
"""
INDEX = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>The DevOps lab: a run</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body {{ font: 16px sans-serif; max-width: 900px; margin: 2em auto; padding: 0 1em; }}
table {{ border-collapse: collapse; }} td.n {{ text-align: right; }}
th, td {{ text-align: left; padding: 4px 12px; border-bottom: 1px solid #ccc; }}
pre {{ white-space: pre-wrap; background: #f4f4f4; padding: 1em; }}</style></head>
<body><h1>The DevOps lab: a run</h1>
<p>{head}</p>
<table><tr><th>Notebook</th><th>Result</th><th>Seconds</th><th>Cells</th><th>Slowest cell</th></tr>
{rows}</table>
{figures}
</body></html>
"""


def write_page(notebooks: list[NotebookResult], number: int, begun: int, out: Path) -> None:
    """Write the page of a notebook that ran.

    Args:
        notebooks: all of the run, in their order.
        number: its place in them, from 0.
        begun: how many of them have begun until now.
        out: the folder of the executed notebooks.
    """
    result = notebooks[number]
    notebook = nbformat.read(out / f"{result.name}.ipynb", as_version=4)
    resources: dict[str, Any] = {
        "book_style": STYLE,
        "book_navigation": navigation(notebooks[:begun], number),
        "metadata": {"name": result.title or result.name},
    }
    body, _ = exporter().from_notebook_node(notebook, resources)
    (out / f"{result.name}.html").write_text(linked(body, notebooks), encoding="utf-8")


@functools.cache
def exporter() -> HTMLExporter:
    return HTMLExporter(
        extra_loaders=[DictLoader({"book.html.j2": PAGE})], template_file="book.html.j2", embed_images=True
    )


def write_index(summary: Summary, out: Path) -> None:
    """Write `index.html`, which leads to the pages."""
    (out / "index.html").write_text(contents(summary), encoding="utf-8")


def linked(body: str, notebooks: list[NotebookResult]) -> str:
    """A page whose links to notebooks of the book lead to their pages."""
    names = "|".join(re.escape(result.name) for result in notebooks)
    return re.sub(rf'(href="(?:\./)?(?:{names}))\.ipynb(?=["#])', r"\1.html", body)


def navigation(ran: list[NotebookResult], number: int) -> str:
    """Links to the page before, the contents, and the page after."""
    links = ['<a href="index.html">Contents</a>']
    if number > 0:
        before = ran[number - 1]
        links.insert(0, f'<a href="{before.name}.html" rel="prev">← {escape(before.title)}</a>')
    if number + 1 < len(ran):
        after = ran[number + 1]
        links.append(f'<a href="{after.name}.html" rel="next">{escape(after.title)} →</a>')
    return f'<nav class="book">{"".join(links)}</nav>'


def contents(summary: Summary) -> str:
    """The book's first page: what ran, how it ended, how long it took, what was measured."""
    rows = []
    for result in summary.notebooks:
        title = escape(result.title or result.name)
        link = f'<a href="{result.name}.html">{title}</a>' if result.status != "not run" else title
        number, seconds = result.slowest_cell
        slowest = f"{number} ({seconds:.1f} s)" if number else ""
        error = f"<pre>{escape(result.error)}</pre>" if result.error else ""
        cells = f'<td class="n">{result.seconds:.1f}</td><td class="n">{result.cells}</td><td>{slowest}</td>'
        rows.append(f"<tr><td>{link}{error}</td><td>{escape(result.status)}</td>{cells}</tr>\n")
    figures = "".join(
        f"<tr><td>{escape(result.name)}</td><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>"
        for result in summary.notebooks
        for name, value in result.figures.items()
    )
    measured = f"<h2>Measured</h2><table>{figures}</table>" if figures else ""
    head = f"{len(rows)} notebooks, {summary.seconds:.0f} s, engine {summary.engine}, pace {summary.pace}."
    return INDEX.format(head=escape(head), rows="".join(rows), figures=measured)
