"""From a replica's /metrics to figures: counters become rates, histograms become percentiles."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise

from prometheus_client.parser import text_string_to_metric_families

from devops_lab.phases import histograms

WANTED = ("http_requests_total", "http_request_duration_seconds_bucket", "http_requests_in_flight")
PROBES = ("/metrics", "/healthz", "/readyz")  # asked by the platform, not by customers
QUANTILES = {"p50_ms": 0.50, "p95_ms": 0.95, "p99_ms": 0.99}
Buckets = dict[float, float]  # upper bound in seconds -> cumulative count


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
    wanted = "\n".join(line for line in text.splitlines() if line.startswith(WANTED))
    for family in text_string_to_metric_families(wanted + "\n"):
        for sample in family.samples:
            endpoint = sample.labels.get("endpoint", "")
            if sample.name == "http_requests_in_flight":
                scrape.in_flight += sample.value
            if endpoint in PROBES:
                continue
            for place in {endpoint, ""}:
                if sample.name == "http_requests_total":
                    scrape.requests[place] += sample.value
                    if sample.labels.get("status", "").startswith("5"):
                        scrape.errors[place] += sample.value
                elif sample.name == "http_request_duration_seconds_bucket":
                    scrape.buckets[place][float(sample.labels["le"])] += sample.value
    return scrape


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
        for metric, quantile in QUANTILES.items():
            value = histograms.histogram_quantile(quantile, delta)
            if value is not None:
                rows.append((metric, endpoint, value * 1000))
    return rows
