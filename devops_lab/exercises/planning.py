"""Checks of Welcome, Plan and Code that need no production; their texts are in the YAML files beside."""

from __future__ import annotations

import re
import tempfile
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any

import yaml

from devops_lab.exercises.base import NotYet, Said, Verdict, not_yet, right, text
from devops_lab.exercises.delivery import own_commits
from devops_lab.lab import Lab
from devops_lab.model import Decision
from devops_lab.platform.git import git, identity, run

FIRST = "v1.0.0"
ALLERGENS, NEEDED = "allergens", "BENTO-22"
STORY = re.compile(r"(?i)^as (an? )?\w.* i want .+ so that .+")
PLATFORM_BRANCH, STORAGE = "learn/platform", 1000
POINTS, WORTH = 6, 14
TAG, SEARCH = "learn/search", "feat: fuzzy search over the menu"
GPU_ITEM = "BENTO-56"
IGNORE_BRANCH = "learn/ignore"
OURS, THEIRS, HOURS = "learn/ours", "learn/theirs", "HOURS.md"


def file_on(lab: Lab, branch: str, path: str) -> str:
    """A file on one of the reader's branches; tells when the branch or the file is not there."""
    own_commits(lab, branch)
    shown = run(lab.world.shop, "show", f"{branch}:{path}")
    if shown.returncode:
        raise NotYet(f"{branch} has no file {path}.")
    return shown.stdout


def commit_named(lab: Lab, words: str) -> str:
    """The commit that somebody means, whole; tells when there is none."""
    found = run(
        lab.world.shop, "rev-parse", "--verify", "--quiet", f"{words.removeprefix('commit:')}^{{commit}}"
    )
    if len(words) < 4 or found.returncode:
        raise NotYet(f"The shop's history has no commit {words!r}.")
    return found.stdout.strip()


# ---- Welcome
def own_name(lab: Lab, said: Said) -> Verdict:
    try:
        name = tomllib.loads((lab.root / "lab.toml").read_text("utf-8")).get("learner")
    except (OSError, ValueError) as error:
        return not_yet(f"lab.toml can't be read any more: {error}")
    if name is None:
        return not_yet("lab.toml has no line `learner = …` any more.")
    if not isinstance(name, str) or not re.search(r"\w", name):
        return not_yet(f"lab.toml says learner = {name!r}: that is no name; it stands in quotes.")
    if name == "learner":
        return not_yet("lab.toml still calls you by no more than `learner`.")
    return right(f"From the next opening of this lab on, its trail says {name}.")


def busiest_author(lab: Lab, said: Said) -> Verdict:
    answered = text(said)
    counts = Counter(git(lab.world.shop, "log", "--format=%an", FIRST).splitlines())
    words = set(re.findall(r"\w+", answered.casefold()))
    named = next((who for who in counts if words and words <= set(who.casefold().split())), "")
    if not named:
        return not_yet(f"Nobody called {answered} committed to the shop up to {FIRST}.")
    if counts[named] == max(counts.values()):
        return right(f"{named} made {counts[named]} of {counts.total()} commits.")
    if counts[named] == min(counts.values()):
        return not_yet(f"{named} made {counts[named]} commits: the fewest of all.")
    return not_yet(f"{named} made {counts[named]} commits; somebody made more.")


def first_commit(lab: Lab, said: Said) -> Verdict:
    commit = commit_named(lab, text(said))
    before = int(git(lab.world.shop, "rev-list", "--count", commit)) - 1
    if before == 0:
        return right(f"With {commit[:8]} it all began.")
    if commit == git(lab.world.shop, "rev-parse", "HEAD"):
        return not_yet(f"{commit[:8]} is the newest commit, {before} come before it.")
    return not_yet(f"{commit[:8]} has {before} commits before it.")


# ---- Plan
def allergens(lab: Lab, said: Said) -> Verdict:
    items = {item.id: item for item in lab.plan.backlog()}
    if not (item := items.get(ALLERGENS)):
        return not_yet(f"The backlog has no item {ALLERGENS!r} that waits.")
    if item.kind != "feature":
        return not_yet(f"{ALLERGENS} is of kind {item.kind}; for customers it is a feature.")
    if not STORY.match(" ".join(item.story.split())):
        return not_yet(f"The story {item.story!r} does not say who wants it, what, and what for.")
    if NEEDED not in item.depends_on:
        return not_yet(f"{ALLERGENS} depends on {item.depends_on or 'nothing'}; it builds upon {NEEDED}.")
    return right(f"{ALLERGENS} waits in the backlog: {item.story}")


def more_storage(lab: Lab, said: Said) -> Verdict:
    before = yaml.safe_load(git(lab.world.shop, "show", "main:platform.yaml"))
    try:
        after: Any = yaml.safe_load(file_on(lab, PLATFORM_BRANCH, "platform.yaml"))
        limit = after["limits"]["storage_mb"]
    except (yaml.YAMLError, LookupError, TypeError) as error:
        return not_yet(f"platform.yaml on {PLATFORM_BRANCH} does not hold together: {error}")
    if not isinstance(limit, int):
        return not_yet(f"storage_mb is {limit!r}; the review compares numbers, so write it without a unit.")
    if limit != STORAGE:
        return not_yet(f"On {PLATFORM_BRANCH} the database may take {limit} MB; {STORAGE} were ordered.")
    changed = [key for key in before if key != "limits" and before[key] != after.get(key)]
    changed += [key for key, value in before["limits"].items() if value != after["limits"].get(key)]
    if changed != ["storage_mb"]:
        return not_yet(f"Something else was changed as well: {', '.join(changed)}.")
    return right(f"{PLATFORM_BRANCH} gives the database {STORAGE} MB, and changes nothing else.")


