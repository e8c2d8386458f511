"""Views of where things come from: the repository's commits as a graph, and the trail of a version."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from devops_lab.model import Commit, CommitGraph
from devops_lab.views import style as look
from devops_lab.views.style import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ROW, LANE, EDGE = 0.25, 0.2, 0.18  # inches: from commit to commit, from lane to lane, on the left
MARKERS = ("o", "s", "^", "D", "P", "X")  # of the lanes, so that not only the colour tells them apart
# what points at a commit -> mark, text colour, background
KINDS = {
    "heads": ("", "#00365a", "#d8ebf8"),
    "tags": ("◆ ", "#523c00", "#fdeebf"),
    "remotes": ("☁ ", "#444444", "#ececec"),
}
Spot = tuple[float, float]  # lane, row; or inches
LAYER, MOST = 0.72, 5  # inches from box to box of the trail, and boxes side by side
VIA = "via "  # begins the name of a place where a long arrow passes a layer
# what a trail leads through -> tone of its box
BOXES = dict.fromkeys(("deployment", "release"), "good") | dict.fromkeys(("artifact", "image"), "warn")
BOXES |= dict.fromkeys(("report", "profile", "commit"), "info") | dict.fromkeys(
    ("item", "change", "sprint"), "quiet"
)
Row = tuple[str, str, str, float]  # child, relation, parent, time
Edge = tuple[str, str]  # child, parent


def git_graph(graph: CommitGraph) -> Picture:
    """The repository's commits, newest on top: branches as lanes, merges where lanes meet, a conflict in red.

    Args:
        graph: what `lab.code.graph()` found.
    """
    if not graph.commits:
        return look.nothing("the repository's commits")
    commits = [*_half_done(graph), *graph.commits]
    spots = _lanes(commits, graph)
    fig, ax = look.canvas(0.2 + ROW * len(commits))
    texts = _at((1 + max(lane for lane, _ in spots.values()), 0))[0]
    for commit in commits:
        _draw_edges(ax, commit, spots)
        _draw_commit(ax, commit, spots[commit.id], bool(graph.conflicts))
        _write(ax, graph, commit, texts, _at(spots[commit.id])[1])
    return look.drawn(fig, *_words(graph))


def _half_done(graph: CommitGraph) -> list[Commit]:
    """The commit that a merge, a rebase or the like will make; it has no id yet."""
    if not graph.under_way:
        return []
    of = f" of {graph.incoming[:7]}" if graph.incoming else ""
    conflict = f"conflict in {', '.join(graph.conflicts)}" if graph.conflicts else "no conflict is left"
    parents = [id for id in (graph.head, graph.incoming) if id]
    return [Commit("", f"A {graph.under_way}{of} is under way: {conflict}", "", 0, parents)]


def _words(graph: CommitGraph) -> tuple[str, str]:
    """The caption, and the facts for those who can't see the graph."""
    branches = sorted(name[6:] for names in graph.refs.values() for name in names if name[:6] == "heads/")
    merges = sum(len(commit.parents) > 1 for commit in graph.commits)
    shown = f"the newest {len(graph.commits)} of {graph.count}" if graph.count > len(graph.commits) else "all"
    caption = f"{graph.count} commits ({shown} shown), {merges} merges among them; "
    caption += f"branches: {', '.join(branches)}; checked out: {graph.branch or 'no branch'}."
    caption += "".join(f" {pending.subject}." for pending in _half_done(graph))
    listed = []
    for commit in graph.commits:
        names = ", ".join(name.partition("/")[2] for name in graph.refs.get(commit.id, []))
        comes = f" (merges {', '.join(id[:7] for id in commit.parents[1:])})" if commit.parents[1:] else ""
        at = f" [{names}]" if names else ""
        listed.append(f"{commit.id[:7]}{at} {commit.subject}, {commit.author}{comes}")
    return caption, f"{caption} Newest first: {'; '.join(listed)}."


