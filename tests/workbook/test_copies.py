"""The reader's own notebooks: three-way merges, what is kept, what is put aside, and the start again."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest

from devops_lab.errors import BadInput
from devops_lab.lab import Lab, clean
from devops_lab.platform.git import git
from devops_lab.platform.settings import NOTEBOOKS, default_lab_dir
from devops_lab.workbook import copies, jupyterlab, options

Json = dict[str, Any]


def notebook(text: str) -> Json:
    """A notebook from `id:source` words; a source in capitals is a Markdown cell's."""
    cells: list[Json] = []
    for word in text.split():
        name, _, source = word.partition(":")
        cell: Json = {"id": name, "cell_type": "markdown", "metadata": {}, "source": [source]}
        if not source.isupper():
            cell |= {"cell_type": "code", "outputs": [], "execution_count": None}
        cells.append(cell)
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def words(found: Json) -> str:
    return " ".join(f"{c['id']}:{''.join(c['source'])}" for c in found["cells"])


MERGES = {
    "nothing new": ("a:1 b:2", "a:1 b:2", "a:1 b:2", "a:1 b:2"),
    "renewed": ("a:1 b:2", "a:1 b:2", "a:9 b:2", "a:9 b:2"),
    "of another type": ("a:1 b:2", "a:1 b:2", "a:T b:2", "a:T b:2"),
    "changed by the reader": ("a:1 b:2", "a:mine b:2", "a:1 b:9", "a:mine b:9"),
    "changed by both": ("a:1 b:2", "a:mine b:2", "a:9 b:2", "a:mine b:2"),
    "changed alike": ("a:1 b:2", "a:9 b:2", "a:9 b:3", "a:9 b:3"),
    "own cells stay after what they followed": (
        "a:1 b:2",
        "x:x a:1 y:y z:z b:2",
        "a:9 b:2",
        "x:x a:9 y:y z:z b:2",
    ),
    "a new cell after its predecessor": ("a:1 b:2", "a:1 b:2", "n:0 a:1 m:5 b:2", "n:0 a:1 m:5 b:2"),
    "a new cell beside an own one": ("a:1 b:2", "a:1 y:y b:2", "a:1 n:5 b:2", "a:1 y:y n:5 b:2"),
    "taken out": ("a:1 b:2 c:3", "a:1 b:2 c:3", "a:1 c:3", "a:1 c:3"),
    "taken out, but changed": ("a:1 b:2 c:3", "a:1 b:mine c:3", "a:1 c:3", "a:1 b:mine c:3"),
    "what an own cell followed is taken out": ("a:1 b:2 c:3", "a:1 b:2 y:y c:3", "a:1 c:3", "a:1 y:y c:3"),
    "removed by the reader": ("a:1 b:2 c:3", "a:1 c:3", "a:1 b:9 c:4", "a:1 c:4"),
    "moved by the workbook": ("a:1 b:2 c:3", "a:1 y:y b:2 c:3", "c:3 a:1 b:2", "c:3 a:1 y:y b:2"),
    "moved by the reader": ("a:1 b:2 c:3", "c:3 a:1 b:2 y:y", "a:9 b:2 n:5 c:3", "c:3 a:9 b:2 n:5 y:y"),
    "its base is lost": ("", "a:mine b:2", "a:1 b:2 c:3", "a:mine b:2 c:3"),
    "everything is the reader's": ("a:1", "x:x y:y", "a:1 b:2", "x:x y:y b:2"),
}


@pytest.mark.parametrize("case", MERGES)
def test_merge(case: str) -> None:
    base, mine, new, expected = map(notebook, MERGES[case])
    merged = copies.merge(base, mine, new)
    assert words(merged) == words(expected)
    assert copies.merge(new, merged, new) == merged, "the same version once more changes nothing"
    assert copies.merge(base, merged, new) == merged, "nor does it after an end in the middle"


def test_outputs_stay_where_they_fit_and_metadata_is_merged_by_key() -> None:
    base, mine, new = notebook("a:1 b:2"), notebook("a:1 b:2"), notebook("a:1 b:9")
    for cell in mine["cells"]:
        cell |= {"outputs": [{"output_type": "stream"}], "execution_count": 3, "metadata": {"scrolled": True}}
    new["cells"][0]["metadata"] = {"tags": ["parameters"]}
    first, second = copies.merge(base, mine, new)["cells"]
    assert (first["execution_count"], len(first["outputs"])) == (3, 1)
    assert first["metadata"] == {"tags": ["parameters"], "scrolled": True}
    assert (second["execution_count"], second["outputs"]) == (None, [])


