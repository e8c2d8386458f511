"""The lab's monitoring for another system: Prometheus' configuration and rules, and a Grafana dashboard."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import yaml

from devops_lab.errors import BadInput
from devops_lab.model import Slo
from devops_lab.phases import World, promql
from devops_lab.phases.monitor import Monitor
from devops_lab.phases.slo import PAIRS
from devops_lab.settings import choice

TARGETS = ("prometheus",)
HEADER = "# Written by devops-lab export; the next export replaces it.\n"
FILES = ("prometheus.yml", "recording.yml", "alerts.yml", "dashboard.json")


def export(world: World, target: str, out: Path) -> list[Path]:
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
    monitor = Monitor(world)
    address, slos = monitor.scrape_url, monitor.slo.all()
    alerts = [promql.AGENT_DOWN, *map(promql.alert, monitor.rules())]
    alerts += [promql.burn(slo, pair) for slo in slos for pair in PAIRS]
    recorded = promql.RECORDED + [rule for slo in slos for rule in promql.bad_shares(slo)]
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


def group(name: str, rules: list[promql.Rule]) -> dict[str, Any]:
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
    lines = {f"{{{{endpoint}}}} {name}": f"endpoint:http_wait_ms:{name}" for name in promql.SHARES}
    panels = [
        panel("Latency", "ms", lines),
        panel("Traffic", "reqps", {"{{endpoint}}": "endpoint:http_requests:rate5s"}),
        panel("Errors", "reqps", {"{{endpoint}}": "endpoint:http_failures:rate5s"}),
        panel("Saturation: CPU of one core", "percent", {"{{replica}}": "devops_lab_replica_cpu_percent"}),
        panel("Saturation: memory", "bytes", {"{{replica}}": promql.MEMORY}),
        panel("Saturation: in flight", "short", {"{{replica}}": "http_requests_in_flight"}),
        panel("Disk", "bytes", {"production": "devops_lab_disk_bytes"}),
        panel("Replicas", "short", {
            "{{pool}} wanted": "devops_lab_pool_wanted", "{{pool}} healthy": "devops_lab_pool_healthy",
        }),
        panel("Alerts that fire in the lab", "short", {"{{rule}} {{subject}}": "devops_lab_alert_firing"}),
    ]  # fmt: skip
    for slo in slos:
        burning = {
            f"over {seconds:g} s": f'{promql.ratio(seconds)}{{slo="{slo.name}"}} / {1 - slo.objective:.6g}'
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
