"""Views of code on its way to a release: pipeline, build, image, diff, registry."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime

from devops_lab.model import (
    Artifact,
    Check,
    Deployment,
    Image,
    Layer,
    PipelineRun,
    Release,
    Service,
    Step,
)  # fmt: skip
from devops_lab.views import style as look
from devops_lab.views.style import Picture

COLOUR = {"good": look.GREEN, "bad": look.RED, "quiet": "#bdbdbd"}
MAX_LINES = 200  # of a diff
MAX_LOG_LINES = 24  # of an image's build
# where a layer of an image comes from -> words, tone, colour
ORIGINS = {
    "base": ("base image", "info", look.SKY),
    "cached": ("from the cache", "quiet", "#bdbdbd"),
    "new": ("new", "good", look.GREEN),
}


# ---- pipeline and build
def pipeline(run: PipelineRun | Sequence[Step], title: str = "") -> Picture:
    """The steps of a pipeline as bars on a time axis; steps that ran side by side show side by side.

    Args:
        run: a run of the pipeline, or steps alone.
        title: what was run.
    """
    lead = ""
    if isinstance(run, PipelineRun):
        lead = f" Lead time: {look.seconds(run.lead_time_seconds)}." if run.lead_time_seconds else ""
        title = title or run.mode
    steps = run.steps if isinstance(run, PipelineRun) else run
    if not steps:
        return look.nothing("the steps of the pipeline")
    spans = _spans(steps)
    tones = [_tone(step) for _, step in spans]
    values = [(step.name, step.seconds) for _, step in spans]
    ends = [
        f"{look.TONES[tone][0]} {'skipped' if tone == 'quiet' else look.seconds(seconds)}"
        for tone, (_, seconds) in zip(tones, values, strict=True)
    ]
    fig, (ax,) = look.figure(height=min(1.1 + 0.32 * len(steps), 4.6))
    look.bars(ax, values, ends, [COLOUR[tone] for tone in tones], lefts=[start for start, _ in spans])
    look.label(ax, title or "Steps", "seconds since the start")
    bad = [step for step in steps if not step.ok]
    took = look.seconds(max(start + step.seconds for start, step in spans))
    ending = f"stopped at {bad[0].name}" if bad else "all ok"
    caption = f"{title or 'Steps'}: {len(steps)} steps in {took}, {ending}.{lead}"
    errors = "".join(look.pre(step.output.strip()[-2000:]) for step in bad if step.output)
    listed = (f"{name} {end}" for (name, _), end in zip(values, ends, strict=True))
    return look.drawn(fig, caption, "; ".join(listed) + ".", html=errors)


def rollout_steps(deployment: Deployment) -> Picture:
    """The steps of one rollout on a time axis."""
    versions = f"{deployment.previous or 'nothing'} → {deployment.version}"
    return pipeline(deployment.steps, f"{deployment.strategy} {versions}, {deployment.state}")


def _tone(step: Step) -> str:
    return "bad" if not step.ok else "quiet" if step.output.lower().startswith("skipped") else "good"


def _spans(steps: Sequence[Step]) -> list[tuple[float, Step]]:
    """Each step with its start in seconds; one after the other where the steps don't say when they began."""
    first = min((step.started for step in steps if step.started), default=0.0)
    spans, end = [], 0.0
    for step in steps:
        start = step.started - first if step.started else end
        spans.append((start, step))
        end = max(end, start + step.seconds)
    return sorted(spans, key=lambda pair: pair[0])


