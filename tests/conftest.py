"""Shared by all tests: what they need from the machine, a clean environment for the processes they start."""

from __future__ import annotations

import functools
import os
import shutil
import signal
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from devops_lab.phases import World

from tests import sharing
from tests.cluster import nodes

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # children without byte code start twice as slowly
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what ends in `&`
    signal.signal(signal.SIGINT, signal.default_int_handler)

REQUIRED = {name.strip() for name in os.environ.get("DEVOPS_LAB_REQUIRE", "").split(",")} - {""}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


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
        client = docker.from_env(timeout=5)
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


NEEDS: dict[str, Callable[[], str]] = {
    "browser": browser_missing,
    "cluster": nodes.missing,
    "docker": docker_missing,
    "prometheus": prometheus_missing,
}


def pytest_configure() -> None:
    """A need that nobody knows would never be checked."""
    if unknown := REQUIRED - NEEDS.keys():
        raise pytest.UsageError(f"DEVOPS_LAB_REQUIRE names {sorted(unknown)}; known are {sorted(NEEDS)}")


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
def docker_lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """One lab of containers for all tests of a session: its registry and its PostgreSQL start slowly."""
    from tests.production import make_templates, new_world, torn_down

    templates = make_templates(tmp_path_factory.mktemp("templates"))
    with torn_down(new_world(tmp_path_factory.mktemp("labs") / "my läb", templates, "docker")) as made:
        yield made
