"""The load that customers put on the shop: what is asked for, and the process that carries it out.

Arrivals are open-loop: a request is sent when it is due, whether or not earlier ones were answered. Waiting
for answers first would hide exactly the slowness that is to be measured ("coordinated omission", Gil Tene).
"""

from __future__ import annotations

import math
import random
import signal
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from devops_lab.errors import BadInput, LabError
from devops_lab.model import Crowd, LoadSummary, Request
from devops_lab.model import failed as failed
from devops_lab.model import percentile as percentile
from devops_lab.platform import commands
from devops_lab.platform.processes import companion, process_of
from devops_lab.platform.settings import choice
from devops_lab.platform.store import Store
from devops_lab.platform.waits import until

MIX = {"page": 1.0, "menu": 2.0, "search": 3.0, "order": 2.0, "status": 2.0}
LOOPBACK = ("127.0.0.1", "localhost", "::1")
MAX_RATE, MAX_SECONDS, MAX_REQUESTS = 2_000.0, 900.0, 200_000.0
NOT_SENT = "too many were unanswered already"
# (share of the day, share of the way from the quiet rate to the peak)
DAYS = {
    "lunch": [(0.0, 0.0), (0.25, 0.05), (0.4, 1.0), (0.55, 1.0), (0.7, 0.1), (1.0, 0.0)],  # ordered before it
    "flash crowd": [(0.0, 0.0), (0.3, 0.0), (0.32, 1.0), (0.5, 1.0), (0.75, 0.15), (1.0, 0.0)],  # in the news
}


