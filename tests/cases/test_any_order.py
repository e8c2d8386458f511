"""Two notebooks, any order: what learners click, answer and leave open, in whatever order they do it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from devops_lab.errors import BadInput
from devops_lab.exercises import exercise, quiz
from devops_lab.exercises.base import Exercise, Said, close
from devops_lab.exercises.inlab import InLab
from devops_lab.exercises.production import incident
from devops_lab.lab import Lab, clean
from devops_lab.model import AlertRule, Item, Need, Pool, Progress, Replica, Request, ScalingPolicy
from devops_lab.platform import variables
from devops_lab.platform.git import git
from devops_lab.production.drills import DrillRun
from devops_lab.workbook import startup


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab without a production."""
    with Lab.open(tmp_path_factory.mktemp("any") / "lab") as opened:
        yield opened


def answered(lab: Lab, name: str, value: Any) -> str:
    """The state after a first answer, whatever was answered before."""
    lab.store.remove(Progress, name)
    exercise(lab, name).answer(value)
    return exercise(lab, name).verdict().state


# ---- 14c: right stays right
def test_a_solved_exercise_stays_solved(lab: Lab, capsys: pytest.CaptureFixture[str]) -> None:
    """14c: a check after the clean-up, or a later wrong answer, took what was solved off the map."""
    lab.store.put(ScalingPolicy("p95_ms", 50, 2, 4))
    exercise(lab, "operate-2").check()
    lab.store.replace_all(ScalingPolicy, [])
    found = exercise(lab, "operate-2").verdict()
    assert found.state == "right"
    assert "Now: Production is scaled by hand" in found.seen
    kept = lab.store.get(Progress, "operate-2")
    assert kept
    assert (kept.state, kept.attempts) == ("right", 2)
    assert "2 to 4" in kept.seen
    assert "✔" in capsys.readouterr().out
    quiz(lab, "plan").answer(quiz(lab, "plan").quiz.right)
    quiz(lab, "plan").answer("c")
    assert (kept := lab.store.get(Progress, "quiz-plan"))
    assert (kept.state, kept.attempts) == ("right", 2)


