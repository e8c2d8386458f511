"""The value clock: what customers have of the developers' work, flat until a deployment."""

from __future__ import annotations

from devops_lab.errors import LabError
from devops_lab.git import git
from devops_lab.model import Deployment, Release
from devops_lab.phases import World


def value_clock(world: World, history: list[Deployment]) -> list[tuple[float, str, float]]:
    """Steps of (time, version, value) of the backlog items whose change the serving version carries.

    Args:
        history: deployments, oldest first.
    """
    serving = [d for d in history if d.state == "done"]
    worth = {version: value_of(world, version) for version in {d.version for d in serving}}
    founded = world.store.events(kind="lab.founded")
    start = [(founded[0].t, "", 0.0)] if founded else []
    return start + [(d.ended, d.version, worth[d.version]) for d in serving]


def value_of(world: World, version: str) -> float:
    """The value of all backlog items whose change is among the commits of a release."""
    release = world.store.get(Release, version)
    if release is None:
        return 0.0
    try:
        subjects = set(git(world.origin, "log", "--format=%s", release.commit).splitlines())
    except LabError:  # a release that was made elsewhere has no history here
        return 0.0
    return sum(value for subject, value in worth_of_changes(world).items() if subject in subjects)


def worth_of_changes(world: World) -> dict[str, float]:
    """The commit subject of each prepared change that a backlog item asks for -> that item's value."""
    from devops_lab.phases.plan import Plan
    from devops_lab.shop import changes

    plan = Plan(world)
    values = {item.change: item.value for item in [*plan.backlog(), *plan.finished()] if item.change}
    return {change.subject: values[change.id] for change in changes() if change.id in values}