def _lanes(commits: Sequence[Commit], graph: CommitGraph) -> dict[str, Spot]:
    """Where each commit stands; the first parents of main go straight down on the left."""
    main = next((id for id, names in graph.refs.items() if "heads/main" in names), "none")
    expected: list[str | None] = [main]  # by lane: the commit that its line leads to; None where it is free
    if graph.under_way and graph.branch == "main":
        expected = [""]
    spots: dict[str, Spot] = {}
    for row, commit in enumerate(commits):
        if commit.id not in expected:
            _expect(commit.id, expected)
        lane = expected.index(commit.id)
        spots[commit.id] = (lane, row)
        expected = [None if id == commit.id else id for id in expected]
        expected[lane] = next(iter(commit.parents), None)
        for parent in commit.parents[1:]:
            if parent not in expected:
                _expect(parent, expected)
    return spots


def _expect(commit: str, expected: list[str | None]) -> None:
    """Lead the first free lane to a commit; the leftmost is main's."""
    free = next((n for n, id in enumerate(expected) if n and id is None), len(expected))
    expected[free : free + 1] = [commit]


def _at(spot: Spot) -> tuple[float, float]:
    return EDGE + LANE * spot[0], 0.22 + ROW * spot[1]


def _style(lane: float) -> tuple[str, str]:
    """A lane's colour and mark."""
    return look.SERIES[int(lane) % len(look.SERIES)], MARKERS[int(lane) % len(MARKERS)]


def _draw_edges(ax: Axes, commit: Commit, spots: dict[str, Spot]) -> None:
    """Lines to a commit's parents; broken to what is not made yet, dotted to what is not shown."""
    lane, row = spots[commit.id]
    for number, parent in enumerate(commit.parents):
        to_lane, to_row = spots.get(parent, (lane, len(spots) - 0.5))
        # a branch leaves its lane where it began; a merge's line leaves at once, into the lane it came from
        bend = (lane, to_row - 1) if number == 0 else (to_lane, row + 1)
        colour = _style(lane if number == 0 else to_lane)[0]
        dash = ":" if parent not in spots else "-" if commit.id else "--"
        corners = [_at((lane, row)), _at(bend), _at((to_lane, to_row))]
        ax.plot(*zip(*corners, strict=True), color=colour, linewidth=1.6, zorder=1, linestyle=dash)


def _draw_commit(ax: Axes, commit: Commit, spot: Spot, conflict: bool) -> None:
    """A mark of the lane's own colour and form, hollow for a merge; what is half done is a circle."""
    if not commit.id:
        colour, mark = (look.RED, "✘") if conflict else (look.GREEN, "●")
        ax.plot(*_at(spot), "o", color="white", mec=colour, mew=1.8, markersize=11, zorder=3)
        ax.text(*_at(spot), mark, color=colour, fontsize=8, ha="center", va="center_baseline", zorder=4)
        return
    colour, marker = _style(spot[0])
    inside = "white" if len(commit.parents) > 1 else colour
    ax.plot(*_at(spot), marker, color=inside, mec=colour, mew=1.6, markersize=6.5, zorder=3)


def _write(ax: Axes, graph: CommitGraph, commit: Commit, x: float, y: float) -> None:
    """What stands beside a commit: its hash, what points at it, its subject, and on the right its author."""
    if not commit.id:
        ink, words = look.TONES["bad" if graph.conflicts else "good"][1], commit.subject
        words = look.fitted(words, look.WIDE - x - 0.3, 9.5)
        ax.text(x, y, words, fontsize=9, weight="bold", color=ink, va="center")
        return
    ax.text(x, y, commit.id[:7], fontsize=8.5, family="monospace", color=look.GREY, va="center")
    x += 0.62
    for name in sorted(graph.refs.get(commit.id, [])):
        kind, _, short = name.partition("/")
        mark, ink, ground = KINDS[kind]
        here = kind == "heads" and short == graph.branch
        words = look.fitted(f"{'▶ ' if here else mark}{short}", 2.2, 8)
        box = {"boxstyle": "round,pad=0.25", "facecolor": ground, "edgecolor": ink, "linewidth": 1.4 * here}
        ax.text(x + 0.05, y, words, fontsize=8, color=ink, va="center", bbox=box,
                weight="bold" if here else "normal")  # fmt: skip
        x += look.inches(words, 8, weight="bold" if here else "normal") + 0.2
    author = look.fitted(commit.author, 1.2, 8)
    room = look.WIDE - 0.3 - look.inches(author, 8) - x
    ax.text(x, y, look.fitted(commit.subject, room, 9), fontsize=9, color="#1a1a1a", va="center")
    ax.text(look.WIDE - 0.12, y, author, fontsize=8, color=look.GREY, va="center", ha="right")


