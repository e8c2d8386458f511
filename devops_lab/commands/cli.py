"""The `devops-lab` command: thin, every command does its work in a module of the same subject.

| exit code | means |
| --- | --- |
| 0 | done |
| 1 | a step, a cell or a test failed |
| 2 | bad input or usage: an unknown name, a directory that is no lab or is in use, a port that is taken |
| 3 | the environment lacks something: a program, an engine, disk space |
| 130 | interrupted |

An error is told as what was wrong, what was expected, and what to do; DEVOPS_LAB_DEBUG=1 adds the traceback.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from devops_lab import errors
from devops_lab.commands import classroom
from devops_lab.platform import settings, variables

if TYPE_CHECKING:
    from devops_lab.lab import Lab

app = typer.Typer(
    name="devops-lab",
    help="Take one real web shop through the whole DevOps lifecycle, on your own machine.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,  # plain help: rich's would cost more CPU than the rest of the start
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(classroom.app)
BAD_INPUT = (errors.BadInput, errors.NotALab, errors.LabInUse, errors.PortTaken)
BENCH = "tests/bench/test_bars.py"
AT_A_TIME = ["-n", "auto", "--dist", "loadfile"]  # as many files of tests as there are cores
LACKING = (errors.MissingTool, errors.EngineUnavailable, errors.DiskFull)

LabOption = Annotated[
    Path | None, typer.Option("--lab", metavar="DIR", help="The lab [$DEVOPS_LAB_DIR or my-lab].")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Report as JSON.")]


def exit_code(error: errors.LabError) -> int:
    """Tell which exit code an error of the lab gets."""
    return 2 if isinstance(error, BAD_INPUT) else 3 if isinstance(error, LACKING) else 1


def main(arguments: list[str] | None = None) -> NoReturn:
    """Run one command and exit with its code; `arguments` are the command line's by default."""
    try:
        code = app(arguments, prog_name="devops-lab", standalone_mode=True)
    except errors.LabError as error:
        if os.environ.get("DEVOPS_LAB_DEBUG"):
            raise
        print(error, file=sys.stderr)
        sys.exit(exit_code(error))
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        sys.exit(130)
    except BrokenPipeError:  # `devops-lab trail … | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    sys.exit(code)


def report(value: Any) -> None:
    """Print records, paths and plain values as JSON."""
    import msgspec

    plain = msgspec.to_builtins(value, enc_hook=str)
    print(json.dumps(plain, indent=2, ensure_ascii=False))


def open_lab(directory: Path | None) -> Lab:
    """Open a lab that exists: a command never makes one by accident."""
    root = (directory or settings.default_lab_dir()).expanduser().resolve()
    settings.read(root)
    from devops_lab.lab import Lab

    return Lab.open(root)


