"""Views of container images: the log of a build as it comes, its layers, and which came from the cache."""

from __future__ import annotations

from collections.abc import Sequence

from devops_lab.model import Image, Layer
from devops_lab.views import style as look
from devops_lab.views.picture import Picture

LAST = 24  # lines of a log that are shown
TOLD = {"base": "base image", "cached": "from the cache", "new": "new"}
TONES = {"base": "info", "cached": "quiet", "new": "good"}
COLOURS = {"base": look.SKY, "cached": "#bdbdbd", "new": look.GREEN}


def image(found: Image | None, why_not: str = "") -> Picture:
    """An image's layers with their sizes, lowest first: of the base image, from the cache, or new.

    Args:
        found: what was built; None where nothing could be.
        why_not: the reason for that, in plain words.
    """
    if found is None:
        return look.nothing("the layers of a container image", why_not)
    kinds = [kind_of(layer, found) for layer in found.layers]
    fig, (ax,) = look.figure(height=1.0 + 0.36 * len(kinds))
    look.bars(
        ax,
        [(shown(layer), layer.bytes / 1e6) for layer in found.layers],
        [
            f"{look.TONES[TONES[kind]][0]} {TOLD[kind]}, {look.size(layer.bytes)}"
            for layer, kind in zip(found.layers, kinds, strict=True)
        ],
        [COLOURS[kind] for kind in kinds],
    )
    ax.set_xlim(0, ax.get_xlim()[1] * 1.2)  # room for the words
    look.label(ax, f"Layers of the image of version {found.version}, the lowest first", "MB")
    counts = ", ".join(f"{kinds.count(kind)} {TOLD[kind]}" for kind in TOLD if kind in kinds)
    fresh = sum(layer.bytes for layer, kind in zip(found.layers, kinds, strict=True) if kind == "new")
    caption = (
        f"{look.size(found.bytes)} in {len(kinds)} layers, built in {look.seconds(found.seconds)}: {counts}; "
        f"{look.size(fresh)} of it new."
    )
    told = "; ".join(
        f"{shown(layer)} {look.size(layer.bytes)} {TOLD[kind]}"
        for layer, kind in zip(found.layers, kinds, strict=True)
    )
    return look.drawn(fig, caption, f"{caption} {told}.")


def kind_of(layer: Layer, found: Image) -> str:
    """Where a layer comes from: the step of the Dockerfile that filled the same folder tells."""
    target = layer.made_by.rpartition(" ")[2]
    steps = [
        s for s in found.steps if s.name.startswith(("COPY", "RUN", "ADD")) and s.name.endswith(f" {target}")
    ]
    if not steps:
        return "base"
    return "cached" if steps[-1].output == "cached" else "new"


def shown(layer: Layer) -> str:
    """A layer's name, short enough for an axis."""
    words = layer.made_by.replace("Imported from -", "system and Python")
    return words if len(words) <= 34 else words[:33] + "…"


def image_log(lines: Sequence[str]) -> Picture:
    """The newest lines of an image's build, and how far it is."""
    if not lines:
        return look.nothing("the log of the image's build")
    steps = [line for line in lines if line.startswith("Step ")]
    cached = sum("Using cache" in line for line in lines)
    at = steps[-1].split(" : ")[0] if steps else "before the first step"
    caption = f"{at}, {cached} from the cache; the last {min(len(lines), LAST)} of {len(lines)} lines."
    return look.page(caption, caption, look.pre("\n".join(line[:160] for line in lines[-LAST:])))
