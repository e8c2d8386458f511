"""The workbook's story on top of the phases: what a notebook may take for granted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from devops_lab.delivery.registry import read_registry
from devops_lab.lab.parts import Parts
from devops_lab.model import PHASES, Artifact, PipelineRun, Pool, Release, Sprint, TestReport
from devops_lab.pipeline.hook import Trigger
from devops_lab.platform import locks
from devops_lab.platform.git import git, identity
from devops_lab.platform.settings import choice
from devops_lab.shop import changes, find_change

FIRST = "1.0.0"  # the shop's version before the reader arrives
FIRST_FEATURE = "dietary-filter"  # the change that the notebooks carry from Code to Deploy
ORDER = (*PHASES, "repeat", "continuous")


def catch_up(lab: Parts, phase: str) -> list[str]:
    """Do what the phases before `phase` have not done yet; return what was done, a line each.

    Another notebook that does so in the same lab at this moment is waited for.
    """
    choice("phase", phase, ORDER)
    told = "Another notebook catches up in this lab: waiting for it."
    with locks.held(lab.world.work / "catch-up.lock", told=told):
        done = [f"production: {line}"] if (line := revive(lab)) else []
        for earlier in ORDER[: ORDER.index(phase)]:
            there, do = STEPS.get(earlier, (lambda _: True, None))
            if do and not there(lab):
                line = do(lab)
                lab.store.event(earlier, "story.caught_up", f"phase:{earlier}", line, who="the lab")
                done.append(f"{earlier}: {line}")
    return done


def revive(lab: Parts) -> str:
    """Bring back what production is meant to run, e.g. after the machine was off; return what was done."""
    if not lab.deploy.pools() or lab.world.control.alive():
        return ""
    lab.world.control.ensure()
    lab.world.control.wait_settled()
    return f"version {lab.deploy.current()} started again"


def _plan(lab: Parts) -> str:
    sprint = lab.plan.choose()
    return f"sprint {sprint.number} chosen, {len(sprint.items)} items, {sprint.effort:g} points"


def _code(lab: Parts) -> str:
    bring(lab, FIRST_FEATURE)
    return f"{FIRST_FEATURE} written, reviewed and merged"


def _build(lab: Parts) -> str:
    artifact = lab.build.run()
    return f"version {artifact.version} built in {artifact.seconds:.2f} s"


def _test(lab: Parts) -> str:
    report = lab.test.run()
    gate = "open" if report.passed else "closed"
    return f"{len(report.cases)} tests in {report.seconds:.2f} s, gate {gate}"


def _release(lab: Parts) -> str:
    return f"version {ship(lab, FIRST_FEATURE, why='the first feature of the sprint').version} released"


def _deploy(lab: Parts) -> str:
    first(lab)
    release = shipped(lab, FIRST_FEATURE)
    assert release
    lab.deploy.run(release.version, who="the lab", why="catching up")
    return f"versions {FIRST} and then {release.version} deployed"


# phase -> (what there is when it has been done, how it is done)
STEPS: dict[str, tuple[Callable[[Parts], object], Callable[[Parts], str]]] = {
    "plan": (lambda lab: lab.store.last(Sprint), _plan),
    "code": (lambda lab: merged(lab, FIRST_FEATURE), _code),
    "build": (lambda lab: lab.store.last(Artifact), _build),
    "test": (lambda lab: lab.store.last(TestReport), _test),
    "release": (lambda lab: shipped(lab, FIRST_FEATURE), _release),
    "deploy": (lambda lab: lab.store.all(Pool), _deploy),
}


def first(lab: Parts) -> Release:
    """Have the shop's first version released and, when production is empty, running."""
    known = {r.version: r for r in lab.release.registry()}
    release = known.get(FIRST) or lab.release.release_tag(f"v{FIRST}")
    revive(lab)
    if not lab.deploy.current():
        lab.deploy.run(FIRST, "first", who="the lab", why="the shop as the reader finds it")
    return release


def bring(lab: Parts, change: str) -> str:
    """Bring one prepared change to main as its developer would: branch, commit, review, merge, push.

    Returns:
        The commit that carries it.
    """
    if not merged(lab, change):
        on_branch(lab, change, f"work/{change}")
        lab.code.merge(f"work/{change}")
    return merged(lab, change)


def on_branch(lab: Parts, change: str, branch: str = "", start: str = "main") -> str:
    """Put a prepared change on a branch of its own from `start`, go back to main, and return its name."""
    name = branch or f"try/{change}"
    lab.code.checkout(start)
    lab.code.branch(name)
    lab.code.apply(change)
    lab.code.checkout("main")
    return name


def merged(lab: Parts, change: str, at: str = "main") -> str:
    """The commit that carries a change on a branch or tag; empty when it is not there, or was reverted."""
    subject = find_change(change).subject
    for line in git(lab.world.shop, "log", "--format=%H %s", at).splitlines():
        commit, _, found = line.partition(" ")
        if found == f'Revert "{subject}"':
            return ""
        if found == subject:
            return commit
    return ""


