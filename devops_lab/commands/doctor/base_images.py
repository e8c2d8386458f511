"""`doctor --prepare`: make the base images that this engine lacks, once, and show how far it is."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.engines.prepared import RECIPES, OnProgress, prepare, there

Watch = Callable[[str], OnProgress]  # the name of an image -> what is told how far it is


def prepare_missing() -> list[str]:
    """Make what is not there yet; return a line for each image.

    Raises:
        EngineUnavailable: no Docker engine answers.
        MissingTool: this machine has no apt.
    """
    docker = Docker()
    have, told = there(docker), []
    with bars() as watch:
        for what in RECIPES:
            if what in have:
                told.append(f"{have[what]:<28} was there")
                continue
            began = time.monotonic()
            tag = prepare(docker, what, watch(what))
            with docker.calls(f"look at {tag}"):
                size = docker.client.images.get(tag).attrs["Size"]
            told.append(f"{tag:<28} made in {time.monotonic() - began:.0f} s, {size / 1e6:.0f} MB")
    return told


@contextmanager
def bars() -> Iterator[Watch]:
    """A bar for each image on a terminal, a line for each stage elsewhere; both on standard error."""
    if not sys.stderr.isatty():
        yield lines
        return
    from rich.console import Console
    from rich.progress import Progress, TimeElapsedColumn

    with Progress(
        *Progress.get_default_columns(), TimeElapsedColumn(), console=Console(stderr=True)
    ) as shown:

        def watch(what: str) -> OnProgress:
            task = shown.add_task(what, total=1.0)
            return lambda words, share: shown.update(task, completed=share, description=f"{what}: {words}")

        yield watch


def lines(what: str) -> OnProgress:
    last = ""

    def tell(words: str, share: float) -> None:
        nonlocal last
        if words != last:
            last = words
            print(f"{what}: {words} ({share:.0%})", file=sys.stderr, flush=True)

    return tell
