"""Every exercise three ways: the starter must not pass, a wrong answer is seen, the reference passes."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from devops_lab.exercises import catalogue, counts, exercise
from devops_lab.lab import Lab
from devops_lab.model import PHASES, Bug


def load_solutions() -> ModuleType:
    spec = importlib.util.spec_from_file_location("solutions", Path(__file__).with_name("solutions.py"))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


solutions = load_solutions()


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab with a production that some customers have used."""
    opened = Lab.open(tmp_path_factory.mktemp("x") / "lab")
    try:
        opened.catch_up("monitor")
        opened.operate.load(rate=30, seconds=2).wait()
        plant(opened)
        yield opened
    finally:
        opened.clean()


def plant(lab: Lab) -> None:
    """Results of planted bugs, as a real run keeps them; that run has tests of its own."""
    from devops_lab import shop
    from devops_lab.git import git
    from devops_lab.phases.test import Planted

    base = git(lab.world.shop, "rev-parse", "main")
    faults = [change.id for change in shop.changes() if change.kind == "fault"]
    lab.store.put(*(Planted(base, Bug(f, n % 2 == 0, [], [])) for n, f in enumerate(faults)))
    lab.store.event("test", "test.planted", f"commit:{base}")


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", list(catalogue()))
def test_three_ways(lab: Lab, name: str) -> None:
    if name == "test-1":
        plant(lab)
    untouched = exercise(lab, name).verdict()
    assert untouched.state != "right", untouched.seen
    deed, told = solutions.WRONG[name]
    deed(lab)
    wrong = exercise(lab, name).verdict()
    assert wrong.state == "not yet", wrong.seen
    assert told in wrong.seen
    if name in solutions.UNDO:
        solutions.UNDO[name](lab)
    for _ in range(2):
        solutions.RIGHT[name](lab)
        found = exercise(lab, name).verdict()
        assert found.state == "right", found.seen


def test_each_phase_has_two_exercises_and_each_exercise_a_solution() -> None:
    assert all(counts()[phase] >= 2 for phase in (*PHASES, "repeat", "continuous"))
    assert solutions.RIGHT.keys() == solutions.WRONG.keys() == catalogue().keys()


@pytest.mark.parametrize("name", list(catalogue()))
def test_an_exercise_is_complete(name: str) -> None:
    one = catalogue()[name]
    assert len(one.hints) == 3
    assert len(set(one.hints)) == 3
    assert len(one.task.split()) >= 12
    assert one.kind in ("predict", "change", "find")


@pytest.mark.parametrize("name", list(catalogue()))
def test_an_exercise_asks_for_what_its_check_looks_for(name: str) -> None:
    one = catalogue()[name]
    code, known = getattr(one.check, "__code__"), getattr(one.check, "__globals__")  # noqa: B009
    wanted = {n: known[n] for n in code.co_names if n.isupper() and isinstance(known[n], (str, int))}
    text = " ".join([one.task, *one.hints])
    assert {n: value for n, value in wanted.items() if str(value) not in text} == {}