@app.command()
def run(
    engine: Annotated[str, typer.Option(help="auto, process, docker or swarm.")] = "process",
    pace: Annotated[str, typer.Option(help="quick (as in CI) or class (to watch).")] = "quick",
    only: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="Run this notebook only (repeatable).")
    ] = None,
    first: Annotated[str, typer.Option("--from", metavar="NAME", help="Begin with this notebook.")] = "",
    lab: Annotated[
        Path | None,
        typer.Option(
            "--lab", metavar="DIR", help="Run in this lab and keep it [a new one, removed at the end]."
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where the report goes [out/run-TIME].")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter", "-p", metavar="NAME=VALUE", help="Set a notebook's parameter (repeatable)."
        ),
    ] = None,
    save: Annotated[
        bool, typer.Option("--save", help="Write the outputs back into notebooks/ (clean run).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Run the notebooks from end to end.

    Writes the executed notebooks, an HTML book and summary.json to --out.
    A notebook is named by its number or name: 06, deploy, 06-deploy.
    """
    from devops_lab.workbook import options, outputs, progress
    from devops_lab.workbook import run as workbook

    with workbook.terminated_as_interrupted():
        summary = workbook.run_workbook(
            engine=engine,
            pace=pace,
            only=only or [],
            first=first,
            lab=lab,
            out=out,
            parameters=options.parse_parameters(parameter or []),
            progress=progress.for_this_terminal(),
        )
    if save and summary.ok:
        outputs.save_outputs(summary)
    report({"ok": summary.ok} | vars(summary)) if as_json else print(summary.text())
    raise typer.Exit(130 if summary.interrupted else 0 if summary.ok else 1)


@app.command(name="open")
def open_(
    lab: LabOption = None,
    engine: Annotated[str, typer.Option(help="Of a new lab: auto, process, docker or swarm [process].")] = "",
    port: Annotated[int, typer.Option(help="Listen on this port [a free one].")] = 0,
    browser: Annotated[bool, typer.Option("--browser/--no-browser", help="Open a browser window.")] = True,
) -> None:
    """Open your notebooks in JupyterLab.

    They lie in the lab, made from the workbook's; what you have not touched in them is renewed with it.
    """
    from devops_lab.workbook import jupyterlab

    raise typer.Exit(jupyterlab.open_jupyter(lab, port, browser, engine))


@app.command()
def notebooks(
    restore: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Take this one, or `all`, back to the start (repeatable)."),
    ] = None,
    with_lab: Annotated[
        bool, typer.Option("--with-lab", help="The lab too, to how it was when that was first opened.")
    ] = False,
    lab: LabOption = None,
    as_json: JsonOption = False,
) -> None:
    """Tell what you changed in your notebooks, or take them back to the start.

    What is taken back is kept: notebooks in the folder `before` beside them, the lab in its own.
    A notebook is named by its number or name: 06, deploy, 06-deploy.
    """
    from devops_lab.lab import check_place, snapshots
    from devops_lab.workbook import copies, options

    root = (lab or settings.default_lab_dir()).expanduser().resolve()
    check_place(root)
    own, known = root / settings.NOTEBOOKS, options.find_notebooks()
    if with_lab and not restore:
        raise errors.BadInput("--with-lab goes with --restore.", next_step="As in --restore 06 --with-lab")
    if restore:
        chosen = options.choose(known, [] if "all" in restore else restore, "")
        if with_lab:
            settings.read(root)
            first = snapshots.kept(root, [path.stem for path in chosen])
            print(*snapshots.bring_back(root, first), sep="\n")
        print(*copies.restore(chosen, own), "Reload those that are open.", sep="\n")
        return
    changes = {path.stem: copies.touched(path, own) for path in known}
    if as_json:
        report(changes)
        return
    for name, what in changes.items():
        print(f"{name:<14} {what or 'as at the start'}")


@app.command()
def doctor(
    prepare: Annotated[
        bool, typer.Option("--prepare", help="First make the base images that the Docker engine lacks.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Tell what is on this machine and what is missing.

    Names the engines that answer, and what to do about each thing that is missing.
    --prepare makes images from this machine's Debian or Ubuntu packages, where none can be pulled.
    """
    from devops_lab.commands import doctor as examination

    if prepare:
        from devops_lab.commands.doctor.base_images import prepare_missing

        print("\n".join(prepare_missing()), file=sys.stderr)
    rows = examination.examine()
    report(rows) if as_json else print(examination.table(rows))
    raise typer.Exit(3 if any(row.ok is False for row in rows) else 0)


@app.command()
def status(lab: LabOption = None, as_json: JsonOption = False) -> None:
    """Show what runs in a lab."""
    found = open_lab(lab).status()
    code = 1 if found["damaged"] else 0
    if as_json:
        report(found)
        raise typer.Exit(code)
    production = found.pop("production")
    found |= {
        "agent": "runs" if found["agent"] else "",
        "url": production.get("url", ""),
        "scrape_url": production.get("scrape_url", ""),
        "replicas": [
            f"{r['id']}, version {r['release']}, {r['state']}, pid {r['pid']}, {r['host']}:{r['port']}"
            for r in production.get("replicas", [])
        ],
    }
    for name, value in found.items():
        for row in value if isinstance(value, list) and value else [value]:
            print(f"{name.replace('_', ' '):<14} {row or 'none'}")
    raise typer.Exit(code)


@app.command()
def trail(
    version: Annotated[str, typer.Argument(help="A released version, such as 1.1.0.")],
    lab: LabOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show where a released version comes from."""
    rows = open_lab(lab).trail(version)
    if as_json:
        report([dict(zip(("child", "relation", "parent", "t"), row, strict=True)) for row in rows])
        return
    for child, relation, parent, _ in rows:
        print(f"{child}  {relation}  {parent}")


@app.command()
def export(
    target: Annotated[str, typer.Argument(help="What to write for: prometheus.")],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="An empty or new folder.")],
    lab: LabOption = None,
) -> None:
    """Write the lab's monitoring for another system.

    Scrape configuration, recording and alert rules, and a Grafana dashboard.
    """
    from devops_lab.platform.monitoring.export import export as write

    for path in write(open_lab(lab).world, target, out):
        print(path)


@app.command()
def clean(lab: LabOption = None) -> None:
    """End all that runs in a lab, and remove it; only your notebooks stay."""
    from devops_lab.lab import clean as remove

    root = (lab or settings.default_lab_dir()).expanduser().resolve()
    remove(root)
    kept = f" Your notebooks stay in {root / settings.NOTEBOOKS}." if root.exists() else ""
    print(f"Removed {root}; nothing of it runs any more.{kept}")


@app.command(
    context_settings={
        "ignore_unknown_options": True,
        "allow_extra_args": True,
        "help_option_names": ["--help"],
    }
)
def test(context: typer.Context) -> None:
    """Run the project's tests.

    Without arguments all of them, several at a time. Arguments go to pytest: devops-lab test -k deploy -x
    A first one, bench, measures the lab against its bars instead: commit to production beside the same steps
    by raw commands, in the same run.
    """
    import importlib.util

    if importlib.util.find_spec("pytest") is None or importlib.util.find_spec("nbval") is None:
        raise errors.MissingTool(
            "The packages of the tests are not installed here.",
            expected="pytest, nbval and the others of the extra `test`",
            next_step="pip install -e '.[test]', then try again.",
        )
    given = [BENCH, *context.args[1:]] if context.args[:1] == ["bench"] else context.args or AT_A_TIME
    command = [sys.executable, "-m", "pytest", *given]
    code = subprocess.run(
        command, cwd=settings.project_root(), env=variables.command(), check=False
    ).returncode
    raise typer.Exit({0: 0, 1: 1, 2: 130, 3: 1, 4: 2, 5: 2}.get(code, 1))  # pytest's codes > ours
