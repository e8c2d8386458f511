"""Exercises of Monitor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from devops_lab.exercises.base import Exercise, Quiz, Said, Verdict, could_not, not_yet, right, text

if TYPE_CHECKING:
    from devops_lab.lab import Lab

RULE = "orders-slow"
ENDPOINT = "/api/orders"


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


EXERCISES = (
    Exercise(
        "monitor-1",
        "change",
        "An alert that doesn't cry wolf",
        f"Add a rule `{RULE}`: it fires when orders (`{ENDPOINT}`) get slow at the slow end, not for "
        "a single bad second, "
        "and it resolves at a lower value than it fires.",
        (
            "Good alerts have a duration, and hysteresis.",
            "An `AlertRule` has `for_seconds`, `resolve` and `endpoint`; p95 or p99 is the slow end.",
            f'`lab.monitor.add_rule(AlertRule("{RULE}", "p95_ms", 200, for_seconds=3, resolve=100, '
            f'endpoint="{ENDPOINT}"))`.',
        ),
        order_rule,
        points=2,
    ),
    Exercise(
        "monitor-2",
        "find",
        "The slowest request",
        "Developers can't log in to production, but its logs come to them. Find the request id of "
        "the slowest request that "
        "was logged (one of the three slowest will do).",
        (
            "Each line carries request id, endpoint and seconds.",
            "`lab.monitor.logs(...)` searches; ask for many lines, then sort by `seconds`.",
            "`max(lab.monitor.logs(limit=100000), key=lambda line: line.seconds).request_id`.",
        ),
        slowest_request,
    ),
)
QUIZ = Quiz(
    "monitor",
    "The mean response time is fine, p99 is two seconds. Who is right, the dashboard or the customer "
    "who complains?",
    (
        "the dashboard",
        "the customer: with many requests each, most customers meet the slow one per cent",
        "neither: such figures contradict each other",
    ),
    "b",
    "Of a hundred requests one is that slow; somebody who makes thirty meets it every fourth time.",
)
