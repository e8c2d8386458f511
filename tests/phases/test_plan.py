"""Plan: the backlog is checked to the line, the review finds what the platform can't carry, sprints fit."""

from __future__ import annotations

from datetime import date
from pathlib import Path

import pytest

from devops_lab.errors import BadInput
from devops_lab.model import Item
from devops_lab.phases.plan import Plan
from devops_lab.planning.backlog import read_backlog, with_item
from devops_lab.planning.sprint import monte_carlo
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.shop import found_repository

PLATFORM = """\
services:
  database: {summary: one for all, use: by its URL, variable: DATABASE_URL, try: /readyz}
limits: {memory_mb: 96, cpu_millicores: 500, storage_mb: 200, log_mb_per_minute: 2, replicas: 6}
not_offered:
  gpu: No graphics processors.
"""
BACKLOG = """\
# kept by the team
items:
  - id: A
    title: Big pictures
    kind: feature
    effort: 5
    value: 20
    needs: [{service: gpu}, {storage_mb: 150}, {storage_mb: 100}]
    alternatives:
      - {title: Huge, effort: 9, value: 9, needs: [{memory_mb: 1000}]}
      - title: Small pictures
        effort: 3
        value: 9
        needs: [{storage_mb: 1}]

  - id: B
    title: Search by taste
    kind: feature
    effort: 2
    value: 9
    risk: nobody measured it.
    depends_on: [C]

  # the next one is dull, and B needs it
  - id: C
    title: Index
    kind: operations
    effort: 3
    value: 0
  - id: D
    title: Typo
    kind: bug
    effort: 4
    value: 10

  - {id: X1, title: one, kind: feature, effort: 6, value: 1, status: done, sprint: 1, done_on: 2026-01-02}
  - {id: X2, title: two, kind: feature, effort: 8, value: 1, status: done, sprint: 2, done_on: 2026-01-09}
  - {id: X3, title: three, kind: feature, effort: 20, value: 1, status: done, sprint: 3, done_on: 2026-01-16}
"""


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    git(tmp_path, "init", "--quiet", "--bare", "origin.git")
    git(tmp_path, "clone", "--quiet", "origin.git", "shop")
    shop = tmp_path / "shop"
    (shop / "backlog.yaml").write_text(BACKLOG, encoding="utf-8")
    (shop / "platform.yaml").write_text(PLATFORM, encoding="utf-8")
    git(shop, "add", ".")
    git(shop, "commit", "--quiet", "-m", "chore: start")
    git(shop, "push", "--quiet", "-u", "origin", "main")
    return Plan(LabContext(tmp_path, Settings(learner="Kim"), Store(tmp_path / "lab.db")))


def test_backlog_and_history(plan: Plan) -> None:
    assert [item.id for item in plan.backlog()] == ["A", "B", "C", "D"]
    assert [item.done_on for item in plan.finished()] == ["2026-01-02", "2026-01-09", "2026-01-16"]
    assert plan.capacity() == 8


def test_the_review_holds_needs_against_the_platform(plan: Plan) -> None:
    seen = [(f.item, f.severity, f.alternative, f.problem) for f in plan.review()]
    assert seen == [
        ("A", "blocks", 1, "needs gpu, which the platform does not offer. No graphics processors"),
        ("A", "blocks", 1, "needs 250 MB of storage; the limit is 200"),
        ("B", "risk", -1, "nobody measured it"),
    ]
    assert "Small pictures" in plan.review("A")[0].proposal
    with pytest.raises(BadInput, match="waiting item 'X1'"):
        plan.review("X1")


def test_taken_advice_rewrites_only_that_item_and_reaches_the_origin(plan: Plan) -> None:
    assert plan.decide("A", take=True, why="no room").taken
    item = plan.backlog()[0]
    assert (item.title, item.effort, item.needs[0].storage_mb) == ("Small pictures", 3, 1)
    assert plan.review("A") == []
    assert git(plan.world.origin, "show", "main:backlog.yaml") + "\n" == (
        plan.world.shop / "backlog.yaml"
    ).read_text("utf-8")
    changed = git(plan.world.shop, "show", "--format=%an|%s", "--unified=0").splitlines()
    assert changed[0] == "Kim|docs(backlog): A becomes 'Small pictures'"
    assert [line for line in changed if line.startswith("+ ")] == [
        "+    title: Small pictures", "+    effort: 3", "+    value: 9", "+    time_criticality: 0",
        "+    risk_reduction: 0", "+    needs: [{storage_mb: 1}]", "+    status: ready",
    ]  # fmt: skip
    assert git(plan.world.shop, "status", "--porcelain") == ""
    assert plan.consequences() == []


