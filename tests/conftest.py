"""Shared by all tests: what they need from the machine, a clean environment for the processes they start."""

from __future__ import annotations

import functools
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devops_lab.platform.context import LabContext

from tests import sharing
from tests.classroom import hub, nbgrader
from tests.cluster import nodes

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # children without byte code start twice as slowly
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what ends in `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)

REQUIRED = {name.strip() for name in os.environ.get("DEVOPS_LAB_REQUIRE", "").split(",")} - {""}
NUMBERS = re.compile(r"((?:\d+[a-z], )*\d+[a-z])[:,] ")
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def numbers(item: pytest.Item) -> list[str]:
    """The numbers of the cases that a test stands for: they begin its docstring."""
    begins = NUMBERS.match(getattr(item, "obj", item).__doc__ or "")
    return begins[1].split(", ") if begins else []


@functools.cache
def browser_missing() -> str:
    """Why no browser can be driven here, or nothing."""
    return (
        "" if any(map(shutil.which, CHROMIUM)) else f"no browser on PATH (looked for {', '.join(CHROMIUM)})"
    )


@functools.cache
def docker_missing() -> str:
    """Why no Docker engine can be used here, or nothing."""
    import docker

    try:
        client = docker.from_env(timeout=60)
        client.ping()
        client.close()
    except Exception as problem:  # docker-py lets several kinds through
        return f"no Docker engine answers ({type(problem).__name__})"
    return ""


@functools.cache
def prometheus_missing() -> str:
    """Why no Prometheus can be started here, or nothing."""
    absent = [name for name in ("prometheus", "promtool") if not shutil.which(name)]
    return f"not on PATH: {', '.join(absent)}" if absent else ""


def hub_missing() -> str:
    """Why no JupyterHub is started here, or nothing; it makes users on this machine: only if asked for."""
    return hub.missing() if "hub" in REQUIRED else "DEVOPS_LAB_REQUIRE does not name it"


NEEDS: dict[str, Callable[[], str]] = {
    "browser": browser_missing,
    "cluster": nodes.missing,
    "docker": docker_missing,
    "hub": hub_missing,
    "nbgrader": nbgrader.missing,
    "prometheus": prometheus_missing,
}


collect_ignore = ["bench/test_bars.py"]  # measures for minutes, alone: only where it is named


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--once", action="store_true", help="the bench measures each thing once")
    parser.addoption("--all-notebooks", action="store_true", help="the reader plays all, not one")


def pytest_configure(config: pytest.Config) -> None:
    """A need that nobody knows would never be checked."""
    if hasattr(config.option, "loadscopereorder"):  # by the number of its tests, a file says little
        config.option.loadscopereorder = False
    if unknown := REQUIRED - NEEDS.keys():
        raise pytest.UsageError(f"DEVOPS_LAB_REQUIRE names {sorted(unknown)}; known are {sorted(NEEDS)}")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the cases; have the files that take minutes come first, so that none runs on alone at the end."""
    for item in items:
        if numbers(item):
            item.add_marker("case")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: sharing.place(item.path))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine can't do, with the reason; fail instead where it is required."""
    for need, missing in NEEDS.items():
        if item.get_closest_marker(need) and (reason := missing()):
            if need in REQUIRED:
                pytest.fail(f"DEVOPS_LAB_REQUIRE names {need}, but {reason}", pytrace=False)
            pytest.skip(reason)


@pytest.hookimpl(wrapper=True, tryfirst=True)  # outermost: waiting is no part of a test's time
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Tests run side by side, but for those that are marked `alone`."""
    if not hasattr(item.config, "workerinput"):
        return (yield)
    shared = Path(item.config.option.basetemp).parent  # of all processes of this run
    with sharing.turn(shared, alone=bool(item.get_closest_marker("alone"))):
        return (yield)


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a browser to drive, for tests that are marked `browser`."""
    return next(path for path in map(shutil.which, CHROMIUM) if path)


@pytest.fixture(scope="session")
def docker_lab(templates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    """One lab of containers for all tests of a session: its registry and its PostgreSQL start slowly."""
    from tests.production import new_world, torn_down

    with torn_down(new_world(tmp_path_factory.mktemp("labs") / "my läb", templates, "docker")) as made:
        yield made


@pytest.fixture(scope="session")
def operated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A lab in which the story was told up to Operate, and where nothing runs: to copy, not to open."""
    from devops_lab.lab import Lab

    def make(root: Path) -> None:
        with Lab.open(root) as lab:
            lab.catch_up("operate")
            lab.world.control.stop(production=True)

    return sharing.once(sharing.shared(tmp_path_factory), "operated", make)


@pytest.fixture(scope="session")
def templates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The shop's packages, installed once: a lab that links them installs none."""
    from tests.production import make_templates

    return sharing.once(sharing.shared(tmp_path_factory), "packages", make_templates) / "work" / "templates"


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Mounts an empty file system with these options; only root may, and only where the machine lets it."""
    made: list[Path] = []

    def mount(options: str) -> Path:
        folder = tmp_path / f"mount-{len(made)}"
        folder.mkdir()
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"size=400m,{options}", "tmpfs", str(folder)], capture_output=True
        )
        if done.returncode:
            pytest.skip("mounting takes root")
        made.append(folder)
        return folder

    yield mount
    for folder in made:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
