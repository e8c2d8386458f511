"""Versions from the commits: what a commit asks for, why, and what to tell the people who use it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from difflib import get_close_matches
from functools import lru_cache
from pathlib import Path
from typing import Literal

from devops_lab.errors import BadInput
from devops_lab.model import Commit
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git
from devops_lab.platform.git import run as run_git

Bump = Literal["major", "minor", "patch", "none"]
BUMPS: dict[str, Bump] = {"feat": "minor", "fix": "patch", "perf": "patch"}
HEADINGS = {"feat": "Added", "perf": "Changed", "fix": "Fixed"}
CONVENTIONAL = re.compile(r"^(?P<type>\w+)(?:\([^)]*\))?(?P<bang>!)?: (?P<text>.+)")
BREAKING = re.compile(r"^BREAKING[ -]CHANGE: ", re.MULTILINE)


@dataclass(frozen=True)
class VersionPlan:
    """Which version a commit asks for, and why.

    Args:
        version: X.Y.Z, or "X.Y.Z+g<commit>" where nothing since the last tag is worth a release.
        bump: the part that is counted up (https://semver.org).
        commits: what came since `previous`, newest first, without merges.
        reason: the commit that decided, in words.
    """

    version: str
    bump: Bump
    commits: list[Commit]
    reason: str
    previous: str
    commit: str


def locate(world: LabContext, name: str) -> tuple[Path, str]:
    """Find a commit by any of git's names: the repository that knows it (the clone first), and its full id.

    Raises:
        BadInput: neither the clone nor its origin knows it.
    """
    for repo in (world.shop, world.origin):
        done = run_git(repo, "rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}")
        if done.returncode == 0:
            return repo, done.stdout.strip()
    known = git(world.origin, "for-each-ref", "--format=%(refname:short)", "refs/heads", "refs/tags").split()
    near = get_close_matches(name, known, 1)
    raise BadInput(
        f"There is no commit, branch or tag {name!r} in the shop.",
        expected="a branch, a tag or a commit id",
        next_step=f"Did you mean {near[0]!r}?" if near else "See `git log --all`.",
    )


def plan_version(repo: Path, commit: str) -> VersionPlan:
    """Count the version up from the commits since the last tag (https://www.conventionalcommits.org).

    A breaking change counts the major part up, a feature the minor, a fix the patch; anything else nothing.
    """
    whole = git(repo, "rev-parse", f"{commit}^{{commit}}")
    tags = git(repo, "for-each-ref", "--format=%(refname:short) %(objectname)", "refs/tags")
    return _plan(repo, whole, tags)


@lru_cache(maxsize=8)  # Code, Build and Release ask for the same one; a commit and the tags decide it
def _plan(repo: Path, whole: str, tags: str) -> VersionPlan:
    released = git(repo, "tag", "--points-at", whole, "--list", "v[0-9]*").split()
    tag = run_git(
        repo, "describe", "--tags", "--abbrev=0", "--match=v[0-9]*", whole + ("^" if released else "")
    )
    previous = tag.stdout.strip().removeprefix("v") if tag.returncode == 0 else ""
    commits = _log(repo, f"v{previous}..{whole}" if previous else whole)
    if released:
        version = released[-1].removeprefix("v")
        return VersionPlan(
            version, "none", [c for c, _ in commits], f"the tag {released[-1]}", previous, whole
        )
    order: tuple[Bump, ...] = ("none", "patch", "minor", "major")
    decided: tuple[Bump, str] = ("none", "no feature and no fix since " + (previous or "the beginning"))
    for each, body in reversed(commits):
        bump = _bump(each.subject, body)
        if order.index(bump) > order.index(decided[0]):
            decided = bump, f"{each.subject} ({each.short})"
    bump, reason = decided
    version, taken = _count_up(previous, bump, whole), tags.split()
    while f"v{version}" in taken:  # released from another branch, so that number is gone for good
        version = _count_up(version, bump, whole)
    return VersionPlan(version, bump, [c for c, _ in commits], reason, previous, whole)


def _log(repo: Path, span: str) -> list[tuple[Commit, str]]:
    text = git(repo, "log", "--no-merges", "--format=%H%x1f%an%x1f%at%x1f%P%x1f%s%x1f%b%x1e", span)
    rows = (entry.strip("\n").split("\x1f") for entry in text.split("\x1e") if entry.strip())
    return [(Commit(i, subject, who, float(t), up.split()), body) for i, who, t, up, subject, body in rows]


def _bump(subject: str, body: str) -> Bump:
    found = CONVENTIONAL.match(subject)
    if found and (found["bang"] or BREAKING.search(body)):
        return "major"
    return BUMPS.get(found["type"], "none") if found else "none"


def _count_up(previous: str, bump: Bump, commit: str) -> str:
    major, minor, patch = (int(part) for part in (previous or "0.0.0").split("."))
    return {
        "major": f"{major + 1}.0.0",
        "minor": f"{major}.{minor + 1}.0",
        "patch": f"{major}.{minor}.{patch + 1}",
        "none": f"{major}.{minor}.{patch}+g{commit[:8]}",  # a local version (PEP 440): never released
    }[bump]


def changelog(plan: VersionPlan) -> str:
    """What is new for the people who use it, grouped (https://keepachangelog.com)."""
    groups: dict[str, list[str]] = {name: [] for name in (*HEADINGS.values(), "Other")}
    for commit in plan.commits:
        found = CONVENTIONAL.match(commit.subject)
        heading = HEADINGS.get(found["type"], "Other") if found else "Other"
        mark = "**Breaking:** " if found and found["bang"] else ""
        text = found["text"] if found else commit.subject
        groups[heading].append(f"- {mark}{text} ({commit.short}, {commit.author})")
    blocks = [f"### {name}\n" + "\n".join(lines) for name, lines in groups.items() if lines]
    return "\n\n".join([f"## [{plan.version}] - {datetime.now(UTC):%Y-%m-%d}", *blocks]) + "\n"