def test_a_second_cell_of_the_same_id_is_the_readers() -> None:
    base, new = notebook("a:1 b:2"), notebook("a:9 b:2")
    assert words(copies.merge(base, notebook("a:1 a:copy b:2"), new)) == "a:9 a:copy b:2"


# ---- five revisions in a row
@pytest.fixture
def workbook(tmp_path: Path) -> Path:
    folder = tmp_path / "workbook"
    folder.mkdir()
    write(folder / "01-plan.ipynb", notebook("a:1 b:2 c:TEXT"))
    return folder


def write(path: Path, content: Json) -> None:
    path.write_text(json.dumps(content))


def renew(workbook: Path, own: Path) -> list[str]:
    return copies.refresh(sorted(workbook.glob("*.ipynb")), own)


@pytest.mark.parametrize("seed", range(20))
def test_five_revisions_lose_nothing_of_the_readers(workbook: Path, tmp_path: Path, seed: int) -> None:
    """Between them the reader adds, changes and removes cells at random, and so does the workbook."""
    chance, own, fresh = random.Random(seed), tmp_path / "own", iter(range(1000, 9999))
    names = [f"c{n}" for n in range(8)]
    write(workbook / "01-plan.ipynb", current := notebook(" ".join(f"{n}:0" for n in names)))
    mine: dict[str, str] = {}  # what the reader wrote, by id
    for revision in range(6):
        renew(workbook, own)
        got = copies.read(own / "01-plan.ipynb")
        texts = {c["id"]: "".join(c["source"]) for c in got["cells"]}
        assert len(texts) == len(got["cells"])
        assert mine.items() <= texts.items(), "nothing of the reader's is lost"
        now = {c["id"]: c["source"][0] for c in current["cells"]}
        assert all(texts[n] == now[n] for n in now.keys() & texts.keys() - mine.keys()), "the rest is renewed"
        assert not texts.keys() - mine.keys() - now.keys(), "and nothing old stays"
        for place in chance.sample(range(len(got["cells"])), 2):  # the reader's turn
            got["cells"][place]["source"] = [f"mine{next(fresh)}"]
            got["cells"].insert(place, notebook(f"own{next(fresh)}:added{next(fresh)}")["cells"][0])
        gone = chance.choice(got["cells"])
        got["cells"].remove(gone)
        mine = {c["id"]: t for c in got["cells"] if not (t := "".join(c["source"])).isdigit()}
        write(own / "01-plan.ipynb", got)
        cells = current["cells"]  # the workbook's
        chance.choice(cells)["source"] = [str(revision + 1)]
        cells.remove(chance.choice(cells))
        cells.insert(chance.randrange(len(cells)), notebook(f"new{next(fresh)}:{revision}")["cells"][0])
        write(workbook / "01-plan.ipynb", current)


# ---- files
def test_copies_have_no_outputs_and_rest_when_nothing_is_new(workbook: Path, tmp_path: Path) -> None:
    source = notebook("a:1 c:TEXT")
    source["cells"][0] |= {"outputs": [{"output_type": "stream"}], "execution_count": 1}
    write(workbook / "01-plan.ipynb", source)
    own = tmp_path / "own"
    assert renew(workbook, own) == []
    copy = own / "01-plan.ipynb"
    assert copies.read(copy) == notebook("a:1 c:TEXT")
    write(copy, notebook("a:mine c:TEXT"))
    before = copy.stat()
    assert renew(workbook, own) == []
    assert copy.stat() == before, "an editor that has it open is not disturbed"
    assert copies.touched(workbook / "01-plan.ipynb", own) == "1 changed"


def test_a_clash_is_told_once_and_the_readers_stays(workbook: Path, tmp_path: Path) -> None:
    renew(workbook, own := tmp_path / "own")
    write(own / "01-plan.ipynb", notebook("a:mine b:2 c:TEXT"))
    write(workbook / "01-plan.ipynb", notebook("a:9 b:9"))
    assert [line for line in renew(workbook, own) if "you changed 1 cells" in line]
    assert renew(workbook, own) == []
    assert words(copies.read(own / "01-plan.ipynb")) == "a:mine b:9"


