"""Views of tests: a run's cases and its gate, each test as a cell with its duration, and planted bugs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import TYPE_CHECKING

from devops_lab.model import Bug, Case, TestReport
from devops_lab.views import style as look
from devops_lab.views.style import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OUTCOME = {"passed": "good", "failed": "bad", "error": "bad", "skipped": "quiet"}
SUITES = ("unit", "integration", "contract")
# up to so many seconds -> colour of a test that passed, from light to dark
SHADES = {0.01: "#d5efe5", 0.03: "#8fd3bd", 0.1: "#3fae8a", 0.3: "#00795a", 1e12: "#004d38"}
CELL, GAP = 0.2, 0.03  # inches


def tests(report: TestReport | None) -> Picture:
    """All cases of a test run by suite, with outcome marks, the slowest, coverage, and the gate."""
    if report is None or not report.cases:
        return look.nothing("the test run's cases")
    suites = dict.fromkeys(case.suite for case in report.cases)
    rows = [_suite_row(suite, [c for c in report.cases if c.suite == suite]) for suite in suites]
    grid = look.table(("suite", "cases", "passed", "time"), rows)
    gate = look.badge("bad", "gate closed") if report.gate else look.badge("good", "gate open")
    percent = f"{report.coverage_percent:.0f} %"
    slowest = sorted(report.cases, key=lambda c: -c.seconds)[:3]
    slow = look.lines(*(f"{c.name} {look.seconds(c.seconds)}" for c in slowest))
    coverage = look.bar(report.coverage_percent / 100, percent, look.GREEN)
    heads = ("coverage", "quality gate", "slowest")
    summary = look.table(heads, [(coverage, look.lines(gate, *report.gate), slow)])
    bad = [case for case in report.cases if OUTCOME[case.outcome] == "bad"][:10]
    failed = [
        (look.badge("bad", c.outcome), c.suite, look.code(c.name), look.code(c.message.strip()[:600]))
        for c in bad
    ]
    failures = look.table(("outcome", "suite", "case", "message"), failed) if failed else ""
    caption = (
        f"{report.count('passed')} of {len(report.cases)} passed in {look.seconds(report.seconds)}, "
        f"{report.count('failed') + report.count('error')} failed; coverage {percent}; "
        f"the gate is {'closed' if report.gate else 'open'}."
    )
    alt = " ".join([caption, *(f"{case.name}: {case.outcome}." for case in bad), *report.gate])
    return look.page(caption, alt, grid, summary, failures)


def _suite_row(suite: str, cases: Sequence[Case]) -> tuple[object, ...]:
    marks = []
    for case in cases:
        mark, ink, ground = look.TONES[OUTCOME[case.outcome]]
        style = f"color:{ink};background:{ground};display:inline-block;width:17px;text-align:center"
        hint = look.safe(f"{case.name} {look.seconds(case.seconds)}")
        marks.append(f'<span style="{style};margin:1px" title="{hint}">{mark}</span>')
    passed = sum(case.outcome == "passed" for case in cases)
    grid = look.Html(f'<div style="max-width:460px;line-height:1.5">{"".join(marks)}</div>')
    return suite, grid, f"{passed} of {len(cases)}", look.seconds(sum(case.seconds for case in cases))


def test_grid(found: TestReport | Sequence[Case] | None) -> Picture:
    """Each test as a cell of its file's row, the darker the longer it took, with coverage by file below.

    Failed tests have a cross on red, skipped ones a circle on grey.

    Args:
        found: one run of the suite; or, while it goes on, the cases that have ended.
    """
    report = found if isinstance(found, TestReport) else TestReport("", "", list(found or ()), 0.0, 0.0, 0.0)
    if not report.cases:
        return look.nothing("each test as a cell")
    files: dict[str, list[Case]] = defaultdict(list)
    for case in report.cases:
        files[case.name.partition("::")[0] if "::" in case.name else case.suite].append(case)
    left = 0.3 + max(look.inches(name, 9) for name in (*files, *report.coverage, "coverage"))
    across = int((look.WIDE - left - 1.0) / CELL)  # cells in a line; a longer row goes on in the next one
    lines = sum(-(-len(cases) // across) for cases in files.values())
    covered = 0.45 + 0.19 * len(report.coverage) if report.coverage else 0.0
    fig, ax = look.canvas(0.6 + (CELL + 0.07) * lines + covered)
    y = _draw_key(ax, left)
    for name, cases in files.items():
        y = _draw_row(ax, (left, y), name, cases, across)
    _draw_coverage(ax, (left, y + 0.15), report)
    slowest = max(report.cases, key=lambda case: case.seconds)
    bad = [case.name for case in report.cases if OUTCOME[case.outcome] == "bad"]
    covers = f"; coverage {report.coverage_percent:.0f} %" if report.coverage else ""
    caption = (
        f"{len(report.cases)} tests in {len(files)} files, {report.count('passed')} passed, "
        f"{len(bad)} failed, {report.count('skipped')} skipped; "
        f"slowest: {slowest.name.rpartition('::')[2]} {look.seconds(slowest.seconds)}{covers}."
    )
    rows = (f"{name}: {len(c)} in {look.seconds(sum(x.seconds for x in c))}" for name, c in files.items())
    least = (f"{name} {share:.0f} %" for name, share in sorted(report.coverage.items(), key=lambda p: p[1]))
    alt = f"{caption} {'; '.join(rows)}. Failed: {', '.join(bad) or 'none'}."
    return look.drawn(fig, caption, alt + (f" Covered: {', '.join(least)}." if report.coverage else ""))


def _draw_key(ax: Axes, x: float) -> float:
    """What the shades mean, in one line on top; returns where the rows begin."""
    names = ("10 ms", "30 ms", "100 ms", "300 ms", "longer")
    ax.text(x - 0.1, 0.2, "a test took up to", fontsize=8.5, ha="right", va="center", color=look.GREY)
    for words, shade in zip(names, SHADES.values(), strict=True):
        _cell(ax, x, 0.2, shade, "")
        ax.text(x + CELL + 0.03, 0.2, words, fontsize=8.5, va="center", color=look.GREY)
        x += CELL + 0.18 + look.inches(words, 8.5)
    for words, outcome in (("failed", "failed"), ("skipped", "skipped")):
        _cell(ax, x, 0.2, *_colour(Case("", "", outcome, 0.0)))  # type: ignore[arg-type]
        ax.text(x + CELL + 0.03, 0.2, words, fontsize=8.5, va="center", color=look.GREY)
        x += CELL + 0.18 + look.inches(words, 8.5)
    return 0.55


def _draw_row(ax: Axes, at: tuple[float, float], name: str, cases: Sequence[Case], across: int) -> float:
    """A file's tests from left to right, in as many lines as they need; returns where the next row begins."""
    left, y = at
    ax.text(left - 0.1, y, name, fontsize=9, ha="right", va="center", color="#1a1a1a")
    last = 0
    for number, case in enumerate(cases):
        line, last = divmod(number, across)
        _cell(ax, left + last * CELL, y + line * (CELL + 0.02), *_colour(case))
    y += (len(cases) - 1) // across * (CELL + 0.02)
    took = look.seconds(sum(case.seconds for case in cases))
    ax.text(left + (last + 1) * CELL + 0.08, y, took, fontsize=8.5, va="center", color=look.GREY)
    return y + CELL + 0.07


