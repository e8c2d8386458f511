"""The load that customers put on the shop: what is asked for, and the process that carries it out.

Arrivals are open-loop: a request is sent when it is due, whether or not earlier ones were answered. Waiting
for answers first would hide exactly the slowness that is to be measured ("coordinated omission", Gil Tene).
"""

from __future__ import annotations

import ipaddress
import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from devops_lab.errors import BadInput, LabError
from devops_lab.model import LoadSummary, Outcome
from devops_lab.model import failed as failed
from devops_lab.model import percentile as percentile
from devops_lab.processes import OWNER, clean_environment
from devops_lab.store import Store
from devops_lab.waits import until

MIX = {"page": 1.0, "menu": 2.0, "search": 3.0, "order": 2.0, "status": 2.0}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_RATE, MAX_SECONDS, MAX_REQUESTS = 2_000.0, 900.0, 200_000.0


@dataclass(frozen=True)
class LoadSpec:
    """What customers do to one shop.

    Args:
        curve: (second, requests per second) points, linear between them; the last second ends the run.
        even: arrivals at even distances instead of a Poisson process.
        mix: weight of each kind of request (page, menu, search, order, status).
        allowed_hosts: addresses of the lab's own machines, beside this one.

    Raises:
        BadInput: the target is not the lab's, or the load is not bounded.
    """

    url: str
    run: str
    store: str
    curve: list[tuple[float, float]]
    keep_alive: bool = True
    even: bool = False
    mix: dict[str, float] = field(default_factory=lambda: dict(MIX))
    seed: int = 7
    max_in_flight: int = 800
    timeout_seconds: float = 10.0
    allowed_hosts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        check_target(self.url, self.allowed_hosts)
        seconds, rates = [s for s, _ in self.curve], [r for _, r in self.curve]
        bounded = len(self.curve) >= 2 and 0 < seconds[-1] <= MAX_SECONDS and seconds == sorted(set(seconds))
        if not bounded or seconds[0] != 0 or not all(0 <= r <= MAX_RATE for r in rates) or not any(rates):
            raise BadInput(
                f"Customers can't follow this curve (second, rate): {self.curve}",
                expected=f"rising seconds from 0 to {MAX_SECONDS:g} at most, rates from 0 to {MAX_RATE:g}/s",
                next_step="Give a rate and seconds, or a curve such as [(0, 20), (5, 100), (10, 20)].",
            )
        if (planned := self.planned()) > MAX_REQUESTS:
            raise BadInput(f"{planned:,.0f} requests in one run", expected=f"at most {MAX_REQUESTS:,.0f}")
        if unknown := sorted(set(self.mix) - set(MIX)):
            raise BadInput(f"Customers can't do {', '.join(unknown)}.", expected=", ".join(MIX))
        if not self.mix or min(self.mix.values()) < 0 or not sum(self.mix.values()):
            raise BadInput(f"mix = {self.mix}", expected="weights of at least 0, one of them above")

    @property
    def seconds(self) -> float:
        return self.curve[-1][0]

    def planned(self) -> float:
        """How many requests the curve asks for: the area below it."""
        pairs = zip(self.curve, self.curve[1:], strict=False)
        return sum((b - a) * (ra + rb) / 2 for (a, ra), (b, rb) in pairs)

    def rate_at(self, second: float) -> float:
        """Requests per second that are due at a second of the run."""
        for (a, ra), (b, rb) in zip(self.curve, self.curve[1:], strict=False):
            if a <= second <= b:
                return ra + (rb - ra) * (second - a) / (b - a)
        return 0.0


def check_target(url: str, allowed_hosts: list[str]) -> None:
    """Load goes to this machine or to addresses of the lab, never to anybody else.

    Raises:
        BadInput: the URL names another host, or is not a plain http URL.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    private = [h for h in allowed_hosts if _is_private(h)]
    if parts.scheme != "http" or "@" in parts.netloc or host not in (*LOOPBACK, *private):
        raise BadInput(
            f"Customers may not be sent to {url!r}.",
            expected="http:// to this machine (127.0.0.1) or to an address of the lab",
            next_step="Leave the address out: the lab's own shop is the default.",
        )


def _is_private(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_private
    except ValueError:
        return False


def arrivals(spec: LoadSpec, rng: random.Random) -> Iterator[float]:
    """Seconds at which requests are due: a Poisson process (or even gaps) along the curve."""
    second, area = 0.0, 0.0
    due = 1.0 if spec.even else rng.expovariate(1.0)
    while second < spec.seconds:
        rate = spec.rate_at(second)
        step = min((due - area) / rate if rate > 0 else 0.05, 0.05)
        second, area = second + step, area + rate * step
        if area >= due - 1e-9:
            yield second
            area, due = 0.0, 1.0 if spec.even else rng.expovariate(1.0)


def endpoint_figures(rows: list[Outcome]) -> dict[str, float]:
    """Requests, failures and waiting (seconds) of one group of requests."""
    waits = [o.seconds for o in rows if o.seconds]
    shares = {"p50": percentile(waits, 0.5), "p95": percentile(waits, 0.95), "p99": percentile(waits, 0.99)}
    return {"requests": float(len(rows)), "failed": float(sum(failed(o) for o in rows)), **shares}


class LoadRun:
    """Customers who are in the shop now, seen from the process that sent them; they go when it ends.

    Args:
        spec: what they do.
        folder: for the specification and what the process prints.
    """

    def __init__(self, spec: LoadSpec, folder: Path) -> None:
        self.spec, self.id = spec, spec.run
        folder.mkdir(parents=True, exist_ok=True)
        path, self.log = folder / f"load-{spec.run}.json", folder / f"load-{spec.run}.log"
        path.write_bytes(msgspec.json.encode(spec))
        owner = str(Path(spec.store).resolve().parent)
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "devops_lab.traffic.customers", str(path)],
                stdin=subprocess.PIPE,  # closes when this process ends, however it ends: their sign to go
                stdout=log,
                stderr=log,
                cwd=Path(__file__).resolve().parents[2],
                env=clean_environment(**{OWNER: owner}),
                start_new_session=True,
            )
        _RUNS[self.id] = self  # a run that is not kept in a variable must not end with it
        self.store = Store(Path(spec.store))
        until(self._started, "the customers to arrive", seconds=20, evidence=self._tail)

    def _started(self) -> bool:
        ended = self.process.poll() is not None
        return ended or bool(self.store.events(kind="load.started", subject=f"load:{self.id}"))

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-800:]

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> LoadSummary:
        """Wait for the last customer and return what was measured.

        Raises:
            LabError: the process ended without a result; carries what it printed.
        """
        limit = self.spec.seconds + 2 * self.spec.timeout_seconds + 60
        until(lambda: not self.running, f"load run {self.id} to end", seconds=limit, evidence=self._tail)
        _RUNS.pop(self.id, None)
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        summary = self.store.get(LoadSummary, self.id)
        if summary is None:
            raise LabError(f"Load run {self.id} ended without a result:\n{self._tail()}")
        return summary

    def stop(self) -> LoadSummary:
        """Send the customers home early and return what was measured until now."""
        if self.running:
            self.process.terminate()
        return self.wait()

    def __enter__(self) -> LoadRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.stop()


_RUNS: dict[str, LoadRun] = {}
