"""Every exercise three ways: the starter must not pass, wrong ways are seen, two right ways pass."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from devops_lab.exercises import catalogue, counts, exercise
from devops_lab.exercises.inlab import source
from devops_lab.lab import Lab
from devops_lab.model import PHASES, Bug, Case, Progress, TestReport
from tests.exercises import ways, ways_files, ways_more
from tests.exercises.ways import Deed
from tests.shoplab import copied

ALSO = ways.ALSO | ways_files.ALSO | ways_more.ALSO
WRONG = ways.WRONG | ways_files.WRONG | ways_more.WRONG

IN_PRODUCTION = [name for name in catalogue() if name in ways.IN_PRODUCTION]
ASIDE = [name for name in catalogue() if name not in ways.IN_PRODUCTION]


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    """A fresh lab, without a production."""
    opened = Lab.open(tmp_path / "lab")
    try:
        yield opened
    finally:
        opened.clean()


@pytest.fixture(scope="module")
def production(operated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """One lab with a production that some customers have used."""
    opened = copied(operated, tmp_path_factory.mktemp("x") / "lab")
    try:
        opened.catch_up("monitor")
        opened.operate.load(rate=30, seconds=2).wait()
        yield opened
    finally:
        opened.clean()


def plant(lab: Lab) -> None:
    """Results of planted bugs, as a real run keeps them; that run has tests of its own."""
    from devops_lab import shop
    from devops_lab.phases.test import Planted
    from devops_lab.platform.git import git

    base = git(lab.world.shop, "rev-parse", "main")
    faults = [change.id for change in shop.changes() if change.kind == "fault"]
    kinds = [["unit"], ["unit", "contract"], ["integration"], []]
    suites = {f: [] if f == "wrong-total" else kinds[n % 4] for n, f in enumerate(faults)}
    bugs = [Bug(f, bool(red), ["a_test"] if red else [], red) for f, red in suites.items()]
    lab.store.put(*(Planted(base, bug) for bug in bugs))
    lab.store.event("test", "test.planted", f"commit:{base}")


def get_ready(lab: Lab, name: str) -> None:
    """What its notebook has done before the exercise."""
    if name.startswith("build-"):
        lab.build.run()
    if name == "test-5":
        cases = [Case(f"unit/test_a::test_{n}", "unit", "passed", n / 100) for n in range(12)]
        lab.store.put(TestReport("0" * 40, "sha256:0", cases, 90.0, 1.0, lab.store.now()))
    if name in ways.AFTER_A_RELEASE:
        lab.release.release_tag("v1.0.0")
    if name.startswith("repeat-"):
        lab.store.event("operate", "complaint", "complaint:s1@1", "Slow!")
    if name == "test-1":
        plant(lab)


def as_shown(name: str) -> Deed:
    """The very code that the reader is shown, in a cell of its own."""
    names = {"exercise": exercise, "Lab": Lab}
    return lambda lab: exec(source(catalogue()[name]), names | {"lab": lab})


def walk(lab: Lab, name: str) -> None:
    untouched = exercise(lab, name).verdict()
    assert untouched.state not in ("right", "told"), untouched.seen
    told_so = []
    for deed, told in WRONG[name]:
        deed(lab)
        wrong = exercise(lab, name).verdict()
        lab.store.remove(Progress, name)  # a prediction that met the truth can't be made again
        assert wrong.state in ("not yet", "told"), wrong.seen
        assert told in wrong.seen
        told_so.append(wrong.seen)
    assert len(set(told_so)) == len(told_so) >= 3
    for deed in (as_shown(name), as_shown(name), ALSO[name]):
        deed(lab)
        found = exercise(lab, name).verdict()
        assert found.state == "right", found.seen
        lab.store.remove(Progress, name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ASIDE)
def test_each_way(lab: Lab, name: str) -> None:
    get_ready(lab, name)
    walk(lab, name)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize(
    "name",  # deploy-1 predicts seconds, which no two moments of a busy machine share
    [pytest.param(name, marks=[pytest.mark.alone] * (name == "deploy-1")) for name in IN_PRODUCTION],
)
def test_each_way_in_production(production: Lab, name: str) -> None:
    walk(production, name)


@pytest.mark.parametrize("name", [name for name in ASIDE if name not in ways.SLOW])
def test_nobody_is_stuck_a_skip_supplies_the_effect(
    lab: Lab, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    get_ready(lab, name)
    exercise(lab, name).skip()
    kept = exercise(lab, name).progress
    assert kept.state == "skipped"
    assert "done by the lab" in capsys.readouterr().out
    exercise(lab, name).check()
    assert exercise(lab, name).progress.state == "skipped"
    exercise(lab, name).solution()
    assert source(catalogue()[name]) in capsys.readouterr().out


def test_each_room_has_its_exercises_and_each_exercise_its_ways() -> None:
    rooms = [name.partition("-")[0] for name in counts()]
    assert all(rooms.count(phase) >= 4 for phase in (*PHASES, "repeat", "continuous"))
    assert ALSO.keys() == WRONG.keys() == catalogue().keys()
    assert ways.IN_PRODUCTION <= catalogue().keys() >= ways.SLOW


@pytest.mark.parametrize("name", list(catalogue()))
def test_an_exercise_is_complete(name: str) -> None:
    one = catalogue()[name]
    assert one.solution
    assert len(one.hints) == 3
    assert len(set(one.hints)) == 3
    told = [snippet for snippet in re.findall(r"`([^`]+)`", one.hints[2]) if len(snippet) > 20]
    assert [snippet for snippet in told if any(snippet in hint for hint in one.hints[:2])] == []
    assert len(one.task.split()) >= 12
    assert one.kind in ("predict", "change", "find")
    assert (one.kind == "change") <= (one.answer == "none" or bool(one.start))


@pytest.mark.parametrize("name", list(catalogue()))
def test_an_exercise_asks_for_what_its_check_looks_for(name: str) -> None:
    one = catalogue()[name]
    code, known = getattr(one.check, "__code__"), getattr(one.check, "__globals__")  # noqa: B009
    wanted = {n: known[n] for n in code.co_names if n.isupper() and isinstance(known[n], (str, int))}
    text = " ".join([one.task, *one.hints])
    assert {n: value for n, value in wanted.items() if str(value) not in text} == {}
