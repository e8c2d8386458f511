"""A class on one machine, measured; no test. Eight and ten minutes, in the project's environment:

`python3 -m tests.bench.crowd sleepers` has thirty labs, of which four are awake and go from 00 to 06.
`python3 -m tests.bench.crowd together` has eight that go from 01 to 06 at once, and looks for cross-talk.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from uuid import uuid4

from devops_lab.lab import Lab, clean
from devops_lab.lab.story import first
from devops_lab.platform import settings, variables, web
from devops_lab.platform.clock import steady
from devops_lab.platform.processes import processes_of
from tests.patience import until

LABS, AWAKE, TOGETHER = 30, 4, 8
MINUTES = 0.1  # until a lab sleeps
SETTLED_SECONDS = 600.0


@contextmanager
def room() -> Iterator[Path]:
    """A folder for labs, all of which are removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="devops-lab-crowd-") as folder:
        try:
            yield Path(folder)
        finally:
            for found in sorted(Path(folder).glob("*/lab.toml")):
                clean(found.parent)


def work(roots: Sequence[Path], numbers: Sequence[str]) -> bool:
    """Run these notebooks in all of these labs at once; whether each came to its end."""
    only = [word for number in numbers for word in ("--only", number)]
    began, running = steady(), []
    for root in roots:
        command = [sys.executable, "-m", "devops_lab", "run", *only, "--lab", str(root)]
        command += ["--out", str(root.with_suffix(".out"))]
        with root.with_suffix(".log").open("w") as log:
            running.append(subprocess.Popen(command, env=variables.command(), stdout=log, stderr=log))
    green = 0
    for root, process in zip(roots, running, strict=True):
        if process.wait():
            print(f"{root.name} failed:\n{root.with_suffix('.log').read_text()[-1500:]}")
        else:
            green += 1
    took = steady() - began
    print(f"{len(roots)} labs at once, {numbers[0]} to {numbers[-1]}: {green} green, after {took:.0f} s")
    return green == len(roots)


def asleep(root: Path) -> bool:
    return (root / "run" / settings.ASLEEP).exists() and not processes_of(root)


def disk(root: Path, shared: bool) -> float:
    """Megabytes that a lab's files take, each once; with what others have, too, or without (hard links)."""
    found = {}
    for path in (root, *root.rglob("*")):
        with suppress(OSError):
            about = path.lstat()
            found[about.st_ino] = about.st_blocks * 512 if shared or about.st_nlink == 1 else 0
    return sum(found.values()) / 1e6


def memory(root: Path) -> dict[str, tuple[float, float]]:
    """Megabytes of a lab's processes, by name: PSS (what is shared, divided) and RSS (all that it sees)."""
    found: dict[str, tuple[float, float]] = defaultdict(lambda: (0.0, 0.0))
    for process in processes_of(root):
        about, words = process.memory_full_info(), process.cmdline()
        modules = [after for word, after in pairwise(words) if word == "-m"]
        name = modules[0] if modules else process.name()
        pss, rss = found[name]
        found[name] = (pss + about.pss / 1e6, rss + about.rss / 1e6)
    return found


def sleepers() -> None:
    """Thirty labs, four awake."""
    with room() as folder:
        roots = [folder / f"lab-{number}" for number in range(LABS - AWAKE)]
        for root in roots:
            with Lab.open(root, pace="quick") as lab:
                settings.write(root, replace(settings.read(root), sleep_minutes=MINUTES))
                first(lab)
        until(lambda: all(map(asleep, roots)), "all to sleep", seconds=SETTLED_SECONDS, every_seconds=1)
        busy = [folder / f"busy-{number}" for number in range(AWAKE)]
        green = work(busy, ("00", "01", "02", "03", "04", "05", "06"))
        running = sum(len(processes_of(root)) for root in roots)
        print(f"{len(roots)} asleep: {running} processes")
        for part in sorted(roots[0].iterdir()):
            print(f"   {part.name}: {disk(part, shared=False):.1f} MB of {disk(part, shared=True):.1f}")
        sizes = [disk(root, shared=False) for root in roots]
        whole = [disk(root, shared=True) for root in roots]
        print(f"disk of one: {max(sizes):.1f} MB of its own at most, {max(whole):.1f} MB with what is shared")
        for root in busy:
            with Lab.open(root) as lab:
                lab.world.control.wait_settled(60)
        for root in busy:
            split = memory(root)
            pss, rss = (sum(each[kind] for each in split.values()) for kind in (0, 1))
            print(f"awake, idle: PSS {pss:.0f} MB, RSS {rss:.0f} MB, {len(processes_of(root))} processes")
            print("   " + "; ".join(f"{name} {p:.0f}/{r:.0f}" for name, (p, r) in sorted(split.items())))
        took = []
        for root in roots:
            began = steady()
            with Lab.open(root):
                took.append(steady() - began)
        print(f"to wake: median {statistics.median(took):.1f} s, longest {max(took):.1f} s, of {len(took)}")
        assert green


def together() -> None:
    """Eight at once, each marked; no lab's files hold another's mark or place."""
    with room() as folder:
        roots = [folder / f"lab-{number}-of-{TOGETHER}" for number in range(TOGETHER)]
        green = work(roots, ("01", "02", "03", "04", "05", "06"))
        marks = {root: f"mark{uuid4().hex}" for root in roots}
        for root, mark in marks.items():
            order = json.dumps({"lines": [{"item": 1, "quantity": 1}], "customer": mark}).encode()
            headers = {"Content-Type": "application/json", "Idempotency-Key": mark}
            with Lab.open(root) as lab:
                assert web.ask(f"{lab.url}/api/orders", order, headers).status == 201
        found = {root: seen(root, marks) for root in roots}
        for root, names in found.items():
            print(f"{root.name}: marks and places of {', '.join(sorted(names))}")
        assert all(names == {root.name} for root, names in found.items())
        assert green


def seen(root: Path, marks: dict[Path, str]) -> set[str]:
    """Whose mark or place is in any file of a lab."""
    names = set()
    for path in (path for path in root.rglob("*") if path.is_file() and not path.is_symlink()):
        text = path.read_bytes()
        names |= {o.name for o, mark in marks.items() if mark.encode() in text or f"{o}/".encode() in text}
    return names


if __name__ == "__main__":
    {"sleepers": sleepers, "together": together}[sys.argv[1]]()
