"""The arithmetic of planning: needs against limits, weighted shortest job first, Monte Carlo forecast.

And the value clock: what customers have of the developers' work, flat until a deployment.
"""

from __future__ import annotations

import random
from collections import Counter
from itertools import accumulate
from typing import Literal

from devops_lab.errors import BadInput, LabError
from devops_lab.model import Deployment, Finding, Forecast, Item, Need, Release
from devops_lab.planning.backlog import Platform
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git
from devops_lab.shop import changes

FIGURES = {
    "memory_mb": "MB of memory a replica",
    "cpu_millicores": "millicores a replica",
    "storage_mb": "MB of storage",
    "log_mb_per_minute": "MB of log a minute and replica",
    "replicas": "replicas",
}


def review_item(item: Item, platform: Platform) -> list[Finding]:
    """What an item asks for that the platform can't carry, its risk, and the first alternative that fits."""
    problems: list[tuple[str, Literal["blocks", "risk"]]] = []
    problems += [(problem, "blocks") for problem in _too_much(item.needs, platform)]
    problems += [(item.risk.rstrip("."), "risk")] if item.risk else []
    fits = [n for n, option in enumerate(item.alternatives) if not _too_much(option.needs, platform)]
    option = item.alternatives[fits[0]] if fits else None
    proposal = f"{option.title} (effort {option.effort:g}, value {option.value:g})" if option else ""
    index = fits[0] if fits else -1
    return [Finding(item.id, text, kind, proposal, index) for text, kind in problems]


def _too_much(needs: list[Need], platform: Platform) -> list[str]:
    """What of these needs the platform can't carry, in words; figures of several needs add up."""
    problems = []
    for need in needs:
        if need.service and need.service not in platform.services:
            why = platform.not_offered.get(need.service, "It offers: " + ", ".join(platform.services) + ".")
            problems.append(f"needs {need.service}, which the platform does not offer. {why}".rstrip("."))
    for name, unit in FIGURES.items():
        asked = [getattr(need, name) for need in needs]
        total = max(asked, default=0) if name == "replicas" else sum(asked)
        limit = getattr(platform.limits, name)
        if total > limit:
            problems.append(f"needs {total:g} {unit}; the limit is {limit:g}")
    return problems


def by_wsjf(waiting: dict[str, Item], blocked: set[str], room: float) -> list[Item]:
    """Take the bundle (an item with what it still needs) of highest WSJF that fits, again and again."""
    chosen: dict[str, Item] = {}
    while True:
        bundles = []
        for name in waiting.keys() - chosen.keys():
            bundle = {n: waiting[n] for n in _with_dependencies(name, waiting) if n not in chosen}
            effort = sum(item.effort for item in bundle.values())
            if not blocked & bundle.keys() and effort <= room - sum(item.effort for item in chosen.values()):
                worth = sum(item.wsjf * item.effort for item in bundle.values())
                bundles.append((worth / effort, name, bundle))
        if not bundles:
            return list(chosen.values())
        chosen |= max(bundles, key=lambda each: (each[0], each[1]))[2]


def _with_dependencies(name: str, waiting: dict[str, Item]) -> list[str]:
    """The ids that have to be done for `name`, dependencies first, without what is done already."""
    found: dict[str, None] = {}
    for other in waiting[name].depends_on:
        if other in waiting:
            found |= dict.fromkeys(_with_dependencies(other, waiting))
    return [*found, name]


def check_by_hand(
    chosen: list[Item], waiting: dict[str, Item], blocked: dict[str, Finding], room: float
) -> None:
    names = [item.id for item in chosen]
    if doubled := [name for name, times in Counter(names).items() if times > 1]:
        raise BadInput(f"{', '.join(doubled)} chosen twice.", expected="each item once")
    for item in chosen:
        if missing := [other for other in item.depends_on if other in waiting and other not in names]:
            raise BadInput(
                f"{item.id} depends on {', '.join(missing)}.", next_step=f"Choose {missing[0]} as well."
            )
        if item.id in blocked:
            raise BadInput(
                f"{item.id} is blocked: it {blocked[item.id].problem}.",
                expected=blocked[item.id].proposal or "something that the platform can carry",
                next_step=f"plan.decide({item.id!r}, take=True) takes the advice; take=False ignores it.",
            )
    if (effort := sum(item.effort for item in chosen)) > room:
        raise BadInput(
            f"{effort:g} points chosen, {effort - room:g} too many.",
            expected=f"at most {room:g}, what the team gets done in a sprint",
            next_step="Leave out the item with the lowest WSJF.",
        )


def monte_carlo(throughput: list[int], remaining: int, trials: int, seed: int) -> Forecast:
    """Draw past sprints at random until nothing remains, `trials` times.

    Raises:
        BadInput: figures that make no sense, or fewer than three sprints of history.
    """
    if remaining < 1 or not 1 <= trials <= 1_000_000:
        expected = "remaining from 1, trials from 1 to 1,000,000"
        raise BadInput(f"remaining = {remaining}, trials = {trials}", expected=expected)
    if len(throughput) < 3:
        raise no_history(len(throughput), 3)
    draw = random.Random(seed).choice
    needed: Counter[int] = Counter()
    for _ in range(trials):
        done = sprints = 0
        while done < remaining:
            done += draw(throughput)
            sprints += 1
        needed[sprints] += 1
    shares = {sprints: needed[sprints] / trials for sprints in sorted(needed)}
    p50, p85 = (_percentile(shares, share) for share in (0.50, 0.85))
    return Forecast(trials, throughput, remaining, shares, p50, p85)


def _percentile(shares: dict[int, float], share: float) -> int:
    reached = zip(shares, accumulate(shares.values()), strict=True)
    return next(sprints for sprints, total in reached if total >= share - 1e-9)


def no_history(found: int, needed: int) -> BadInput:
    """The error for a backlog with too few finished sprints."""
    return BadInput(
        f"The backlog's history has {found} finished sprints.",
        expected=f"at least {needed}",
        next_step="Keep finished items in backlog.yaml, with `status: done` and their `sprint:`.",
    )


def value_clock(
    world: LabContext, history: list[Deployment], items: list[Item]
) -> list[tuple[float, str, float]]:
    """Steps of (time, version, value) of the backlog items whose change the serving version carries.

    Args:
        history: deployments, oldest first.
        items: of the backlog, also those that are done.
    """
    serving = [d for d in history if d.state == "done"]
    values = {item.change: item.value for item in items if item.change}
    of_subject = {change.subject: values[change.id] for change in changes() if change.id in values}
    worth = {version: _value_of(world, version, of_subject) for version in {d.version for d in serving}}
    founded = world.store.events(kind="lab.founded")
    start = [(founded[0].t, "", 0.0)] if founded else []
    return start + [(d.ended, d.version, worth[d.version]) for d in serving]


def _value_of(world: LabContext, version: str, of_subject: dict[str, float]) -> float:
    """The value of all backlog items whose change is among the commits of a release."""
    release = world.store.get(Release, version)
    if release is None:
        return 0.0
    try:
        subjects = set(git(world.origin, "log", "--format=%s", release.commit).splitlines())
    except LabError:  # a release that was made elsewhere has no history here
        return 0.0
    return sum(value for subject, value in of_subject.items() if subject in subjects)
