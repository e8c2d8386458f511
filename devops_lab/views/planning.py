"""Views of the whole loop and of the plan: lifecycle map, board, forecast, and the three continuous modes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from devops_lab.model import PHASES, Finding, Forecast, Item, Phase, Progress, Sprint
from devops_lab.platform.store import Store
from devops_lab.views import style as look
from devops_lab.views.style import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NOT_DONE = ("failed", "refused", "started")  # endings of event kinds that light nothing up
MAX_CARDS = 8


# ---- the lifecycle map
def lifecycle(store: Store, exercises: Mapping[str, int] | None = None) -> Picture:
    """The DevOps loop, each phase lit up when it was done in this lab.

    Args:
        store: the lab's; a phase is lit by any of its events that is not a start or a failure.
        exercises: what each counts, in points, by its id; the map adds them up by phase.
    """
    lit = {event.phase for event in store.events(limit=100_000) if not event.kind.endswith(NOT_DONE)}
    points = exercises or {}
    reader, by_lab = (_by_phase(store, state, points) for state in ("right", "skipped"))
    total = _sums(points.items())

    def tally(phase: str) -> str:
        skipped = f", ◇ {by_lab[phase]}" if by_lab[phase] else ""
        return f"{reader[phase]}/{total[phase]} points{skipped}" if total[phase] else ""

    fig, (ax,) = look.figure(height=3.7)
    ax.axis("off")
    ax.set(xlim=(-1.62, 1.62), ylim=(-1.02, 1.02))
    _draw_loop(ax, lit)
    for index, phase in enumerate(PHASES):
        _node(ax, *_on_loop(_angle(index + 0.5)), phase, phase in lit, tally(phase))
    _node(ax, 0, 0, "repeat", "repeat" in lit, tally("repeat"))
    done, count = "continuous" in lit, tally("continuous")
    words = (
        f"{'✔' if done else '○'} Continuous: a push walks the loop by itself {f'({count})' if count else ''}"
    )
    ax.text(0, -1.0, words, ha="center", va="bottom", fontsize=10, color="#00452f" if done else look.GREY)
    walked = [phase for phase in (*PHASES, "repeat", "continuous") if phase in lit]
    caption = f"The DevOps loop: {len(walked)} of 10 walked (✔)."
    if points:
        caption += f" {reader.total()} of {total.total()} points; ◇ {by_lab.total()} done by the lab."
    alt = f"DevOps lifecycle as an infinity loop. Done: {', '.join(walked) or 'nothing'}."
    return look.drawn(fig, caption, alt)


def _by_phase(store: Store, state: str, points: Mapping[str, int]) -> Counter[str]:
    """The points of what is in a state, by phase."""
    return _sums((p.exercise, points.get(p.exercise, 0)) for p in store.all(Progress) if p.state == state)


def _sums(points: Iterable[tuple[str, int]]) -> Counter[str]:
    found: Counter[str] = Counter()
    for exercise, count in points:
        found[exercise.partition("-")[0]] += count
    return found


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


# ---- the board
def board(items: Sequence[Item], sprint: Sprint | None = None, findings: Sequence[Finding] = ()) -> Picture:
    """The backlog as cards in three columns, with the review's findings on them."""
    if not items:
        return look.nothing("the backlog")
    chosen = sprint.items if sprint else []
    ready = [item for item in items if item.status == "ready"]
    now = [item for item in ready if item.id in chosen]
    rest = sorted((item for item in ready if item.id not in chosen), key=lambda item: -item.wsjf)
    done = [item for item in items if item.status == "done"][::-1]
    room = "Sprint: none yet"
    if sprint:
        room = f"Sprint {sprint.number}: {sprint.effort:g} of {sprint.capacity:g} points"
    heads = (f"Backlog ({len(rest)}, highest WSJF first)", room, f"Done ({len(done)}, newest first)")
    html = look.table(heads, [[look.Html(_column(cards, findings)) for cards in (rest, now, done)]])
    warned = sorted({f"{f.item} ({f.severity})" for f in findings})
    advice = f" The platform's review has advice on {', '.join(warned)}." if warned else ""
    counts = f"{len(rest)} waiting, {len(now)} in the sprint, {len(done)} done"
    caption = f"The board: {counts} (WSJF = cost of delay / effort)."
    alt = f"{'. '.join(heads)}. In the sprint: {', '.join(i.id for i in now) or 'nothing'}.{advice}"
    return look.page(caption, alt, html)


def _column(items: Sequence[Item], findings: Sequence[Finding]) -> str:
    cards = "".join(_card(item, [f for f in findings if f.item == item.id]) for item in items[:MAX_CARDS])
    more = f"… and {len(items) - MAX_CARDS} more" if len(items) > MAX_CARDS else ""
    return (cards or "–") + more


def _card(item: Item, findings: Sequence[Finding]) -> str:
    tones = {"blocks": "bad", "risk": "warn"}
    advice = [
        look.lines(look.badge(tones[f.severity], f.severity), f.problem, f.proposal and f"→ {f.proposal}")
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
    title = f"{outlook.remaining} items left, {outlook.trials:,} simulated futures"
    look.label(ax, title, "sprints needed", "% of futures")
    caption = (
        f"Half of the futures are done within {outlook.p50} sprints, 85 % within {outlook.p85}. "
        f"The team's own past: {', '.join(map(str, outlook.throughput))} items a sprint."
    )
    return look.drawn(fig, caption, "Histogram of the sprints needed. " + caption)


# ---- the words "continuous …"
# name, the phases it ends with here, the industry's first and last phase, the industry's meaning
MODES_TEXT: tuple[tuple[str, Phase, Phase, Phase, str], ...] = (
    ("Delivery", "test", "code", "release", "every change ends as a release that could go out at any time"),
    ("Integration", "release", "code", "test", "all merge into main often; each merge is built and tested"),
    ("Deployment", "monitor", "code", "monitor", "every change that passes goes to production by itself"),
)


def modes() -> Picture:
    """The three continuous modes: the phases that each runs here, beside what most of the industry means."""
    rows: list[tuple[object, ...]] = []
    for name, last, industry_first, industry_last, meaning in MODES_TEXT:
        title = look.bold(f"Continuous {name}")
        rows.append((title, "this workbook", _phases("plan", last), "the phases that the mode runs here"))
        rows.append(("", "elsewhere", _phases(industry_first, industry_last), meaning))
    caption = "✔ = phases the mode runs; much of the industry uses the first two names the other way round."
    listed = "; ".join(f"Continuous {name}: Plan to {last.capitalize()}" for name, last, *_ in MODES_TEXT)
    table = look.table(("mode", "as said in", "phases", "meaning"), rows)
    return look.page(caption, f"In this workbook {listed}.", table)


def _phases(first: Phase, last: Phase) -> look.Html:
    inside = PHASES[PHASES.index(first) : PHASES.index(last) + 1]
    badges = (look.badge("good" if phase in inside else "quiet", phase.capitalize()) for phase in PHASES)
    return look.Html(" ".join(badges))