def test_ignored_advice_is_on_record_and_lets_the_item_through(plan: Plan) -> None:
    with pytest.raises(BadInput, match="A is blocked: it needs gpu"):
        plan.choose(["A"])
    before = git(plan.world.shop, "rev-parse", "main")
    decision = plan.decide("A", take=False, why="marketing wants it")
    assert git(plan.world.shop, "rev-parse", "main") == before
    assert plan.choose(["A"]).items == ["A"]
    event = plan.store.events(kind="plan.decided")[0]
    assert (event.subject, event.why, event.data["taken"]) == ("decision:A", "marketing wants it", False)
    assert "gpu" in decision.advice
    assert ("item:A", "advice ignored", "decision:A") in [row[:3] for row in plan.store.trail("item:A")]


def test_a_decision_needs_advice_and_taking_it_an_alternative(plan: Plan) -> None:
    with pytest.raises(BadInput, match="nothing to say"):
        plan.decide("D", take=True)
    with pytest.raises(BadInput, match="no alternative"):
        plan.decide("B", take=True)
    assert plan.store.events(kind="plan.decided") == []


def test_wsjf_takes_a_dull_dependency_with_what_needs_it(plan: Plan) -> None:
    # D: 10/4 = 2.5; B with C: 9/5 = 1.8; A is blocked, however much it is worth
    assert plan.choose(capacity=9).items == ["D", "C", "B"]
    assert plan.choose(capacity=8).items == ["D", "C"]
    sprint = plan.sprint()
    assert sprint
    assert (sprint.number, sprint.effort, sprint.value, sprint.chosen_by) == (4, 7, 10, "wsjf")


