"""Reads the imports of `devops_lab`, and keeps the arrows between its rooms pointing down."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "devops_lab"

PLAIN = {"model", "errors"}
GROUND = PLAIN | {"settings", "store", "waits", "git", "processes"}
PHASES = GROUND | {"engines", "traffic", "control", "shop"}
LAB = PHASES | {"phases", "pipeline", "agent", "story"}
FRONT = LAB | {"lab", "views", "exercises"}
WORKBOOK = {"selection", "jupyter", "kernels", "progress", "book", "saved"}

# What each room may import, in reading order: a room uses only rooms that stand above it here.
ROOMS: dict[str, set[str]] = {
    "model": set(),
    "errors": {"model"},
    "settings": PLAIN,
    "logbook": PLAIN,
    "store": PLAIN | {"logbook"},
    "waits": PLAIN,
    "git": PLAIN,
    "processes": PLAIN,
    "engines": GROUND - {"store"},
    "traffic": GROUND,
    "control": GROUND,
    "shop": GROUND,
    "phases": PHASES,
    "pipeline": PHASES | {"phases"},
    "agent": PHASES | {"phases"},
    "story": PHASES | {"phases", "pipeline", "agent"},
    "consequences": PLAIN | {"story"},
    "lab": LAB,
    "views": PLAIN | {"settings", "store"},
    "exercises": PLAIN | {"settings", "store", "git"},
    "doctor": FRONT,
    "selection": PLAIN | {"settings"},
    "jupyter": PLAIN | {"settings"},
    "kernels": PLAIN | {"jupyter"},
    "progress": PLAIN,
    "book": PLAIN | {"settings"},
    "saved": PLAIN | {"settings", "selection"},
    "workbook": FRONT | WORKBOOK,
    "bench": FRONT | WORKBOOK,
    "cli": FRONT | WORKBOOK | {"doctor", "workbook", "bench"},
    "setup_venv": set(),
    "__init__": {"lab"},
    "__main__": {"setup_venv", "cli"},
}


def modules() -> list[Path]:
    return sorted(path for path in PACKAGE.rglob("*.py") if PACKAGE / "shop" / "template" not in path.parents)


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def running_nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node but those below `if TYPE_CHECKING`: what is never run draws no arrow."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            continue
        yield node
        yield from running_nodes(node)


def imported(path: Path) -> set[str]:
    """The dotted names that a module imports, also inside functions; `from a import b` counts as a.b."""
    names: set[str] = set()
    for node in running_nodes(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = ["devops_lab", *path.relative_to(PACKAGE).parts][: -node.level] if node.level else []
            base = ".".join([*package, *([node.module] if node.module else [])])
            names |= {f"{base}.{alias.name}" for alias in node.names}
    return names


def rooms_used(path: Path) -> set[str]:
    return {name.split(".")[1] for name in imported(path) if name.startswith("devops_lab.")}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_is_short_enough_to_be_read_at_once(path: Path) -> None:
    lines = path.read_text("utf-8").splitlines()
    assert len(lines) <= 350, "what interrupts its story belongs into a module of its own"


def test_every_module_stands_in_a_room() -> None:
    assert {room_of(path) for path in modules()} - ROOMS.keys() == set()


def test_arrows_point_one_way() -> None:
    seen: set[str] = set()
    for room, uses in ROOMS.items():
        if room != "__init__":  # `devops_lab.Lab` is a short cut, taken when it is asked for
            assert uses <= seen, f"{room} may use {sorted(uses - seen)}, which stand below it"
        seen.add(room)


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_what_its_room_may_use(path: Path) -> None:
    room = room_of(path)
    surplus = (rooms_used(path) & ROOMS.keys()) - ROOMS.get(room, set()) - {room}
    assert surplus == set()


def test_only_the_docker_engine_talks_to_docker() -> None:
    users = {path for path in modules() if any(name.split(".")[0] == "docker" for name in imported(path))}
    assert users <= {PACKAGE / "engines" / "docker.py"}


def test_the_shop_is_never_imported() -> None:
    assert [path for path in modules() if any(name.split(".")[0] == "bento" for name in imported(path))] == []


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("import devops_lab.views.board", {"views"}),
        ("def f():\n    from devops_lab import views", {"views"}),
        ("from ..views import board", {"views"}),
        ("from . import build", {"phases"}),
        ("if TYPE_CHECKING:\n    from devops_lab.views import x", set()),
    ],
)
def test_imports_are_found_in_every_form(
    code: str, expected: set[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = PACKAGE / "phases" / "imagined.py"
    monkeypatch.setattr(Path, "read_text", lambda self, encoding: code)
    assert rooms_used(module) == expected
