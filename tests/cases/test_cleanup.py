"""Clean-up cells end well from whatever state the notebook itself leads to, and say what they did."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from devops_lab.errors import BadInput, LabError
from devops_lab.lab import Lab
from devops_lab.lab.clean_up import ENDS, newest_good
from devops_lab.lab.story import ship
from devops_lab.model import AlertRule, Artifact, ScalingPolicy, Slo, TestReport
from devops_lab.platform.git import git, run
from tests.shoplab import copied, say_tested

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("[0-9][0-9]-*.ipynb"))


@pytest.fixture(scope="module")
def lab(operated: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab with two good versions in its registry, and production on the newer one."""
    opened = copied(operated, tmp_path_factory.mktemp("tidy") / "lab")

    def test_report(artifact: Artifact | None = None, **_: object) -> TestReport:
        return say_tested(opened.world, artifact or opened.build.run())

    opened.test.run = test_report  # type: ignore[assignment]  # the suite's run has tests of its own
    try:
        yield opened
    finally:
        opened.clean()


@pytest.fixture(autouse=True)
def ends_tidy(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that had the lab, no step of any notebook's clean-up finds anything to do."""
    yield
    if "lab" in request.fixturenames:
        lab = request.getfixturevalue("lab")
        steps = dict.fromkeys(step for notebook in ENDS.values() for step in notebook)
        assert [said for step in steps if (said := step(lab))] == []


# ---- the shop's repository
def test_a_build_on_a_branch_is_followed_by_one_of_main(lab: Lab) -> None:
    """13a: after build-2 as its hints say, 03 ended in a bare AssertionError."""
    lab.code.branch("learn/broken-build")
    good = lab.code.write("native/score.c", (lab.world.shop / "native/score.c").read_text() + "\n")
    assert good.exists()
    lab.code.commit("fix: an empty line")
    lab.build.run("learn/broken-build")
    said = "\n".join(lab.tidy("build"))
    assert "main is checked out instead of learn/broken-build" in said
    assert "main is built once more" in said
    newest = lab.store.last(Artifact)
    assert newest
    assert newest.commit == lab.code.head().id == git(lab.world.shop, "rev-parse", "main")


def test_work_that_no_commit_holds_is_kept_on_a_branch(lab: Lab) -> None:
    """An exercise that was left half done: files written, nothing committed."""
    lab.code.branch("learn/greeting")
    lab.code.write("src/bento/greeting.py", "HELLO = 1\n")
    lab.code.write("README.md", "mine\n")
    (said,) = lab.tidy("code")
    assert "main is checked out instead of learn/greeting" in said
    aside = next(word for word in said.split() if word.startswith("aside/")).rstrip(";")
    assert git(lab.world.shop, "show", f"{aside}:src/bento/greeting.py") == "HELLO = 1"
    assert git(lab.world.shop, "show", f"{aside}:README.md") == "mine"
    assert lab.code.uncommitted() == []


@pytest.mark.parametrize("command", ["merge", "rebase", "cherry-pick"])
def test_a_conflict_is_taken_back_and_what_was_settled_is_kept(lab: Lab, command: str) -> None:
    shop = lab.world.shop
    lab.code.checkout("v1.0.0")
    rival = lab.code.branch(f"break/{command}")
    lab.code.write("frontend/app.ts", "// nothing\n")
    lab.code.commit("feat!: nothing")
    if command != "rebase":
        lab.code.checkout("main")
    before = git(shop, "rev-parse", "main")
    assert run(shop, command, "main" if command == "rebase" else rival).returncode
    (shop / "frontend/app.ts").write_text("// half settled\n")
    (said,) = lab.tidy("code")
    assert f"unfinished git {command}" in said
    aside = next(word for word in said.split() if word.startswith("aside/")).rstrip(";")
    assert git(shop, "show", f"{aside}:frontend/app.ts") == "// half settled"
    assert (lab.code.current(), git(shop, "rev-parse", "main")) == ("main", before)


def test_a_backlog_that_was_left_broken_is_put_right(lab: Lab) -> None:
    """01 breaks the file on purpose: whoever stopped there found no way on."""
    file = lab.world.shop / "backlog.yaml"
    file.write_text(file.read_text().replace("effort: ", "effort: about ", 1))
    with pytest.raises(BadInput):
        lab.plan.backlog()
    assert "backlog.yaml" in lab.tidy("plan")[0]
    assert lab.plan.backlog()


def test_a_release_that_was_left_changed_is_built_again(lab: Lab) -> None:
    """05 changes a byte on purpose: whoever stopped there could never deploy that version again."""
    release = lab.release.registry()[-1]
    wheel = lab.root / release.path
    wheel.chmod(0o644)
    wheel.write_bytes(wheel.read_bytes()[:-1] + b"!")
    with pytest.raises(LabError):
        lab.release.verify(release.version)
    assert lab.tidy("release") == [f"{release.version} is in the registry again as it was released"]
    assert lab.release.verify(release.version).digest == release.digest


# ---- production
def test_the_newest_good_version_serves_in_the_end(lab: Lab) -> None:
    """13a: after deploy-1 with the older version, or a drill mended by rollback, 06 and 08 ended in one."""
    deploys = {"deploy", "operate", "monitor", "repeat", "continuous"}
    assert {notebook for notebook, steps in ENDS.items() if newest_good in steps} == deploys
    best = lab.deploy.current()
    lab.deploy.run("1.0.0", why="an exercise")
    (said,) = lab.tidy("deploy")
    assert said == f"version {best}, the newest good one, serves instead of 1.0.0"
    assert lab.deploy.current() == best


def test_a_faulty_version_is_not_the_newest_good_one(lab: Lab) -> None:
    best = lab.deploy.current()
    bad = ship(lab, "memory-leak", merge=False)
    lab.deploy.run(bad.version, why="canary refused, or rolled back by nobody")
    assert lab.tidy("deploy") == [f"version {best}, the newest good one, serves instead of {bad.version}"]
    assert lab.tidy("build")  # the newest build was that one


def test_operate_ends_without_an_autoscaler_and_with_two_replicas(lab: Lab) -> None:
    """13b: 07 promised "no autoscaler", and left the learner's policy on."""
    lab.deploy.scale(3, why="lunch")
    lab.operate.autoscale(ScalingPolicy("p95_ms", 50, 2, 4))
    victim = lab.operate.kill()
    assert lab.tidy("operate") == ["the autoscaler by p95_ms is off", "2 replicas instead of 3"]
    assert lab.store.last(ScalingPolicy) is None
    assert victim.id not in {replica.id for replica in lab.replicas()}
    assert len(lab.replicas()) == 2


def test_three_replicas_that_deploy_asks_for_stay(lab: Lab) -> None:
    """deploy-2 says "leave it so"."""
    lab.deploy.scale(3, why="lunch")
    assert lab.tidy("deploy") == []
    assert len(lab.replicas()) == 3
    lab.tidy("operate")


def test_monitor_ends_with_the_usual_rules_and_no_objective(lab: Lab) -> None:
    """13b: 08 left the learner's rule on; run twice, it failed with "There is no alert rule"."""
    lab.monitor.add_rule(AlertRule("orders-slow", "p95_ms", 200, 3, 100, "/api/orders"))
    lab.monitor.add_rule(AlertRule("slow", "p95_ms", 9999, 3))
    lab.monitor.remove_rule("disk")
    lab.monitor.slo.add(Slo("availability", objective=0.99))
    (said,) = lab.tidy("monitor")
    assert "orders-slow are removed" in said
    assert "slow, disk are as they were" in said
    assert "availability are removed" in said


def test_customers_and_a_drill_go_with_the_clean_up(lab: Lab) -> None:
    """A drill that nobody solved, with its customers in the shop."""
    drill = lab.operate.drill("packet delay")
    (said,) = lab.tidy("monitor")
    assert "drill 1 is given up and undone: it was packet delay" in said
    assert drill.run.state == "given up"
    lab.operate.load(rate=5, seconds=60)
    (said,) = lab.tidy("deploy")
    assert said == "1 groups of customers are sent home"
    assert lab.operate.customers() == []


def test_a_hook_that_was_left_is_removed(lab: Lab) -> None:
    lab.pipeline.install_hook("deployment")
    (said,) = lab.tidy("continuous")
    assert said.startswith("the hook is removed")


def test_what_can_not_be_put_right_keeps_nothing_else_from_being(
    lab: Lab, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENDS, "deploy", (lambda _: "one", fails, lambda _: "three"))
    with pytest.raises(LabError, match=r"(?s)no room.*one; three"):
        lab.tidy("deploy")
    monkeypatch.undo()
    with pytest.raises(BadInput, match="deploy"):
        lab.tidy("deplyo")


def fails(_: Lab) -> str:
    raise LabError("no room")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_ends_with_its_clean_up_and_needs_no_earlier_cell_for_it(path: Path) -> None:
    cells = [
        "".join(c["source"]) for c in json.loads(path.read_text("utf-8"))["cells"] if c["cell_type"] == "code"
    ]
    assert f'lab.tidy("{path.stem[3:]}")' in cells[-1]
    assert cells[-1].endswith("lab.close()")
    assert "assert" not in cells[-1]
