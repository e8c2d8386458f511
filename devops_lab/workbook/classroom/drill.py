"""One blind drill for a whole class, and the board that shows how far each learner is.

In each lab a process of its owner begins the drill and stays until it is over; the learner finds it with
`lab.operate.current_drill()`. It is run as `python -m devops_lab.workbook.classroom.drill`.
"""

from __future__ import annotations

import os
import pwd
import sqlite3
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import closing
from pathlib import Path

from devops_lab.errors import BadInput, LabError
from devops_lab.lab import Lab
from devops_lab.platform import commands, settings, variables
from devops_lab.platform.settings import MARKER
from devops_lab.platform.store import Store
from devops_lab.production import drills
from devops_lab.production.drills import DrillRun

BEGUN = "begun"
STEPS = ("detected", "diagnosed", "restored")


def labs_in(folder: Path) -> list[Path]:
    """The labs in a folder: itself, the folders in it, or theirs (homes, with a lab in each).

    Raises:
        BadInput: there is none.
    """
    found = {file.parent.resolve() for depth in ("", "*/", "*/*/") for file in folder.glob(depth + MARKER)}
    labs = sorted(lab for lab in found if not found & set(lab.parents))
    if not labs:
        raise BadInput(
            f"There is no lab in {folder}.",
            expected=f"folders with a {MARKER} in them, or one folder deeper",
            next_step="Name the folder that holds the learners' labs, or their homes.",
        )
    return labs


def begin(labs: Sequence[Path], seed: str, each: bool = False) -> Iterator[tuple[Path, str]]:
    """Begin a drill in every lab; (lab, why there is none) as they come, with no reason where it runs.

    Args:
        seed: which drill; any words.
        each: every learner gets another one.
    """
    with ThreadPoolExecutor(len(labs)) as pool:
        asked = {pool.submit(_begin, lab, seed, each): lab for lab in labs}
        for done in as_completed(asked):
            yield asked[done], done.result()


def _begin(root: Path, seed: str, each: bool) -> str:
    """Start the process that runs a lab's drill, and wait for its word."""
    owner, options = root.stat(), {}
    env = variables.command()
    try:
        if os.geteuid() == 0 != owner.st_uid:  # the teacher's: what it writes must stay the learner's,
            about = pwd.getpwuid(owner.st_uid)  # and what is the teacher's (a cache, a password) stays theirs
            options = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
            env = {"PATH": env["PATH"], "LC_ALL": env["LC_ALL"], **variables.import_path()}
            env |= {"HOME": about.pw_dir, "USER": about.pw_name, "LOGNAME": about.pw_name}
        process = commands.start(
            [sys.executable, "-m", __name__, str(root), *([seed] if each else ["--same", seed])],
            env=env | {"PYTHONSAFEPATH": "1"},  # a file in the lab is no module
            cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, **options,
        )  # fmt: skip
    except (OSError, KeyError) as error:
        return f"It can't be started as the lab's owner: {error}"
    assert process.stdout
    told = ""
    with process.stdout as said:
        for line in said:  # opening a lab may tell that it was asleep; the last line is the reason
            told = line.decode(errors="replace").strip() or told
            if told == BEGUN:
                return ""
    return told or "It ended without a word."


def run(root: Path, seed: str, same: bool) -> None:
    """Begin a drill, say so in one line, and stay until it is over; what it let run ends with it.

    Args:
        same: the seed alone tells which, not the learner.
    """
    try:
        with Lab.open(root) as lab:
            name = drills.faults.draw(lab.world, seed) if same else None
            drill = drills.start(lab.world, name, seed, blind=True)
            print(BEGUN, flush=True)
            nowhere = os.open(os.devnull, os.O_WRONLY)
            for stream in (1, 2):  # nobody listens from now on
                os.dup2(nowhere, stream)
            drill.attend()
    except LabError as error:
        print(" ".join(error.wrong.split()), flush=True)


def board(labs: Sequence[Path]) -> list[tuple[str, str, DrillRun | str]]:
    """(learner, lab's folder, their newest drill, or in a word why there is none) of each lab."""
    rows: list[tuple[str, str, DrillRun | str]] = []
    for root in labs:
        learner = "?"
        try:
            learner = settings.read(root).learner
            with closing(Store(root / "lab.db")) as store:
                rows.append((learner, root.name, store.last(DrillRun) or "none"))
        except (LabError, OSError, sqlite3.Error):
            rows.append((learner, root.name, "unreadable"))
    return rows


def line(learner: str, folder: str, run: DrillRun | str) -> str:
    """One row of the board: whose, the drill's state, seconds from the injection to each step."""
    state, took = (run, {}) if isinstance(run, str) else (run.state, run.seconds)
    cells = [f"{took[name]:.0f} s" if name in took else "-" for name in STEPS]
    return f"{learner:<20.20} {folder:<16.16} {state:<10} " + " ".join(f"{cell:>9}" for cell in cells)


def goes_on(run: DrillRun | str) -> bool:
    return not isinstance(run, str) and run.state == "running"


HEAD = f"{'learner':<20} {'lab':<16} {'drill':<10} " + " ".join(f"{name:>9}" for name in STEPS)

if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[-1], "--same" in sys.argv[2:-1])