# ---- the trail
def trail(rows: Sequence[Row]) -> Picture:
    """Where a version comes from, from what was planned down to what was deployed, as boxes and arrows.

    Args:
        rows: (child, relation, parent, time), nearest first, as `lab.trail(version)` gives them.
    """
    if not rows:
        return look.nothing("the trail")
    root = rows[0][0]
    tree = [root, *_branches(root, "", rows, {root})]
    caption = f"The trail of {root}: {len(rows)} step(s) back to where it began."
    alt = "; ".join(line.lstrip("└├─│ ") for line in tree)
    return look.drawn(_boxes(rows), caption, alt)


def _branches(node: str, indent: str, rows: Sequence[Row], seen: set[str]) -> Iterable[str]:
    own = [row for row in rows if row[0] == node]
    for left, (_, relation, parent, t) in zip(reversed(range(len(own))), own, strict=True):
        again = " (see above)" if parent in seen and any(row[0] == parent for row in rows) else ""
        yield f"{indent}{'├─' if left else '└─'} {relation} {parent}  {look.clock(t)}{again}"
        if parent not in seen:
            seen.add(parent)
            yield from _branches(parent, indent + ("│  " if left else "   "), rows, seen)


def _boxes(rows: Sequence[Row]) -> Figure:
    """Layers of boxes: each stands below all that it comes from, and what the trail is of at the bottom."""
    steps, depths = _through_layers(*_layers(rows))
    bottom = max(depths.values())
    spots: dict[str, Spot] = {}
    wide = 2.2
    for depth in range(bottom + 1):
        layer = [node for node in depths if depths[node] == depth]
        rooms = {node: 0.25 if node.startswith(VIA) else 1.0 for node in layer}
        unit, x = look.WIDE / sum(rooms.values()), 0.0
        for node in sorted(layer, key=lambda node: _pull(node, steps, spots)):
            spots[node] = (x + rooms[node] * unit / 2, LAYER * (bottom - depth) + 0.35)
            x += rooms[node] * unit
        wide = min(wide, unit - 0.15)
    fig, ax = look.canvas(LAYER * bottom + 0.7)
    for step, relation in steps.items():
        _draw_step(ax, step, spots, relation, sum(child == step[0] for child, _ in steps) > 3)
    times = {child: t for child, _, _, t in rows}
    for node, spot in spots.items():
        if node.startswith(VIA):
            ax.plot([spot[0]] * 2, [spot[1] - 0.21, spot[1] + 0.2], color=look.GREY, linewidth=1.2)
        else:
            _draw_box(ax, node, spot, wide, times.get(node, 0.0))
    return fig


def _layers(rows: Sequence[Row]) -> tuple[dict[Edge, str], dict[str, int]]:
    """Relations by (child, parent), none that closes a circle; and how far each thing is from the root."""
    edges: dict[Edge, str] = {}
    order: list[str] = []  # what something comes from stands before it

    def visit(node: str, path: frozenset[str]) -> None:
        for child, relation, parent, _ in rows:
            if child == node and parent not in path:
                edges[child, parent] = relation
                if parent not in order:
                    visit(parent, path | {parent})
        order.append(node)

    root = rows[0][0]
    visit(root, frozenset([root]))
    depths = dict.fromkeys(reversed(order), 0)
    for node in reversed(order):
        for child, parent in edges:
            if child == node:
                depths[parent] = max(depths[parent], depths[child] + 1)
    return _fewer(edges, depths)


