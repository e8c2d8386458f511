"""What was run, as lines for a shell: each can be copied, and ends with a comment on how it went."""

from __future__ import annotations

import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from http import HTTPStatus
from itertools import groupby
from pathlib import Path
from typing import Protocol

from devops_lab.model import Command
from devops_lab.platform.commands import of_last_call
from devops_lab.platform.variables import HOME
from devops_lab.views import style as look
from devops_lab.views.style import Picture

MAX_SAME = 3  # lines of one kind in a row, of what is not needed to do it again
PLACES = {
    "LAB": "this lab's folder (lab.root)",
    "VENV": "where its Python is installed (sys.prefix)",
    "PYTHON": "the Python that it was made from (sys.base_prefix)",
    "LESSON": "the folder that devops_lab lies in",
}
ACTORS = {"agent": "the lab's agent, meanwhile", "pipeline": "the pipeline, in origin's hook"}


class HasRoot(Protocol):
    @property
    def root(self) -> Path: ...


def commands(lab: HasRoot, all: bool = False) -> Picture:
    """What the last call ran outside of Python, as a transcript to copy.

    "The last call" is this cell; the newest before it when this one has run nothing. Outside of a notebook:
    everything since this was asked last.

    Args:
        lab: whose commands.
        all: also those that only look.
    """
    found = of_last_call(Path(lab.root))
    if not found:
        return look.nothing("what the last call ran", "It ran nothing outside of Python.")
    text = transcript(found, lab.root, all)
    changed = [command for command in found if not command.looks and command.by != "note"]
    names = Counter(_kind(command) for command in changed)
    listed = ", ".join(f"{name}{f' ({count})' if count > 1 else ''}" for name, count in names.items())
    caption = f"What was run: {listed or 'nothing that changes anything'}."
    box = "max-height:480px;overflow:auto"  # what the reader wrote stands in it, however long
    return look.page(caption, text, f'<div style="{box}">{look.pre(text)}</div>')


def transcript(found: Sequence[Command], root: Path, all: bool = False) -> str:
    """Commands as the text of a shell script.

    Args:
        found: in the order in which they ran.
        root: of the lab; stands in the text as $LAB.
        all: also those that only look; where there are no others, they are shown in any case.
    """
    places = _places(root)
    changes = any(not command.looks for command in found)
    shown = [command for command in found if all or not changes or not command.looks]
    lines: list[str] = []
    folder = who = ""
    for command, more in _folded(shown, places):
        if command.who != who:
            who = command.who
            lines.append(f"# {ACTORS.get(who, 'here')}:")
        if command.by in ("program", "python") and command.folder not in ("", folder):
            folder = command.folder
            lines.append(f"cd {_quoted(folder, places)}")
        lines.append(_line(command, places))
        if more:
            lines.append(f"# … {more} more like this")
    if len(shown) < len(found):
        kinds = Counter(_kind(command) for command in found if command.looks)
        names = ", ".join(name for name, _ in kinds.most_common(6))
        lines += [
            f"# {len(found) - len(shown)} that only look are left out ({names}).",
            "# views.commands(lab, all=True) shows them.",
        ]
    used = [f"{name}: {what}" for name, what in PLACES.items() if f"${name}" in "\n".join(lines)]
    legend = [f"# {'; '.join(used)}."] * bool(used)
    if any(command.by == "python" for command in shown):
        legend.append("# Python: done by the package itself; the line does the same.")
    return "\n".join([*legend, *lines])


def _folded(found: Iterable[Command], places: list[tuple[str, str]]) -> Iterable[tuple[Command, int]]:
    """Each command, and how many alike follow it that are left out; never what a replay needs."""

    def alike(command: Command) -> str:
        needed = not command.looks and command.by != "engine" and command.who != "agent"
        return str(id(command)) if needed else re.sub(r"\d+", "", _parts(command, places)[0])

    for _, group in groupby(found, alike):
        same = list(group)
        yield from ((command, 0) for command in same[: MAX_SAME - 1])
        if len(same) >= MAX_SAME:
            yield same[MAX_SAME - 1], len(same) - MAX_SAME


