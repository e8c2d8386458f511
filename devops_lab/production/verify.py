"""A look at production from outside, right after a switch: does it serve, and is nobody alarmed?"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median

from devops_lab.errors import DeployRefused
from devops_lab.platform import web
from devops_lab.platform.context import LabContext
from devops_lab.platform.monitoring.alerts import Alerting
from devops_lab.platform.waits import until

PATHS = ("/", "/api/menu", "/api/search?q=salmon", "/readyz")
ROUNDS = 5
MOST_SILENT = 2  # of all probes; so few may have met a busy machine, too
SLOW_SECONDS = 0.5  # most probes of each page stay below this; one alone may have met a busy machine


def ask(url: str) -> tuple[int, str, float]:
    """One GET: status (0 = no answer), the release that answered, seconds."""
    began = time.perf_counter()
    try:
        answer = web.ask(url)
        status, release = answer.status, answer.headers.get("X-Release", "")
    except OSError:
        status, release = 0, ""
    return status, release, time.perf_counter() - began


def first_answer(
    url: str, version: str, given_up: Callable[[], bool], now: Callable[[], float], seconds: float = 30.0
) -> float:
    """Ask as a customer does until `version` answers; return when, by `now`; 0 when given up.

    Raises:
        TimedOut: it never did.
    """

    def serves() -> float:
        if given_up():
            return -1.0
        return now() if ask(f"{url}/api/info")[:2] == (200, version) else 0.0

    return max(0.0, until(serves, f"{version} to answer at {url}", seconds=seconds, every_seconds=0.003))


def check_production(url: str, version: str) -> str:
    """Operate: ask the main pages through the proxy, a few times each; answers have to be right and quick.

    An answer that doesn't come in time is a slow one: whether that is the version or the machine, one can't
    tell, so the median of each page is judged, never the slowest.

    Raises:
        DeployRefused: an answer was wrong or from another version, or most of a page's were slow.
    """
    asked = [(path, *ask(url + path)) for _ in range(ROUNDS) for path in PATHS]
    took = {path: median(x[-1] for x in asked if x[0] == path) for path in PATHS}
    slowest = max(took, key=lambda path: took[path])
    silent = sum(not status for _, status, *_ in asked)
    wrong = [
        f"{path}: {status} from {who or '?'}"
        for path, status, who, _ in asked
        if status and (status, who) != (200, version)
    ]
    if silent > MOST_SILENT:
        wrong.append(f"{silent} of {len(asked)} got no answer")
    if took[slowest] > SLOW_SECONDS:
        wrong.append(f"most answers of {slowest} took {took[slowest]:.2f} s or more")
    if wrong:
        raise DeployRefused(
            f"{version} does not serve as it should: {'; '.join(wrong[:4])}.",
            expected=f"{len(asked)} answers of {version} with status 200, most within {SLOW_SECONDS} s",
            next_step="Look at its logs: lab.monitor.logs(level='error').",
        )
    return f"{len(asked)} probes answered by {version}, slowest page {took[slowest] * 1000:.0f} ms"


def not_alarmed(world: LabContext, version: str, since: float) -> str:
    """Monitor: wait until the new version is being measured; no alert may fire that began after the switch.

    Raises:
        DeployRefused: an alert fires.
        TimedOut: the agent does not measure the new version.
    """

    def measured() -> bool:
        world.control.keep()
        return any(row[2] == version for row in world.store.samples("memory_bytes", since=since))

    until(measured, f"the first measurements of {version}", seconds=10.0)
    others = {f"release:{row[2]}" for row in world.store.samples("memory_bytes", since=since)}
    others.discard(f"release:{version}")  # what fires on the version that goes says nothing of this one
    new = [alert for alert in Alerting(world).alerts("firing") if alert.since >= since]
    if firing := [alert for alert in new if not others & set(alert.evidence)]:
        raise DeployRefused(
            f"An alert fires since {version} serves: {', '.join(a.rule for a in firing)}.",
            expected="no alert that began after the switch",
            next_step="See lab.monitor.alerts() for the evidence.",
        )
    return "measured, and no alert fires"
