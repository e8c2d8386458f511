"""Reads the imports of `devops_lab`, of every kind, and keeps the arrows between its rooms pointing down."""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "devops_lab"

# A module uses only modules of its own room and of rooms that stand above it here.
ROOMS = [
    *("errors", "model", "platform", "shop", "platform.engines", "platform.traffic", "platform.context"),
    *("platform.relocation", "platform.monitoring", "platform.agent"),
    *("planning", "delivery", "production", "phases", "production.drills"),
    *("pipeline", "lab", "views", "exercises", "workbook", "workbook.classroom", "commands"),
]
TOOLS = {"errors", "model", "platform"}
NARROW = {  # what draws and asks acts on nothing; an engine keeps no records
    "views": TOOLS | {"views"},
    "exercises": TOOLS | {"exercises", "lab", "views"},
    "platform.engines": TOOLS | {"platform.engines", "shop"},
}


def sources() -> dict[str, str]:
    """Each module's dotted name inside of the package, and its text."""
    found = {
        ".".join(path.relative_to(PACKAGE).with_suffix("").parts).removesuffix(".__init__"): path.read_text(
            "utf-8"
        )
        for path in sorted(PACKAGE.rglob("*.py"))
        if PACKAGE / "shop" / "template" not in path.parents
    }
    return {name: text for name, text in found.items() if name != "__init__"}


def imported(text: str) -> Iterator[str]:
    """The dotted names that a text imports, also inside functions and for types alone."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports say the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def arrows(modules: Mapping[str, str]) -> dict[str, set[str]]:
    """Each module > the modules of the package that it imports."""

    return {
        name: {
            used
            for each in imported(text)
            if each.startswith("devops_lab.") and (used := _module(each, modules)) not in ("", name)
        }
        for name, text in modules.items()
    }


def _module(name: str, modules: Mapping[str, str]) -> str:
    parts = name.split(".")[1:]
    while parts and ".".join(parts) not in modules:
        parts.pop()
    return ".".join(parts)


def room(module: str) -> str:
    """The room that a module stands in: the longest of ROOMS that its name begins with."""
    fitting = [each for each in ROOMS if f"{module}.".startswith(f"{each}.")]
    return max(fitting, key=len, default="")


def pairs(modules: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name, used) for name, all_used in arrows(modules).items() for used in sorted(all_used)]


def pointing_up(modules: Mapping[str, str]) -> set[str]:
    return {
        f"{name} > {used}"
        for name, used in pairs(modules)
        if room(name) and ROOMS.index(room(used)) > ROOMS.index(room(name))
    }


def circle(graph: Mapping[str, set[str]]) -> list[str]:
    """The modules of one circle, in order; empty where there is none."""
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return list(error.args[1])
    return []


def test_every_module_stands_in_a_room() -> None:
    assert [name for name in sources() if not room(name)] == ["__main__"]
    entries = [path for path in PACKAGE.iterdir() if path.name not in ("__pycache__", "py.typed")]
    assert len(entries) <= 16


def test_arrows_point_down() -> None:
    assert pointing_up(sources()) == set()


def test_nothing_stands_in_a_circle() -> None:
    assert circle(arrows(sources())) == []


def test_who_draws_acts_on_nothing() -> None:
    wrong = [
        f"{name} > {used}"
        for name, used in pairs(sources())
        if room(name) in NARROW and room(used) not in NARROW[room(name)]
    ]
    assert wrong == []


def test_a_module_is_short_enough_to_be_read_at_once() -> None:
    """What interrupts its story belongs into a module of its own."""
    assert {name: n for name, text in sources().items() if (n := text.count("\n")) > 350}.keys() <= {
        "phases.operate"
    }


def test_only_the_docker_engine_talks_to_docker() -> None:
    users = {
        name
        for name, text in sources().items()
        if any(each.split(".")[0] == "docker" for each in imported(text))
    }
    assert users <= {"platform.engines.address", "platform.engines.docker"}


def test_the_shop_is_never_imported() -> None:
    users = [
        n for n, text in sources().items() if any(each.split(".")[0] == "bento" for each in imported(text))
    ]
    assert users == []


@pytest.mark.parametrize(
    "code",
    [
        "import devops_lab.views.board",
        "def f():\n    from devops_lab.views import board",
        "from devops_lab.views.board import draw",
        "if TYPE_CHECKING:\n    from devops_lab.views import board",
    ],
)
def test_an_arrow_is_found_in_every_form(code: str) -> None:
    modules = {"phases.build": code, "views": "", "views.board": "from devops_lab.phases import build"}
    assert pointing_up(modules) == {"phases.build > views.board"}
    assert set(circle(arrows(modules))) == {"phases.build", "views.board"}
