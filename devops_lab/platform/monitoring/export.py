"""The lab's monitoring for another system: Prometheus' configuration and rules, and a Grafana dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from devops_lab.errors import BadInput
from devops_lab.model import AlertRule, Slo
from devops_lab.platform.context import LabContext
from devops_lab.platform.histograms import PERCENTILES
from devops_lab.platform.monitoring.alerts import Alerting
from devops_lab.platform.monitoring.objectives import PAIRS, RESOLVE, Windows, rule_of
from devops_lab.platform.settings import choice

TARGETS = ("prometheus",)
HEADER = "# Written by devops-lab export; the next export replaces it.\n"
FILES = ("prometheus.yml", "recording.yml", "alerts.yml", "dashboard.json")


def export(world: LabContext, target: str, out: Path) -> list[Path]:
    """Write the lab's monitoring for another system.

    Args:
        world: a lab whose agent runs.
        target: one of `TARGETS`.
        out: a folder that is empty, does not exist yet, or holds an earlier export.

    Returns:
        The files.

    Raises:
        BadInput: an unknown target, or a folder that holds something else; nothing is written then.
        AgentDown: there is no agent that could be scraped.
    """
    choice("export target", target, TARGETS)
    out = out.expanduser()
    check_folder(out)
    alerting, address = Alerting(world), str(world.control.status()["scrape_url"])
    slos = alerting.slo.all()
    alerts = [AGENT_DOWN, *map(alert, alerting.rules())]
    alerts += [burn(slo, pair) for slo in slos for pair in PAIRS]
    recorded = RECORDED + [rule for slo in slos for rule in bad_shares(slo)]
    texts = (
        as_yaml(configuration(address, world.root.name)),
        as_yaml(group("devops-lab", recorded)),
        as_yaml(group("devops-lab-alerts", alerts)),
        json.dumps(dashboard(slos), indent=1) + "\n",
    )
    out.mkdir(parents=True, exist_ok=True)
    for name, text in zip(FILES, texts, strict=True):
        (out / name).write_text(text, encoding="utf-8")
    return [out / name for name in FILES]


def check_folder(out: Path) -> None:
    """Only what an export wrote is written over.

    Raises:
        BadInput: there is something else.
    """
    there = sorted(path.name for path in out.iterdir()) if out.is_dir() else []
    main = out / FILES[0]
    ours = main.is_file() and main.read_text("utf-8", errors="replace").startswith(HEADER)
    strangers = [name for name in there if not ours or name not in FILES]
    if strangers or (out.exists() and not out.is_dir()):
        raise BadInput(
            f"{out} holds other things: {', '.join(strangers[:5])}." if strangers else f"{out} is no folder.",
            expected="an empty folder, a new one, or that of an earlier export",
            next_step="Name another folder; nothing was written.",
        )


def as_yaml(content: object) -> str:
    return HEADER + yaml.safe_dump(content, sort_keys=False, width=1000)


def group(name: str, rules: list[Rule]) -> dict[str, Any]:
    return {"groups": [{"name": name, "interval": "1s", "rules": rules}]}


def configuration(address: str, lab: str) -> dict[str, Any]:
    """Scrape the lab as often as the lab scrapes its replicas."""
    where = urlsplit(address)
    target = {"targets": [where.netloc], "labels": {"lab": lab}}
    return {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": ["recording.yml", "alerts.yml"],
        "scrape_configs": [
            {"job_name": "devops-lab", "metrics_path": where.path, "static_configs": [target]}
        ],
    }


# ---- the dashboard
def dashboard(slos: list[Slo]) -> dict[str, Any]:
    """A Grafana dashboard of the four golden signals, the pools and the error budgets."""
    lines = {f"{{{{endpoint}}}} {name}": f"endpoint:http_wait_ms:{name}" for name in PERCENTILES}
    panels = [
        panel("Latency", "ms", lines),
        panel("Traffic", "reqps", {"{{endpoint}}": "endpoint:http_requests:rate5s"}),
        panel("Errors", "reqps", {"{{endpoint}}": "endpoint:http_failures:rate5s"}),
        panel("Saturation: CPU of one core", "percent", {"{{replica}}": "devops_lab_replica_cpu_percent"}),
        panel("Saturation: memory", "bytes", {"{{replica}}": MEMORY}),
        panel("Saturation: in flight", "short", {"{{replica}}": "http_requests_in_flight"}),
        panel("Disk", "bytes", {"production": "devops_lab_disk_bytes"}),
        panel("Replicas", "short", {
            "{{pool}} wanted": "devops_lab_pool_wanted", "{{pool}} healthy": "devops_lab_pool_healthy",
        }),
        panel("Alerts that fire in the lab", "short", {"{{rule}} {{subject}}": "devops_lab_alert_firing"}),
    ]  # fmt: skip
    for slo in slos:
        burning = {
            f"over {seconds:g} s": f'{ratio(seconds)}{{slo="{slo.name}"}} / {1 - slo.objective:.6g}'
            for pair in PAIRS
            for seconds in pair.seconds
        }
        panels.append(panel(f"Burn rate of {slo.name}", "short", burning))
    for number, one in enumerate(panels):
        one |= {"id": number + 1, "gridPos": {"x": number % 3 * 8, "y": number // 3 * 8, "w": 8, "h": 8}}
    source = {"name": "source", "type": "datasource", "query": "prometheus", "label": "Prometheus"}
    return {
        "uid": "devops-lab",
        "title": "DevOps lab",
        "schemaVersion": 39,
        "refresh": "5s",
        "time": {"from": "now-15m", "to": "now"},
        "templating": {"list": [source]},
        "panels": panels,
    }


def panel(title: str, unit: str, lines: dict[str, str]) -> dict[str, Any]:
    """One graph; `lines` is legend -> PromQL."""
    source = {"type": "prometheus", "uid": "${source}"}
    targets = [
        {"refId": chr(ord("A") + number), "expr": expr, "legendFormat": legend, "datasource": source}
        for number, (legend, expr) in enumerate(lines.items())
    ]
    return {
        "type": "timeseries",
        "title": title,
        "datasource": source,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "targets": targets,
    }


# ---- the lab's alert rules and objectives in Prometheus' own language, over what the scrape endpoint exposes
Rule = dict[str, Any]
CUSTOMERS = 'endpoint!~"/metrics|/healthz|/readyz"'  # these are asked by the platform
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
    labels = ", ".join(filter(None, ("le", by)))
    return f"1000 * histogram_quantile({share:g}, sum by ({labels}) ({rates}))"


def selector(endpoint: str) -> str:
    return CUSTOMERS if endpoint in ("", "*") else f"endpoint={json.dumps(endpoint)}"


def metric(rule: AlertRule) -> str:
    """A rule's metric, over the same seconds as the lab itself reads it (monitoring/rules.py)."""
    of, by = selector(rule.endpoint), "endpoint" if rule.endpoint else ""
    if rule.metric == "error_ratio":
        return f"{failures(by, of)} / {requests(by, of)}"
    if share := PERCENTILES.get(rule.metric.removesuffix("_ms")):
        return quantile_ms(share, by, of)
    return GAUGES[rule.metric]


RECORDED: list[Rule] = [
    {"record": "endpoint:http_requests:rate5s", "expr": requests("endpoint")},
    {"record": "endpoint:http_failures:rate5s", "expr": failures("endpoint")},
    *({"record": f"endpoint:http_wait_ms:{name}", "expr": quantile_ms(share, "endpoint")}
      for name, share in PERCENTILES.items()),
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
