"""The story that notebooks take for granted: what is missing is done, and doing it twice changes nothing."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest

from devops_lab.errors import BadInput, ChecksFailed
from devops_lab.lab import Lab, story
from devops_lab.model import Artifact, TestReport
from devops_lab.platform.git import git
from devops_lab.platform.processes import processes_of
from devops_lab.shop import find_change
from tests import sharing
from tests.production import get
from tests.shoplab import say_tested

LATER = "daily-special"


@contextmanager
def opened(root: Path, factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """A lab of its own that shares only the installed packages; nothing of it is left in the end."""
    lab = Lab.open(root)
    shared = sharing.shared(factory) / "templates"
    shared.mkdir(exist_ok=True)
    (root / "work" / "templates").symlink_to(shared)
    try:
        yield lab
    finally:
        lab.clean()
        assert processes_of(root) == []


@pytest.fixture(scope="module")
def caught_up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, list[str]]]:
    """A lab in which the story was told up to Operate, and what that took; it stays there."""
    with opened(tmp_path_factory.mktemp("story") / "lab", tmp_path_factory) as lab:
        yield lab, lab.catch_up("operate")


@pytest.fixture
def lab(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with opened(tmp_path / "lab", tmp_path_factory) as lab:
        yield lab


@pytest.fixture
def told_green(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The versions that were sent to be tested; all are said to be green, so that no suite has to run."""
    tested: list[str] = []

    def run(artifact: Artifact) -> TestReport:
        tested.append(artifact.version)
        return say_tested(lab.world, artifact)

    monkeypatch.setattr(lab.test, "run", run)
    return tested


def never(*_: object) -> NoReturn:
    raise AssertionError("this was done already")


# ---- catching up
def test_catch_up_does_what_is_missing_in_order(caught_up: tuple[Lab, list[str]]) -> None:
    lab, lines = caught_up
    assert [line.partition(":")[0] for line in lines] == [
        "plan",
        "code",
        "build",
        "test",
        "release",
        "deploy",
    ]
    assert [e.phase for e in lab.store.events(kind="story.caught_up")][:6] == list(story.STEPS)
    assert lab.deploy.current() == "1.1.0"
    assert [d.version for d in lab.deploy.history()][:2] == ["1.0.0", "1.1.0"]
    assert '"release":"1.1.0"' in get(lab.url + "/api/info").replace(" ", "")
    head, builds = lab.code.head(), len(lab.store.all(Artifact))
    for phase in ("plan", "operate", "continuous"):
        assert lab.catch_up(phase) == []
    assert (lab.code.head(), len(lab.store.all(Artifact))) == (head, builds)
    status = lab.status()
    assert (status["in_production"], status["agent"], status["alerts"]) == ("1.1.0", True, [])
    links = [row[:3] for row in lab.trail("1.1.0")]
    assert links[0][1:] == ("brings", "release:1.1.0")
    assert any(parent.startswith("commit:") for _, _, parent in links)


def test_catch_up_does_only_what_the_phase_needs(lab: Lab) -> None:
    sprint = lab.plan.choose()
    assert [line.partition(":")[0] for line in lab.catch_up("build")] == ["code"]
    assert lab.plan.sprint() == sprint
    assert lab.store.last(Artifact) is None
    with pytest.raises(BadInput, match="Did you mean 'deploy'"):
        lab.catch_up("deplyo")


def test_production_comes_back_after_everything_was_killed(caught_up: tuple[Lab, list[str]]) -> None:
    """As when the machine was off: nobody expects an agent that was noted before that."""
    lab, _ = caught_up
    version, url = lab.deploy.current(), lab.url
    agent = lab.world.control.identity()
    assert agent
    os.kill(agent[0], signal.SIGKILL)  # first: it would heal what dies next
    for process in processes_of(lab.root):
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGKILL)
    (lab.root / "run" / "agent.json").unlink()
    with Lab.open(lab.root) as later:
        assert (later.url, later.replicas()) == ("", [])
        assert later.catch_up("plan") == [f"production: version {version} started again"]
        assert later.url == url
        assert get(url + "/readyz")
        assert story.revive(later) == ""


def test_production_at_makes_sure_of_version_and_replicas(caught_up: tuple[Lab, list[str]]) -> None:
    lab, _ = caught_up
    before = lab.deploy.current()
    assert story.production_at(lab, "1.0.0", replicas=1) == "1.0.0"
    assert len(lab.replicas()) == 1
    deployments = len(lab.deploy.history())
    assert story.production_at(lab, "1.0.0", replicas=2) == "1.0.0"
    assert len(lab.replicas()) == 2
    assert story.production_at(lab, "1.0.0") == "1.0.0"
    assert len(lab.deploy.history()) == deployments
    assert story.production_at(lab, before) == before
    assert story.first(lab).version == "1.0.0"
    assert lab.deploy.current() == before