def _colour(case: Case) -> tuple[str, str]:
    """A cell's colour, and the mark in it."""
    tone = OUTCOME[case.outcome]
    if tone != "good":
        return (look.RED, "✘") if tone == "bad" else ("#d9d9d9", "○")
    return next(shade for limit, shade in SHADES.items() if case.seconds <= limit), ""


def _cell(ax: Axes, x: float, y: float, colour: str, mark: str) -> None:
    from matplotlib.patches import Rectangle

    wide = CELL - GAP
    ax.add_patch(
        Rectangle((x, y - wide / 2), wide, wide, facecolor=colour, edgecolor="#767676", linewidth=0.4)
    )
    ink = "white" if colour == look.RED else "#1a1a1a"
    ax.text(x + wide / 2, y, mark, fontsize=8, ha="center", va="center_baseline", color=ink)


def _draw_coverage(ax: Axes, at: tuple[float, float], report: TestReport) -> None:
    """How much of each file of the shop the tests ran through, the least covered on top."""
    left, y = at
    if not report.coverage:
        return
    ax.text(left - 0.1, y, "coverage", fontsize=9, weight="bold", ha="right", va="center", color="#1a1a1a")
    full = look.WIDE - left - 1.0
    for name, share in sorted(report.coverage.items(), key=lambda pair: pair[1]):
        y += 0.19
        ax.text(left - 0.1, y, name, fontsize=8.5, ha="right", va="center", color="#1a1a1a")
        ax.barh(y, full, left=left, height=0.12, color="#ececec")
        ax.barh(y, full * share / 100, left=left, height=0.12, color=look.BLUE)
        ax.text(left + full + 0.08, y, f"{share:.0f} %", fontsize=8.5, va="center", color=look.GREY)


def matrix(bugs: Sequence[Bug]) -> Picture:
    """Planted bugs: which suite caught which, and what escaped."""
    if not bugs:
        return look.nothing("the planted bugs, caught and escaped")
    rows = []
    for bug in bugs:
        marks = [look.badge("good", "red") if suite in bug.suites else "–" for suite in SUITES]
        verdict = look.badge("good", "caught") if bug.caught else look.badge("bad", "escaped")
        more = f"… {len(bug.by) - 2} more" if len(bug.by) > 2 else ""
        names = [name.rpartition("::")[2].replace("_", " ") for name in bug.by[:2]]
        rows.append((bug.change, *marks, verdict, look.lines(*names, more)))
    caught, escaped = ([bug.change for bug in bugs if bug.caught is how] for how in (True, False))
    caption = f"{len(caught)} of {len(bugs)} planted bugs were caught; {len(escaped)} escaped the suite."
    alt = f"Caught: {', '.join(caught) or 'none'}. Escaped: {', '.join(escaped) or 'none'}."
    heads = ("planted bug", *SUITES, "verdict", "cases that went red")
    return look.page(caption, alt, look.table(heads, rows))
