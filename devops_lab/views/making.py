"""Views of code on its way to a release: pipeline, build, tests, planted bugs, diff, registry, trail."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from devops_lab.model import Artifact, Bug, Case, Release, Step, TestReport
from devops_lab.views.picture import Picture
from devops_lab.views.style import (
    BLUE,
    CELL,
    GREEN,
    INK,
    MONO,
    RED,
    TONES,
    Html,
    badge,
    bar,
    clock,
    code,
    digest,
    drawn,
    figure,
    label,
    lines,
    nothing,
    page,
    pick,
    safe,
    seconds,
    size,
    table,
)

OUTCOME = {"passed": "good", "failed": "bad", "error": "bad", "skipped": "quiet"}
MAX_LINES = 200  # of a diff


# ---- pipeline and build
def pipeline(run: Any, title: str = "") -> Picture:
    """The steps of a pipeline as bars on a time axis; steps that ran side by side show side by side.

    Args:
        run: a list of `Step`, or a record with `steps` (and `mode`, `lead_time_seconds` if it has them).
        title: what was run.
    """
    steps: list[Step] = list(getattr(run, "steps", run) or [])
    if not steps:
        return nothing("the steps of the pipeline")
    title = title or str(getattr(run, "mode", ""))
    fig, (ax,) = figure(height=min(1.1 + 0.32 * len(steps), 4.6))
    spans = _spans(steps)
    total = max(start + step.seconds for start, step in spans)
    for row, (start, step) in enumerate(spans):
        tone = _tone(step)
        colour = {"good": GREEN, "bad": RED}.get(tone, "#bdbdbd")
        ax.barh(row, max(step.seconds, total / 400), left=start, color=colour, height=0.62)
        words = "skipped" if tone == "quiet" else seconds(step.seconds)
        ax.text(
            start + step.seconds + total * 0.012, row, f"{TONES[tone][0]} {words}", va="center", fontsize=9
        )
    ax.set_yticks(range(len(spans)), [step.name for _, step in spans])
    ax.invert_yaxis()
    ax.set_xlim(0, total * 1.16)
    ax.grid(axis="y", visible=False)
    label(ax, title, "seconds since the start")
    bad = [step for step in steps if _tone(step) == "bad"]
    ending = f"stopped at {bad[0].name}" if bad else "all ok"
    lead = getattr(run, "lead_time_seconds", 0)
    told = f" Lead time: {seconds(lead)}." if lead else ""
    caption = f"{title or 'Steps'}: {len(steps)} steps in {seconds(total)}, {ending}.{told}"
    alt = "; ".join(
        f"{s.name} {'failed' if _tone(s) == 'bad' else 'skipped' if _tone(s) == 'quiet' else seconds(s.seconds)}"
        for s in steps
    )
    said = "".join(_output(step) for step in bad)
    return drawn(fig, caption, alt + ".", html=said)


def _tone(step: Step) -> str:
    if not step.ok:
        return "bad"
    return "quiet" if step.output.lower().startswith("skipped") else "good"


def _spans(steps: Sequence[Step]) -> list[tuple[float, Step]]:
    """Each step with its start in seconds; one after the other where the steps don't say when they began."""
    known = [step.started for step in steps if step.started]
    found, clock_now = [], 0.0
    for step in steps:
        start = step.started - min(known) if step.started else clock_now
        found.append((start, step))
        clock_now = max(clock_now, start + step.seconds)
    return sorted(found, key=lambda pair: pair[0])


def _output(step: Step) -> str:
    text = step.output.strip()[-2000:]
    return (
        f'<pre style="{INK};{MONO};border-left:4px solid {RED};padding:4px 10px">{safe(text)}</pre>'
        if text
        else ""
    )


def build(artifact: Artifact | None) -> Picture:
    """What a build did and made: steps with times and sizes, the wheel and its content digest."""
    if artifact is None:
        return nothing("the build's steps and its artifact")
    longest = max((step.seconds for step in artifact.steps), default=1) or 1
    rows: list[tuple[object, ...]] = [
        (
            step.name,
            badge(_tone(step), "ok" if step.ok else "failed"),
            bar(step.seconds / longest, seconds(step.seconds), BLUE),
            size(step.bytes) if step.bytes else "–",
        )
        for step in artifact.steps
    ]
    name = artifact.path.rpartition("/")[2]
    rows.append(
        (
            Html(f"<b>{safe(name)}</b>"),
            badge("good", artifact.version),
            seconds(artifact.seconds),
            size(artifact.bytes),
        )
    )
    facts = lines(
        f"commit {artifact.commit[:8]} · scorer: {artifact.scorer}", Html("digest " + code(artifact.digest))
    )
    caption = f"Built {name} ({size(artifact.bytes)}) from commit {artifact.commit[:8]} in {seconds(artifact.seconds)}."
    steps = "; ".join(f"{s.name} {seconds(s.seconds)}" for s in artifact.steps)
    note = f'<div style="{INK};padding:2px 6px;font-size:13px">{facts}</div>'
    return page(
        caption,
        f"{caption} Steps: {steps}. Digest {artifact.digest}.",
        table(("step", "", "time", "size"), rows),
        note,
    )