@pytest.mark.parametrize(
    ("items", "said"),
    [
        (["C", "D", "B"], "9 points chosen, 1 too many"),
        (["B"], "B depends on C"),
        (["C", "C"], "C chosen twice"),
        (["c"], "no waiting item 'c'"),
        (["X1"], "no waiting item 'X1'"),
        ([], "No item fits"),
    ],
)
def test_a_sprint_by_hand_that_can_not_be_is_refused(plan: Plan, items: list[str], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        plan.choose(items)
    assert plan.sprint() is None


def test_finish_and_add(plan: Plan) -> None:
    plan.choose(["C"])
    plan.finish("C")
    plan.finish("C")  # safe to repeat
    done = plan.finished()[-1]
    assert (done.id, done.sprint, done.done_on) == ("C", 4, date.today().isoformat())
    plan.add(Item("E", "Leak: mend it", "bug", 1, 8, evidence=["alert:memory"]))
    assert [item.id for item in plan.backlog()] == ["A", "B", "D", "E"]
    assert plan.backlog()[-1].evidence == ["alert:memory"]
    assert ("item:E", "because of", "alert:memory") in [row[:3] for row in plan.store.trail("item:E")]
    with pytest.raises(BadInput, match="already"):
        plan.add(Item("C", "again", "bug", 1, 8))
    assert plan.store.events(kind="repeat.closed") == []  # nothing that production asked for is done yet
    plan.finish("E")
    (closed,) = plan.store.events(kind="repeat.closed")
    assert (closed.subject, "alert:memory" in closed.message) == ("item:E", True)
    text = git(plan.world.origin, "show", "main:backlog.yaml")
    assert "  # the next one is dull, and B needs it\n  - id: C\n" in text
    assert text.index("id: E") < text.index("id: X1")
    assert len(git(plan.world.origin, "log", "--format=%h", "main").split()) == 4


def test_an_item_that_would_break_the_backlog_is_not_written(plan: Plan) -> None:
    before = git(plan.world.shop, "rev-parse", "main")
    with pytest.raises(BadInput, match="depends on 'Z'"):
        plan.add(Item("E", "later", "bug", 1, 8, depends_on=["Z"]))
    assert git(plan.world.shop, "rev-parse", "main") == before
    assert git(plan.world.shop, "status", "--porcelain") == ""


def test_planning_leaves_the_readers_own_work_alone(plan: Plan) -> None:
    shop = plan.world.shop
    (shop / "notes.txt").write_text("half done\n", encoding="utf-8")
    git(shop, "add", "notes.txt")
    git(shop, "switch", "--quiet", "-c", "mine")
    plan.finish("D")
    assert git(shop, "branch", "--show-current") == "mine"
    assert git(shop, "status", "--porcelain") == "A  notes.txt"
    assert [item.id for item in plan.backlog()] == ["A", "B", "C"]  # main's, not the branch's
    git(shop, "switch", "--quiet", "main")
    plan.finish("C")
    assert git(shop, "status", "--porcelain") == "A  notes.txt"


def test_the_forecast_comes_from_the_teams_own_history(plan: Plan) -> None:
    certain = plan.forecast()  # one item a sprint, always
    assert (certain.throughput, certain.remaining, certain.sprints) == ([1, 1, 1], 4, {4: 1.0})
    varied = monte_carlo([1, 2, 3, 0], 6, 10_000, 7)
    assert varied == monte_carlo([1, 2, 3, 0], 6, 10_000, 7)
    assert sum(varied.sprints.values()) == pytest.approx(1)
    assert min(varied.sprints) == 2
    assert varied.sprints[2] == pytest.approx(1 / 16, abs=0.01)
    assert varied.p50 < varied.p85
    for history, remaining, trials in (([1, 2], 5, 100), ([1, 2, 3], 0, 100), ([1, 2, 3], 5, 0)):
        with pytest.raises(BadInput):
            monte_carlo(history, remaining, trials, 7)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("    value: 20\n", "    value: [20\n", "line 8: it does not parse"),
        ("    effort: 5\n", "    effort: five\n", "line 6: effort is wrong"),
        ("    effort: 5\n", "    effort: 0\n", "line 6: A: effort is 0"),
        ("    effort: 4\n", "    efort: 4\n", r"line 33: unknown field 'efort'\.\nExpected: 'effort'"),
        ("    value: 0\n", "    value: -1\n", "line 29: C: value is negative"),
        (
            "    title: Typo\n",
            "",
            r"line 30: item is wrong\.\nExpected: Object missing required field `title`",
        ),
        ("kind: bug", "kind: bugg", "line 32: kind is wrong"),
        ("- id: D", "- id: C", "line 30: a second item has the id 'C'"),
        ("depends_on: [C]", "depends_on: [CC]", "line 22: B depends on 'CC'"),
        ("    value: 0\n", "    value: 0\n    depends_on: [B]\n", "items wait for each other"),
        ("service: gpu", "sevice: gpu", "line 8: unknown field 'sevice'"),
        ("storage_mb: 1}", "storage_mb: much}", r"line 14: alternatives\[1\].needs\[0\].storage_mb is wrong"),
        ("    kind: bug\n", "    kind: bug\n    change: nope\n", "names the change 'nope'"),
        ("sprint: 1,", "", "X1 is done in no sprint"),
    ],
)
def test_a_backlog_that_is_wrong_is_named_with_its_line(old: str, new: str, said: str) -> None:
    assert BACKLOG.count(old) == 1
    with pytest.raises(BadInput, match=said) as caught:
        read_backlog(BACKLOG.replace(old, new), frozenset({"real"}))
    assert "backlog.yaml, line" in str(caught.value)
    assert caught.value.expected
    assert "Mend line" in caught.value.next_step


@pytest.mark.parametrize(
    "text", ["", "items:\n", "- a\n", "items: [3]\n", "items: {a: 1}\n", "\t\n", "a: &x *x\n"]
)
def test_a_backlog_of_another_shape_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match=r"backlog\.yaml, line"):
        read_backlog(text)


def test_a_missing_file_is_said_with_the_way_back(plan: Plan) -> None:
    (plan.world.shop / "backlog.yaml").unlink()
    with pytest.raises(BadInput, match=r"git checkout HEAD -- backlog.yaml"):
        plan.backlog()


def test_writing_an_item_unchanged_changes_nothing_but_its_own_lines() -> None:
    for item in read_backlog(BACKLOG)[:4]:
        text = with_item(BACKLOG, item)
        assert read_backlog(text) == read_backlog(BACKLOG)
        assert with_item(text, item) == text


def test_the_shops_own_plan_can_be_walked(tmp_path: Path) -> None:
    found_repository(tmp_path / "origin.git", tmp_path / "shop", date(2026, 3, 2))
    plan = Plan(LabContext(tmp_path, Settings(), Store(tmp_path / "lab.db")))
    assert {"database", "metrics", "logs", "health", "configuration"} <= set(plan.platform().services)
    blocked = {f.item for f in plan.review() if f.severity == "blocks"}
    assert blocked
    sprint = plan.choose()
    assert not blocked & set(sprint.items)
    assert sprint.effort <= sprint.capacity == plan.capacity()
    assert plan.forecast().p85 >= plan.forecast().p50
    for item in sorted(blocked):
        plan.decide(item, take=True)
    assert not {f.item for f in plan.review() if f.severity == "blocks"}