def build(artifact: Artifact | None) -> Picture:
    """What a build did and made: steps with times and sizes, the wheel and its content digest."""
    if artifact is None:
        return look.nothing("the build's steps and its artifact")
    longest = max((step.seconds for step in artifact.steps), default=1) or 1
    name, took = artifact.path.rpartition("/")[2], look.seconds(artifact.seconds)
    size = look.size(artifact.bytes)
    rows: list[tuple[object, ...]] = [
        (s.name, look.badge(_tone(s)), look.bar(s.seconds / longest, look.seconds(s.seconds), look.BLUE),
         look.size(s.bytes) if s.bytes else "–")
        for s in artifact.steps
    ]  # fmt: skip
    rows.append((look.bold(name), look.badge("good", artifact.version), took, size))
    rows.append(("content digest", "", look.code(artifact.digest), f"scorer: {artifact.scorer}"))
    caption = f"Built {name} ({size}) from commit {artifact.commit[:8]} in {took}."
    steps = "; ".join(f"{s.name} {look.seconds(s.seconds)}" for s in artifact.steps)
    alt = f"{caption} Steps: {steps}. Digest {artifact.digest}."
    return look.page(caption, alt, look.table(("step", "result", "time", "size"), rows))


def scorers(times: Mapping[str, float]) -> Picture:
    """Seconds for 1000 scores, by scorer: what compiling was good for."""
    if not times:
        return look.nothing("the measured scorers")
    fastest_first = dict(sorted(times.items(), key=lambda pair: pair[1]))
    return _compare(fastest_first, "seconds for 1000 scores (shorter is better)", look.seconds)


def before_after(values: Mapping[str, float], what: str = "bytes a request") -> Picture:
    """The same measurement of two (or more) releases, side by side.

    Args:
        values: what was measured, by release, oldest first.
        what: the quantity with its unit.
    """
    if not values:
        return look.nothing("before and after")
    return _compare(values, f"{what} (shorter is better)", lambda value: f"{value:,.4g}")


def _compare(values: Mapping[str, float], what: str, in_words: Callable[[float], str]) -> Picture:
    fig, (ax,) = look.figure(height=0.9 + 0.42 * len(values))
    words = [in_words(value) for value in values.values()]
    look.bars(ax, list(values.items()), words, [look.BLUE, look.ORANGE, look.GREEN, look.SKY])
    look.label(ax, "", what)
    least, most = min(values, key=values.__getitem__), max(values, key=values.__getitem__)
    caption = ", ".join(f"{name}: {word}" for name, word in zip(values, words, strict=True))
    if values[least] > 0 and most != least:
        caption += f"; {values[most] / values[least]:.1f} times as much for {most} as for {least}"
    return look.drawn(fig, f"{caption}.", f"{what}. {caption}.")


# ---- container images
def image(built: Image | None, why_not: str = "") -> Picture:
    """An image's layers with their sizes, lowest first: of the base image, from the cache, or new.

    Args:
        built: what was built; None where nothing could be.
        why_not: the reason for that, in plain words; with an image, that one was recorded on another machine.
    """
    if built is None:
        return look.nothing("the layers of a container image", why_not)
    origins = [_origin(layer, built) for layer in built.layers]
    names = [_layer_name(layer) for layer in built.layers]
    sizes = [look.size(layer.bytes) for layer in built.layers]
    words = [ORIGINS[origin][0] for origin in origins]
    fig, (ax,) = look.figure(height=1.0 + 0.36 * len(names))
    look.bars(
        ax,
        [(name, layer.bytes / 1e6) for name, layer in zip(names, built.layers, strict=True)],
        [f"{look.TONES[ORIGINS[o][1]][0]} {ORIGINS[o][0]}, {s}" for o, s in zip(origins, sizes, strict=True)],
        [ORIGINS[origin][2] for origin in origins],
    )
    ax.set_xlim(0, ax.get_xlim()[1] * 1.2)  # room for the words
    look.label(ax, f"Layers of the image of version {built.version}, the lowest first", "MB")
    counts = ", ".join(f"{words.count(word)} {word}" for word, *_ in ORIGINS.values() if word in words)
    fresh = sum(layer.bytes for layer, o in zip(built.layers, origins, strict=True) if o == "new")
    took = f"{len(names)} layers, built in {look.seconds(built.seconds)}"
    caption = f"{look.size(built.bytes)} in {took}: {counts}; {look.size(fresh)} of it new."
    if why_not:
        day = datetime.fromtimestamp(built.t, UTC).strftime("%d %B %Y")
        caption = f"RECORDED on another machine, {day}; nothing was built here. {caption}"
    listed = "; ".join(map(" ".join, zip(names, sizes, words, strict=True)))
    return look.drawn(fig, caption, f"{caption} {listed}.")


