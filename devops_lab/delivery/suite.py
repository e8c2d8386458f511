"""One run of the shop's suite: in an environment that holds the built wheel, not the source tree."""

from __future__ import annotations

import json
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

from devops_lab.delivery.materials import TOOLS, export, tools_beside
from devops_lab.delivery.versions import locate
from devops_lab.errors import LabError, TimedOut
from devops_lab.model import Artifact, Case
from devops_lab.platform import commands, variables
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.environments import environment, unchanged
from devops_lab.platform.identity import mark
from devops_lab.platform.processes import OWNER

OnCase = Callable[[Case], None]
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
    coverage: dict[str, float]  # percent, by file


def run_suite(
    world: LabContext,
    artifact: Artifact,
    folder: Path,
    templates: Path,
    limit: float,
    on_case: OnCase | None = None,
    *,
    coverage: bool = True,
) -> Suite:
    """Install what production will, and the test tools; lay the commit's tests beside it, run them."""
    repo, _ = locate(world, artifact.commit)
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
        here = Path(scratch)
        export(repo, artifact.commit, here, "tests", "pyproject.toml", TOOLS)
        wheel = unchanged(world.root, artifact, "the artifact that was built", "Build the commit again.")
        lock = wheel.with_suffix(".lock")
        tools_beside(lock, here / TOOLS)
        python = environment(templates, lock, wheel, folder / "env", here / TOOLS)
        module = ["-m", "coverage", "run", "-m"] if coverage else ["-m"]
        began = time.perf_counter()
        command = [str(python), *module, *PYTEST, "--junitxml=report.xml"]
        said = _pytest(command, here, templates, limit, on_case)
        seconds = time.perf_counter() - began
        cases = read_junit(here / "report.xml")
        if not cases:
            raise LabError(f"The suite did not run:\n{said[-TAIL:]}", next_step="Mend the tests.")
        percent, by_file = read_coverage(here) if coverage else (0.0, {})
        for name in ("report.xml", "coverage.json"):
            if (here / name).exists():
                os.replace(here / name, folder / name)
    return Suite(cases, percent, seconds, by_file)


def _pytest(command: list[str], folder: Path, lab: Path, limit: float, on_case: OnCase | None) -> str:
    """Run pytest in a process group of its own, which is ended in any case; tell of each test as it ends."""
    env = variables.child(PYTHONUNBUFFERED="1", **{OWNER: mark(lab)})
    with commands.ran(command, folder, env) as running:
        said, running.exit_code = _followed(command, folder, env, limit, on_case)
    return said


def _followed(
    command: list[str], folder: Path, env: dict[str, str], limit: float, on_case: OnCase | None
) -> tuple[str, int]:
    process = subprocess.Popen(
        command,
        cwd=folder,
        env=env,
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
    return "".join(said), process.returncode


def _end(process: subprocess.Popen[str]) -> None:
    """End the group, so that a server that a test started never outlives it."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
        commands.signalled(-process.pid, signal.SIGKILL)
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


def read_coverage(folder: Path) -> tuple[float, dict[str, float]]:
    """The percentage of the shop's lines and branches that the suite ran through, in all and by file."""
    from coverage import Coverage
    from coverage.exceptions import NoDataError

    data = Coverage(data_file=str(folder / ".coverage"), config_file=str(folder / "pyproject.toml"))
    data.combine([str(folder)], keep=True) if list(folder.glob(".coverage.*")) else data.load()
    try:
        percent = data.json_report(outfile=str(folder / "coverage.json"))
    except NoDataError:  # no test reached the shop
        return 0.0, {}
    files = json.loads((folder / "coverage.json").read_text("utf-8"))["files"]
    return percent, {Path(name).name: file["summary"]["percent_covered"] for name, file in files.items()}
