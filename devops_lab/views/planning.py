"""Views of the whole loop and of the plan: lifecycle map, board, forecast, and the three continuous modes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from devops_lab.model import PHASES, Event, Finding, Forecast, Item, Progress, Sprint
from devops_lab.store import Store
from devops_lab.views import style as look
from devops_lab.views.picture import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_DONE = ("failed", "refused", "started")  # endings of event kinds that light nothing up
MAX_CARDS = 8


# ---- the lifecycle map
def lifecycle(
    source: Store | Iterable[Event],
    progress: Iterable[Progress] = (),
    exercises: Mapping[str, int] | None = None,
) -> Picture:
    """The DevOps loop, each phase lit up when it was done in this lab.

    Args:
        source: the lab's store, or its events; a phase is lit by any event that is not a start or a failure.
        progress: the learner's exercises, ids such as "plan-1"; the store's own when a store is given.
        exercises: how many there are in each phase, to say "1/2".
    """
    if isinstance(source, Store):
        progress = progress or source.all(Progress)
        source = source.events(limit=100_000)
    lit = {event.phase for event in source if not event.kind.endswith(NOT_DONE)}
    right = Counter(p.exercise.partition("-")[0] for p in progress if p.state == "right")
    fig, (ax,) = look.figure(height=3.7)
    ax.axis("off")
    ax.set(xlim=(-1.62, 1.62), ylim=(-1.02, 1.02))
    _draw_loop(ax, lit)
    for index, phase in enumerate(PHASES):
        x, y = _on_loop(_angle(index + 0.5))
        _node(ax, x, y, phase, phase in lit, _tally(phase, right, exercises))
    _node(ax, 0, 0, "repeat", "repeat" in lit, _tally("repeat", right, exercises))
    _continuous(ax, "continuous" in lit, _tally("continuous", right, exercises))
    done = [phase for phase in (*PHASES, "repeat", "continuous") if phase in lit]
    caption = f"The DevOps loop: {len(done)} of 10 walked (✔); {sum(right.values())} exercises right."
    return look.drawn(
        fig, caption, f"DevOps lifecycle as an infinity loop. Done: {', '.join(done) or 'nothing'}."
    )


def _angle(index: float) -> float:
    """Where on the figure eight a phase sits (index + 0.5), and where its stretch begins."""
    loop, place = divmod(index, 4)
    offset = place - 2  # the cube stretches what is near the crossing, where "Repeat" takes room
    return math.pi / 2 + math.pi * (loop + 0.5 + 0.22 * offset + 0.0075 * offset**3)


def _on_loop(angle: float) -> tuple[float, float]:
    """The infinity shape: from the crossing up and round to the left, then up and round to the right."""
    return 1.15 * math.cos(angle), -0.56 * math.sin(2 * angle)


def _draw_loop(ax: Axes, lit: set[str]) -> None:
    for index, phase in enumerate(PHASES):
        points = [_on_loop(_angle(index + step / 40)) for step in range(40)]
        points.append(_on_loop(_angle(index + 0.9999)))
        colour = (look.BLUE if index < 4 else look.GREEN) if phase in lit else look.PALE
        ax.plot(*zip(*points, strict=True), color=colour, linewidth=7, solid_capstyle="butt", zorder=1)


def _node(ax: Axes, x: float, y: float, phase: str, done: bool, tally: str) -> None:
    colour = (look.GREEN if x > 0.01 else look.BLUE if x < -0.01 else look.ORANGE) if done else "white"
    ax.scatter([x], [y], s=520, color=colour, edgecolors=look.GREY, linewidths=1.5, zorder=3)
    ink = "white" if done else look.GREY
    ax.text(x, y - 0.01, "✔" if done else "○", ha="center", va="center", fontsize=14, color=ink, zorder=4)
    words = phase.capitalize() + (f"\n{tally}" if tally else "")
    if abs(x) > 0.9:  # at the sides, beside the loop
        side = 1 if x > 0 else -1
        ax.text(x + side * 0.13, y, words, ha="left" if side > 0 else "right", va="center", fontsize=10)
    else:
        up = 1 if y > 0.01 else -1
        ax.text(x, y + up * 0.17, words, ha="center", va="bottom" if up > 0 else "top", fontsize=10)


def _continuous(ax: Axes, done: bool, tally: str) -> None:
    words = (
        f"{'✔' if done else '○'} Continuous: a push walks the loop by itself {f'({tally})' if tally else ''}"
    )
    ax.text(0, -1.0, words, ha="center", va="bottom", fontsize=10, color="#00452f" if done else look.GREY)


def _tally(phase: str, right: Counter[str], exercises: Mapping[str, int] | None) -> str:
    total = (exercises or {}).get(phase, 0)
    return f"{right[phase]}/{total} exercises" if total else (f"{right[phase]} right" if right[phase] else "")


# ---- the board
def board(items: Sequence[Item], sprint: Sprint | None = None, findings: Sequence[Finding] = ()) -> Picture:
    """The backlog as cards in three columns, with the review's findings on them."""
    if not items:
        return look.nothing("the backlog")
    chosen = set(sprint.items) if sprint else set()
    ready = [item for item in items if item.status == "ready"]
    now = [item for item in ready if item.id in chosen]
    rest = sorted((item for item in ready if item.id not in chosen), key=lambda item: -item.wsjf)
    done = [item for item in items if item.status == "done"][::-1]
    room = "Sprint: none yet"
    if sprint:
        room = f"Sprint {sprint.number}: {sprint.effort:g} of {sprint.capacity:g} points"
    heads = (f"Backlog ({len(rest)}, highest WSJF first)", room, f"Done ({len(done)}, newest first)")
    columns = [_column(cards, findings) for cards in (rest, now, done)]
    style = f"{look.CELL};width:33%;background:#f6f7f8"
    cells = "".join(f'<td style="{style}">{column}</td>' for column in columns)
    top = "".join(f'<th style="{look.HEAD}">{look.safe(head)}</th>' for head in heads)
    html = f'<table style="border-collapse:collapse;width:100%"><tr>{top}</tr><tr>{cells}</tr></table>'
    warned = sorted({f"{f.item} ({f.severity})" for f in findings})
    advice = f" The platform's review has advice on {', '.join(warned)}." if warned else ""
    counts = f"{len(rest)} waiting, {len(now)} in the sprint, {len(done)} done"
    caption = f"The board: {counts} (WSJF = cost of delay / effort)."
    return look.page(
        caption,
        f"{'. '.join(heads)}. In the sprint: {', '.join(i.id for i in now) or 'nothing'}.{advice}",
        html,
    )


