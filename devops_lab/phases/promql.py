"""The lab's alert rules and objectives in Prometheus' own language, over what the scrape endpoint exposes.

Burn-rate alerts are the multi-window, multi-burn-rate ones of Google, The Site Reliability Workbook,
chapter 5, "Alerting on SLOs", its hours scaled to a lab's half minutes as in `phases/slo.py`.
"""

from __future__ import annotations

import json
from typing import Any

from devops_lab.model import AlertRule, Slo
from devops_lab.phases.slo import PAIRS, RESOLVE, Windows, rule_of

Rule = dict[str, Any]
CUSTOMERS = 'endpoint!~"/metrics|/healthz|/readyz"'  # these are asked by the platform
SHARES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
MEMORY = "devops_lab_replica_memory_bytes"
GAUGES = {
    "memory_bytes": f"avg_over_time({MEMORY}[5s])",
    "memory_bytes_per_minute": f"60 * (deriv({MEMORY}[20s]) and count_over_time({MEMORY}[20s]) > 10)",
    "cpu_percent": "avg_over_time(devops_lab_replica_cpu_percent[5s])",
    "in_flight": "avg_over_time(http_requests_in_flight[5s])",
    "log_bytes_per_minute": "60 * rate(devops_lab_replica_log_bytes[10s])",
    "disk_bytes": "devops_lab_disk_bytes",
    "replicas_down": "count(devops_lab_replica_up == 0)",
    "deaths_per_minute": "increase(devops_lab_replica_deaths_total[1m])",
}


def duration(seconds: float) -> str:
    """As PromQL writes it: whole seconds, or whole milliseconds."""
    return f"{seconds:.0f}s" if seconds == int(seconds) else f"{seconds * 1000:.0f}ms"


def said(text: str) -> str:
    """A reader's words, which Prometheus shall not take for a template."""
    return text.replace("{{", '{{ "{{" }}')


# ---- figures
def requests(by: str, of: str = CUSTOMERS, window: str = "5s") -> str:
    """Requests a second."""
    return f"sum by ({by}) (rate(http_requests_total{{{of}}}[{window}]))"


def failures(by: str, of: str = CUSTOMERS, window: str = "5s") -> str:
    """Server errors a second: 0, not nothing, where requests come and none of them fails."""
    errors = requests(by, of + ',status=~"5.."', window)
    return f"({errors} or 0 * {requests(by, of, window)})"


def quantile_ms(share: float, by: str, of: str = CUSTOMERS, window: str = "5s") -> str:
    rates = f"rate(http_request_duration_seconds_bucket{{{of}}}[{window}])"
    return f"1000 * histogram_quantile({share:g}, sum by (le, {by}) ({rates}))"


def selector(endpoint: str) -> str:
    return CUSTOMERS if endpoint in ("", "*") else f"endpoint={json.dumps(endpoint)}"


def metric(rule: AlertRule) -> str:
    """A rule's metric, over the same seconds as the lab itself reads it (phases/alerting.py)."""
    of, by = selector(rule.endpoint), "endpoint" if rule.endpoint else ""
    if rule.metric == "error_ratio":
        return f"{failures(by, of)} / {requests(by, of)}"
    if share := SHARES.get(rule.metric.removesuffix("_ms")):
        return quantile_ms(share, ", ".join(filter(None, ("replica", "release", by))), of)
    return GAUGES[rule.metric]


RECORDED: list[Rule] = [
    {"record": "endpoint:http_requests:rate5s", "expr": requests("endpoint")},
    {"record": "endpoint:http_failures:rate5s", "expr": failures("endpoint")},
    *({"record": f"endpoint:http_wait_ms:{name}", "expr": quantile_ms(share, "endpoint")}
      for name, share in SHARES.items()),
]  # fmt: skip


# ---- alert rules
AGENT_DOWN: Rule = {
    "alert": "agent-down",
    "expr": 'up{job="devops-lab"} == 0',
    "for": "5s",
    "labels": {"severity": "page"},
    "annotations": {"summary": "The lab does not answer: what it would say is unknown, not zero."},
}


def alert(rule: AlertRule) -> Rule:
    """One of the lab's alert rules, with its hysteresis."""
    figure, resolve = metric(rule), rule.above if rule.resolve is None else rule.resolve
    expr = f"{figure} > {rule.above:.10g}"
    if resolve < rule.above:
        own = f"ignoring (alertname, alertstate, severity) {firing(rule.name)}"
        expr += f" or ({figure} > {resolve:.10g} and {own})"
    return {
        "alert": rule.name,
        "expr": expr,
        **({"for": duration(rule.for_seconds)} if rule.for_seconds else {}),
        "labels": {"severity": "page"},
        "annotations": {"summary": said(rule.summary), "description": f"{rule.metric} is {{{{ $value }}}}"},
    }


def firing(name: str) -> str:
    """Prometheus' own series of an alert that fires: it does so until it is below the lower limit."""
    return f'ALERTS{{alertname="{name}",alertstate="firing"}}'


# ---- objectives
def ratio(seconds: float) -> str:
    return f"slo:bad_requests:ratio_rate{duration(seconds)}"


def bad_share(slo: Slo, seconds: float) -> Rule:
    """The share of bad requests over one window, recorded once for all that use it."""
    of, window = selector(slo.endpoint), duration(seconds)
    expr = f"{failures('', of, window)} / {requests('', of, window)}"
    if slo.within_seconds:
        good = f'http_request_duration_seconds_bucket{{{of},le="{slo.within_seconds}"}}'
        every = f"http_request_duration_seconds_count{{{of}}}"
        expr = f"1 - sum(rate({good}[{window}])) / sum(rate({every}[{window}]))"
    return {"record": ratio(seconds), "expr": expr, "labels": {"slo": slo.name}}


def bad_shares(slo: Slo) -> list[Rule]:
    return [bad_share(slo, seconds) for seconds in sorted({s for pair in PAIRS for s in pair.seconds})]


def burn(slo: Slo, pair: Windows) -> Rule:
    """The alert of one pair of windows."""
    rule = rule_of(slo, pair)

    def both(factor: float) -> str:
        limit = f"{factor:g} * {1 - slo.objective:.6g}"
        return " and ".join(f'{ratio(seconds)}{{slo="{slo.name}"}} > {limit}' for seconds in pair.seconds)

    expr = f"{both(pair.factor)} or ({both(pair.factor * RESOLVE)} and on (slo) {firing(rule.name)})"
    labels = {"severity": pair.severity, "slo": slo.name}
    return {"alert": rule.name, "expr": expr, "labels": labels, "annotations": {"summary": rule.summary}}
