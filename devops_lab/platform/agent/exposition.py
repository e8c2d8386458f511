"""The lab's scrape endpoint: all that the agent knows, in Prometheus' text format, at one address.

What a replica exposes is passed on whole, with its name on it: counters and buckets can be added up
afterwards, averages and percentiles can't. A replica that does not answer is `devops_lab_replica_up 0` and
nothing else, and one that is gone is not there at all: Prometheus then marks its series stale, never zero.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from devops_lab.model import Alert, Pool, Replica, Usage
from devops_lab.platform import histograms
from devops_lab.platform.context import LabContext
from devops_lab.platform.processes import HOST, free_port, replace_file

if TYPE_CHECKING:
    from devops_lab.platform.traffic.envoy import Envoy

STALE_SECONDS = 5.0  # an observation older than this says nothing about now
UPSTREAM = ("rq_total", "rq_error", "rq_timeout", "cx_total", "cx_connect_fail")  # counters of Envoy
PREFIX = "devops_lab_"
WANTED = ("http_requests_total", "http_request_duration_seconds_bucket", "http_requests_in_flight")
PROBES = ("/metrics", "/healthz", "/readyz")  # asked by the platform, not by customers
Buckets = dict[float, float]  # upper bound in seconds -> cumulative count


@dataclass(frozen=True)
class Seen:
    """One replica at one tick: the text of its /metrics (empty: no answer), its usage, its log's size."""

    replica: Replica
    text: str
    usage: Usage | None
    log_bytes: int


@dataclass(frozen=True)
class Observation:
    """What the agent saw at its newest tick; replaced whole, so that a scrape never meets half of one."""

    t: float = 0.0
    replicas: list[Seen] = field(default_factory=list)
    disk_bytes: int = 0