@dataclass(frozen=True)
class LoadSpec:
    """What customers do to one shop.

    Args:
        curve: (second, requests per second) points, linear between them; the last second ends the run.
        even: arrivals at even distances instead of a Poisson process.
        mix: weight of each kind of request (page, menu, search, order, status).
        who: sends them, for the record.

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
    who: str = ""

    def __post_init__(self) -> None:
        check_target(self.url)
        check_curve(self.curve)
        if not isinstance(self.mix, dict) or (unknown := sorted(map(str, self.mix.keys() - MIX.keys()))):
            what = ", ".join(unknown) if isinstance(self.mix, dict) else repr(self.mix)
            raise BadInput(f"Customers can't do {what}.", expected=", ".join(MIX))
        weights = self.mix.values()
        if not all(isinstance(w, (int, float)) and 0 <= w < math.inf for w in weights) or not any(weights):
            raise BadInput(f"mix = {self.mix}", expected="weights of at least 0, one of them above")
        if not isinstance(self.seed, int):
            raise BadInput(f"seed = {self.seed!r}", expected="a whole number")

    @property
    def seconds(self) -> float:
        return self.curve[-1][0]

    def planned(self) -> float:
        """How many requests the curve asks for: the area below it."""
        return area(self.curve)

    def rate_at(self, second: float) -> float:
        """Requests per second that are due at a second of the run."""
        for (a, ra), (b, rb) in zip(self.curve, self.curve[1:], strict=False):
            if a <= second <= b:
                return ra + (rb - ra) * (second - a) / (b - a)
        return 0.0


def area(curve: list[tuple[float, float]]) -> float:
    return sum((b - a) * (ra + rb) / 2 for (a, ra), (b, rb) in pairwise(curve))


def check_curve(curve: list[tuple[float, float]]) -> None:
    """A load is bounded in time, rate and number.

    Raises:
        BadInput: this one is not.
    """
    try:
        pairs = [(second + 0.0, rate + 0.0) for second, rate in curve]
    except (TypeError, ValueError):  # no pairs, or no numbers
        pairs = []
    seconds, rates = [s for s, _ in pairs], [r for _, r in pairs]
    bounded = (
        len(pairs) == len(curve) > 1 and 0 < seconds[-1] <= MAX_SECONDS and seconds == sorted(set(seconds))
    )
    if not bounded or seconds[0] != 0 or not all(0 <= r <= MAX_RATE for r in rates) or not any(rates):
        raise BadInput(
            f"Customers can't follow this curve (second, rate): {curve}",
            expected=f"rising seconds from 0 to {MAX_SECONDS:g} at most, rates from 0 to {MAX_RATE:g}/s",
            next_step="Give a rate and seconds, or a curve such as [(0, 20), (5, 100), (10, 20)].",
        )
    if (planned := area(curve)) > MAX_REQUESTS:
        raise BadInput(f"{planned:,.0f} requests in one run", expected=f"at most {MAX_REQUESTS:,.0f}")


def number(name: str, value: object, most: float) -> float:
    """A figure that a reader gave, if it is one above 0.

    Raises:
        BadInput: it is not, or it is more than `most`.
    """
    if isinstance(value, (int, float)) and 0 < value <= most:  # never true of NaN
        return float(value)
    raise BadInput(
        f"{name} = {value!r}",
        expected=f"a number above 0, at most {most:,.0f}",
        next_step="For example lab.operate.load(rate=50, seconds=30).",
    )


def curve_of_day(seconds: float, peak: float, low: float, shape: str) -> list[tuple[float, float]]:
    """The arrivals of a day, as (second, requests per second) points.

    Raises:
        BadInput: no such shape, or figures that no day has.
    """
    points = DAYS[choice("shape of a day", shape, tuple(DAYS))]
    seconds = number("seconds", seconds, MAX_SECONDS)
    low, peak = number("low", low, MAX_RATE), number("peak", peak, MAX_RATE)
    if low > peak:
        raise BadInput(f"A day from {low:g} to {peak:g} requests a second", expected="0 < low <= peak")
    curve = [(share * seconds, low + height * (peak - low)) for share, height in points]
    check_curve(curve)
    return curve


def check_target(url: str) -> None:
    """Load goes to this machine, never to anybody else.

    Raises:
        BadInput: the URL names another host, or is not a plain http URL.
    """
    parts = urlsplit(url)
    host = parts.hostname or ""
    if parts.scheme != "http" or "@" in parts.netloc or host not in LOOPBACK:
        raise BadInput(
            f"Customers may not be sent to {url!r}.",
            expected="http:// to this machine (127.0.0.1)",
            next_step="Leave the address out: the lab's own shop is the default.",
        )


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


def endpoint_figures(rows: list[Request]) -> dict[str, float]:
    """Requests, failures and waiting (seconds) of one group of requests."""
    waits = [o.seconds for o in rows if o.seconds]
    shares = {"p50": percentile(waits, 0.5), "p95": percentile(waits, 0.95), "p99": percentile(waits, 0.99)}
    return {"requests": float(len(rows)), "failed": float(sum(failed(o) for o in rows)), **shares}


def in_the_shop(store: Store) -> list[Crowd]:
    """The customers who are in the shop now, whoever sent them, oldest first."""
    return [crowd for crowd in store.all(Crowd) if process_of(crowd.pid, crowd.created)]


class LoadRun:
    """Customers who are in the shop now, seen from the process that sent them; they go when it ends.

    Args:
        spec: what they do.
        folder: for the specification and what the process prints.
        root: of the lab that they belong to; None = the store's folder.
    """

    def __init__(self, spec: LoadSpec, folder: Path, root: Path | None = None) -> None:
        self.spec, self.id = spec, spec.run
        folder.mkdir(parents=True, exist_ok=True)
        path, self.log = folder / f"load-{spec.run}.json", folder / f"load-{spec.run}.log"
        path.write_bytes(msgspec.json.encode(spec))
        root, module = root or Path(spec.store).parent, "devops_lab.platform.traffic.customers"
        with self.log.open("wb") as log:
            self.process = companion(root, module, str(path), stdout=log, stderr=log)
        _RUNS[self.id] = self  # a run that is not kept in a variable must not end with it
        self.store = Store(Path(spec.store))
        try:
            until(self._started, "the customers to arrive", seconds=20, evidence=self._tail)
        except BaseException:  # also an interrupt: nobody has this object yet, so nobody could stop them
            self._end()
            raise

    def _started(self) -> bool:
        ended = self.process.poll() is not None
        return ended or bool(self.store.events(kind="load.started", subject=f"load:{self.id}"))

    def _tail(self) -> str:
        return self.log.read_text(errors="replace")[-800:]

    def _end(self) -> None:
        self.process.terminate()
        commands.signalled(self.process.pid, signal.SIGTERM)

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def wait(self) -> LoadSummary:
        """Wait for the last customer and return what was measured; an interrupt sends them home.

        Raises:
            LabError: the process ended without a result; carries what it printed.
        """
        limit = self.spec.seconds + 2 * self.spec.timeout_seconds + 60
        try:
            until(lambda: not self.running, f"load run {self.id} to end", seconds=limit, evidence=self._tail)
        except BaseException:  # who gives up waiting wants no crowd that nobody waits for
            self._end()
            raise
        _RUNS.pop(self.id, None)
        if self.process.stdin and not self.process.stdin.closed:
            self.process.stdin.close()
        summary = self.store.get(LoadSummary, self.id)
        if summary is None:
            raise LabError(f"Load run {self.id} ended without a result:\n{self._tail()}")
        if summary.not_sent:
            print(f"{summary.not_sent} requests were never sent ({NOT_SENT}); they count nowhere else.")
        return summary

    def stop(self) -> LoadSummary:
        """Send the customers home early and return what was measured until now."""
        if self.running:
            self._end()
        return self.wait()

    def send_home(self) -> str:
        """Like `stop`, for who has no use for figures: says what was ended, if anything was."""
        if not self.running:
            return ""
        with suppress(LabError):
            self.stop()
        return f"its customers ({self.spec.planned() / self.spec.seconds:.0f} requests/s) were sent home."

    def __enter__(self) -> LoadRun:
        return self

    def __exit__(self, *_: object) -> None:
        if self.running:
            self.stop()


_RUNS: dict[str, LoadRun] = {}
