"""What a notebook's clean-up makes sure of: the lab as whoever comes next expects it, whatever was done.

Each step puts one thing right and says so in a line; it says nothing where all is well.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from devops_lab.errors import LabError, RegistryRefused
from devops_lab.lab.parts import Parts
from devops_lab.lab.story import FIRST_FEATURE, bring, first, merged, production_at, revive, sound
from devops_lab.model import AlertRule, Artifact, ScalingPolicy, TestReport
from devops_lab.platform.git import git, half_done, identity, run
from devops_lab.platform.monitoring.rules import DEFAULT_RULES
from devops_lab.platform.settings import choice
from devops_lab.production import drills

WHY = "clean-up"


def tidy(lab: Parts, notebook: str) -> list[str]:
    """Put right what is not as this notebook's end has it; one thing that can't be keeps none from being.

    Args:
        notebook: "welcome", a phase, "repeat" or "continuous".

    Returns:
        What was changed, a line each; empty when all was well.

    Raises:
        BadInput: there is no such notebook.
        LabError: something could not be put right; says what, and what was.
    """
    choice("notebook", notebook, tuple(ENDS))
    done, left = list[str](), list[str]()
    for step in ENDS[notebook]:
        try:
            done += filter(None, [step(lab)])
        except LabError as problem:
            left.append(str(problem))
    if left:
        said = f"\nPut right: {'; '.join(done)}." if done else ""
        raise LabError("The clean-up could not put all right.\n" + "\n".join(left) + said)
    return done


# ---- the shop's repository
def repository(lab: Parts) -> str:
    """Main is checked out, and nothing is half done; work that no commit holds is kept on a branch."""
    shop, said = lab.world.shop, list[str]()
    command, waiting = half_done(shop)[0], lab.code.uncommitted()
    if waiting:
        said.append(f"{', '.join(waiting[:5])}, which no commit held, are kept on the branch {_aside(lab)}")
    if command:
        run(shop, command, "reset" if command == "bisect" else "--abort")
        said.append(f"an unfinished git {command} was taken back")
    if waiting:
        git(shop, "reset", "--quiet", "--hard")
        git(shop, "clean", "--quiet", "-fd")
    if (branch := lab.code.current()) != "main":
        lab.code.checkout("main")
        said.append(f"main is checked out instead of {branch or 'a single commit'}")
    return "; ".join(said)


def _aside(lab: Parts) -> str:
    """Commit the working tree as it is, also amid a conflict, to a branch of its own; return its name."""
    shop, who = lab.world.shop, identity(lab.settings.learner)
    with tempfile.TemporaryDirectory(prefix="devops-lab-") as folder:
        index = {"GIT_INDEX_FILE": str(Path(folder, "index"))}
        git(shop, "read-tree", "HEAD", env=index)
        git(shop, "add", "--all", env=index)
        tree = git(shop, "write-tree", env=index)
    commit = git(shop, "commit-tree", tree, "-p", "HEAD", "-m", "wip: put aside by a clean-up", env=who)
    name = f"aside/{commit[:8]}"
    git(shop, "branch", "--force", name, commit)
    return name


# ---- what was made
def sprint(lab: Parts) -> str:
    if lab.plan.sprint():
        return ""
    return f"sprint {lab.plan.choose().number} is chosen"


def feature(lab: Parts) -> str:
    if merged(lab, FIRST_FEATURE):
        return ""
    return f"{FIRST_FEATURE} is merged, as {bring(lab, FIRST_FEATURE)[:8]}"


def built(lab: Parts) -> str:
    """The newest build is main's: that is what is tested next."""
    newest = lab.store.last(Artifact)
    if newest and newest.commit == git(lab.world.shop, "rev-parse", "main"):
        return ""
    return f"main is built once more: version {lab.build.run().version}"


def tested(lab: Parts) -> str:
    commit = git(lab.world.shop, "rev-parse", "main")
    if any(report.passed and report.commit == commit for report in lab.store.all(TestReport)):
        return ""
    report = lab.test.run(lab.build.run())
    return f"main is tested once more: {'; '.join(report.gate) or 'the gate is open'}"