class Exposition(Collector):
    """Turns the newest observation into metric families, whenever somebody scrapes.

    Args:
        world: the lab.
        envoy: its proxy, whose own upstream counters are passed on.
        newest: asked for what was seen last.
    """

    def __init__(self, world: LabContext, envoy: Envoy, newest: Callable[[], Observation]) -> None:
        self.world, self.envoy, self.newest = world, envoy, newest
        self.process = ProcessCollector(registry=None)
        self.deaths = self.told = 0  # counted up to this event
        self.counting = Lock()  # several may scrape at once
        self.url = ""

    # ---- serving
    def serve(self, note: Path) -> Callable[[], None]:
        """Listen on the port that `note` names, where it is still free, else on another one.

        Args:
            note: a file that keeps the port over restarts, so that a scraper finds the lab again.

        Returns:
            What ends it.
        """
        registry = CollectorRegistry()
        registry.register(self)
        port = 0
        with suppress(OSError, ValueError):
            port = int(note.read_text())
        for attempt in range(5):  # a port that was free a moment ago may be taken
            port = free_port(port)
            try:
                server, _ = start_http_server(port, HOST, registry)
                break
            except OSError:
                if attempt == 4:
                    raise
        replace_file(note, str(port))
        self.url = f"http://{HOST}:{port}/metrics"

        def close() -> None:
            server.shutdown()
            server.server_close()

        return close

    # ---- what is told
    def collect(self) -> Iterator[Metric]:
        """All families, each once, whoever its samples come from."""
        newest, found = self.newest(), dict[str, Metric]()
        replicas = newest.replicas if self.world.store.now() - newest.t <= STALE_SECONDS else []
        parts: list[Iterable[Metric]] = [self.of_lab(newest, replicas)]
        parts += [self.of_records(replicas), self.of_envoy(replicas), self.process.collect()]
        parts += [passed_on(seen) for seen in replicas if seen.text]
        for family in (family for part in parts for family in part):
            known = found.setdefault(family.name, Metric(family.name, family.documentation, family.type))
            known.samples.extend(family.samples)
        self.world.store.close()  # this thread answers one scrape
        yield from found.values()

    def of_lab(self, newest: Observation, replicas: list[Seen]) -> Iterator[Metric]:
        """What the agent measured itself, in the units of the lab's own alert rules."""
        up = [(labels_of(seen), 1.0 if seen.text else 0.0) for seen in replicas]
        yield gauge("replica_up", "Whether a replica answers.", up)
        answering = [(labels_of(seen), seen) for seen in replicas if seen.text]
        used = [(labels, seen.usage) for labels, seen in answering if seen.usage]
        yield gauge("replica_cpu_percent", "CPU, of one core.", [(n, u.cpu_percent) for n, u in used])
        yield gauge("replica_memory_bytes", "Resident memory.", [(n, u.memory_bytes) for n, u in used])
        yield gauge("replica_log_bytes", "A replica's log.", [(n, s.log_bytes) for n, s in answering])
        if replicas:
            yield gauge("disk_bytes", "Production's data, logs, proxy files.", [({}, newest.disk_bytes)])
            yield gauge("observed_timestamp_seconds", "When this was seen.", [({}, newest.t)])

    def of_records(self, replicas: list[Seen]) -> Iterator[Metric]:
        """What is wanted, what fires, who died."""
        healthy = Counter(seen.replica.pool for seen in replicas if seen.replica.state == "healthy")
        pools = [({"pool": pool.name, "release": pool.release}, pool) for pool in self.world.store.all(Pool)]
        yield gauge("pool_wanted", "Replicas wanted.", [(n, pool.replicas) for n, pool in pools])
        yield gauge("pool_healthy", "Replicas healthy.", [(n, healthy[pool.name]) for n, pool in pools])
        yield gauge("pool_weight", "Share of the traffic.", [(n, pool.weight) for n, pool in pools])
        firing = [a for a in self.world.store.all(Alert) if a.state == "firing"]
        alerts = [({"rule": a.rule, "subject": a.subject}, 1.0) for a in firing]
        yield gauge("alert_firing", "The lab's own alerts that fire.", alerts)
        with self.counting:
            died = self.world.store.events(kind="replica.died", after_id=self.told, limit=100_000)
            self.deaths, self.told = self.deaths + len(died), max([self.told, *(event.id for event in died)])
        yield CounterMetricFamily(PREFIX + "replica_deaths", "Replicas that died.", value=self.deaths)

    def of_envoy(self, replicas: list[Seen]) -> Iterator[Metric]:
        """Envoy's own counters of what it sent to each replica; nothing while it does not answer."""
        hosts: dict[tuple[str, int], dict[str, float]] = {}
        with suppress(OSError, ValueError):
            for cluster in self.envoy.admin_json("/clusters?format=json").get("cluster_statuses", []):
                for host in cluster.get("host_statuses", []):
                    where = host["address"]["socket_address"]
                    stats = {stat["name"]: float(stat.get("value", 0)) for stat in host.get("stats", [])}
                    hosts[where["address"], where["port_value"]] = stats
        for name in UPSTREAM:
            family = CounterMetricFamily(f"{PREFIX}envoy_{name}".removesuffix("_total"), f"Envoy's {name}.")
            for seen in replicas:
                stats = hosts.get((seen.replica.host, seen.replica.port), {})
                if seen.text and name in stats:
                    family.add_sample(family.name + "_total", labels_of(seen), stats[name])
            yield family


def passed_on(seen: Seen) -> Iterator[Metric]:
    """A replica's own families with its name on each sample; none where they can't be read."""
    labels = labels_of(seen)
    with suppress(ValueError):
        for family in list(text_string_to_metric_families(seen.text)):
            family.samples = [s._replace(labels=s.labels | labels) for s in family.samples]
            yield family


def labels_of(seen: Seen) -> dict[str, str]:
    return {"replica": seen.replica.id, "release": seen.replica.release, "pool": seen.replica.pool}