def scorers(times: Mapping[str, float]) -> Picture:
    """Seconds for 1000 scores, by scorer: what compiling was good for."""
    if not times:
        return nothing("the measured scorers")
    fig, (ax,) = figure(height=0.9 + 0.42 * len(times))
    ordered = sorted(times.items(), key=lambda pair: pair[1])
    slowest = ordered[-1][1] or 1
    for row, (name, took) in enumerate(ordered):
        ax.barh(row, took, color=(GREEN, BLUE)[row % 2], height=0.55)
        ax.text(took + slowest * 0.012, row, seconds(took), va="center", fontsize=9)
    ax.set_yticks(range(len(ordered)), [name for name, _ in ordered])
    ax.invert_yaxis()
    ax.set_xlim(0, slowest * 1.16)
    ax.grid(axis="y", visible=False)
    label(ax, "", "seconds for 1000 scores (shorter is better)")
    factor = (
        f"{slowest / ordered[0][1]:.1f} times faster than {ordered[-1][0]}"
        if ordered[0][1] and len(ordered) > 1
        else ""
    )
    caption = f"{ordered[0][0]}: {seconds(ordered[0][1])} for 1000 scores" + (
        f", {factor}." if factor else "."
    )
    return drawn(
        fig, caption, "; ".join(f"{name} {seconds(took)}" for name, took in ordered) + f". {caption}"
    )


# ---- tests
def tests(report: TestReport | None) -> Picture:
    """All cases of a test run by suite, with outcome marks, the slowest, coverage, and the gate."""
    if report is None or not report.cases:
        return nothing("the test run's cases")
    suites = sorted({case.suite for case in report.cases}, key=("unit", "integration", "contract").index)
    rows = [_suite_row(suite, [c for c in report.cases if c.suite == suite]) for suite in suites]
    bad = [case for case in report.cases if OUTCOME[case.outcome] == "bad"]
    failures = [
        (badge("bad", c.outcome), c.suite, code(c.name), code(c.message.strip()[:600])) for c in bad[:10]
    ]
    gate = lines(badge("bad", "gate closed"), *report.gate) if report.gate else badge("good", "gate open")
    coverage = bar(report.coverage_percent / 100, f"{report.coverage_percent:.0f} %", GREEN)
    slow = ", ".join(
        f"{c.name} {seconds(c.seconds)}" for c in sorted(report.cases, key=lambda c: -c.seconds)[:3]
    )
    summary = table(("coverage", "quality gate", "slowest"), [(coverage, gate, slow)])
    caption = (
        f"{report.count('passed')} of {len(report.cases)} passed in {seconds(report.seconds)}, {len(bad)} failed; "
        f"coverage {report.coverage_percent:.0f} %; the gate is {'closed' if report.gate else 'open'}."
    )
    alt = (
        caption
        + "".join(f" {case.name}: {case.outcome}." for case in bad[:10])
        + " ".join(["", *report.gate])
    )
    grid = table(("suite", "cases", "passed", "time"), rows)
    return page(
        caption, alt, grid, summary, table(("", "suite", "case", "message"), failures) if failures else ""
    )


def _suite_row(suite: str, cases: Sequence[Case]) -> tuple[object, ...]:
    marks = []
    for case in cases:
        mark, ink, ground = TONES[OUTCOME[case.outcome]]
        style = (
            f"display:inline-block;width:17px;text-align:center;margin:1px;color:{ink};background:{ground}"
        )
        marks.append(
            f'<span style="{style}" title="{safe(f"{case.name} {seconds(case.seconds)}")}">{mark}</span>'
        )
    passed = sum(case.outcome == "passed" for case in cases)
    grid = Html(f'<div style="max-width:460px;line-height:1.5">{"".join(marks)}</div>')
    return suite, grid, f"{passed} of {len(cases)}", seconds(sum(case.seconds for case in cases))


def matrix(bugs: Sequence[Bug]) -> Picture:
    """Planted bugs: which suite caught which, and what escaped."""
    if not bugs:
        return nothing("the planted bugs, caught and escaped")
    suites = ("unit", "integration", "contract")
    rows = []
    for bug in bugs:
        marks = [badge("good", "red") if suite in bug.suites else Html("–") for suite in suites]
        verdict = badge("good", "caught") if bug.caught else badge("bad", "escaped")
        rows.append(
            (
                bug.change,
                *marks,
                verdict,
                lines(*bug.by[:3], f"… {len(bug.by) - 3} more" if len(bug.by) > 3 else ""),
            )
        )
    caught = [bug.change for bug in bugs if bug.caught]
    escaped = [bug.change for bug in bugs if not bug.caught]
    caption = (
        f"{len(caught)} of {len(bugs)} planted bugs were caught; {len(escaped)} escaped a green suite's eyes."
    )
    alt = f"Caught: {', '.join(caught) or 'none'}. Escaped: {', '.join(escaped) or 'none'}."
    return page(caption, alt, table(("planted bug", *suites, "verdict", "cases that went red"), rows))


