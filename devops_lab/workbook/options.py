"""What a run of the workbook is asked to do: which notebooks, with which parameters, reported where."""

from __future__ import annotations

import ast
import time
from pathlib import Path
from typing import Any

from devops_lab.errors import BadInput
from devops_lab.platform import settings

OWN_PARAMETERS = ("lab_dir", "engine", "pace", "view")


def find_notebooks() -> list[Path]:
    """The workbook's notebooks in their order."""
    folder = settings.project_root() / "notebooks"
    found = sorted(folder.glob("[0-9][0-9]-*.ipynb"))
    if not found:
        raise BadInput(
            f"There are no notebooks in {folder}.",
            expected="00-welcome.ipynb and those that follow",
            next_step="Call this in the project's checkout.",
        )
    return found


def choose(notebooks: list[Path], only: list[str], first: str) -> list[Path]:
    """Pick notebooks by number or name ("06", "deploy", "06-deploy"), in the workbook's order.

    Raises:
        BadInput: there is no such notebook; the message names the closest one.
    """
    by_name: dict[str, Path] = {}
    for path in notebooks:
        number, _, word = path.stem.partition("-")
        by_name |= {path.stem: path, path.name: path, number: path, word: path}

    def one(name: str) -> Path:
        wanted = Path(name).name.lower()
        wanted = wanted.zfill(2) if wanted.isdigit() else wanted
        if wanted not in by_name:
            settings.choice("notebook", wanted, tuple(path.stem for path in notebooks))
        return by_name[wanted]

    begin = notebooks.index(one(first)) if first else 0
    wanted = [one(name) for name in only] if only else notebooks
    chosen = [path for path in notebooks[begin:] if path in wanted]
    if not chosen:
        raise BadInput(f"None of {', '.join(only)} comes at or after {first}.", next_step="Leave one out.")
    return chosen


def parse_parameters(pairs: list[str]) -> dict[str, Any]:
    """Read NAME=VALUE pairs; a value is a Python literal where it is one, else a text."""
    found: dict[str, Any] = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.isidentifier():
            raise BadInput(f"{pair!r} is no parameter.", expected="NAME=VALUE", next_step="As in rate=50")
        try:
            found[name] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            found[name] = text
    return found


def check_parameters(notebooks: list[Path], given: dict[str, Any]) -> None:
    """Refuse a parameter that a notebook does not declare: papermill itself would only log it."""
    import papermill

    for path in notebooks:
        try:
            declared = tuple(papermill.inspect_notebook(str(path)))
        except Exception as error:  # no kernel named, or no notebook: nbformat lets all kinds through
            why = f"{type(error).__name__}: {error}".splitlines()[0]
            raise BadInput(f"{path.name} can't be run: {why}", expected="a Python notebook") from error
        for name in (*OWN_PARAMETERS, *given):
            settings.choice(f"parameter (in {path.name})", name, declared)


def prepare_out(out: Path | None) -> Path:
    """Make the report's folder; a folder with other things in it is left alone."""
    default = settings.project_root() / "out" / time.strftime("run-%Y%m%d-%H%M%S")
    folder = (out or default).expanduser().resolve()
    is_report = (folder / "summary.json").exists()
    if folder.exists() and not is_report and (not folder.is_dir() or any(folder.iterdir())):
        raise BadInput(
            f"{folder} holds something else.",
            expected="a new or empty folder, or an earlier report",
            next_step="Name another folder with --out.",
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for old in [*folder.glob("*.ipynb"), *folder.glob("*.html"), *folder.glob("summary.json")]:
            old.unlink()
    except OSError as error:
        raise BadInput(
            f"Can't write to {folder}: {error}", next_step="Name another folder with --out."
        ) from error
    return folder
