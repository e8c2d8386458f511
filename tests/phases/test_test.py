"""Test: the built wheel is what is tested, the gate closes for good reasons, and bugs escape all the same."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from devops_lab.errors import BadInput, TimedOut
from devops_lab.model import Bug, Case, TestReport
from devops_lab.phases.build import Build
from devops_lab.phases.test import Gate, Test
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git
from devops_lab.platform.processes import processes_of
from tests.shoplab import commit, found, say_tested

FROM_THE_WHEEL = """
from pathlib import Path
import bento

def test_the_wheel_is_what_is_tested():
    assert "site-packages" in bento.__file__
    assert not Path("src").exists()
"""


@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "ein Läb", tmp_path_factory)


def test_the_suite_runs_against_the_wheel(world: LabContext) -> None:
    commit(world, "test: where it runs", "tests/unit/test_where.py", FROM_THE_WHEEL)
    artifact = Build(world).run()
    told: list[Case] = []
    report = Test(world).run(artifact, told.append)
    assert report.passed, report.gate
    assert len(report.cases) >= 40
    assert {case.suite for case in report.cases} == {"unit", "integration", "contract"}
    assert sorted((c.name, c.outcome) for c in told) == sorted((c.name, c.outcome) for c in report.cases)
    assert "unit/test_where::test_the_wheel_is_what_is_tested" in {case.name for case in report.cases}
    assert sum(case.seconds for case in report.cases) <= report.seconds
    assert 80 < report.coverage_percent <= 100
    assert {"app.py", "orders.py", "search.py"} <= set(report.coverage)
    assert min(report.coverage.values()) < report.coverage_percent < max(report.coverage.values())
    assert world.store.last(TestReport) == report
    assert world.store.trail(f"report:{report.key}")[0][2] == f"artifact:{artifact.digest}"
    assert world.store.events(kind="test.done")[0].data["passed"] is True


def only_test(world: LabContext, text: str) -> None:
    """Leave the shop with one quick test module."""
    git(world.shop, "rm", "-r", "--quiet", "tests")
    commit(world, "test: only this one", "tests/unit/test_only.py", text)


def test_a_red_test_closes_the_gate(world: LabContext) -> None:
    only_test(world, "def test_sum():\n    assert 1 + 1 == 3\n\ndef test_fine():\n    import bento.menu\n")
    Build(world).run()
    report = Test(world).run()
    assert not report.passed
    assert [(c.name, c.outcome) for c in report.cases] == [
        ("unit/test_only::test_sum", "failed"),
        ("unit/test_only::test_fine", "passed"),
    ]
    assert "assert (1 + 1) == 3" in report.cases[0].message
    assert "unit/test_only::test_sum" in report.gate[0]
    assert "coverage" in report.gate[1]


def test_a_suite_that_does_not_even_load_closes_the_gate(world: LabContext) -> None:
    only_test(world, "import no_such_module\n")
    Build(world).run()
    report = Test(world).run()
    assert [case.outcome for case in report.cases] == ["error"]
    assert not report.passed


def test_a_suite_that_hangs_is_ended(world: LabContext) -> None:
    only_test(world, "import time\n\ndef test_hang():\n    time.sleep(60)\n")
    artifact = Build(world).run()
    with pytest.raises(TimedOut, match="longer than 6 s"):
        Test(world, Gate(seconds=3)).run(artifact)
    assert world.store.last(TestReport) is None
    assert not processes_of(world.root)


def test_the_bars_of_the_gate(world: LabContext) -> None:
    good = Case("unit/a::b", "unit", "passed", 0.1)
    report = TestReport("c", "d", [good], 95.0, 1.0, 0.0)
    gate = Test(world).gate
    assert gate(report) == []
    assert "coverage is 50.0 %" in gate(replace(report, coverage_percent=50.0))[0]
    assert "no test ran" in gate(replace(report, cases=[]))[0]
    assert "1 tests were skipped" in gate(replace(report, cases=[good, replace(good, outcome="skipped")]))[0]
    assert "1 of 1 tests failed" in gate(replace(report, cases=[replace(good, outcome="error")]))[0]
    assert "61.0 s" in gate(replace(report, seconds=61.0))[0]


def test_without_a_built_wheel_there_is_nothing_to_test(world: LabContext) -> None:
    with pytest.raises(BadInput):
        Test(world).run()


def test_planted_bugs_are_caught_or_escape_and_are_remembered(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    head = git(world.shop, "rev-parse", "HEAD")
    told: list[Bug] = []
    bugs = Test(world).planted(["wrong-total", "quantity-limit", "syntax-error-ts"], told.append)
    assert [(bug.change, bug.caught) for bug in bugs] == [
        ("wrong-total", False),
        ("quantity-limit", True),
        ("syntax-error-ts", True),
    ]
    assert bugs[1].by
    assert set(bugs[1].suites) <= {"unit", "integration", "contract"}
    assert bugs[2].suites == ["build"]
    assert sorted(b.change for b in told) == sorted(b.change for b in bugs)
    assert git(world.shop, "rev-parse", "HEAD") == head
    assert not [name for name in os.listdir(world.work) if name.startswith("planted")]
    monkeypatch.delattr(Test, "plant")  # what is known is not measured again
    assert Test(world).planted(["wrong-total"]) == bugs[:1]


def test_a_new_test_catches_what_escaped(world: LabContext) -> None:
    before, after = Test(world).what_a_new_test_changes("wrong-total", "fix-wrong-total")
    assert not before.caught
    assert after.caught
    assert after.by


def test_a_green_report_counts_for_its_own_bytes_and_commit_only(world: LabContext) -> None:
    artifact = Build(world).run()
    assert Test(world).passing(artifact) is None
    report = say_tested(world, artifact)
    assert Test(world).passing(artifact) == report
    other = replace(artifact, commit="0" * 40)  # the same wheel, with other tests beside it
    assert Test(world).passing(other) is None
    say_tested(world, other, "1 of 1 tests failed")
    assert Test(world).passing(other) is None
