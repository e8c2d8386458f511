"""The shop's repository: its history, its backlog, and its platform."""

from __future__ import annotations

import subprocess
from datetime import date
from pathlib import Path

import pytest
import yaml

from devops_lab.errors import BadInput, LabError
from devops_lab.planning.backlog import read_backlog, read_platform
from devops_lab.planning.sprint import review_item
from devops_lab.platform.git import git
from devops_lab.shop import TEMPLATE, apply_change, change_diff, changes, found_repository, template_files

TODAY = date(2026, 3, 14)


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A founded repository's clone, below a folder whose name has a space and a letter that is not ASCII."""
    root = tmp_path_factory.mktemp("shop") / "a lab für Ada"
    root.mkdir()
    found_repository(root / "origin.git", root / "shop", TODAY)
    return root / "shop"


def test_the_last_state_is_the_template(clone: Path) -> None:
    tracked = git(clone, "ls-files", "-z").strip("\0").split("\0")
    assert {name: (clone / name).read_bytes() for name in tracked} == template_files()
    assert git(clone, "status", "--porcelain") == ""


def test_the_history_is_believable(clone: Path) -> None:
    log = git(clone, "log", "--reverse", "--format=%at|%an|%ae|%s").splitlines()
    times, authors, addresses, subjects = zip(*(line.split("|", 3) for line in log), strict=True)
    assert len(log) >= 12
    assert list(times) == sorted(times)
    assert 3 <= len(set(authors)) <= 4
    assert all(address.endswith("@example.com") for address in addresses)
    assert all(s.split(":")[0] in ("feat", "fix", "perf", "docs", "test", "build", "chore") for s in subjects)
    assert git(clone, "tag").split() == ["v0.9.0", "v1.0.0"]
    assert git(clone, "rev-parse", "v1.0.0^{commit}") == git(clone, "rev-parse", "HEAD")


def test_a_fix_brings_its_regression_test(clone: Path) -> None:
    fixes = git(clone, "log", "--format=%H", "--grep=^fix:").split()
    assert fixes
    for commit in fixes:
        files = git(clone, "show", "--name-only", "--format=", commit).split()
        assert any(name.startswith("src/") for name in files)
        assert any(name.startswith("tests/") for name in files)


def test_the_same_day_gives_the_same_commits(clone: Path, tmp_path: Path) -> None:
    found_repository(tmp_path / "o.git", tmp_path / "c", TODAY)
    assert git(tmp_path / "c", "rev-parse", "HEAD") == git(clone, "rev-parse", "HEAD")