# ---- changes
def test_a_change_is_brought_once_and_a_revert_takes_it_back(lab: Lab) -> None:
    commit = story.bring(lab, LATER)
    assert git(lab.world.shop, "show", "-s", "--format=%s", commit) == find_change(LATER).subject
    head = lab.code.head()
    assert head.id == git(lab.world.origin, "rev-parse", "main") != commit  # a merge, and it was pushed
    assert story.bring(lab, LATER) == story.merged(lab, LATER) == commit
    assert lab.code.head() == head
    assert story.merged(lab, LATER, "v1.0.0") == ""
    assert story.merged(lab, "order-history") == ""
    who = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a@b", "GIT_COMMITTER_NAME": "a"}
    revert = ("revert", "--no-edit", story.merged(lab, LATER))
    git(lab.world.shop, *revert, env=who | {"GIT_COMMITTER_EMAIL": "a@b"})
    assert story.merged(lab, LATER) == ""


def test_a_change_on_a_branch_leaves_main_alone(lab: Lab) -> None:
    head = lab.code.head()
    assert story.on_branch(lab, LATER) == f"try/{LATER}"
    assert (lab.code.head(), lab.code.current()) == (head, "main")
    assert story.merged(lab, LATER, f"try/{LATER}")
    assert story.merged(lab, LATER) == ""


def test_an_unknown_change_names_a_near_one(lab: Lab) -> None:
    for attempt in (story.bring, story.ship, story.merged, story.push_change):
        with pytest.raises(BadInput, match="Did you mean 'slow-search'"):
            attempt(lab, "slow-serach")
    assert lab.store.last(Artifact) is None


# ---- shipping
def test_shipping_is_safe_to_repeat_and_tests_once(
    lab: Lab, told_green: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = story.ship(lab, story.FIRST_FEATURE, why="asked for")
    second = story.ship(lab, LATER)
    assert (first.version, second.version, told_green) == ("1.1.0", "1.2.0", ["1.1.0", "1.2.0"])
    assert ("release:1.2.0", "brings", f"change:{LATER}") in [r[:3] for r in lab.store.trail("release:1.2.0")]
    assert story.shipped(lab, story.FIRST_FEATURE) == first  # the first of the two that hold it
    monkeypatch.setattr(lab.build, "run", never)
    assert story.ship(lab, story.FIRST_FEATURE) == first
    assert story.shipped(lab, "order-history") is None
    assert story.shipped(lab, LATER, "no-such-branch") is None


def test_shipping_does_not_test_again_what_is_green(
    lab: Lab, told_green: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    story.bring(lab, LATER)
    say_tested(lab.world, lab.build.run())
    monkeypatch.setattr(lab.test, "run", never)
    assert story.ship(lab, LATER).version == "1.1.0"


def test_a_red_change_is_not_shipped(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lab.test, "run", lambda artifact: say_tested(lab.world, artifact, "1 test failed"))
    with pytest.raises(ChecksFailed, match="1 test failed"):
        story.ship(lab, LATER)
    assert lab.release.registry() == []


def test_the_newest_sound_version_has_no_fault_without_its_mend(lab: Lab, told_green: list[str]) -> None:
    lab.release.release_tag("v1.0.0")
    assert story.sound(lab) == "1.0.0"
    story.ship(lab, LATER)
    branch = story.ship(lab, "memory-leak", merge=False)
    assert story.ship(lab, "memory-leak", merge=False) == branch
    assert story.merged(lab, "memory-leak") == ""
    assert (story.sound(lab), story.sound(lab, without=LATER)) == ("1.1.0", "1.0.0")
    faulty = story.ship(lab, "slow-search")
    assert story.sound(lab) == "1.1.0"
    mended = story.ship(lab, "fix-search-c")
    assert story.sound(lab) == mended.version != faulty.version
    assert story.sound(lab, without="slow-search") == "1.1.0"


def test_advice_that_was_taken_brings_the_better_code(lab: Lab, told_green: list[str]) -> None:
    assert story.mend_of(lab, "slow-search") == "fix-search-c"
    lab.plan.decide("BENTO-43", take=True)
    assert story.mend_of(lab, "slow-search") == "taste-in-c"
    faulty = story.ship_fault(lab, "slow-search", "a team that did not ask")
    assert story.merged(lab, "slow-search") == ""  # main has it not
    mended = story.ship(lab, story.mend_of(lab, "slow-search"))
    assert story.merged(lab, "taste-in-c") == git(lab.world.shop, "rev-parse", "main^2")
    assert story.sound(lab) == mended.version != faulty.version
    assert story.ship_fault(lab, "slow-search", "again") == faulty


# ---- pushing
def test_a_change_is_pushed_and_taken_back(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> None:
    lab.pipeline.install_hook("delivery")
    run, said = story.push_change(lab, LATER)
    assert (run.state, run.mode) == ("done", "delivery")
    assert run.commit == story.merged(lab, LATER) == git(lab.world.origin, "rev-parse", "main")
    assert "remote:" in said
    with monkeypatch.context() as watched:  # each real run takes seconds, and one was seen
        watched.setattr(lab.pipeline, "run", lambda mode: replace(run, mode=mode, id=99))
        watched.setattr(lab.pipeline, "push", lambda: (run, "pushed"))
        assert story.push_change(lab, LATER) == (replace(run, id=99), f"{LATER} is on main already")
        assert story.push_revert(lab, LATER) == (run, "pushed")
    assert story.merged(lab, LATER) == ""
    assert git(lab.world.shop, "show", "-s", "--format=%an", "main") == lab.settings.learner
    assert git(lab.world.shop, "diff", run.commit + "~", "main") == ""
