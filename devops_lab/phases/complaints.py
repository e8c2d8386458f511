"""A customer's complaint: when somebody writes one, and in which words."""

from __future__ import annotations

from devops_lab.model import Outcome, failed

PATIENCE_SECONDS = 0.5  # a customer who waits longer for one answer complains
DOING = {
    "/": "opened the page",
    "/api/menu": "looked at the menu",
    "/api/search": "searched for a lunch box",
    "/api/orders": "sent my order",
    "/api/orders/{id}": "asked where my order is",
}


def complaint_text(outcome: Outcome) -> str:
    """A ticket in a customer's words; the figures are the customer's own measurement."""
    doing = DOING.get(outcome.endpoint, f"used {outcome.endpoint}")
    if failed(outcome):
        got = f"error {outcome.status}" if outcome.status else "no answer at all"
        return f"I {doing} and got {got} after {outcome.seconds:.1f} s."
    return f"I {doing} and waited {outcome.seconds:.1f} s for an answer. The site is slow!"


def anger(outcome: Outcome | None) -> tuple[bool, float, float]:
    """Who is angrier: first an error, then the longer wait, then who came earlier."""
    return (failed(outcome), outcome.seconds, -outcome.t) if outcome else (False, 0.0, -1e18)
