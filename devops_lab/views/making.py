"""Views of code on its way to a release: pipeline, build, tests, planted bugs, diff, registry, trail."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from devops_lab.model import Artifact, Bug, Case, Deployment, Release, Step, TestReport
from devops_lab.store import Store
from devops_lab.views import style as look
from devops_lab.views.picture import Picture

OUTCOME = {"passed": "good", "failed": "bad", "error": "bad", "skipped": "quiet"}
COLOUR = {"good": look.GREEN, "bad": look.RED, "quiet": "#bdbdbd"}
SUITES = ("unit", "integration", "contract")
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
        return look.nothing("the steps of the pipeline")
    title = title or getattr(run, "mode", "") or "Steps"
    spans = _spans(steps)
    tones = [_tone(step) for _, step in spans]
    words = [
        "skipped" if tone == "quiet" else look.seconds(s.seconds)
        for tone, (_, s) in zip(tones, spans, strict=True)
    ]
    fig, (ax,) = look.figure(height=min(1.1 + 0.32 * len(steps), 4.6))
    ends = [f"{look.TONES[tone][0]} {word}" for tone, word in zip(tones, words, strict=True)]
    values = [(step.name, step.seconds) for _, step in spans]
    look.bars(ax, values, ends, [COLOUR[tone] for tone in tones], lefts=[start for start, _ in spans])
    look.label(ax, title, "seconds since the start")
    bad = [step for step in steps if _tone(step) == "bad"]
    lead = getattr(run, "lead_time_seconds", 0)
    took = look.seconds(max(start + step.seconds for start, step in spans))
    ending = f"stopped at {bad[0].name}" if bad else "all ok"
    told = f" Lead time: {look.seconds(lead)}." if lead else ""
    caption = f"{title}: {len(steps)} steps in {took}, {ending}.{told}"
    said = "".join(look.pre(step.output.strip()[-2000:]) for step in bad if step.output)
    listed = (f"{name} {end}" for (name, _), end in zip(values, ends, strict=True))
    return look.drawn(fig, caption, "; ".join(listed) + ".", html=said)


def rollout_steps(deployment: Deployment) -> Picture:
    """The steps of one rollout on a time axis."""
    versions = f"{deployment.previous or 'nothing'} → {deployment.version}"
    return pipeline(deployment, f"{deployment.strategy} {versions}, {deployment.state}")


def _tone(step: Step) -> str:
    return "bad" if not step.ok else "quiet" if step.output.lower().startswith("skipped") else "good"


def _spans(steps: Sequence[Step]) -> list[tuple[float, Step]]:
    """Each step with its start in seconds; one after the other where the steps don't say when they began."""
    first = min((step.started for step in steps if step.started), default=0.0)
    found, at = [], 0.0
    for step in steps:
        start = step.started - first if step.started else at
        found.append((start, step))
        at = max(at, start + step.seconds)
    return sorted(found, key=lambda pair: pair[0])


def build(artifact: Artifact | None) -> Picture:
    """What a build did and made: steps with times and sizes, the wheel and its content digest."""
    if artifact is None:
        return look.nothing("the build's steps and its artifact")
    longest = max((step.seconds for step in artifact.steps), default=1) or 1
    name, took, room = (
        artifact.path.rpartition("/")[2],
        look.seconds(artifact.seconds),
        look.size(artifact.bytes),
    )
    rows: list[tuple[object, ...]] = [
        (s.name, look.badge(_tone(s)), look.bar(s.seconds / longest, look.seconds(s.seconds), look.BLUE),
         look.size(s.bytes) if s.bytes else "–")
        for s in artifact.steps
    ]  # fmt: skip
    rows.append((look.bold(name), look.badge("good", artifact.version), took, room))
    rows.append(("content digest", "", look.code(artifact.digest), f"scorer: {artifact.scorer}"))
    caption = f"Built {name} ({room}) from commit {artifact.commit[:8]} in {took}."
    steps = "; ".join(f"{s.name} {look.seconds(s.seconds)}" for s in artifact.steps)
    alt = f"{caption} Steps: {steps}. Digest {artifact.digest}."
    return look.page(caption, alt, look.table(("step", "", "time", "size"), rows))


