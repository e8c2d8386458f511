"""Checks of the exercises of Monitor; their texts are in the YAML file beside."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Said, Verdict, could_not, not_yet, right, text

if TYPE_CHECKING:
    from devops_lab.lab import Lab

RULE = "orders-slow"
ENDPOINT = "/api/orders"
GUESSES = 3


def order_rule(lab: Lab, said: Said) -> Verdict:
    found = [rule for rule in lab.monitor.rules() if rule.name == RULE]
    if not found:
        return not_yet(
            f"There is no rule {RULE!r}; there are {', '.join(r.name for r in lab.monitor.rules())}."
        )
    rule = found[0]
    if rule.metric not in ("p95_ms", "p99_ms") or rule.endpoint != ENDPOINT:
        return not_yet(
            f"{RULE} watches {rule.metric} of {rule.endpoint or 'everything'}, not the slow end of "
            f"{ENDPOINT}."
        )
    if rule.for_seconds <= 0:
        return not_yet(f"{RULE} fires at the first slow second: give it a duration.")
    if rule.resolve is None or rule.resolve >= rule.above:
        return not_yet(f"{RULE} fires and resolves at {rule.above:g} ms: it will flap.")
    return right(
        f"{RULE} fires above {rule.above:g} ms for {rule.for_seconds:g} s, and resolves below "
        f"{rule.resolve:g}."
    )


def incident(lab: Lab, said: Said) -> Verdict:
    blind = [drill for drill in lab.operate.drills() if drill.blind]
    if not blind:
        return not_yet("No blind drill was started in this lab yet.")
    last = blind[-1]
    if last.state != "restored":
        return not_yet(f"Drill {last.id} is {last.state}: it was not you who brought service back.")
    if not last.diagnosed or len(last.guesses) > GUESSES:
        return not_yet(f"Drill {last.id} was restored, after {len(last.guesses)} guesses: {last.guesses}.")
    acted = [item for item in lab.plan.backlog() if f"drill:{last.id}" in item.evidence]
    if not acted:
        return not_yet(f"No item in the backlog has drill:{last.id} as its evidence.")
    took = ", ".join(f"{what} after {seconds:.0f} s" for what, seconds in last.seconds.items())
    return right(f"The {last.fault} was {took}; {acted[0].id} is in the backlog.")


def slowest_request(lab: Lab, said: Said) -> Verdict:
    answered = text(said)
    lines = [line for line in lab.store.logs(limit=1_000_000) if line.request_id and line.seconds > 0]
    if not lines:
        return could_not("No request was logged yet: run some load first.")
    ranked = sorted(lines, key=lambda line: line.seconds, reverse=True)
    place = next((n for n, line in enumerate(ranked, 1) if line.request_id == answered), 0)
    if not place:
        return not_yet(f"No logged request has the id {answered!r}.")
    found = ranked[place - 1]
    took = f"{found.endpoint} by {found.replica} took {found.seconds * 1000:.0f} ms"
    seen = f"{took}: place {place} of {len(ranked)}"
    return right(f"{seen}.") if place <= 3 else not_yet(f"{seen}; there are slower ones.")
