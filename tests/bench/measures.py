"""The bench: the lab against its bars; commit to production beside the same by raw commands, in one run.

`run_bench(once)` measures; `python3 -m devops_lab test -- bench` runs it. Raw and lab
take turns, so that a busy machine slows both.
"""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from devops_lab.lab import Lab
from devops_lab.lab.story import first
from devops_lab.platform.git import git, identity
from devops_lab.platform.processes import processes_of
from devops_lab.platform.waits import pause, until
from tests.bench import dashboard, images, operating
from tests.bench.raw import RawShop


@dataclass(frozen=True)
class Row:
    """One figure: what it is, and the bar that it must not pass (0 = no bar, for information)."""

    name: str
    value: float
    unit: str
    bar: float = 0.0

    @property
    def ok(self) -> bool:
        return not self.bar or self.value <= self.bar

    def __str__(self) -> str:
        bar = f"  bar {self.bar:g}: {'ok' if self.ok else 'MISSED'}" if self.bar else ""
        return f"{self.name:<56}{self.value:>9.3f} {self.unit:<9}{bar}"


def run_bench(once: bool = False, tell: Callable[[Row], None] | None = None) -> list[Row]:
    """Measure everything that has a bar.

    Args:
        once: each thing once.
        tell: called with each row as it is measured.

    Returns:
        The rows; medians where something was measured more than once.
    """
    rows: list[Row] = []

    def add(*more: Row) -> None:
        for row in more:
            rows.append(row)
            if tell:
                tell(row)

    times = 1 if once else 5
    add(Row("import devops_lab", cpu_seconds(["-c", "import devops_lab"], times), "s of CPU", 0.15))
    add(Row("devops-lab --help", cpu_seconds(["-m", "devops_lab", "--help"], times), "s of CPU", 0.4))
    with tempfile.TemporaryDirectory(prefix="devops-lab-bench-") as folder:
        add(*dashboard_rows(Path(folder), once))
        lab = Lab.open(Path(folder) / "lab")
        raw = RawShop(Path(folder) / "raw")
        try:
            first(lab)
            add(*push_to_production(lab, raw, times))
            raw.close()
            pause(1.0)
            add(Row("one idle lab, resident", resident_megabytes(lab.root), "MB", 220))
            replaced = [replica_replaced(lab) for _ in range(times)]
            add(Row("kill -9 of a replica > replaced and healthy", statistics.median(replaced), "s", 1.0))
            add(*image_rows(lab, times))
            add(Row("rollback decided > previous version serves all", operating.rolled_back(lab), "s", 1.0))
            add(Row("peak starts > enough replicas serve", operating.peak_served(lab), "s", 10.0))
            add(*agent_rows(lab))
        finally:
            raw.close()
            lab.clean()
        if not images.why_not(lab.settings):
            seconds = operating.rolled_back_on("docker", Path(folder))
            add(Row("rollback decided > previous version serves all, docker", seconds, "s", 5.0))
    return rows


def cpu_seconds(arguments: Sequence[str], times: int) -> float:
    """CPU time of one Python process, median of some; one run before them fills the caches."""
    spent = []
    for _ in range(times + 1):
        process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            raise RuntimeError(f"python {' '.join(arguments)} ended with {process.returncode}")
        spent.append(usage.ru_utime + usage.ru_stime)
    return statistics.median(spent[1:])


def dashboard_rows(folder: Path, once: bool) -> list[Row]:
    """What Monitor shows of a minute, beside the same minute alone, and beside ten of them."""
    count = 20_000 if once else 1_000_000
    took = dashboard.measure(folder, count, 9)
    what = f"dashboard, {count:,} samples and log lines"
    return [
        Row(what, 1000 * took.minute, "ms CPU"),
        Row("dashboard / a bare picture of matplotlib's", took.minute / took.bare, "x", 1.2),
        Row("dashboard, all that is stored / that minute alone", took.minute / took.alone, "x", 1.5),
        Row("dashboard, ten minutes / one minute", took.longer / took.minute, "x", 10),
    ]


def change(shop: Path, number: int) -> None:
    """One small feature, committed."""
    (shop / "src/bento/bench.py").write_text(f"NUMBER = {number}\n", encoding="utf-8")
    git(shop, "add", "--all")
    git(shop, "commit", "--quiet", "--message", f"feat: number {number}", env=identity("Bench"))


def push_to_production(lab: Lab, raw: RawShop, times: int) -> list[Row]:
    """`git push` > the new version serves, warm, two replicas, tests green first; lab and raw in turns."""
    lab.pipeline.install_hook("deployment")
    ours, theirs = [], []
    for number in range(times + 1):
        change(raw.shop, number)
        theirs.append(raw.push_to_production(f"9.{number}.0"))
        change(lab.world.shop, number)
        run, said = lab.pipeline.push()
        if not run.ok:
            raise RuntimeError(said)
        ours.append(run.push_seconds)
    pairs = list(zip(ours, theirs, strict=True))[1:]  # the first of each filled the caches
    return [
        Row("git push > serves, the lab", statistics.median(o for o, _ in pairs), "s"),
        Row("git push > serves, raw commands", statistics.median(t for _, t in pairs), "s"),
        Row("git push > serves, lab / raw", statistics.median(o / t for o, t in pairs), "x", 1.5),
    ]


def image_rows(lab: Lab, times: int) -> list[Row]:
    """Build, push, pull and run an image: the lab against the docker command; nothing where none answers."""
    if reason := images.why_not(lab.settings):
        print(f"(no figures of images: {reason})", file=sys.stderr)
        return []
    pairs = images.to_a_ready_replica(lab, max(times, 5))  # one pair varies by a tenth
    what = "wheel > image > registry > replica ready"
    return [
        Row(f"{what}, the lab", statistics.median(ours for ours, _ in pairs), "s"),
        Row(f"{what}, docker", statistics.median(theirs for _, theirs in pairs), "s"),
        Row(f"{what}, lab / docker", statistics.median(ours / theirs for ours, theirs in pairs), "x", 1.1),
    ]


def agent_rows(lab: Lab) -> list[Row]:
    """What the agent costs while it looks after a busy production."""
    percent, megabytes = operating.agent_cost(lab)  # long, also once: three seconds hold three ticks or four
    what = f"the agent, {operating.BUSY_REPLICAS} replicas, {operating.BUSY_RATE:g} requests/s"
    return [
        Row(f"{what}: of one core", percent, "% CPU", 5.0),
        Row(f"{what}: resident", megabytes, "MB", 60.0),
    ]


def resident_megabytes(root: Path) -> float:
    """Resident memory of all processes of a lab."""
    return sum(process.memory_info().rss for process in processes_of(root)) / 1e6


def replica_replaced(lab: Lab) -> float:
    """Kill a replica as a crash would, and wait until as many as before are healthy in the proxy's view."""
    control = lab.world.control
    control.wait_settled()
    before = {r["id"]: r["pid"] for r in control.status()["replicas"] if r["state"] == "healthy"}
    victim = next(iter(before.values()))
    began = time.perf_counter()
    os.kill(victim, signal.SIGKILL)

    def replaced() -> bool:
        healthy = [r for r in control.status()["replicas"] if r["state"] == "healthy" and r["pid"] != victim]
        return len(healthy) == len(before)

    until(replaced, "the replica to be replaced", seconds=20, every_seconds=0.01)
    return time.perf_counter() - began