def _kind(command: Command) -> str:
    """A command's name as people call it: git commit, uv build, cc, POST /containers/create."""
    if command.args[0].isupper():
        return re.sub(r"/[0-9a-z]{12,}", "", " ".join(command.args[:2]))
    name, *rest = [Path(command.args[0]).name, *command.args[1:]]
    sub = next((word for word in rest if not word.startswith("-")), "")
    return f"{name} {sub}" if name in ("git", "uv", "docker") and re.fullmatch("[a-z-]+", sub) else name


def _line(command: Command, places: list[tuple[str, str]]) -> str:
    line, body = _parts(command, places)
    said = [look.seconds(command.seconds)] if command.seconds >= 0.0005 else []
    if command.pid:
        said.append(f"process {command.pid}")
    elif command.by == "python":
        said.append("Python")
    elif command.by == "engine" and (command.exit_code or 0) >= HTTPStatus.BAD_REQUEST:
        said.append(f"answer {command.exit_code}")
    elif command.by == "program" and command.exit_code != 0:
        said.append(f"exit code {command.exit_code}" if command.exit_code else "did not come to its end")
    note = f"  # {', '.join(said)}" if said else ""
    return f"{line}{note}{body}"


def _parts(command: Command, places: list[tuple[str, str]]) -> tuple[str, str]:
    """A command's line, and the text below it that the command reads."""
    if command.by == "note":
        return f"# {_hidden(command.args[0], places)}", ""
    if command.by == "engine" and command.args[0].isupper():
        return f"# {_hidden(' '.join(command.args), places)}", ""
    line = _joined(command.args, places)
    if command.environment:
        pairs = (f"{name}={_quoted(value, places)}" for name, value in sorted(command.environment.items()))
        line = f"{' '.join(pairs)} \\\n  {line}"
    if command.given:
        line = f"{_joined(command.given, places)} |\n  {line}"
    if command.passed:
        line += f" | {_joined(command.passed, places)}"
    if command.log:
        into = _quoted(command.log, places)
        line += f" >> {into} 2>&1" if command.pid else f" > {into}"
    line += " &" * bool(command.pid)
    if not command.text:
        return line, ""
    if not command.text.endswith("\n"):  # what follows << always ends with a line's end
        start = f"printf %s {_quoted(command.text, places)}"
        return f"{start}{line.removeprefix('cat')}" if command.args == ["cat"] else f"{start} | {line}", ""
    end = "EOF"
    while f"\n{end}\n" in f"\n{command.text}":
        end += "_"
    return f"{line} <<'{end}'", f"\n{command.text}{end}"


# ---- paths: nobody's machine in a transcript
def _places(root: Path) -> list[tuple[str, str]]:
    """(path, the variable that stands for it), the longest first."""
    known = {
        "LAB": [root, root.resolve()],
        "VENV": [Path(sys.prefix)],
        "PYTHON": [Path(sys.base_prefix)] if Path.home() in Path(sys.base_prefix).parents else [],
        "LESSON": [HOME],
        "HOME": [Path.home()],
    }
    pairs = {
        str(path): name for name, paths in reversed(known.items()) for path in paths if len(path.parts) > 1
    }
    return sorted(pairs.items(), key=lambda pair: -len(pair[0]))


def _hidden(text: str, places: list[tuple[str, str]]) -> str:
    for path, name in places:
        text = re.sub(rf"{re.escape(path)}(?![\w.-])", f"${name}", text)
    return text


def _joined(args: Iterable[str], places: list[tuple[str, str]]) -> str:
    return " ".join(_quoted(arg, places) for arg in args)


def _quoted(word: str, places: list[tuple[str, str]]) -> str:
    """A word for a shell; a path below a known place begins with its variable."""
    for path, name in places:
        before, found, after = word.partition(path)
        if found and (not after or after[0] == "/"):
            inside = [re.sub(r'([\\"$`])', r"\\\1", part) for part in (before, after)]
            return f'"{inside[0]}${name}{inside[1]}"'
    if "'" in word and not re.search(r'["$`\\!]', word):
        return f'"{word}"'
    return shlex.quote(word)