def small_sprint(lab: Lab, said: Said) -> Verdict:
    sprint = lab.plan.sprint()
    if not sprint or sprint.chosen_by != "hand":
        return not_yet(
            "No sprint was chosen by hand: the machine's choice is the newest." if sprint else "No sprint."
        )
    seen = f"{', '.join(sprint.items)}: {sprint.effort:g} points, worth {sprint.value:g}"
    if sprint.effort > POINTS:
        return not_yet(f"{seen}. Half a team can't do more than {POINTS} points.")
    if sprint.value < WORTH:
        return not_yet(f"{seen}. There are items that are worth more for what they cost.")
    return right(f"{seen}.")


def advice_taken(lab: Lab, said: Said) -> Verdict:
    decisions = lab.store.all(Decision)
    ours = [decision for decision in decisions if decision.item == GPU_ITEM]
    if not ours and decisions:
        return not_yet(f"You answered on {decisions[-1].item}; {GPU_ITEM} still waits.")
    if not ours:
        return not_yet(f"Nothing was decided on {GPU_ITEM} yet: the developers wait for an answer.")
    if not ours[-1].taken:
        return not_yet(f"The advice on {GPU_ITEM} was ignored: it still asks for what nobody can give it.")
    why = lab.store.events(kind="plan.decided", subject=f"decision:{GPU_ITEM}", limit=1)[-1].why
    return right(f"{GPU_ITEM} becomes what the platform can carry; why: {why or 'nobody was told.'}")


# ---- Code
def tagged_search(lab: Lab, said: Said) -> Verdict:
    shop = lab.world.shop
    if run(shop, "rev-parse", "--verify", "--quiet", f"refs/tags/{TAG}").returncode:
        return not_yet(f"The shop's repository has no tag {TAG}.")
    if git(shop, "cat-file", "-t", TAG) != "tag":
        return not_yet(f"{TAG} is a lightweight tag: a mere name, without who, when and why.")
    subject = git(shop, "log", "-1", "--format=%s", TAG)
    if subject != SEARCH:
        return not_yet(f"{TAG} is at {subject!r}, which is not where the search came in.")
    who = git(shop, "tag", "--list", TAG, "--format=%(taggername): %(contents:subject)")
    return right(f"{TAG} marks {subject!r}. {who}")


def ignored_secrets(lab: Lab, said: Said) -> Verdict:
    patterns = file_on(lab, IGNORE_BRANCH, ".gitignore")
    if run(lab.world.shop, "cat-file", "-e", f"{IGNORE_BRANCH}:.env").returncode == 0:
        return not_yet(f"{IGNORE_BRANCH} holds a file .env: what git has once, it never forgets.")
    with tempfile.TemporaryDirectory() as folder:
        git(Path(folder), "init", "--quiet")
        (Path(folder) / ".gitignore").write_text(patterns, encoding="utf-8")
        names = (".env", "deploy/.env", ".env.example", "src/bento/_score.so")
        secret, deep, example, built = (
            run(Path(folder), "check-ignore", "--quiet", name).returncode == 0 for name in names
        )
    if not (secret and deep):
        return not_yet(f"Git would still take {'deploy/.env' if secret else '.env'} along.")
    if example:
        return not_yet("Git ignores .env.example as well, which newcomers need.")
    if not built:
        return not_yet("What was ignored before is not any more: _score.so, a product of the build.")
    return right("A .env stays at home wherever it lies; .env.example comes along.")


def two_at_once(lab: Lab) -> str:
    """Two branches change the same line of one file."""
    shop, who = lab.world.shop, identity("Dario Conti")
    lab.code.checkout("main")
    for branch in (OURS, THEIRS):
        if branch in lab.code.branches():
            git(shop, "branch", "--quiet", "-D", branch)
    lab.code.branch(OURS)
    lab.code.write(HOURS, "Weekdays: 11 to 14\n")
    lab.code.commit("docs: when the kitchen is open")
    for branch, line in ((THEIRS, "Weekdays: 11 to 15"), (OURS, "Weekdays: 10 to 14")):
        lab.code.branch(OURS) if branch == OURS else git(shop, "switch", "--quiet", "-c", THEIRS)
        (shop / HOURS).write_text(f"{line}\n", encoding="utf-8")
        git(shop, "commit", "--quiet", "-am", f"docs: {line}", env=who)
        git(shop, "switch", "--quiet", OURS)
    lab.code.checkout("main")
    return f"{OURS} and {THEIRS} are there, and changed the same line of {HOURS}."


def settled(lab: Lab, said: Said) -> Verdict:
    shop = lab.world.shop
    if THEIRS not in lab.code.branches():
        return not_yet("The two branches are not there yet: .start() makes them.")
    hours = file_on(lab, OURS, HOURS)
    if "<<<<<<<" in hours or ">>>>>>>" in hours:
        return not_yet(f"{HOURS} on {OURS} holds git's marks of the conflict.")
    if run(shop, "merge-base", "--is-ancestor", THEIRS, OURS).returncode:
        return not_yet(f"{OURS} does not contain {THEIRS}: it was not merged.")
    if not re.search(r"\b10\b.*\b15\b", hours):
        return not_yet(f"{HOURS} says {hours.strip()!r}: one of the two wishes got lost.")
    return right(f"{OURS} contains both, and {HOURS} says {hours.strip()!r}.")
