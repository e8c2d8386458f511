"""How the traffic moves from the old version to the new one, without a lost request.

Every strategy varies one story: start new > wait until healthy > shift traffic > drain old > stop old.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from math import ceil

from devops_lab.phases.canary import compare, judge, problem, served
from devops_lab.phases.rollout import Rollout
from devops_lab.waits import pause


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
    """Watch the new pool while the old one could still take over."""
    assert go.old
    began = time.time()
    pause(seconds)
    go.check_new_replicas()
    new = served(go.world.store, began).get(go.new.release, [])
    stable = served(go.world.store, go.record.started, began).get(go.old.release, [])
    if worse := problem(judge(new, stable)):
        raise go.refused(f"{go.new.release} did not prove itself: {worse}.")
    return f"{len(new)} requests of {go.new.release}, as good as before"


def drain(go: Rollout) -> None:
    """The old pool finishes what is in flight and stops."""
    assert go.old
    with go.step("drain and stop the old") as said:
        go.want(go.new)
        said.append(go.wait_gone(go.old))
