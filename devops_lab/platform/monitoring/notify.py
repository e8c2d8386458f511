"""Feedback from production: every key event reaches an inbox, and the addresses that the team names."""

from __future__ import annotations

import os
import threading
from urllib.parse import urlsplit

from devops_lab.model import Event, EventKind
from devops_lab.platform.context import LabContext

ADDRESSES = "DEVOPS_LAB_NOTIFY"  # comma separated apprise URLs, e.g. mailto://… or slack://…
INBOX: EventKind = "notify.inbox"


def notify(world: LabContext, event: Event, wait_seconds: float = 2.0) -> None:
    """Put an event into the operations team's inbox and send it to their addresses; an event arrives once.

    Args:
        event: what happened; one without a number (`id`) is not in the store and always arrives.
        wait_seconds: how long an address may take to answer; one that refuses or dawdles hurts nobody.
    """
    told = world.store.events(kind=INBOX, after_id=event.id) if event.id else []
    if any(known.data.get("event") == event.id for known in told):
        return
    details = {"event": event.id, "about": event.kind}
    world.store.event(
        event.phase, INBOX, event.subject, event.message, who=event.who, why=event.why, **details
    )
    for address in filter(None, (part.strip() for part in os.environ.get(ADDRESSES, "").split(","))):
        if problem := _send(address, event, wait_seconds):
            world.store.event("operate", "notify.failed", event.subject, f"{_public(address)}: {problem}")


def _text(event: Event) -> str:
    because = f" (why: {event.why})" if event.why else ""
    return f"{event.kind} {event.subject}: {event.message}{because}"


def _public(address: str) -> str:
    """An address without its passwords and tokens, which must not end up in the store."""
    parts = urlsplit(address)
    return f"{parts.scheme or 'no scheme'}://{parts.hostname or ''}"


def _send(address: str, event: Event, wait_seconds: float) -> str:
    """Send in a thread that may be left behind; return what went wrong, or nothing."""
    problems = [f"no answer within {wait_seconds:g} s"]

    def send() -> None:
        import apprise

        try:
            service = apprise.Apprise()
            known = service.add(address)
            sent = known and service.notify(title=f"{event.kind} {event.subject}", body=_text(event))
            problems[0] = "" if sent else ("refused" if known else "not an address that apprise knows")
        except Exception as error:  # a service's own failure is its own: production goes on
            problems[0] = type(error).__name__

    thread = threading.Thread(target=send, daemon=True)
    thread.start()
    thread.join(wait_seconds)
    return problems[0]
