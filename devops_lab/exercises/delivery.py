"""Checks of the exercises from Plan to Release; their texts are in the YAML files beside."""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING

from devops_lab.exercises.base import (  # fmt: skip
    NotYet,
    Said,
    Verdict,
    close,
    could_not,
    judged,
    not_yet,
    number,
    right,
    text,
)
from devops_lab.model import Artifact
from devops_lab.platform.git import git, run

if TYPE_CHECKING:
    from devops_lab.lab import Lab

MORE_ITEMS = 40
BACKUP = "nightly-backup"
CODE_BRANCH, BUILD_BRANCH, TEST_BRANCH = "learn/greeting", "learn/broken-build", "learn/better-test"
RELEASE_BRANCH = "learn/breaking"
CONVENTIONAL = re.compile(r"\w+(\([^)]*\))?!?: .+")  # https://www.conventionalcommits.org
MIGRATIONS = "src/bento/migrations"
FAULT = "wrong-total"
LARGE_BRANCH, LARGE_FILE, LARGE_BYTES = "learn/large", "src/bento/static/large.txt", 100_000
LIBRARY = "starlette"


def own_commits(lab: Lab, branch: str) -> list[str]:
    """The subjects of a branch's own commits, newest first; tells when there are none."""
    if not git(lab.world.shop, "branch", "--list", branch):
        raise NotYet(f"The shop's repository has no branch {branch}.")
    subjects = git(lab.world.shop, "log", "--format=%s", f"main..{branch}").splitlines()
    if not subjects:
        raise NotYet(f"{branch} has no commit that main has not: nothing was committed, or it was merged.")
    return subjects


# ---- Plan
def forecast(lab: Lab, said: Said) -> Verdict:
    value, truth = number(said, "sprints"), lab.plan.forecast(remaining=MORE_ITEMS)
    seen = f"You predicted {value:g} sprints; of {truth.trials} futures, 85 % need at most {truth.p85}"
    if abs(value - truth.p85) <= 1:
        return right(f"{seen}.")
    return judged(False, f"{seen}: {'fewer' if value < truth.p85 else 'more'} than the team's past says.")


def backup_item(lab: Lab, said: Said) -> Verdict:
    items = {item.id: item for item in lab.plan.backlog()}
    if not (item := items.get(BACKUP)):
        return not_yet(f"The backlog has no ready item {BACKUP!r}; its items: {', '.join(items)}.")
    if item.kind != "operations":
        return not_yet(f"{BACKUP} is a {item.kind}; work that keeps the shop running is `operations`.")
    if not any(need.storage_mb > 0 for need in item.needs):
        return not_yet(f"{BACKUP} does not say how much storage it needs.")
    if blocked := [f for f in lab.plan.review(BACKUP) if f.severity == "blocks"]:
        return not_yet(f"The platform can't carry it: {blocked[0].problem}")
    return right(f"{BACKUP} is in the backlog, its needs are declared, and the platform can carry them.")


# ---- Code
def own_change(lab: Lab, said: Said) -> Verdict:
    subjects = own_commits(lab, CODE_BRANCH)
    if bad := [subject for subject in subjects if not CONVENTIONAL.match(subject)]:
        return not_yet(f"{bad[0]!r} is no conventional commit: it needs a type and a colon, as in `fix: …`.")
    files = git(lab.world.shop, "diff", "--name-only", f"main...{CODE_BRANCH}").splitlines()
    if not any(name.startswith("tests/") for name in files):
        return not_yet(f"{CODE_BRANCH} changes {', '.join(files)}, but no test.")
    if not any(name.startswith(("src/", "frontend/", "native/")) for name in files):
        return not_yet(f"{CODE_BRANCH} changes {', '.join(files)}: a test alone, no code.")
    return right(f"{CODE_BRANCH} has {len(subjects)} commits of yours, with code and test: {subjects[0]!r}.")


def migration_author(lab: Lab, said: Said) -> Verdict:
    answered, repo = text(said), lab.world.shop
    names = git(repo, "ls-tree", "--name-only", "main", f"{MIGRATIONS}/").splitlines()
    newest = max(name for name in names if name.endswith(".sql"))
    author = brought_by(lab, newest)
    words = set(re.findall(r"\w+", answered.partition("<")[0].casefold()))
    if words and words <= set(author.casefold().split()):  # the first name alone is their name, too
        return right(f"{author} brought {newest.rpartition('/')[2]}.")
    others = {
        who: [name for name in names if name.endswith(".sql") and brought_by(lab, name) == who]
        for who in git(repo, "log", "--format=%an", "main").splitlines()
    }
    named = next((who for who in others if words and words <= set(who.casefold().split())), "")
    if not named:
        return not_yet(f"The history of main knows nobody of that name: {answered}.")
    if not others[named]:
        return not_yet(f"{named} wrote code, but brought no migration at all.")
    return not_yet(f"{named} brought {others[named][-1].rpartition('/')[2]}; there is a newer one.")


def brought_by(lab: Lab, path: str) -> str:
    """Who added a file to main."""
    log = ("log", "--diff-filter=A", "--format=%an", "main", "--", path)
    return git(lab.world.shop, *log).splitlines()[-1]