def gauge(name: str, what: str, values: Iterable[tuple[dict[str, str], float]]) -> Metric:
    family = GaugeMetricFamily(PREFIX + name, what)
    for labels, value in values:
        family.add_sample(PREFIX + name, labels, float(value))
    return family


# ---- what a replica's own /metrics become: counters rates, histograms percentiles
@dataclass
class Scrape:
    """What one replica's /metrics said at one time; endpoint "" stands for all."""

    t: float
    requests: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    errors: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    buckets: dict[str, Buckets] = field(default_factory=lambda: defaultdict(lambda: defaultdict(float)))
    in_flight: float = 0.0


def parse(t: float, text: str) -> Scrape:
    """Read the exposition format; the metrics that nobody asks for are left out before they cost anything."""
    scrape = Scrape(t)
    for line in text.splitlines():
        if not line.startswith(WANTED):
            continue
        series, _, number = line.rpartition(" ")
        (name, labels), value = _series(series), float(number)
        endpoint = labels.get("endpoint", "")
        if name == "http_requests_in_flight":
            scrape.in_flight += value
        if endpoint in PROBES:
            continue
        for place in {endpoint, ""}:
            if name == "http_requests_total":
                scrape.requests[place] += value
                if labels.get("status", "").startswith("5"):
                    scrape.errors[place] += value
            elif name == "http_request_duration_seconds_bucket":
                scrape.buckets[place][float(labels["le"])] += value
    return scrape


@lru_cache(maxsize=4096)
def _series(text: str) -> tuple[str, dict[str, str]]:
    """A series' name and labels: they are the same every second, and to read them takes the most time."""
    (family,) = text_string_to_metric_families(f"{text} 0\n")
    return family.samples[0].name, family.samples[0].labels


def figures(before: Scrape | None, now: Scrape) -> list[tuple[str, str, float]]:
    """Rows of (metric, endpoint, value) between two scrapes of one replica.

    A percentile needs requests: where there were none, there is no row, not a zero.
    """
    rows = [("in_flight", "", now.in_flight)]
    if before is None or now.t <= before.t:
        return rows
    seconds = now.t - before.t
    for endpoint, total in now.requests.items():
        more = total - before.requests.get(endpoint, 0.0)
        rows.append(("requests_per_second", endpoint, max(more, 0.0) / seconds))
        failed = now.errors.get(endpoint, 0.0) - before.errors.get(endpoint, 0.0)
        rows.append(("errors_per_second", endpoint, max(failed, 0.0) / seconds))
    for endpoint, buckets in now.buckets.items():
        old = before.buckets.get(endpoint, {})
        delta = {bound: count - old.get(bound, 0.0) for bound, count in buckets.items()}
        steps = pairwise([(0.0, 0.0), *sorted(delta.items())])
        grown = [(bound, count - below) for (_, below), (bound, count) in steps]
        rows += [(histograms.metric(bound), endpoint, more) for bound, more in grown if more > 0]
        for name, share in histograms.PERCENTILES.items():
            value = histograms.histogram_quantile(share, delta)
            if value is not None:
                rows.append((f"{name}_ms", endpoint, value * 1000))
    return rows


def together(rows: Iterable[tuple[float, str, str, str, str, float]]) -> list[tuple[str, str, float]]:
    """Rows of (metric, endpoint, value): percentiles of all replicas, from the sum of their buckets.

    The replicas' own percentiles can't be combined, and one that answered a single request has one, too.

    Args:
        rows: of this second: t, metric, replica, release, endpoint, value.
    """
    counts: dict[str, histograms.Counts] = defaultdict(lambda: defaultdict(float))
    for _, metric, _, _, endpoint, more in rows:
        if metric.startswith(histograms.PREFIX):
            counts[endpoint][float(metric.removeprefix(histograms.PREFIX))] += more
    return [
        (f"{name}_ms", endpoint, value)
        for endpoint, counted in counts.items()
        for name, share in histograms.PERCENTILES.items()
        if (value := histograms.quantile_ms(share, counted)) is not None
    ]
