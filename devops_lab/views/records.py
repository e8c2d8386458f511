"""The view of whatever a call returned: records become tables."""

from __future__ import annotations

from dataclasses import fields, is_dataclass

from devops_lab.views import style as look
from devops_lab.views.style import Picture

MAX_TEXT = 4000  # characters that are shown


def record(result: object) -> Picture:
    """What a call returned, as a person reads it: a picture as it is, records as a table, else its text."""
    if isinstance(result, Picture):
        return result
    several = list(result) if isinstance(result, (list, tuple)) else [result]
    rows = [{f.name: getattr(one, f.name) for f in fields(one)} for one in several if is_dataclass(one)]
    if not rows or len(rows) < len(several):
        words = "" if result is None or result in ([], ()) else str(result)[:MAX_TEXT]
        return look.page(
            words.partition("\n")[0] or "Nothing more to tell.", words, look.pre(words) if words else ""
        )
    names = [name for name in rows[0] if any(row.get(name) not in ("", [], {}, None) for row in rows)]
    cells = [[_value(row.get(name, "")) for name in names] for row in rows]
    heads, kind = (
        ["when" if name == "t" else name.replace("_", " ") for name in names],
        type(several[0]).__name__,
    )
    told = "; ".join(f"{head}: {cell}" for head, cell in zip(heads, cells[0], strict=True))
    caption = f"{len(rows)} × {kind}." if len(rows) > 1 else f"{kind}."
    as_columns = (
        look.table(heads, cells)
        if len(rows) > 1
        else look.table(("what", kind), zip(heads, cells[0], strict=True))
    )
    return look.page(caption, told, as_columns)


def _value(value: object) -> str:
    if isinstance(value, float):  # times are POSIX seconds, and no other quantity is so large
        return look.clock(value) if value > 1e9 else f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(_value(one) for one in value)[:MAX_TEXT]
    return ("yes" if value else "no") if isinstance(value, bool) else str(value)[:MAX_TEXT]
