"""One blind drill for a whole class, and the board that shows how far each learner is.

In each lab a process of its owner begins the drill and stays until it is over; the learner finds it with
`lab.operate.current_drill()`. It is run as `python -m devops_lab.workbook.classroom.drill`.
"""

from __future__ import annotations

import os
import pwd
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from devops_lab.errors import BadInput, LabError
from devops_lab.lab import Lab
from devops_lab.platform import commands, settings, variables
from devops_lab.platform.settings import MARKER
from devops_lab.platform.store import Store
from devops_lab.production import drills
from devops_lab.production.drills import DrillRun

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
    """Start the process that runs a lab's drill, and wait for its first line."""
    owner, as_owner, env = root.stat(), {}, variables.command()
    try:
        if os.geteuid() == 0 != owner.st_uid:  # the teacher's: what it writes must stay the learner's
            as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
            env["HOME"] = pwd.getpwuid(owner.st_uid).pw_dir
        process = commands.start(
            [sys.executable, "-m", __name__, str(root), *([seed] if each else ["--same", seed])],
            env=env, cwd=root, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            start_new_session=True, **as_owner,
        )  # fmt: skip
    except (OSError, KeyError) as error:
        return f"It can't be started as the lab's owner: {error}"
    assert process.stdout
    with process.stdout as said:
        first = said.readline().decode(errors="replace").strip()
    return "" if first == "begun" else first or "It ended without a word."


def run(root: Path, seed: str, same: bool) -> None:
    """Begin a drill, say so in one line, and stay until it is over; what it let run ends with it.

    Args:
        same: the seed alone tells which, not the learner.
    """
    try:
        with Lab.open(root) as lab:
            drill = drills.start(
                lab.world, drills.faults.draw(lab.world, seed) if same else None, seed, blind=True
            )
            print("begun", flush=True)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # nobody listens from now on
            drill.attend()
    except LabError as error:
        print(error.wrong, flush=True)


def board(labs: Sequence[Path]) -> list[tuple[str, str, DrillRun | None]]:
    """(learner, lab's folder, their newest drill) of each lab; what can't be read has no drill."""
    rows = []
    for root in labs:
        try:
            learner, store = settings.read(root).learner, Store(root / "lab.db")
            rows.append((learner, root.name, store.last(DrillRun)))
            store.close()
        except (LabError, OSError) as error:
            rows.append((str(error), root.name, None))
    return rows


def line(learner: str, folder: str, run: DrillRun | None) -> str:
    """One row of the board: whose, the drill's state, seconds from the injection to each step."""
    took = run.seconds if run else {}
    cells = [f"{took[name]:.0f} s" if name in took else "-" for name in STEPS]
    state = run.state if run else "none"
    return f"{learner:<20.20} {folder:<16.16} {state:<10} " + " ".join(f"{cell:>9}" for cell in cells)


HEAD = f"{'learner':<20} {'lab':<16} {'drill':<10} " + " ".join(f"{name:>9}" for name in STEPS)

if __name__ == "__main__":
    run(Path(sys.argv[1]), sys.argv[-1], "--same" in sys.argv[2:-1])