def build_steps(store: Store) -> Picture:
    """The newest build: that it is under way, how it failed, or what it made."""
    newest = store.events(kind="build.*", limit=1)
    if newest and newest[0].kind == "build.started":
        return look.nothing(
            "the artifact", f"{newest[0].message}, for {time.time() - newest[0].t:.0f} s now."
        )
    if newest and newest[0].kind == "build.failed":
        return look.page("The newest build failed.", newest[0].message, look.pre(newest[0].message))
    return build(store.last(Artifact))


def scorers(times: Mapping[str, float]) -> Picture:
    """Seconds for 1000 scores, by scorer: what compiling was good for."""
    if not times:
        return look.nothing("the measured scorers")
    ordered = sorted(times.items(), key=lambda pair: pair[1])
    return _compare(dict(ordered), "seconds for 1000 scores (shorter is better)", look.seconds)


def before_after(values: Mapping[str, float], what: str = "bytes a request") -> Picture:
    """The same measurement of two (or more) releases, side by side.

    Args:
        values: what was measured, by release, oldest first.
        what: the quantity with its unit.
    """
    if not values:
        return look.nothing("before and after")
    return _compare(values, f"{what} (shorter is better)", lambda value: f"{value:,.4g}")


def _compare(values: Mapping[str, float], what: str, told: Any) -> Picture:
    fig, (ax,) = look.figure(height=0.9 + 0.42 * len(values))
    look.bars(
        ax,
        list(values.items()),
        [told(v) for v in values.values()],
        [look.BLUE, look.ORANGE, look.GREEN, look.SKY],
    )
    look.label(ax, "", what)
    least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    factor = (
        f"; {values[most] / values[least]:.1f} times as much for {most} as for {least}"
        if values[least] > 0
        else ""
    )
    caption = (
        ", ".join(f"{name}: {told(v)}" for name, v in values.items())
        + (factor if most != least else "")
        + "."
    )
    return look.drawn(fig, caption, f"{what}. {caption}")


# ---- tests
def tests(report: TestReport | None) -> Picture:
    """All cases of a test run by suite, with outcome marks, the slowest, coverage, and the gate."""
    if report is None or not report.cases:
        return look.nothing("the test run's cases")
    suites = dict.fromkeys(case.suite for case in report.cases)
    grid = look.table(
        ("suite", "cases", "passed", "time"),
        [_suite_row(suite, [c for c in report.cases if c.suite == suite]) for suite in suites],
    )
    gate = look.badge("bad", "gate closed") if report.gate else look.badge("good", "gate open")
    percent = f"{report.coverage_percent:.0f} %"
    slowest = sorted(report.cases, key=lambda c: -c.seconds)[:3]
    slow = look.lines(*(f"{c.name} {look.seconds(c.seconds)}" for c in slowest))
    coverage = look.bar(report.coverage_percent / 100, percent, look.GREEN)
    summary = look.table(
        ("coverage", "quality gate", "slowest"), [(coverage, look.lines(gate, *report.gate), slow)]
    )
    bad = [case for case in report.cases if OUTCOME[case.outcome] == "bad"][:10]
    rows = [
        (look.badge("bad", c.outcome), c.suite, look.code(c.name), look.code(c.message.strip()[:600]))
        for c in bad
    ]
    failures = look.table(("", "suite", "case", "message"), rows) if rows else ""
    caption = (
        f"{report.count('passed')} of {len(report.cases)} passed in {look.seconds(report.seconds)}, "
        f"{report.count('failed') + report.count('error')} failed; coverage {percent}; "
        f"the gate is {'closed' if report.gate else 'open'}."
    )
    alt = " ".join([caption, *(f"{case.name}: {case.outcome}." for case in bad), *report.gate])
    return look.page(caption, alt, grid, summary, failures)


def test_progress(store: Store) -> Picture:
    """The newest test run that the store holds."""
    return tests(store.last(TestReport))


test_progress.__test__ = False  # type: ignore[attr-defined]  # not a test, whatever pytest thinks of its name


def _suite_row(suite: str, cases: Sequence[Case]) -> tuple[object, ...]:
    marks = []
    for case in cases:
        mark, ink, ground = look.TONES[OUTCOME[case.outcome]]
        style = (
            f"color:{ink};background:{ground};display:inline-block;width:17px;text-align:center;margin:1px"
        )
        hint = look.safe(f"{case.name} {look.seconds(case.seconds)}")
        marks.append(f'<span style="{style}" title="{hint}">{mark}</span>')
    passed = sum(case.outcome == "passed" for case in cases)
    grid = look.Html(f'<div style="max-width:460px;line-height:1.5">{"".join(marks)}</div>')
    return suite, grid, f"{passed} of {len(cases)}", look.seconds(sum(case.seconds for case in cases))


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
    return look.page(
        caption, alt, look.table(("planted bug", *SUITES, "verdict", "cases that went red"), rows)
    )


