"""Metrics for Prometheus, served at /metrics."""

from prometheus_client import REGISTRY, Counter, Gauge, Histogram, disable_created_metrics, generate_latest
from starlette.requests import Request
from starlette.responses import Response

disable_created_metrics()  # half as many lines for each scrape

BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)

REQUESTS = Counter("http_requests_total", "Requests answered.", ["method", "endpoint", "status"])
DURATION = Histogram(
    "http_request_duration_seconds", "Time to answer.", ["method", "endpoint"], buckets=BUCKETS_SECONDS
)
IN_FLIGHT = Gauge("http_requests_in_flight", "Requests being answered now.")
ORDERS = Counter("bento_orders_total", "Orders taken (a retry isn't a new order).")
BUILD = Gauge("bento_build_info", "The release that runs.", ["release"])


async def metrics(_request: Request) -> Response:
    """All metrics in Prometheus' text format."""
    return Response(generate_latest(REGISTRY), media_type="text/plain; version=0.0.4; charset=utf-8")
