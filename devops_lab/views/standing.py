"""The view of production at this moment: who runs, who answered whom, who is in the shop, what happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from devops_lab.model import Alert, Crowd, Event, EventKind, Release, Replica, Request, failed
from devops_lab.platform.store import Store
from devops_lab.views import style as look
from devops_lab.views.production import STATE
from devops_lab.views.style import Html, Picture

# of a version -> mark, text colour, background; the mark says it without the colour
VERSIONS = (
    ("●", "#00365a", "#d8ebf8"),
    ("■", "#523c00", "#fdeebf"),
    ("▲", "#00452f", "#d5f0e5"),
    ("◆", "#5b2147", "#f3dcea"),
)
SHOWN_SECONDS, MOST_DOTS = 3.0, 90  # of the newest requests
DEAD_SECONDS = 20.0  # a replica that died is shown for so long
EVENTS = 6
UNSAID: tuple[EventKind, ...] = ("complaint", "deploy.step", "notify.inbox")  # said elsewhere, or already
PHASES = ("release", "deploy", "operate", "monitor")  # whose events are shown


def now(store: Store, customers: Sequence[Crowd] = (), at: float = 0.0) -> Picture:
    """Production at this moment; narrow enough to stand beside the notebook. See `beside`.

    Args:
        store: the lab's memory.
        customers: who is in the shop, as `lab.operate.customers()` tells.
        at: the moment, POSIX seconds; now when 0.
    """
    t, replicas = at or store.now(), [r for r in store.all(Replica) if r.state != "dead"]
    died = store.events(kind="replica.died", since=t - DEAD_SECONDS)
    requests = store.requests(since=t - SHOWN_SECONDS, until=t)
    alerts = [alert for alert in store.all(Alert) if alert.state != "resolved"]
    told = [e for e in store.events(limit=60) if e.phase in PHASES and e.kind not in UNSAID and e.t <= t]
    events = told[-EVENTS:]
    if not (replicas or died or customers or events):
        return look.nothing("production at this moment", "It is empty until the first deployment.")
    marks = _Marks(store, [r.release for r in replicas])
    healthy = sum(r.state == "healthy" for r in replicas)
    releases = ", ".join(sorted({r.release for r in replicas})) or "none"
    head = f"{healthy} of {len(replicas)} replicas healthy, version {releases}"
    strip, answered = _dots(requests, marks)
    crowds = [crowd.told(t) for crowd in customers]
    parts = [
        _part("Replicas", *_replicas(replicas, died, marks)),
        _part(f"Requests of the last {SHOWN_SECONDS:.0f} s", strip, answered),
        _part("Customers", *(crowds or ["Nobody is in the shop."])),
        _part("Alerts", *(_alert(alert) for alert in alerts) if alerts else ["None is on."]),
        _part("Last events", *(_event(event) for event in reversed(events))),
    ]
    style = f"{look.INK};border:1px solid #d0d0d0;padding:6px 10px;font-size:13px;max-width:560px"
    style += ";line-height:1.45"
    html = f'<div style="{style}">{look.bold(f"{look.clock(t)} {head}")}{"".join(parts)}</div>'
    gone = "; ".join(event.message for event in died)
    alt = (
        f"{head}. {f'Died: {gone}. ' * bool(gone)}Requests: {answered}. "
        f"Customers: {'; '.join(crowds) or 'nobody'}. Alerts: {', '.join(a.rule for a in alerts) or 'none'}. "
        f"Last events: {'; '.join(e.message or e.kind for e in events) or 'none'}."
    )
    return Picture(f"Production at {look.clock(t)}: {head}.", alt, html=html)


class _Marks:
    """The mark of each version, the same one for as long as the lab lives."""

    def __init__(self, store: Store, running: Sequence[str]) -> None:
        known = [release.version for release in sorted(store.all(Release), key=lambda release: release.t)]
        self.order = list(dict.fromkeys([*known, *sorted(running)]))

    def of(self, version: str) -> tuple[str, str, str]:
        return VERSIONS[self.order.index(version) % len(VERSIONS)] if version in self.order else VERSIONS[0]


def _part(title: str, *rows: object) -> Html:
    head = f'<div style="{look.INK};font-weight:bold;margin-top:6px">{look.safe(title)}</div>'
    return Html(
        head + "".join(f'<div style="{look.INK};margin:1px 0">{look.safe(row)}</div>' for row in rows)
    )


def _replicas(replicas: Sequence[Replica], died: Sequence[Event], marks: _Marks) -> list[Html]:
    """Who runs, and who died a moment ago: `kill -9` is to be seen, though healing takes half a second."""
    rows = []
    for replica in sorted(replicas, key=lambda r: (r.pool, r.id)):
        mark, ink, ground = marks.of(replica.release)
        dot = (
            f'<span style="color:{ink};background:{ground};padding:0 4px">{mark} {look.safe(replica.release)}'
        )
        again = f", took a dead one's place ({replica.restarts})" if replica.restarts else ""
        why = f", {replica.reason}" if replica.reason and replica.state != "healthy" else ""
        state = look.badge(STATE[replica.state], replica.state)
        rows.append(Html(f"{look.bold(replica.id)} {dot}</span> {state}{look.safe(again + why)}"))
    if not rows:
        rows.append(Html("None runs."))
    rows += [Html(f"{look.badge('bad', look.clock(e.t))} {look.safe(e.message)}") for e in reversed(died)]
    return rows


def _dots(requests: Sequence[Request], marks: _Marks) -> tuple[Html, str]:
    """The newest requests, a mark each: the version that answered, or none did; and the sums in words."""
    counts = Counter("" if failed(request) else request.release for request in requests)
    words = [
        f"{marks.of(version)[0]} {count} answered by {version}" if version else f"✘ {count} failed"
        for version, count in sorted(counts.items(), reverse=True)
    ]
    dots = []
    for request in requests[-MOST_DOTS:]:
        version = "" if failed(request) else request.release
        mark, ink, ground = marks.of(version) if version else look.TONES["bad"]
        dots.append(f'<span style="color:{ink};background:{ground}">{mark}</span>')
    style = f"{look.INK};font-family:monospace;font-size:12px;line-height:1.15;overflow-wrap:anywhere"
    return Html(f'<div style="{style}">{"".join(dots)}</div>'), ", ".join(words) or "nobody asked"


def _alert(alert: Alert) -> Html:
    tone = "bad" if alert.state == "firing" else "warn"
    return Html(f"{look.badge(tone, alert.state)} {look.safe(f'{alert.rule} {alert.subject}')}")


def _event(event: Event) -> Html:
    tone = "bad" if event.kind.endswith(("died", "firing", "refused", "failed", "crash_loop")) else "info"
    what = look.safe(event.message or event.subject)
    return Html(f"{look.clock(event.t)} {look.badge(tone, event.kind)} {what}")