# ---- Build
def grown_wheel(lab: Lab, said: Said) -> Verdict:
    number(said, "kB")
    own_commits(lab, LARGE_BRANCH)
    size = run(lab.world.shop, "cat-file", "-s", f"{LARGE_BRANCH}:{LARGE_FILE}")
    if size.returncode or int(size.stdout) < LARGE_BYTES:
        return not_yet(f"Kept. {LARGE_FILE} on {LARGE_BRANCH} is to have {LARGE_BYTES} letters or more.")
    heads = [git(lab.world.shop, "rev-parse", name) for name in (f"{LARGE_BRANCH}~1", LARGE_BRANCH)]
    built = {artifact.commit: artifact.bytes for artifact in lab.store.all(Artifact)}
    if missing := [head[:8] for head in heads if head not in built]:
        return not_yet(f"Kept. To compare, build both commits, before and after: {', '.join(missing)}.")
    return close(said, (built[heads[1]] - built[heads[0]]) / 1000, 4, "kB")


def broken_then_mended(lab: Lab, said: Said) -> Verdict:
    own_commits(lab, BUILD_BRANCH)
    commits = git(lab.world.shop, "rev-list", f"main..{BUILD_BRANCH}").splitlines()
    events = lab.store.events(kind="build.*", limit=100_000)
    kinds = [(event.kind, event.subject.removeprefix("commit:")) for event in events]
    failed = [commit for kind, commit in kinds if kind == "build.failed" and commit in commits]
    artifact = lab.store.last(Artifact)
    if not failed and artifact and artifact.scorer != "c":
        return could_not("Nothing reads native/score.c here: is there a C compiler? This build has none.")
    if not failed:
        return not_yet(f"No build of a commit on {BUILD_BRANCH} has failed so far.")
    newest = commits[0][:8]
    if ("build.done", commits[0]) not in kinds:
        seen = f"A build of {BUILD_BRANCH} failed, well done"
        return not_yet(f"{seen}; its newest commit {newest} was not built yet.")
    return right(f"{failed[0][:8]} did not build, {newest} does: noticed by the compiler, not by a customer.")


# ---- Test
def escape_unit_tests(lab: Lab, said: Said) -> Verdict:
    value = number(said, "bugs")
    if not lab.store.events(kind="test.planted"):
        return could_not("No bugs were planted in this lab yet: run `lab.test.planted()`.")
    bugs = lab.test.planted()  # known ones are not planted again
    escaped = sorted(bug.change for bug in bugs if "unit" not in bug.suites)
    seen = f"You predicted {value:g}; of {len(bugs)} planted bugs {len(escaped)} escape the unit tests"
    if value != len(escaped):
        seen += ", so these tests find " + ("less" if value < len(escaped) else "more") + " than you thought"
    return judged(value == len(escaped), f"{seen}: {', '.join(escaped)}.")


def better_test(lab: Lab, said: Said) -> Verdict:
    own_commits(lab, TEST_BRANCH)
    change = ("diff", "--name-only", "--diff-filter=A", f"main...{TEST_BRANCH}", "--", "tests")
    added = git(lab.world.shop, *change).splitlines()
    if len(added) != 1 or not added[0].endswith(".py"):
        seen = f"{TEST_BRANCH} adds {', '.join(added) or 'no file'} under tests/"
        return not_yet(f"{seen}; one new test module is asked for.")
    new_test = git(lab.world.shop, "show", f"{TEST_BRANCH}:{added[0]}") + "\n"
    if lab.test.plant(new_test=new_test).caught:  # red without any fault?
        return not_yet(f"{added[0]} is red on main as well: it does not tell right from wrong.")
    before, after = lab.test.what_a_new_test_changes(FAULT, new_test)
    if before.caught:
        return could_not(f"The shop's own suite catches {FAULT} by now; nothing is left to find.")
    if not after.caught:
        return not_yet(f"With {added[0]} the planted bug {FAULT} still escapes.")
    return right(f"{FAULT} escaped before; now {after.by[0]} catches it.")


# ---- Release
def breaking_change(lab: Lab, said: Said) -> Verdict:
    own_commits(lab, RELEASE_BRANCH)
    plan = lab.release.next_version(RELEASE_BRANCH)
    seen = f"{RELEASE_BRANCH} would become {plan.version}: {plan.reason}."
    return right(seen) if plan.bump == "major" else not_yet(seen)


def shipped_starlette(lab: Lab, said: Said) -> Verdict:
    answered, releases = text(said).casefold(), lab.release.registry()
    if not releases:
        return could_not("Nothing was released in this lab yet.")
    newest = releases[-1]
    try:
        listed = json.loads((lab.root / newest.sbom).read_text("utf-8"))["components"]
        versions = {component["name"]: component["version"] for component in listed}
    except (OSError, ValueError, LookupError) as error:
        return could_not(f"The bill of materials of {newest.version} can't be read: {error}")
    found = re.search(r"\d[\w.]*", answered)
    if not found:
        return not_yet(f"{answered!r} names no version.")
    if found[0] == versions[LIBRARY]:
        return right(f"{newest.version} ships {LIBRARY} {versions[LIBRARY]}.")
    if others := [name for name, version in versions.items() if version == found[0]]:
        return not_yet(f"{found[0]} is the version of {others[0]} in {newest.version}.")
    return not_yet(f"Nothing in the bill of materials of {newest.version} has the version {found[0]}.")