def _origin(layer: Layer, built: Image) -> str:
    """Where a layer comes from: the step of the Dockerfile that filled the same folder tells."""
    target = layer.made_by.rpartition(" ")[2]
    steps = [s for s in built.steps if s.name.startswith(("COPY", "RUN", "ADD"))]
    filled = [step for step in steps if step.name.endswith(f" {target}")]
    return "base" if not filled else "cached" if filled[-1].output == "cached" else "new"


def _layer_name(layer: Layer) -> str:
    """Short enough for an axis."""
    words = layer.made_by.replace("Imported from -", "system and Python")
    return words if len(words) <= 34 else words[:33] + "…"


def image_log(lines: Sequence[str]) -> Picture:
    """The newest lines of an image's build, and how far it is."""
    if not lines:
        return look.nothing("the log of the image's build")
    steps = [line for line in lines if line.startswith("Step ")]
    cached = sum("Using cache" in line for line in lines)
    at = steps[-1].split(" : ")[0] if steps else "before the first step"
    newest = lines[-MAX_LOG_LINES:]
    caption = f"{at}, {cached} from the cache; the last {len(newest)} of {len(lines)} lines."
    return look.page(caption, caption, look.pre("\n".join(line[:160] for line in newest)))


# ---- code
def diff(text: str) -> Picture:
    """A unified diff, coloured; + and - say it without colour."""
    lines = text.rstrip().splitlines()
    if not lines:
        return look.nothing("the difference", "There is none.")
    tones = {"+": "good", "-": "bad", "@": "info"}
    spans = []
    for line in lines[:MAX_LINES]:
        header = line.startswith(("+++", "---", "diff ", "index "))
        _, ink, ground = look.TONES["quiet" if header else tones.get(line[:1], "plain")]
        style = f"color:{ink};background:{ground};display:block"
        spans.append(f'<span style="{style}">{look.safe(line) or " "}</span>')
    added = sum(line.startswith("+") and not line.startswith("+++") for line in lines)
    removed = sum(line.startswith("-") and not line.startswith("---") for line in lines)
    files = [line.split(" b/")[-1] for line in lines if line.startswith("diff ")]
    cut = f" Only the first {MAX_LINES} of {len(lines)} lines are shown." if len(lines) > MAX_LINES else ""
    caption = f"{added} lines added, {removed} removed in {len(files) or 1} file(s).{cut}"
    return look.page(caption, f"{caption} {', '.join(files)}", look.pre(look.Html("".join(spans))))


def checks(rows: Iterable[Check | tuple[str, bool, str]], title: str = "Checklist") -> Picture:
    """What was looked for in a change, or in production: checks, or (name, ok, detail) of them."""
    found = [row if isinstance(row, Check) else Check(*row) for row in rows]
    return look.checklist(found, title, {True: "ok", False: "look here", None: "not told"})


def services(rows: Sequence[Service]) -> Picture:
    """What the platform offers to developers, and how their code talks to it."""
    if not rows:
        return look.nothing("the platform's services")
    cells = [
        (look.bold(s.name), s.summary, look.lines(s.use, look.code(s.variable), look.code(s.example)))
        for s in rows
    ]
    caption = f"{len(rows)} services: {', '.join(service.name for service in rows)}."
    heads = ("service", "what it is", "how to talk to it, the variable with its address, an example")
    alt = " ".join([caption, *(service.summary for service in rows)])
    return look.page(caption, alt, look.table(heads, cells))


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
