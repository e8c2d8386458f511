"""How every notebook is built: short cells, enough prose, its parts in their order, and clean outputs."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path
from typing import Any

import nbformat
import pytest

from devops_lab.exercises import catalogue
from devops_lab.model import PHASES
from devops_lab.workbook.options import OWN_PARAMETERS

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]-*.ipynb"))
NAMES = ["welcome", *PHASES, "repeat", "continuous"]
LONGEST = 10
WORDS_A_MINUTE = 200
# at the class pace, by test_reader.py, on a machine with nothing else to do; half a minute in the others
WAITED_MINUTES = {"04-test": 1.5, "06-deploy": 2, "07-operate": 5, "08-monitor": 3, "09-repeat": 1}
MACHINE = re.compile(
    r"(?<![\w.:/])/(?:home|root|Users|tmp|work|private|var/folders)/\w|[A-Z]:\\\\Users|0x[0-9a-f]{9,}"
)
FOREIGN_HOST = re.compile(r"https?://(?!127\.0\.0\.1|localhost)[\w.-]+")
PAPERS = (
    "semver.org",
    "keepachangelog.com",
    "conventionalcommits.org",
    "dora.dev",
    "kubernetes.io",
    "sre.google",
)

pytestmark = pytest.mark.skipif(not NOTEBOOKS, reason="there are no notebooks yet")
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path: Path) -> Any:
    return nbformat.read(path, as_version=4)


def code(path: Path) -> list[Any]:
    return [cell for cell in read(path).cells if cell.cell_type == "code"]


def prose(path: Path) -> list[str]:
    return [cell.source for cell in read(path).cells if cell.cell_type == "markdown"]


def is_work_cell(source: str) -> bool:
    """A cell where the reader writes: comments only."""
    return bool(source.strip()) and all(line.startswith("#") for line in source.splitlines() if line.strip())


def test_there_are_eleven_in_the_order_of_the_lifecycle() -> None:
    assert [path.stem for path in NOTEBOOKS] == [f"{n:02}-{name}" for n, name in enumerate(NAMES)]


@each
def test_it_is_a_valid_python_notebook(path: Path) -> None:
    notebook = read(path)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert len({cell.id for cell in notebook.cells}) == len(notebook.cells)
    assert "widgets" not in notebook.metadata
    assert "papermill" not in json.dumps(notebook.metadata)


@each
def test_code_cells_are_short_and_without_magic(path: Path) -> None:
    for number, cell in enumerate(code(path), 1):
        lines = [line for line in cell.source.splitlines() if line.strip()]
        assert len(lines) <= LONGEST, f"code cell {number} has {len(lines)} lines"
        assert not any(line.lstrip().startswith(("!", "%")) for line in lines), f"code cell {number}"
        tree = ast.parse(cell.source)
        defined = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
        assert not defined, f"code cell {number} defines {defined[0].name}: that belongs into the package"
        drawn = [
            n
            for n in ast.walk(tree)
            if isinstance(n, ast.Import) and n.names[0].name.startswith("matplotlib")
        ]
        assert not drawn, f"code cell {number} draws by itself: figures live in views"


@each
def test_the_median_cell_is_small(path: Path) -> None:
    sizes = sorted(len(cell.source.splitlines()) for cell in code(path))
    assert sizes[len(sizes) // 2] <= 4


@each
def test_there_is_at_least_as_much_prose_as_code(path: Path) -> None:
    words = sum(len(text.split()) for text in prose(path))
    assert words >= sum(len(cell.source.split()) for cell in code(path))


@each
def test_it_has_one_parameters_cell_with_the_common_names(path: Path) -> None:
    tagged = [cell for cell in code(path) if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    assert tagged[0] is not None
    names = {n.id for n in ast.walk(ast.parse(tagged[0].source)) if isinstance(n, ast.Name)}
    assert set(OWN_PARAMETERS) <= names
    assert code(path)[0].id == tagged[0].id


@each
def test_its_parts_are_there_in_their_order(path: Path) -> None:
    text = "\n".join(prose(path))
    assert prose(path)[0].startswith("# ")
    places = [
        text.lower().find(f"## {part}") for part in ("break it", "exercises", "clean up", "what you learned")
    ]
    assert -1 not in places, places
    assert places == sorted(places)
    assert "minutes" in text.lower()
    assert "Lab.open(" in code(path)[1].source
    if path != NOTEBOOKS[-1]:
        following = NOTEBOOKS[NOTEBOOKS.index(path) + 1].name
        assert following in text[places[-1] :], f"does not lead on to {following}"


def minutes(path: Path) -> float:
    """What a reader needs, but for waiting: to read, to look over code and outputs, to guess, to solve."""
    read_words, seen_words, thinking = sum(map(words, prose(path))), 0.0, 0.0
    for cell in code(path):
        if found := re.fullmatch(r'exercise\(lab, "([\w-]+)"\)', cell.source):
            exercise = catalogue()[found[1]]
            read_words += words(exercise.task)
            thinking += 1 + exercise.points
            continue
        outputs = [o.get("text") or o.get("data", {}).get("text/plain", "") for o in cell.outputs]
        seen_words += words(cell.source) + sum(map(words, outputs))
        thinking += cell.source.startswith("predict(") / 3
    return (read_words + seen_words / 2) / WORDS_A_MINUTE + thinking


def words(text: str) -> int:
    return len(re.findall(r"\S*[A-Za-z]\S*", text))


def told_minutes(path: Path) -> int:
    found = re.search(r"\*\*Time:\*\* (\d+) minutes", "\n".join(prose(path)))
    assert found, "tells no time"
    return int(found[1])


@each
def test_the_time_that_it_tells_is_what_a_reader_needs(path: Path) -> None:
    told, needed = told_minutes(path), minutes(path) + WAITED_MINUTES.get(path.stem, 0.5)
    assert abs(told - needed) <= told / 4, f"tells {told} minutes, needs {needed:.0f}"


@each
def test_all_exercises_of_its_phase_are_in_it(path: Path) -> None:
    phase = path.stem.partition("-")[2]
    wanted = {name for name in catalogue() if name.partition("-")[0] == phase}
    source = "\n".join(cell.source for cell in code(path))
    used = set(re.findall(r"exercise\(lab, [\"'](\S+?)[\"']", source))
    assert used == wanted
    assert source.count(".check()") >= len(wanted)


@each
def test_links_to_other_notebooks_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+\.ipynb)", "\n".join(prose(path))):
        assert (path.parent / target).exists(), target


@each
def test_outputs_are_those_of_one_clean_run(path: Path) -> None:
    cells = [cell for cell in code(path) if cell.source.strip()]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    for number, cell in enumerate(cells, 1):
        for output in cell.outputs:
            assert output.output_type != "error", f"code cell {number}"
            assert output.get("name") != "stderr", f"code cell {number}: {output.text}"
            assert "application/vnd.jupyter.widget-view+json" not in output.get("data", {}), (
                f"code cell {number}"
            )
            if "image/png" in output.get("data", {}):
                assert output.metadata.get("image/png", {}).get("alt"), (
                    f"code cell {number}: no alternative text"
                )


@each
def test_nothing_in_it_tells_of_a_machine(path: Path) -> None:
    for cell in read(path).cells:
        said = [o.get("text", "") for o in cell.get("outputs", [])]
        said += [
            str(v) for o in cell.get("outputs", []) for k, v in o.get("data", {}).items() if k != "image/png"
        ]
        for text in [cell.source, *said]:
            assert not (found := MACHINE.search(text)), found
            hosts = [h for h in FOREIGN_HOST.findall(text) if not h.endswith(PAPERS)]
            assert not [h for h in hosts if "example" not in h], hosts