# ---- code
def diff(text: str) -> Picture:
    """A unified diff, coloured; + and - say it without colour."""
    found = text.rstrip().splitlines()
    if not found:
        return look.nothing("the difference", "There is none.")
    tones = {"+": "good", "-": "bad", "@": "info"}
    spans = []
    for line in found[:MAX_LINES]:
        header = line.startswith(("+++", "---", "diff ", "index "))
        _, ink, ground = look.TONES["quiet" if header else tones.get(line[:1], "plain")]
        spans.append(
            f'<span style="color:{ink};background:{ground};display:block">{look.safe(line) or " "}</span>'
        )
    added = sum(line.startswith("+") and not line.startswith("+++") for line in found)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in found)
    files = [line.split(" b/")[-1] for line in found if line.startswith("diff ")]
    cut = f" Only the first {MAX_LINES} of {len(found)} lines are shown." if len(found) > MAX_LINES else ""
    caption = f"{added} lines added, {removed} removed in {len(files) or 1} file(s).{cut}"
    return look.page(caption, f"{caption} {', '.join(files)}", look.pre(look.Html("".join(spans))))


def checks(rows: Iterable[Any], title: str = "Checklist") -> Picture:
    """Checks: records, mappings or tuples of name, ok (None = could not be told), detail."""
    return look.checklist(rows, title, {True: "ok", False: "look here", None: "not told"})


def services(rows: Iterable[Any]) -> Picture:
    """What the platform offers to developers, and how their code talks to it."""
    names = ("name", "summary", "use", "variable", "example")
    found = [[look.pick(row, name, place) for place, name in enumerate(names)] for row in rows]
    if not found:
        return look.nothing("the platform's services")
    cells = [(look.bold(row[0]), *row[1:3], look.code(row[3]), look.code(row[4])) for row in found]
    caption = f"{len(found)} services: {', '.join(str(row[0]) for row in found)}."
    heads = ("service", "what it is", "how to talk to it", "variable", "example")
    return look.page(
        caption, caption + " " + " ".join(str(row[1]) for row in found), look.table(heads, cells)
    )


# ---- releases
def registry(releases: Sequence[Release]) -> Picture:
    """What the registry holds: one row a version, newest first."""
    if not releases:
        return look.nothing("the registry's versions")
    newest = sorted(releases, key=lambda release: -release.t)
    rows = [
        (look.bold(r.version), r.tag, look.code(r.commit[:8]), look.digest(r.digest), look.digest(r.image),
         look.size(r.bytes), look.clock(r.t), r.sbom.rpartition("/")[2] or "–")
        for r in newest
    ]  # fmt: skip
    heads = ("version", "git tag", "commit", "wheel", "image", "size", "released", "bill of materials")
    versions = ", ".join(r.version for r in newest)
    caption = f"{len(newest)} version(s), newest first: {versions}; none is ever overwritten."
    return look.page(caption, f"The registry holds {caption}", look.table(heads, rows))


def trail(rows: Sequence[tuple[str, str, str, float]]) -> Picture:
    """Where something comes from, as a tree: rows of (child, relation, parent, time), nearest first."""
    if not rows:
        return look.nothing("the trail")
    parents: dict[str, list[tuple[str, str, float]]] = {}
    for child, relation, parent, t in rows:
        parents.setdefault(child, []).append((relation, parent, t))
    root = rows[0][0]
    told = [root]
    _grow(root, "", parents, {root}, told)
    caption = f"The trail of {root}: {len(rows)} step(s) back to where it began."
    return look.page(caption, "; ".join(line.lstrip("└├─│ ") for line in told), look.pre("\n".join(told)))


def _grow(node: str, indent: str, parents: Mapping[str, Any], seen: set[str], told: list[str]) -> None:
    branches = parents.get(node, [])
    for left, (relation, parent, t) in zip(range(len(branches) - 1, -1, -1), branches, strict=True):
        again = " (see above)" if parent in seen and parent in parents else ""
        told.append(f"{indent}{'├─' if left else '└─'} {relation} {parent}  {look.clock(t)}{again}")
        if parent not in seen:
            seen.add(parent)
            _grow(parent, indent + ("│  " if left else "   "), parents, seen, told)