def _column(items: Sequence[Item], findings: Sequence[Finding]) -> str:
    cards = "".join(_card(item, [f for f in findings if f.item == item.id]) for item in items[:MAX_CARDS])
    more = f"… and {len(items) - MAX_CARDS} more" if len(items) > MAX_CARDS else ""
    return (cards or "–") + more


def _card(item: Item, findings: Sequence[Finding]) -> str:
    advice = [
        look.lines(
            look.badge("bad" if f.severity == "blocks" else "warn", f.severity),
            f.problem,
            f.proposal and f"→ {f.proposal}",
        )
        for f in findings
    ]
    figures = f"effort {item.effort:g} · value {item.value:g} · WSJF {item.wsjf:.1f}"
    title = look.Html(f"<b>{look.safe(item.id)}</b> {look.safe(item.title)}")
    waits = f"after {', '.join(item.depends_on)}" if item.depends_on and item.status == "ready" else ""
    style = f"{look.INK};border:1px solid #b8b8b8;border-radius:5px;padding:5px 8px;margin:4px;font-size:13px"
    return f'<div style="{style}">{look.lines(title, f"{item.kind} · {figures}", waits, *advice)}</div>'


# ---- the forecast
def forecast(outlook: Forecast) -> Picture:
    """How many sprints the rest of the backlog takes, by share of the simulated futures."""
    if not outlook.sprints:
        return look.nothing("the forecast", "It needs at least one finished sprint.")
    fig, (ax,) = look.figure(height=3.0)
    counts = sorted(outlook.sprints)
    shares = [100 * outlook.sprints[count] for count in counts]
    ax.bar(counts, shares, color=look.SKY, width=0.8)
    marks = (outlook.p50, "p50", look.BLUE, "-"), (outlook.p85, "p85", look.ORANGE, "--")
    for value, name, colour, dash in marks:
        text = f"{name}: within {value} sprints"
        ax.axvline(value + 0.4, color=colour, linestyle=dash, linewidth=2, label=text)
    ax.set_xticks(counts if len(counts) < 20 else counts[:: len(counts) // 10])
    ax.set_ylim(0, max(shares) * 1.3)
    look.legend(ax)
    look.label(
        ax,
        f"{outlook.remaining} items left, {outlook.trials:,} simulated futures",
        "sprints needed",
        "% of futures",
    )
    caption = (
        f"Half of the futures are done within {outlook.p50} sprints, 85 % within {outlook.p85}. "
        f"The team's own past: {', '.join(map(str, outlook.throughput))} items a sprint."
    )
    return look.drawn(fig, caption, "Histogram of the sprints needed. " + caption)


# ---- the words "continuous …"
# name, the phases it ends with here, the industry's first and last phase, the industry's meaning
MODES_TEXT = (
    ("Delivery", "test", "code", "release", "every change ends as a release that could go out at any time"),
    ("Integration", "release", "code", "test", "all merge into main often; each merge is built and tested"),
    ("Deployment", "monitor", "code", "monitor", "every change that passes goes to production by itself"),
)


def modes(lit: str = "") -> Picture:
    """The three continuous modes: the phases that each runs here, beside what most of the industry means.

    Args:
        lit: the mode to point at: "delivery", "integration" or "deployment"; empty for none.
    """
    rows: list[tuple[object, ...]] = []
    for name, last, industry_first, industry_last, meaning in MODES_TEXT:
        this_one = look.badge("info", "this one") if name.lower() == lit else ""
        title = look.lines(look.bold(f"Continuous {name}"), this_one)
        rows.append((title, "this workbook", _phases("plan", last), "the phases that the mode runs here"))
        rows.append(("", "elsewhere", _phases(industry_first, industry_last), meaning))
    caption = "✔ = phases the mode runs; much of the industry uses the first two names the other way round."
    told = "; ".join(f"Continuous {name}: Plan to {last.capitalize()}" for name, last, *_ in MODES_TEXT)
    table = look.table(("mode", "as said in", "phases", "meaning"), rows)
    return look.page(caption, f"In this workbook {told}.", table)


def _phases(first: str, last: str) -> look.Html:
    names = list(PHASES)
    inside = names[names.index(first) : names.index(last) + 1]  # type: ignore[arg-type]
    return look.Html(
        " ".join(look.badge("good" if phase in inside else "quiet", phase.capitalize()) for phase in names)
    )