def test_a_prediction_that_met_the_truth_is_not_made_again(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong prediction was told the answer, and could be corrected to right."""
    one = InLab(lab, Exercise("plan-9", "predict", "T", "t", ("a",), lambda _, s: close(s, 10.0, 2, "s")))
    one.predict(900)
    assert one.verdict().state == "told"
    one.predict(10)
    assert "900 stands" in capsys.readouterr().out
    assert (one.said().value, one.verdict().state) == (900, "told")
    another = replace(one.exercise, id="plan-8")
    InLab(lab, another).predict(900)
    InLab(lab, another).predict(9)  # a slip that was mended before anything was measured
    assert InLab(lab, another).verdict().state == "right"


# ---- 14d: no dead ends
def test_an_item_that_was_added_can_be_changed_and_taken_out(lab: Lab) -> None:
    """14d: plan-2, added without its need, the third hint ended in "There is an item already"."""
    lab.plan.add(Item("nightly-backup", "Back up", "operations", effort=2, value=3))
    assert "storage" in exercise(lab, "plan-2").verdict().seen
    whole = Item("nightly-backup", "…", "operations", 2, 3, needs=[Need("database", storage_mb=20)])
    lab.plan.add(whole)
    assert exercise(lab, "plan-2").verdict().state == "right"
    assert lab.plan.remove("nightly-backup").id == "nightly-backup"
    assert "nightly-backup" not in {item.id for item in lab.plan.backlog()}
    lab.plan.add(whole)
    known = lab.plan.backlog()[0]
    with pytest.raises(BadInput, match="already"):
        lab.plan.add(known)  # the shop's own
    lab.plan.add(Item("restore-test", "Try it", "operations", 2, 3, depends_on=["nightly-backup"]))
    with pytest.raises(BadInput, match="restore-test depends on"):
        lab.plan.remove("nightly-backup")
    with pytest.raises(BadInput, match="nightly-backup"):
        lab.plan.remove("nightly-bakup")
    assert known in lab.plan.backlog()


def test_evidence_that_was_wrong_can_be_mended(lab: Lab) -> None:
    """repeat-1: an item with invented evidence could not be mended."""
    lab.store.event("operate", "complaint", "complaint:s1@1", "Slow!")
    for evidence, state in ([], "not yet"), (["alert:invented"], "not yet"), (["complaint:s1@1"], "right"):
        lab.plan.add(Item("from-production", "What customers said", "bug", 2, 5, evidence=evidence))
        assert exercise(lab, "repeat-1").verdict().state == state


# ---- right answers in other words, and wrong units
@pytest.mark.parametrize("words", ["{}", " {} ", "{first}", "{upper}", "{} <a.b@example.com>"])
def test_an_author_is_known_by_any_of_their_names(lab: Lab, words: str) -> None:
    """code-2: the first name alone was refused with "was not brought by" them."""
    folder = "src/bento/migrations/"
    newest = max(git(lab.world.shop, "ls-tree", "--name-only", "main", folder).split())
    author = git(lab.world.shop, "log", "--diff-filter=A", "--format=%an", "main", "--", newest)
    said = words.format(author, first=author.split()[0], upper=author.upper())
    assert answered(lab, "code-2", said) == "right"
    assert answered(lab, "code-2", "Linus") == "not yet"
    assert answered(lab, "code-2", "…") == "not yet"


@pytest.mark.parametrize(
    ("above", "for_seconds", "resolve", "state"),
    [
        (5, 0.1, 3, "not yet"),  # was right: seconds and milliseconds mixed up
        (0.2, 3, 0.1, "not yet"),
        (200, 0.1, 100, "not yet"),
        (200_000, 3, 100, "not yet"),
        (200, 3, 0.1, "not yet"),
        (200, 3, 100, "right"),
        (250, 1, 150, "right"),
    ],
)
def test_an_alert_rule_in_other_units_is_not_right(
    lab: Lab, above: float, for_seconds: float, resolve: float, state: str
) -> None:
    """monitor-1 was right with 5 ms for 0.1 s."""
    lab.store.remove(Progress, "monitor-1")
    lab.monitor.add_rule(AlertRule("orders-slow", "p95_ms", above, for_seconds, resolve, "/api/orders"))
    assert exercise(lab, "monitor-1").verdict().state == state


@pytest.mark.parametrize(
    ("said", "state"),
    [
        ("/api/search", "right"),
        ("api/Search/", "right"),
        ("GET /api/search", "right"),
        ("/api/menu", "not yet"),
        ("six", "not yet"),
        ("", "not yet"),
        (6, "not yet"),
    ],
)
def test_an_endpoint_is_known_however_it_is_written(lab: Lab, said: object, state: str) -> None:
    """operate-1 took "/api/search" only."""
    waited = {"/api/search": 2.0, "/api/menu": 1.0}
    lab.store.add_requests([Request(1.0, name, 200, took) for name, took in waited.items()])
    assert answered(lab, "operate-1", said) == state


@pytest.mark.parametrize("limits", [(2, 3), (3, 4), (1, 4)])
def test_a_policy_with_other_limits_is_not_called_two_to_four(lab: Lab, limits: tuple[int, int]) -> None:
    """operate-2 said "2 to 4 replicas" of a policy with 3 to 4."""
    lab.store.remove(Progress, "operate-2")
    lab.store.replace_all(ScalingPolicy, [ScalingPolicy("p95_ms", 50, *limits)])
    assert exercise(lab, "operate-2").verdict().state == "not yet"
    lab.store.replace_all(ScalingPolicy, [ScalingPolicy("p95_ms", 0.05, 2, 4)])  # seconds
    assert exercise(lab, "operate-2").verdict().state == "not yet"
    lab.store.replace_all(ScalingPolicy, [])


@pytest.mark.parametrize("name", ["deploy-2", "repeat-2", "welcome-1"])
def test_a_check_without_production_says_that_it_could_not(lab: Lab, name: str) -> None:
    """deploy-2 and repeat-2 judged what was recorded while nothing ran any more."""
    lab.store.put(Pool("v1", "1.0.0", 3, 100))
    lab.store.put(*(Replica(f"r{n}", "v1", "1.0.0", "", 1, 0, "", "healthy") for n in range(3)))
    if exercise(lab, name).exercise.answer != "none":
        exercise(lab, name).answer("abcdef0")
    found = exercise(lab, name).verdict()
    assert found.state == "could not check"
    lab.store.replace_all(Pool, [])
    lab.store.replace_all(Replica, [])


def test_a_drill_that_was_solved_counts_whatever_came_after_it(lab: Lab) -> None:
    """monitor-3 looked at the newest drill only, and told who had one running that it was not them."""
    solved = DrillRun(1, "s", True, 1.0, 0.1, "restored", "x", 2.0, "a", 3.0, ["x"], 4.0, 5.0)
    lab.store.put(solved, DrillRun(2, "s", True, 6.0, 0.1))
    assert "post_mortem" in incident(lab, Said()).seen or "drill:1" in incident(lab, Said()).seen
    lab.store.remove(DrillRun, solved.key)
    assert "still runs" in incident(lab, Said()).seen


@pytest.mark.parametrize("said", ["a", " A ", "(a)", "a)"])
def test_a_letter_may_be_written_as_it_is_shown(lab: Lab, said: str) -> None:
    quiz(lab, "code").answer(said)
    assert (found := lab.store.get(Progress, "quiz-code"))
    assert found.prediction == "a"
    with pytest.raises(BadInput):
        quiz(lab, "code").answer(1)


# ---- a later cell first, in a new kernel
def test_a_cell_before_the_set_up_cell_is_told_to_run_that_first() -> None:
    """14b: a bare NameError; and once the set-up cell has run, a NameError is the reader's own."""
    environment = variables.reader(PYTHONSTARTUP=str(Path(startup.__file__)))
    manager, client = start_new_kernel(kernel_name="python3", env=environment)
    try:
        for code, told in (("views.show(lab)", True), ("lab = 1", False), ("labb", False)):
            reply = client.execute_interactive(code, store_history=False, output_hook=lambda _: None)
            said = "\n".join(reply["content"].get("traceback", []))
            assert (startup.HINT in said) is told
            assert ("NameError" in said) is (code != "lab = 1")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)


def test_two_notebooks_that_are_opened_at_once_catch_up_one_after_the_other(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """14a: both released 1.0.0, and the second ended in "a released version never changes"."""
    Lab.open(tmp_path / "lab").close()

    def opened(_: int) -> list[str]:
        with Lab.open(tmp_path / "lab") as mine:
            return mine.catch_up("release")

    with ThreadPoolExecutor(2) as both:
        done = sorted(both.map(opened, range(2)), key=len)
    assert done[0] == []
    assert len(done[1]) >= 3
    assert "Another notebook catches up" in capsys.readouterr().out
    clean(tmp_path / "lab")