def registry(lab: Parts) -> str:
    """Each release is the one that was released; a wheel that was changed is built again from its commit."""
    mended = []
    for release in lab.release.registry():
        try:
            lab.release.verify(release.version)
        except RegistryRefused:
            built, wheel = lab.build.run(release.commit), lab.root / release.path
            if built.digest != release.digest:  # it was not the wheel, or this machine builds it otherwise
                raise
            wheel.chmod(0o644)
            wheel.write_bytes((lab.root / built.path).read_bytes())
            wheel.chmod(0o444)
            lab.release.verify(release.version)
            mended.append(release.version)
    return f"{', '.join(mended)} is in the registry again as it was released" if mended else ""


# ---- production
def serving(lab: Parts) -> str:
    said = revive(lab)
    if lab.deploy.current():
        return said
    return f"version {first(lab).version} serves"


def nothing_under_way(lab: Parts) -> str:
    """No customers, no drill, and no deployment whose process is gone."""
    said = list[str]()
    if drill := lab.operate.current_drill():
        drill.give_up()
        said.append(f"drill {drill.run.id} is given up and undone: it was {drill.run.fault}")
    elif undone := drills.settle(lab.world):
        said.append(f"drill {undone.id} is undone: it was {undone.fault}")
    if crowds := lab.operate.send_home():
        said.append(f"{len(crowds)} groups of customers are sent home")
    if settled := lab.deploy.settle():
        said.append(f"deployment {settled.id}, left half way, is {settled.state}")
    return "; ".join(said)


def by_hand(lab: Parts) -> str:
    if not (policy := lab.store.last(ScalingPolicy)):
        return ""
    lab.operate.autoscale(None)
    return f"the autoscaler by {policy.metric} is off"


def newest_good(lab: Parts) -> str:
    """The newest version without known faults serves."""
    before, best = lab.deploy.current(), sound(lab)
    if before != best:
        lab.deploy.run(best, "blue/green", who="the lab", why=WHY)
    with suppress(LabError):  # what still starts is the agent's, and no reason to end badly
        lab.world.control.wait_settled(10)
    return f"version {best}, the newest good one, serves instead of {before}" if before != best else ""


def usual_replicas(lab: Parts) -> str:
    before, wanted = sum(pool.replicas for pool in lab.deploy.pools()), lab.settings.replicas
    if before == wanted:
        return ""
    production_at(lab, lab.deploy.current())
    return f"{wanted} replicas instead of {before}"


def usual_rules(lab: Parts) -> str:
    """The rules that every lab begins with, as they were; the reader's own go, and so do objectives."""
    usual, said = {rule.name: rule for rule in DEFAULT_RULES}, list[str]()
    now = {rule.name: rule for rule in lab.monitor.rules()}
    if own := sorted(now.keys() - usual.keys()):
        said.append(f"your alert rules {', '.join(own)} are removed")
    if changed := [name for name, rule in usual.items() if now.get(name) != rule]:
        said.append(f"the alert rules {', '.join(changed)} are as they were")
    if promises := [slo.name for slo in lab.monitor.slo.all()]:
        said.append(f"your objectives {', '.join(promises)} are removed")
    for name in own:
        lab.monitor.close_alert(name)
        lab.store.remove(AlertRule, name)
    for name in changed:
        lab.monitor.add_rule(usual[name])
    for name in promises:
        lab.monitor.slo.remove(name)
    return "; ".join(said)


def no_hook(lab: Parts) -> str:
    if not (lab.world.origin / "hooks" / "post-receive").exists():
        return ""
    lab.pipeline.remove_hook()
    return "the hook is removed: a push stores commits, and no more"


PRODUCTION = (serving, nothing_under_way, by_hand, newest_good)
ENDS: dict[str, tuple[Callable[[Parts], str], ...]] = {
    "welcome": (serving,),
    "plan": (repository, sprint),
    "code": (repository, feature),
    "build": (repository, built),
    "test": (repository, tested),
    "release": (repository, registry),
    "deploy": (repository, *PRODUCTION),
    "operate": (repository, *PRODUCTION, usual_replicas),
    "monitor": (repository, usual_rules, *PRODUCTION, usual_replicas),
    "repeat": (repository, *PRODUCTION),
    "continuous": (repository, no_hook, *PRODUCTION),
}