def _fewer(edges: dict[Edge, str], depths: dict[str, int]) -> tuple[dict[Edge, str], dict[str, int]]:
    """At most so many boxes a layer; one stands for all the others."""
    names = {node: node for node in depths}
    for depth in set(depths.values()):
        layer = [node for node in depths if depths[node] == depth]
        if len(layer) > MOST:
            others = layer[MOST - 1 :]
            names |= dict.fromkeys(others, f"and more:{len(others)} others@{depth}")
    few = {(names[child], names[parent]): relation for (child, parent), relation in edges.items()}
    return few, {names[node]: depth for node, depth in depths.items()}


def _through_layers(edges: dict[Edge, str], depths: dict[str, int]) -> tuple[dict[Edge, str], dict[str, int]]:
    """Long relations cut into steps from layer to layer, so that their arrows run between the boxes."""
    steps, depths = {}, dict(depths)
    for (child, parent), relation in edges.items():
        below = child
        for depth in range(depths[child] + 1, depths[parent]):
            here = f"{VIA}{child} {parent} {depth}"
            depths[here] = depth
            steps[below, here] = "" if below.startswith(VIA) else relation
            below = here
        steps[below, parent] = "" if below.startswith(VIA) else relation
    return steps, depths


def _pull(node: str, steps: Mapping[Edge, str], spots: Mapping[str, Spot]) -> float:
    """Where what comes from a thing stands, on the mean: few arrows cross when it stands above."""
    found = [spots[child][0] for child, parent in steps if parent == node and child in spots]
    return sum(found) / len(found) if found else 0.0


def _draw_step(ax: Axes, step: Edge, spots: Mapping[str, Spot], relation: str, crowded: bool) -> None:
    """From where something comes from to what came of it; where many arrows end, its word stands above."""
    (x, y), (x0, y0) = spots[step[0]], spots[step[1]]
    start, end = (x0, y0 + 0.2), (x, y - 0.21)
    head = "-" if step[0].startswith(VIA) else "-|>"
    style = {"arrowstyle": head, "color": look.GREY, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops={**style, "linewidth": 1.2}, zorder=1)
    share = 0.3 if crowded else 0.6
    middle = (start[0] + share * (end[0] - start[0]), start[1] + share * (end[1] - start[1]))
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.6}
    ax.text(*middle, relation, fontsize=7.5, color=look.GREY, ha="center", va="center", bbox=ground, zorder=2)


def _draw_box(ax: Axes, node: str, spot: Spot, wide: float, t: float) -> None:
    """A thing's kind in bold, its name, and when it came."""
    from matplotlib.patches import FancyBboxPatch

    kind, _, name = node.partition(":")
    _, ink, ground = look.TONES[BOXES.get(kind, "plain")]
    corner, style = (spot[0] - wide / 2, spot[1] - 0.2), "round,pad=0,rounding_size=0.05"
    ax.add_patch(FancyBboxPatch(corner, wide, 0.4, style, facecolor=ground, edgecolor=ink, zorder=3))
    short = name.partition("@")[0].removeprefix("sha256:")
    short = short[:7] if len(short) >= 40 else short
    when = f"{short}, {look.clock(t)}"
    words = when if t and look.inches(when, 8) < wide - 0.1 else look.fitted(short, wide - 0.1, 8)
    centre: dict[str, Any] = {"ha": "center", "va": "center", "color": ink, "zorder": 4}
    ax.text(spot[0], spot[1] - 0.08, look.fitted(kind, wide, 8.5), fontsize=8.5, weight="bold", **centre)
    ax.text(spot[0], spot[1] + 0.09, words, fontsize=8, **centre)
