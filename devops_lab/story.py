"""The workbook's story on top of the phases: what a notebook may take for granted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from devops_lab.errors import BadInput
from devops_lab.model import PHASES, Artifact, Release, Sprint, TestReport
from devops_lab.settings import choice

if TYPE_CHECKING:
    from devops_lab.lab import Lab

FIRST = "1.0.0"  # the shop's version before the reader arrives
FIRST_FEATURE = "dietary-filter"  # the change that the notebooks carry from Code to Deploy
ORDER = (*PHASES, "repeat", "continuous")


def catch_up(lab: Lab, phase: str) -> list[str]:
    """Do what the phases before `phase` have not done yet; return what was done, a line each."""
    choice("phase", phase, ORDER)
    done: list[str] = []
    for earlier in ORDER[: ORDER.index(phase)]:
        step = STEPS.get(earlier)
        if step and (line := step(lab)):
            lab.store.event(earlier, "story.caught_up", f"phase:{earlier}", line, who="the lab")
            done.append(f"{earlier}: {line}")
    return done


def _plan(lab: Lab) -> str:
    if lab.store.last(Sprint):
        return ""
    sprint = lab.plan.choose()
    return f"sprint {sprint.number} chosen, {len(sprint.items)} items, {sprint.effort:g} points"


def _code(lab: Lab) -> str:
    if merged(lab, FIRST_FEATURE):
        return ""
    bring(lab, FIRST_FEATURE)
    return f"{FIRST_FEATURE} written, reviewed and merged"


def _build(lab: Lab) -> str:
    if lab.store.last(Artifact):
        return ""
    artifact = lab.build.run()
    return f"version {artifact.version} built in {artifact.seconds:.2f} s"


def _test(lab: Lab) -> str:
    if lab.store.last(TestReport):
        return ""
    report = lab.test.run()
    return (
        f"{len(report.cases)} tests in {report.seconds:.2f} s, gate {'open' if report.passed else 'closed'}"
    )


def _release(lab: Lab) -> str:
    if shipped(lab, FIRST_FEATURE):
        return ""
    release = ship(lab, FIRST_FEATURE, why="the first feature of the sprint")
    return f"version {release.version} released"


def _deploy(lab: Lab) -> str:
    if lab.deploy.current():
        return ""
    first(lab)
    release = shipped(lab, FIRST_FEATURE)
    assert release
    lab.deploy.run(release.version, who="the lab", why="catching up")
    return f"versions {FIRST} and then {release.version} deployed"


STEPS = {
    "plan": _plan,
    "code": _code,
    "build": _build,
    "test": _test,
    "release": _release,
    "deploy": _deploy,
}


def first(lab: Lab) -> Release:
    """Have the shop's first version released and, when production is empty, running."""
    known = {r.version: r for r in lab.release.registry()}
    release = known.get(FIRST) or lab.release.release_tag(f"v{FIRST}")
    if not lab.deploy.current():
        lab.deploy.run(FIRST, "first", who="the lab", why="the shop as the reader finds it")
    return release


def bring(lab: Lab, change: str) -> str:
    """Bring one prepared change to main as its developer would: branch, commit, review, merge, push."""
    if commit := merged(lab, change):
        return commit
    lab.code.checkout("main")
    lab.code.branch(f"work/{change}")
    lab.code.apply(change)
    return lab.code.merge(f"work/{change}").id


def merged(lab: Lab, change: str) -> str:
    """The commit on main that carries a prepared change, found by its subject; empty when it is not there."""
    from devops_lab.git import git
    from devops_lab.shop import changes

    subject = {c.id: c.subject for c in changes()}.get(change)
    if subject is None:
        raise BadInput(
            f"There is no change {change!r}.",
            expected=", ".join(c.id for c in changes()),
            next_step="Choose one.",
        )
    log = git(lab.world.shop, "log", "--format=%H %s", "main").splitlines()
    return next((line.split(" ", 1)[0] for line in log if line.split(" ", 1)[1] == subject), "")


def ship(lab: Lab, change: str, *, why: str = "") -> Release:
    """Take one prepared change all the way to the registry: merge > build > test > release. Safe to repeat.

    Args:
        change: the id of a change in the shop's `changes.yaml`.
        why: the reason, for the trail.

    Raises:
        BadInput: there is no such change.
        ChecksFailed: the tests stop it; it stays on main, unreleased.
    """
    if release := shipped(lab, change):
        return release
    bring(lab, change)
    artifact = lab.build.run()
    lab.test.run(artifact)
    release = lab.release.run(why=why or f"ships {change}")
    lab.store.link(f"release:{release.version}", "brings", f"change:{change}")
    return release


def shipped(lab: Lab, change: str) -> Release | None:
    """The first release whose tag contains a change, or None."""
    from devops_lab.git import git

    commit = merged(lab, change)
    tags = git(lab.world.shop, "tag", "--contains", commit).split() if commit else []
    found = [r for r in lab.release.registry() if r.tag in tags]
    return min(found, key=lambda r: [int(part) for part in r.version.split(".")], default=None)


def production_at(lab: Lab, version: str, replicas: int | None = None) -> str:
    """Make sure that exactly `version` serves, with `replicas` copies; for the preconditions of a step."""
    wanted = replicas or lab.settings.replicas
    if not lab.deploy.current():
        first(lab)
    if lab.deploy.current() != version:
        lab.deploy.run(
            version, "blue/green", who="the lab", why="precondition of the next step", replicas=wanted
        )
    elif sum(pool.replicas for pool in lab.deploy.pools()) != wanted:
        lab.deploy.scale(wanted, who="the lab", why="precondition of the next step")
    return lab.deploy.current()


def status(lab: Lab) -> dict[str, Any]:
    """The lab in figures, for `devops-lab status` and the notebooks."""
    control = lab.world.control
    sprint = lab.store.last(Sprint)
    return {
        "lab": lab.root.name,
        "engine": lab.settings.engine,
        "pace": lab.settings.pace,
        "head": lab.code.head().short,
        "sprint": sprint.items if sprint else [],
        "releases": [r.version for r in lab.release.registry()],
        "in_production": lab.deploy.current(),
        "agent": control.alive(),
        "production": control.status() if control.alive() else {},
        "alerts": [a.rule for a in lab.monitor.alerts("firing")],
    }


__all__ = ["BadInput", "bring", "catch_up", "first", "merged", "production_at", "ship", "shipped", "status"]