def ship(lab: Parts, change: str, *, why: str = "", merge: bool = True, start: str = "main") -> Release:
    """Take one prepared change all the way to the registry: merge > build > test > release. Safe to repeat.

    Args:
        change: the id of a change in the shop's `changes.yaml`.
        why: the reason, for the trail.
        merge: False releases it from a branch of its own and leaves main alone.
        start: where such a branch begins, e.g. the tag of what is in production.

    Raises:
        BadInput: there is no such change.
        ChecksFailed: the tests stop it; it is not released.
    """
    if release := shipped(lab, change, "main" if merge else f"try/{change}"):
        return release
    commit = bring(lab, change) if merge else on_branch(lab, change, start=start)
    artifact = lab.build.run("main" if merge else commit)
    if lab.test.passing(artifact) is None:
        lab.test.run(artifact)
    release = lab.release.run(why=why or f"ships {change}", artifact=artifact)
    lab.store.link(f"release:{release.version}", "brings", f"change:{change}")
    return release


def shipped(lab: Parts, change: str, branch: str = "main") -> Release | None:
    """The first release whose tag contains a change, or None."""
    if branch not in lab.code.branches():
        return None
    commit = merged(lab, change, branch)
    tags = git(lab.world.shop, "tag", "--contains", commit).split() if commit else []
    found = [r for r in lab.release.registry() if r.tag in tags]
    return min(found, key=_number, default=None)


def sound(lab: Parts, without: str = "") -> str:
    """The newest released version that holds no known fault without its mend, nor the change `without`."""
    mends = {c.after: c.id for c in changes() if c.kind == "feature" and c.after}
    faults = [c.id for c in changes() if c.kind == "fault"]

    def is_sound(release: Release) -> bool:
        has = [f for f in faults if merged(lab, f, release.tag)]
        if without and merged(lab, without, release.tag):
            return False
        return all(f in mends and merged(lab, mends[f], release.tag) for f in has)

    return max((r for r in lab.release.registry() if is_sound(r)), key=_number).version


def mend_of(lab: Parts, fault: str) -> str:
    """The change that mends a fault: its fix, or what comes in its place where Plan's advice was taken."""
    asked = {item.change for item in (*lab.plan.backlog(), *lab.plan.finished())}
    better = [c.id for c in changes() if c.instead == fault and c.id in asked]
    return better[0] if better else next(c.id for c in changes() if c.after == fault)


def ship_fault(lab: Parts, fault: str, why: str) -> Release:
    """Ship a fault on main; where the advice against it was taken, from a branch that nobody asked about."""
    return ship(lab, fault, why=why, merge=not find_change(mend_of(lab, fault)).instead)


def _number(release: Release) -> list[int]:
    return [int(part) for part in release.version.split(".")]


def push_change(lab: Parts, change: str) -> tuple[PipelineRun, str]:
    """Commit a change on main and push it; where it is there already, run the pipeline once more."""
    lab.code.checkout("main")
    if merged(lab, change):
        trigger = lab.store.last(Trigger)
        return lab.pipeline.run(trigger.mode if trigger else "delivery"), f"{change} is on main already"
    lab.code.apply(change)
    return lab.pipeline.push()


def push_revert(lab: Parts, change: str) -> tuple[PipelineRun, str]:
    """Take a change on main back by a commit that undoes it, and push that."""
    lab.code.checkout("main")
    who = identity(lab.settings.learner)
    git(lab.world.shop, "revert", "--no-edit", merged(lab, change), env=who)
    return lab.pipeline.push()


def growth(lab: Parts, rate: float, seconds: float) -> float:
    """Bytes of memory that the replicas grow by for each request, measured over one load.

    Args:
        rate: requests per second.
        seconds: how long customers come.
    """

    def memory() -> float:
        replicas = lab.replicas()
        return sum(usage.memory_bytes for r in replicas if (usage := lab.world.engine.usage(r)))

    # a new process grows until its caches are full: so many requests first, in less time
    lab.operate.load(rate=3 * rate, seconds=seconds * 2 / 3).wait()
    before = memory()
    summary = lab.operate.load(rate=rate, seconds=seconds).wait()
    return (memory() - before) / max(summary.requests, 1)


def production_at(lab: Parts, version: str, replicas: int | None = None) -> str:
    """Make sure that exactly `version` serves, with `replicas` copies; for the preconditions of a step."""
    wanted, why = replicas or lab.settings.replicas, "precondition of the next step"
    if not lab.deploy.current():
        first(lab)
    if lab.deploy.current() != version:
        lab.deploy.run(version, "blue/green", who="the lab", why=why, replicas=wanted)
    elif sum(pool.replicas for pool in lab.deploy.pools()) != wanted:
        lab.deploy.scale(wanted, who="the lab", why=why)
    return lab.deploy.current()


def status(lab: Parts) -> dict[str, Any]:
    """The lab in figures, for `devops-lab status` and the notebooks.

    Raises:
        Damaged: the lab's store is.
    """
    lab.store.check()
    control = lab.world.control
    sprint = lab.store.last(Sprint)
    return {
        "lab": lab.root.name,
        "engine": lab.settings.engine,
        "pace": lab.settings.pace,
        "head": lab.code.head().short,
        "sprint": sprint.items if sprint else [],
        "releases": [r.version for r in lab.release.registry()],
        "damaged": [error.wrong for error in read_registry(lab.world.registry)[1]],
        "in_production": lab.deploy.current(),
        "agent": control.keep(),
        "production": control.status() if control.alive() else {},
        "customers": [crowd.told(lab.store.now()) for crowd in lab.operate.customers()],
        "alerts": [a.rule for a in lab.monitor.alerts("firing")],
    }
