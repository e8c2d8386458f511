"""A look at production from outside, right after a switch: does it serve, and is nobody alarmed?"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable

from devops_lab.errors import DeployRefused
from devops_lab.phases import World
from devops_lab.phases.monitor import Monitor
from devops_lab.waits import until

PATHS = ("/", "/api/menu", "/api/search?q=salmon", "/readyz")
ROUNDS = 5
SLOW_SECONDS = 0.5  # the slowest probe of a healthy version stays below this
_opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # production is on this machine


def ask(url: str) -> tuple[int, str, float]:
    """One GET: status (0 = no answer), the release that answered, seconds."""
    began = time.perf_counter()
    try:
        with _opener.open(url, timeout=5) as answer:
            answer.read()
            status, release = answer.status, answer.headers.get("X-Release", "")
    except urllib.error.HTTPError as error:
        status, release = error.code, error.headers.get("X-Release", "")
    except OSError:
        status, release = 0, ""
    return status, release, time.perf_counter() - began


def first_answer(url: str, version: str, given_up: Callable[[], bool], seconds: float = 30.0) -> float:
    """Ask as a customer does until `version` answers; return when, in POSIX seconds; 0 when given up.

    Raises:
        TimedOut: it never did.
    """

    def serves() -> float:
        if given_up():
            return -1.0
        return time.time() if ask(f"{url}/api/info")[:2] == (200, version) else 0.0

    return max(0.0, until(serves, f"{version} to answer at {url}", seconds=seconds, every_seconds=0.003))


def check_production(url: str, version: str) -> str:
    """Operate: ask the main pages through the proxy, a few times each; answers have to be right and quick.

    Raises:
        DeployRefused: an answer was wrong, slow, or came from another version.
    """
    asked = [(path, *ask(url + path)) for _ in range(ROUNDS) for path in PATHS]
    slowest = max(seconds for *_, seconds in asked)
    wrong = [
        f"{path}: {status} from {who or '?'}"
        for path, status, who, _ in asked
        if (status, who) != (200, version)
    ]
    if slowest > SLOW_SECONDS:
        wrong.append(f"the slowest answer took {slowest:.2f} s")
    if wrong:
        raise DeployRefused(
            f"{version} does not serve as it should: {'; '.join(wrong[:4])}.",
            expected=f"{len(asked)} answers of {version} with status 200, each within {SLOW_SECONDS} s",
            next_step="Look at its logs: lab.monitor.logs(level='error').",
        )
    return f"{len(asked)} probes answered by {version}, slowest {slowest * 1000:.0f} ms"


def not_alarmed(world: World, version: str, since: float) -> str:
    """Monitor: wait until the new version is being measured; no alert may fire that began after the switch.

    Raises:
        DeployRefused: an alert fires.
        TimedOut: the agent does not measure the new version.
    """

    def measured() -> bool:
        return any(row[2] == version for row in world.store.samples("memory_bytes", since=since))

    until(measured, f"the first measurements of {version}", seconds=10.0)
    if firing := [a for a in Monitor(world).alerts("firing") if a.since >= since]:
        raise DeployRefused(
            f"An alert fires since {version} serves: {', '.join(a.rule for a in firing)}.",
            expected="no alert that began after the switch",
            next_step="See lab.monitor.alerts() for the evidence.",
        )
    return "measured, and no alert fires"