@pytest.mark.parametrize("damage", ["{", "[]", '{"cells": 1}', "\xff\xfe", ""])
def test_a_damaged_copy_is_put_aside_with_a_word(workbook: Path, tmp_path: Path, damage: str) -> None:
    renew(workbook, own := tmp_path / "own")
    (own / "01-plan.ipynb").write_bytes(damage.encode("latin-1"))
    (line,) = renew(workbook, own)
    (aside,) = (own / "before").glob("*")
    assert str(aside) in line
    assert aside.read_bytes() == damage.encode("latin-1")
    assert words(copies.read(own / "01-plan.ipynb")) == "a:1 b:2 c:TEXT"


def test_another_notebook_of_the_same_name_is_put_aside(workbook: Path, tmp_path: Path) -> None:
    (own := tmp_path / "own").mkdir()
    write(own / "01-plan.ipynb", notebook("thesis:42"))
    (line,) = renew(workbook, own)
    assert "another notebook" in line
    (aside,) = (own / "before").glob("*")
    assert words(copies.read(aside)) == "thesis:42"


def test_what_cant_be_written_is_told_and_leaves_the_copy(
    workbook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    renew(workbook, own := tmp_path / "own")
    write(workbook / "01-plan.ipynb", notebook("a:9"))

    def refused(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("os.replace", refused)
    with pytest.raises(BadInput, match=r"can't be written: Permission denied"):
        renew(workbook, own)
    monkeypatch.undo()
    assert words(copies.read(own / "01-plan.ipynb")) == "a:1 b:2 c:TEXT"
    (tmp_path / "file").touch()
    with pytest.raises(BadInput, match="can't be written"):
        renew(workbook, tmp_path / "file" / "own")


def test_a_copy_goes_back_to_the_start_and_the_readers_is_kept(workbook: Path, tmp_path: Path) -> None:
    renew(workbook, own := tmp_path / "own")
    mine = notebook("a:mine x:x")
    write(own / "01-plan.ipynb", mine)
    (line,) = copies.restore(workbook.glob("*.ipynb"), own)
    assert words(copies.read(own / "01-plan.ipynb")) == "a:1 b:2 c:TEXT"
    (aside,) = (own / "before").glob("*")
    assert str(aside) in line
    assert copies.read(aside) == mine
    assert copies.touched(workbook / "01-plan.ipynb", own) == ""
    assert copies.restore(workbook.glob("*.ipynb"), own) == ["01-plan.ipynb is as at the start."]


# ---- within a lab
def test_the_clone_stays_clean_and_the_lab_is_founded_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever in the clone the lab lies."""
    clone = tmp_path / "clone"
    (clone / "notebooks").mkdir(parents=True)
    write(clone / "notebooks/00-welcome.ipynb", notebook("a:1"))
    git(tmp_path, "init", "--quiet", str(clone))
    git(clone, "add", "--all")
    git(clone, "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "all")
    monkeypatch.setattr("devops_lab.platform.settings.project_root", lambda: clone)
    started: list[tuple[list[str], dict[str, str]]] = []
    monkeypatch.setattr("os.execve", lambda _, command, env: started.append((command, env)))
    monkeypatch.setattr("subprocess.run", lambda *_, **__: None)
    root = clone / "läb"
    with pytest.raises(AttributeError):  # there is nothing to become
        jupyterlab.open_jupyter(root, 0, browser=False)
    monkeypatch.undo()
    ((command, env),) = started
    assert f"--ServerApp.root_dir={root}" in command
    assert env["DEVOPS_LAB_DIR"] == str(root)
    assert git(clone, "status", "--porcelain") == ""
    copy = root / NOTEBOOKS / "00-welcome.ipynb"
    write(copy, notebook("a:mine"))
    monkeypatch.chdir(copy.parent)  # a kernel's place, however the copy was opened
    monkeypatch.delenv("DEVOPS_LAB_DIR", raising=False)
    assert default_lab_dir() == root
    Lab.open().close()
    assert words(copies.read(copy)) == "a:mine"
    clean(root)
    assert [path.name for path in root.iterdir()] == [NOTEBOOKS]
    assert words(copies.read(copy)) == "a:mine"
    Lab.open(root).close()
    clean(root)


def test_the_workbooks_own_notebooks_make_whole_copies(tmp_path: Path) -> None:
    notebooks = options.find_notebooks()
    assert copies.refresh(notebooks, tmp_path) == []
    for path in notebooks:
        copy = copies.read(tmp_path / path.name)
        assert [c["id"] for c in copy["cells"]] == [c["id"] for c in copies.read(path)["cells"]]
        assert not [c for c in copy["cells"] if c.get("outputs")]