# ---- code
LINE_TONE = {"+": ("#00452f", "#d5f0e5"), "-": ("#6e2600", "#fbdccb"), "@": ("#00365a", "#d8ebf8")}


def diff(text: str) -> Picture:
    """A unified diff, coloured; + and - say it without colour."""
    found = text.rstrip().splitlines()
    if not found:
        return nothing("the difference", "There is none.")
    spans = []
    for line in found[:MAX_LINES]:
        header = line.startswith(("+++", "---", "diff ", "index "))
        ink, ground = ("#1a1a1a", "#ececec") if header else LINE_TONE.get(line[:1], ("#1a1a1a", "#ffffff"))
        spans.append(
            f'<span style="color:{ink};background:{ground};display:block">{safe(line) or " "}</span>'
        )
    added = sum(line.startswith("+") and not line.startswith("+++") for line in found)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in found)
    files = [line.split(" b/")[-1] for line in found if line.startswith("diff ")]
    cut = f" Only the first {MAX_LINES} of {len(found)} lines are shown." if len(found) > MAX_LINES else ""
    caption = f"{added} lines added, {removed} removed in {len(files) or 1} file(s).{cut}"
    html = f'<pre style="{INK};{MONO};padding:6px;border:1px solid #d0d0d0;overflow-x:auto">{"".join(spans)}</pre>'
    return page(caption, f"{caption} {', '.join(files)}", html)


def checks(rows: Iterable[Any], title: str = "Checklist") -> Picture:
    """Checks with their outcome: records, mappings or tuples of name, ok, detail (ok None = could not be told)."""
    found = [(str(pick(r, "name", 0)), pick(r, "ok", 1, None), str(pick(r, "detail", 2))) for r in rows]
    if not found:
        return nothing(f"the {title.lower()}")
    words = {True: ("good", "ok"), False: ("bad", "look here"), None: ("quiet", "not told")}
    cells = [(badge(*words[None if ok is None else bool(ok)]), name, detail) for name, ok, detail in found]
    bad = [name for name, ok, _ in found if ok is not None and not ok]
    caption = f"{title}: {sum(bool(ok) for _, ok, _ in found)} of {len(found)} ok." + (
        f" Look at: {', '.join(bad)}." if bad else ""
    )
    return page(
        caption,
        caption + " " + "; ".join(f"{n}: {d}" for n, _, d in found),
        table(("", "check", "what was seen"), cells),
    )


# ---- releases
def registry(releases: Sequence[Release]) -> Picture:
    """What the registry holds: one row a version, newest first."""
    if not releases:
        return nothing("the registry's versions")
    newest = sorted(releases, key=lambda release: -release.t)
    rows = [
        (
            Html(f"<b>{safe(r.version)}</b>"),
            r.tag,
            code(r.commit[:8]),
            digest(r.digest),
            size(r.bytes),
            clock(r.t),
            r.sbom.rpartition("/")[2] or "–",
        )
        for r in newest
    ]
    heads = ("version", "git tag", "commit", "digest", "size", "released", "bill of materials")
    caption = f"The registry holds {len(newest)} version(s); the newest is {newest[0].version}. A version is never overwritten."
    return page(caption, f"{caption} Versions: {', '.join(r.version for r in newest)}.", table(heads, rows))


def trail(rows: Sequence[tuple[str, str, str, float]]) -> Picture:
    """Where something comes from, as a tree: rows of (child, relation, parent, time), nearest first."""
    if not rows:
        return nothing("the trail")
    parents: dict[str, list[tuple[str, str, float]]] = {}
    for child, relation, parent, t in rows:
        parents.setdefault(child, []).append((relation, parent, t))
    told = [f"{rows[0][0]}"]
    _grow(rows[0][0], "", parents, {rows[0][0]}, told)
    html = f'<pre style="{CELL};{MONO};white-space:pre;overflow-x:auto">{safe(chr(10).join(told))}</pre>'
    return page(
        f"The trail of {rows[0][0]}: {len(rows)} step(s) back to where it began.", " ".join(told), html
    )


def _grow(node: str, indent: str, parents: Mapping[str, Any], seen: set[str], told: list[str]) -> None:
    branches = parents.get(node, [])
    for number, (relation, parent, t) in enumerate(branches):
        last = number == len(branches) - 1
        again = " (see above)" if parent in seen and parent in parents else ""
        told.append(f"{indent}{'└─' if last else '├─'} {relation} {parent}  {clock(t)}{again}")
        if parent not in seen:
            seen.add(parent)
            _grow(parent, indent + ("   " if last else "│  "), parents, seen, told)
