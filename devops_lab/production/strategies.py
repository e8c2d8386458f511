"""How the traffic moves from the old version to the new one, without a lost request.

Every strategy varies one story: start new > wait until healthy > shift traffic > drain old > stop old.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from devops_lab.errors import Inconclusive
from devops_lab.model import Comparison, Replica, Request, failed
from devops_lab.platform.clock import Awake
from devops_lab.platform.traffic.load import in_the_shop
from devops_lab.platform.waits import pause
from devops_lab.production.canary import (
    MIN_REQUESTS,
    PATIENCE_SECONDS,
    compare,
    judge,
    more_errors,
    problem,
    slower,
)
from devops_lab.production.rollout import Rollout
from devops_lab.production.verify import PATHS, ask

PROBE_ROUNDS = 10  # of each page and pool; fewer can't be told from chance at this level
SURE_ROUNDS = 30  # before a version is refused: by then every page was asked while nobody queued
PROBE_SECONDS = 0.010  # so much more work for one answer is felt once customers queue for it


def first(go: Rollout) -> None:
    """Nothing serves yet: start all, and let the traffic in."""
    with go.step(f"start {go.new.replicas} replicas") as said:
        go.want(replace(go.new, weight=0))
        said.append(go.wait_healthy(go.new, go.new.replicas))
    go.open_gate()
    with go.step("let the traffic in"):
        go.want(go.new)


def rolling(go: Rollout) -> None:
    """One by one: one more of the new, then one less of the old; the traffic follows the healthy ones."""
    if go.in_place:
        roll_in_place(go)
        return
    old, wanted = go.old, go.new.replicas
    assert old
    before = old
    for count in range(1, wanted + 1):
        left = -(-old.replicas * (wanted - count) // wanted)
        with go.step(f"start replica {count} of {wanted}") as said:
            go.want(
                replace(go.new, replicas=count, weight=count - 1), replace(before, weight=before.replicas)
            )
            said.append(go.wait_healthy(go.new, count))
        if count == 1:
            go.open_gate()
        new, after = replace(go.new, replicas=count, weight=count), replace(old, replicas=left, weight=left)
        with go.step(f"shift traffic: {count} new, {left} old"):
            go.want(new, replace(before, weight=left))
        with go.step(f"drain and stop the old, {left} left") as said:
            go.want(new, after if left else None)
            said.append(go.wait_gone(old, left))
        before = after
    go.want(go.new)


def roll_in_place(go: Rollout) -> None:
    """The cluster takes its pool along, one replica after the other, and goes back by itself if one fails."""
    assert go.old
    go.open_gate()
    with go.step(f"the cluster replaces {go.old.replicas} by {go.new.replicas}, one by one") as said:
        go.want(go.new)
        said.append(go.wait_rolled())
    with go.step("the last of the old finish") as said:
        said.append(go.wait_gone(go.old))


def blue_green(go: Rollout) -> None:
    """A whole second pool beside the first, one switch, and the old kept until the new has proven itself."""
    with go.step(f"start all {go.new.replicas} beside the old") as said:
        go.want(replace(go.new, weight=0), go.old)
        said.append(go.wait_healthy(go.new, go.new.replicas))
    go.open_gate()
    switch(go)
    with go.step("prove the new, the old ready to take over") as said:
        said.append(prove(go, go.world.settings.seconds(0.5, 4.0)))
    drain(go)


def canary(go: Rollout, shares: Sequence[int]) -> None:
    """The new takes a growing share, with as many replicas as that needs, and is compared at each step."""
    assert go.old
    count = weight = 0
    for share in shares:
        before, count = count, canary_replicas(share, go.old.replicas, go.new.replicas)
        if count > before:
            with go.step(
                f"start canary {before + 1}" + (f" to {count}" if count > before + 1 else "")
            ) as said:
                go.want(replace(go.new, replicas=count, weight=weight), replace(go.old, weight=100 - weight))
                said.append(go.wait_healthy(go.new, count))
        if not weight:
            go.open_gate()
        weight = share
        with go.step(f"canary takes {share} %") as said:
            go.want(replace(go.new, replicas=count, weight=weight), replace(go.old, weight=100 - weight))
            said.append(compare(go, share, go.world.settings.seconds(1.0, 5.0), len(shares)))
    if count < go.new.replicas:
        with go.step(f"start the other {go.new.replicas - count}") as said:
            go.want(replace(go.new, weight=weight), replace(go.old, weight=100 - weight))
            said.append(go.wait_healthy(go.new, go.new.replicas))
    switch(go)
    drain(go)


def canary_replicas(share: int, stable: int, wanted: int) -> int:
    """So many that none of them is busier than one of the stable, and slower for that alone.

    Args:
        share: percent of the traffic that all of them take together, under 100.
        stable: replicas that take the rest.
        wanted: replicas of the new version in the end; there are never more.
    """
    return min(wanted, max(1, ceil(stable * share / (100 - share))))


def rollback(go: Rollout) -> None:
    """The previous version starts again from its prepared environment and takes over in one switch."""
    if go.in_place:
        roll_in_place(go)
        return
    with go.step(f"start {go.new.replicas} of {go.new.release} again") as said:
        go.want(replace(go.new, weight=0), go.old)
        said.append(go.wait_healthy(go.new, go.new.replicas))
    switch(go)
    drain(go)


def switch(go: Rollout) -> None:
    """All traffic to the new pool; the old one stays, and gets nothing new."""
    assert go.old
    with go.step("switch the traffic"):
        go.want(go.new, replace(go.old, weight=0))


def prove(go: Rollout, seconds: float) -> str:
    """Watch the new pool while the old one could still take over.

    Both are asked for the same pages in turns, past the proxy, since a busy machine makes both slow: how long
    customers waited before the switch was another moment. What failed for customers is counted, once enough
    came; without any, there is nothing to count.

    Raises:
        DeployRefused: the new one is slower beside the old one, or more of its requests fail.
        Inconclusive: some failed, of too few to tell.
    """
    old, new, store = go.old, go.new, go.world.store
    assert old
    began, awake, rounds = store.now(), Awake(), 0
    asked: dict[str, list[Request]] = {old.name: [], new.name: []}
    while True:
        for pool in (old, new) if rounds % 2 else (new, old):
            asked[pool.name] += probes(go.replicas(pool), rounds)
        well, rounds = go.check_new_replicas(), rounds + 1
        answered = [o for o in store.requests(since=began) if o.release == new.release]
        expected = len(answered) < MIN_REQUESTS and in_the_shop(store) and awake() < PATIENCE_SECONDS
        if awake() >= seconds and rounds > PROBE_ROUNDS and well and not expected:
            worse = [check for check in side_by_side(asked[new.name], asked[old.name]) if check.bad]
            sure = rounds > SURE_ROUNDS or "errors" in {check.what for check in worse}  # no queue fails it
            if worse and sure:
                raise go.refused(f"{new.release} did not prove itself: {problem(worse)}.")
            if not worse:
                break
        pause(0.02)
        go.world.control.keep()
    before = [o for o in store.requests(since=go.record.started, until=began) if o.release == old.release]
    bad = sum(map(failed, answered))
    if min(len(answered), len(before)) >= MIN_REQUESTS:
        if more := problem([more_errors(answered, before)]):
            raise go.refused(f"{new.release} did not prove itself: {more}.")
        return f"{len(answered)} requests of {new.release}, as good as before"
    if bad:
        raise Inconclusive(
            f"{bad} of {len(answered)} requests of {new.release} failed, and {old.release} had {len(before)} "
            "in this deployment: too few to tell.",
            expected=f"{MIN_REQUESTS} of each at least",
            next_step="Let customers in first (lab.operate.load(rate=100, seconds=60)), then try again.",
        )
    few = "before or since too few to judge errors by"
    return f"side by side as quick as before; {len(answered)} requests, {few}"


def probes(replicas: Sequence[Replica], number: int) -> list[Request]:
    """Ask one replica of a pool for each page, if it can be reached from here; in turns, by `number`."""
    there = [replica for replica in replicas if replica.port]
    if not there:
        return []
    home = there[number % len(there)]
    found = [(path, *ask(f"http://{home.host}:{home.port}{path}")) for path in PATHS]
    return [Request(0.0, path, status, took) for path, status, _, took in found if status]


def side_by_side(new: Sequence[Request], old: Sequence[Request]) -> list[Comparison]:
    """Hold probes against each other; the first of each page warmed it up.

    Slower is only whose quickest answer is: customers come to the new pool alone, and who stands in their
    queue waits longer for that.
    """
    new, old = new[len(PATHS) :], old[len(PATHS) :]

    def bad(check: Comparison) -> bool:
        if check.what == "errors":
            return check.bad
        of_new, of_old = (min(o.seconds for o in rows if o.endpoint == check.what) for rows in (new, old))
        return check.p < check.level and slower(of_new, of_old, PROBE_SECONDS)

    return [replace(check, bad=bad(check)) for check in judge(new, old)]


def drain(go: Rollout) -> None:
    """The old pool finishes what is in flight and stops."""
    assert go.old
    with go.step("drain and stop the old") as said:
        go.want(go.new)
        said.append(go.wait_gone(go.old))
