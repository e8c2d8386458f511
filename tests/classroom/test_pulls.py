"""nbgitpuller, really: newer revisions of the workbook are pulled over a reader's work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from devops_lab.platform.git import git, identity
from devops_lab.workbook import copies
from tests.classroom import nbgrader
from tests.workbook.test_copies import notebook, words

pytestmark = pytest.mark.nbgrader


def publish(origin: Path, name: str, text: str, revision: int) -> None:
    """Write a notebook, one line for each word, as ours are kept, and commit it."""
    (origin / name).write_text(json.dumps(notebook(text), indent=1) + "\n", encoding="utf-8")
    git(origin, "add", "--all")
    git(origin, "commit", "--quiet", "--message", f"revision {revision}", env=identity("Author"))


def edit(path: Path, was: str, now: str, own: str) -> None:
    """What a reader does: change a cell, and add one after it."""
    book = json.loads(path.read_text("utf-8"))
    place = next(n for n, cell in enumerate(book["cells"]) if "".join(cell["source"]) == was)
    book["cells"][place]["source"] = [now]
    book["cells"].insert(place + 1, notebook(f"{own}:{own}")["cells"][0])
    path.write_text(json.dumps(book, indent=1) + "\n", encoding="utf-8")


def test_five_revisions_that_are_pulled_lose_nothing(tmp_path: Path) -> None:
    origin, home, own = tmp_path / "origin", tmp_path / "home", tmp_path / "home" / "my-lab" / "notebooks"
    home.mkdir()
    git(tmp_path, "init", "--quiet", "--initial-branch", "main", str(origin))
    clone, name = home / "workbook", "00-welcome.ipynb"
    for revision in range(1, 7):
        publish(origin, name, f"a:a{revision} b:b c:c{revision} d:d e:e{revision} f:f", revision)
        if revision == 3:
            publish(origin, "01-plan.ipynb", "p:p", revision)
        nbgrader.call(home, "nbgitpuller.pull", origin.as_uri(), "main", clone.name)
        copies.refresh(sorted(clone.glob("*.ipynb")), own)
        if revision == 1:  # the reader works in their copy, and once in the clone itself
            edit(own / name, "b", "mine", "copy1")
            edit(clone / name, "d", "clone", "clone1")
        if revision == 4:
            edit(own / name, "f", "later", "copy4")
    copied, pulled = (words(json.loads((folder / name).read_text("utf-8"))) for folder in (own, clone))
    assert copied == "a:a6 b:mine copy1:copy1 c:c6 d:clone clone1:clone1 e:e6 f:later copy4:copy4"
    assert pulled == "a:a6 b:b c:c6 d:clone clone1:clone1 e:e6 f:f"
    assert (own / "01-plan.ipynb").exists()
