"""`devops-lab classroom …`: what a class needs, thin as the other commands."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from devops_lab.platform import settings

app = typer.Typer(
    name="classroom",
    help="Hand in a lab; grade a class, report on it, make its editions, drill it.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.command(name="hand-in")
def hand_in(
    lab: Annotated[
        Path | None, typer.Option("--lab", metavar="DIR", help="The lab [$DEVOPS_LAB_DIR or my-lab].")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FILE", help="The file to write [LEARNER-LAB.zip].")
    ] = None,
) -> None:
    """Pack your notebooks and your lab's record into one file to hand in.

    Works at any time, also half done and while production runs. No secret and nothing that runs is in it.
    """
    from devops_lab.workbook.classroom import hand_in as pack

    path = pack((lab or settings.default_lab_dir()).expanduser().resolve(), out)
    print(f"{path} ({path.stat().st_size / 1e6:.1f} MB)")


@app.command()
def report(
    grades: Annotated[
        Path, typer.Argument(metavar="GRADES.json", help="What `devops-lab classroom grade` wrote.")
    ],
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Where it goes [`report` beside the grades].")
    ] = None,
    names: Annotated[
        bool, typer.Option("--names", help="Show the learners' names instead of pseudonyms.")
    ] = False,
) -> None:
    """Make a page about a class, and its grades for Moodle and Canvas.

    The page needs no network, and prints on a sheet of A3. What holds names lies apart, in `with-names`.
    """
    from devops_lab.workbook.classroom.report import write_report

    print(*write_report(grades, out, names), sep="\n")


@app.command()
def build(
    out: Annotated[
        Path, typer.Option("--out", metavar="DIR", help="A new or empty folder, or an earlier edition.")
    ],
    leave_out: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Leave this exercise out (repeatable).")
    ] = None,
    settings_file: Annotated[
        Path | None,
        typer.Option("--settings", metavar="FILE", help="Points, dates, tasks of your own: YAML."),
    ] = None,
) -> None:
    """Make the teacher's and the students' edition of the notebooks, for nbgrader.

    The students' is made by nbgrader itself, where it is installed: pip install -e '.[classroom]'
    """
    from devops_lab.workbook.classroom import editions

    print(*editions.build(out, editions.read_settings(settings_file, leave_out or [])), sep="\n")


@app.command()
def grade(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="With the hand-ins, NAME.zip for each learner.")
    ],
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Where grades.json goes [beside the hand-ins]."),
    ] = None,
) -> None:
    """Check every exercise again on what was handed in, and write grades.json.

    What hand-ins make this machine run is fenced: no network, no file of yours, bounded time and memory.
    """
    from devops_lab.model import Grade
    from devops_lab.workbook.classroom.grade import GRADES
    from devops_lab.workbook.classroom.grade import grade as grade_all

    def told(one: Grade) -> None:
        points, most = (sum(each) for each in zip(*((m.points, m.most) for m in one.marks), strict=True))
        print(f"{one.learner}: {points:g} of {most:g} points", *one.remarks, sep="\n  ")

    grade_all(folder.expanduser(), out, told)
    print(f"Written: {(out or folder) / GRADES}")


@app.command()
def drill(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With the learners' labs, or their homes.")],
    seed: Annotated[str, typer.Option("--seed", metavar="WORDS", help="Which drill: any words.")] = "today",
    each: Annotated[bool, typer.Option("--each", help="Another one for each learner.")] = False,
) -> None:
    """Begin the same blind drill in every lab of a class.

    It needs production to serve (notebook 07), brings customers along, and is undone after ten minutes.
    Learners go on with: drill = lab.operate.current_drill()
    """
    from devops_lab.errors import LabError
    from devops_lab.workbook.classroom import drill as drills

    labs, begun = drills.labs_in(folder.expanduser()), 0
    for root, reason in drills.begin(labs, seed, each):
        print(f"{root}: {reason or 'begun'}", flush=True)
        begun += not reason
    if not begun:
        raise LabError(
            "No drill was begun.",
            expected="at least one lab whose production serves",
            next_step="See the reason beside each lab.",
        )


@app.command()
def board(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="With the learners' labs, or their homes.")],
    watch: Annotated[
        bool, typer.Option("--watch", help="Show it again every two seconds, until all drills are over.")
    ] = False,
) -> None:
    """Show who has detected, diagnosed and restored in the newest drill of each lab."""
    from devops_lab.platform.waits import pause
    from devops_lab.workbook.classroom import drill as drills

    labs = drills.labs_in(folder.expanduser())
    while True:
        rows = drills.board(labs)
        print(drills.HEAD, *(drills.line(*row) for row in rows), sep="\n", flush=True)
        if not watch or not any(drills.goes_on(run) for *_, run in rows):
            return
        pause(2.0)
        print()