def test_a_commit_in_a_terminal_is_not_signed_or_hooked(clone: Path, tmp_path: Path) -> None:
    config = tmp_path / "gitconfig"
    config.write_text("[commit]\n\tgpgSign = true\n[core]\n\thooksPath = /nowhere\n")
    seen = subprocess.run(
        ["git", "-C", str(clone), "config", "--get-all", "--includes", "commit.gpgsign"],
        env={"GIT_CONFIG_GLOBAL": str(config), "PATH": "/usr/bin:/bin:/usr/local/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert seen.stdout.split()[-1] == "false"
    assert git(clone, "config", "user.email") == "learner@bento.example"


def test_an_origin_that_is_in_the_way_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "o.git").write_text("in the way")
    with pytest.raises(LabError):
        found_repository(tmp_path / "o.git", tmp_path / "c", TODAY)


def test_the_backlog_has_what_planning_needs() -> None:
    items = yaml.safe_load((TEMPLATE / "backlog.yaml").read_text("utf-8"))["items"]
    done = [item for item in items if item["status"] == "done"]
    ready = [item for item in items if item["status"] == "ready"]
    assert len({item["id"] for item in items}) == len(items)
    assert len(ready) >= 14
    assert len(done) >= 25
    assert len({item["sprint"] for item in done}) >= 8
    assert {item["kind"] for item in ready} == {"feature", "bug", "operations"}
    offered = [item.get("change") for item in ready]
    offered += [option.get("change") for item in ready for option in item.get("alternatives", [])]
    assert {each for each in offered if each} <= {change.id for change in changes()}


def test_some_items_are_more_than_the_platform_carries_but_have_an_alternative() -> None:
    items = yaml.safe_load((TEMPLATE / "backlog.yaml").read_text("utf-8"))["items"]
    platform = yaml.safe_load((TEMPLATE / "platform.yaml").read_text("utf-8"))
    missing = set(platform["not_offered"])

    def asks(needs: list[dict[str, object]]) -> bool:
        return any(need.get("service") in missing for need in needs)

    blocked = [item for item in items if asks(item.get("needs", []))]
    assert len(blocked) >= 3
    for item in blocked:
        assert item["alternatives"]
        assert not any(asks(option.get("needs", [])) for option in item["alternatives"])
    for service in platform["services"].values():
        assert {"summary", "variable", "example", "use", "try"} <= set(service)


def test_advice_that_is_ignored_comes_back_as_a_change() -> None:
    """Whatever the review warns of is code that can be shipped, and hurts."""
    faults = {change.id for change in changes() if change.kind == "fault" and change.suite == "green"}
    platform = read_platform((TEMPLATE / "platform.yaml").read_text("utf-8"))
    warned = [
        item
        for item in read_backlog((TEMPLATE / "backlog.yaml").read_text("utf-8"))
        if item.status == "ready" and review_item(item, platform)
    ]
    assert len(warned) >= 10
    assert [item.id for item in warned if item.change not in faults] == []


def test_each_change_applies_with_its_subject(clone: Path) -> None:
    for change in changes():
        git(clone, "checkout", "-q", "-B", "work", "v1.0.0")
        if change.after:
            apply_change(clone, change.after)
        commit = apply_change(clone, change.id)
        assert git(clone, "show", "-s", "--format=%s", commit) == change.subject
        assert change_diff(change.id).startswith("diff --git ")


def test_faults_do_not_give_themselves_away() -> None:
    for change in changes():
        words = f"{change.subject} {change.title}".lower()
        assert change.kind == "feature" or not any(
            word in words for word in ("fault", "leak", "slow", "broken")
        )


STORY = (
    *("dietary-filter", "daily-special", "slow-search", "memory-leak", "fix-search-c", "pickup-time"),
    *("fix-memory-leak", "order-history", "discount-code", "wrong-total", "fix-wrong-total"),
)
IN_PLACE = {change.instead: change.id for change in changes() if change.instead}


def test_what_comes_in_a_faults_place_is_the_fault_and_its_fix_in_one(clone: Path) -> None:
    for change in changes():
        if fault := change.instead:
            git(clone, "checkout", "-q", "-B", "work", "v1.0.0")
            apply_change(clone, fault)
            mended = apply_change(clone, next(c.id for c in changes() if c.after == fault))
            git(clone, "checkout", "-q", "-B", "better", "v1.0.0")
            assert git(clone, "diff", apply_change(clone, change.id), mended) == ""


@pytest.mark.parametrize("advised", [False, True])
def test_the_changes_of_the_story_apply_one_after_another_and_every_fault_after_them(
    clone: Path, advised: bool
) -> None:
    story: tuple[str, ...] = STORY
    if advised:  # the advice of Plan was taken: neither those faults nor their fixes are needed
        left_out = {change.id for change in changes() if change.after in IN_PLACE}
        story = tuple(IN_PLACE.get(change, change) for change in STORY if change not in left_out)
    git(clone, "checkout", "-q", "-B", "story", "v1.0.0")
    for change in story:
        apply_change(clone, change)
    for fault in (c for c in changes() if c.id not in STORY and not c.instead):
        git(clone, "checkout", "-q", "-B", "work", "story")
        apply_change(clone, fault.id)


def test_a_change_that_does_not_fit_leaves_the_branch_alone(clone: Path) -> None:
    git(clone, "checkout", "-q", "-B", "work", "v1.0.0")
    with pytest.raises(LabError, match="slow-search"):
        apply_change(clone, "fix-search-c")
    assert git(clone, "rev-parse", "HEAD") == git(clone, "rev-parse", "v1.0.0^{commit}")
    assert git(clone, "status", "--porcelain") == ""


def test_an_unknown_change_names_the_known_ones(clone: Path) -> None:
    with pytest.raises(BadInput, match="dietary-filter"):
        apply_change(clone, "nosuch")
    with pytest.raises(BadInput):
        change_diff("nosuch")
