"""One run of the shop's suite: in an environment that holds the built wheel, not the source tree."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from devops_lab.engines.environments import environment
from devops_lab.errors import LabError, TimedOut
from devops_lab.model import Artifact, Case
from devops_lab.phases import World
from devops_lab.phases.materials import export
from devops_lab.phases.versions import locate
from devops_lab.processes import OWNER, clean_environment

OnCase = Callable[[Case], None]
LOCK = "requirements-test.lock"
VERDICT = re.compile(r"^tests/(?P<file>\S+?)\.py::(?P<name>.+?) (?P<outcome>PASSED|FAILED|ERROR|SKIPPED)\b")
PYTEST = ("pytest", "-v", "--tb=short", "--color=no", "-p", "no:cacheprovider")
ANSI = re.compile(r"(?:\x1b|#x1B)\[[0-9;]*m")  # colours, also as JUnit's XML writes them
TAIL = 2000  # characters of pytest's output that an error carries


@dataclass(frozen=True)
class Suite:
    """What one run said."""

    cases: list[Case]
    coverage_percent: float
    seconds: float


def run_suite(
    world: World,
    artifact: Artifact,
    folder: Path,
    templates: Path,
    limit: float,
    on_case: OnCase | None = None,
    *,
    coverage: bool = True,
) -> Suite:
    """Install the wheel, lay its commit's tests beside it, run them, read the reports."""
    repo, _ = locate(world, artifact.commit)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
        here = Path(scratch)
        export(repo, artifact.commit, here, "tests", "pyproject.toml", LOCK)
        python = environment(templates, here / LOCK, world.root / artifact.path, folder / "env")
        module = ["-m", "coverage", "run", "-m"] if coverage else ["-m"]
        began = time.perf_counter()
        command = [str(python), *module, *PYTEST, "--junitxml=report.xml"]
        said = _pytest(command, here, templates, limit, on_case)
        seconds = time.perf_counter() - began
        cases = read_junit(here / "report.xml")
        if not cases:
            raise LabError(f"The suite did not run:\n{said[-TAIL:]}", next_step="Mend the tests.")
        percent = read_coverage(here) if coverage else 0.0
        for name in ("report.xml", "coverage.json"):
            if (here / name).exists():
                os.replace(here / name, folder / name)
    return Suite(cases, percent, seconds)


def _pytest(command: list[str], folder: Path, lab: Path, limit: float, on_case: OnCase | None) -> str:
    """Run pytest in a process group of its own, which is ended in any case; tell of each test as it ends."""
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=clean_environment(PYTHONUNBUFFERED="1", LC_ALL="C.UTF-8") | {OWNER: str(lab.resolve())},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,
    )
    began = last = time.monotonic()
    timer = threading.Timer(limit, _end, (process,))
    timer.start()
    said = []
    try:
        assert process.stdout
        for line in process.stdout:
            said.append(line)
            if on_case and (found := VERDICT.match(line)):
                now = time.monotonic()
                outcome = cast(Any, found["outcome"].lower())
                name, where = f"{found['file']}::{found['name']}", found["file"].split("/")[0]
                on_case(Case(name, where, outcome, now - last))
                last = now
        process.wait()
    finally:
        timer.cancel()
        _end(process)
    if time.monotonic() - began >= limit:
        raise TimedOut(
            f"The suite ran longer than {limit:g} s.\n{''.join(said)[-TAIL:]}",
            next_step="Find the test that hangs.",
        )
    return "".join(said)


def _end(process: subprocess.Popen[str]) -> None:
    """End the group, so that a server that a test started never outlives it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def read_junit(path: Path) -> list[Case]:
    """The cases of a JUnit report, named as they are when they stream: suite/module::test."""
    from junitparser import Error, Failure, JUnitXml, Skipped

    if not path.is_file():
        return []
    outcomes = {Failure: "failed", Error: "error", Skipped: "skipped"}
    cases = []
    for suite in JUnitXml.fromfile(str(path)):
        for case in suite:
            parts = (case.classname or case.name or "").split(".")[1:]
            results = list(case.result)
            outcome = next((outcomes[type(r)] for r in results if type(r) in outcomes), "passed")
            message = ANSI.sub("", "\n".join(str(r.text or r.message or "") for r in results))
            names = ["/".join(parts[:2]), *parts[2:], *([case.name] if case.classname else [])]
            where, seconds = parts[0] if parts else "", case.time or 0.0
            cases.append(Case("::".join(names), where, cast(Any, outcome), seconds, message))
    return cases


def read_coverage(folder: Path) -> float:
    """The percentage of the shop's lines and branches that the suite ran through; details: coverage.json."""
    from coverage import Coverage
    from coverage.exceptions import NoDataError

    data = Coverage(data_file=str(folder / ".coverage"), config_file=str(folder / "pyproject.toml"))
    data.combine([str(folder)], keep=True) if list(folder.glob(".coverage.*")) else data.load()
    try:
        return data.json_report(outfile=str(folder / "coverage.json"))
    except NoDataError:  # no test reached the shop
        return 0.0
