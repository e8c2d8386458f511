"""Pictures of what happened, drawn from the lab's records and its store; a view never acts.

Every function here returns a `Picture`. Nothing heavy is loaded before the first one is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from devops_lab.views.customers import rollout, traffic
    from devops_lab.views.making import (
        build,
        checks,
        diff,
        matrix,
        pipeline,
        registry,
        scorers,
        tests,
        trail,
    )
    from devops_lab.views.picture import Picture
    from devops_lab.views.planning import board, forecast, lifecycle, modes
    from devops_lab.views.running import (
        endpoints,
        golden_signals,
        profile,
        replicas,
        scaling,
        value_clock,
    )
    from devops_lab.views.screen import button, form, frame, live, mode, show, watching
    from devops_lab.views.telling import alerts, complaints, doctor, inbox, logs

__all__ = [
    "Picture", "alerts", "board", "build", "button", "checks", "complaints", "diff", "doctor", "endpoints", "forecast",
    "form", "frame", "golden_signals", "inbox", "lifecycle", "live", "logs", "matrix", "mode", "modes", "pipeline",
    "profile", "registry", "replicas", "rollout", "scaling", "scorers", "show", "tests", "traffic", "trail",
    "value_clock", "watching",
]  # fmt: skip

ROOMS = {
    "picture": "Picture",
    "screen": "button form frame live mode show watching",
    "planning": "board forecast lifecycle modes",
    "making": "build checks diff matrix pipeline registry scorers tests trail",
    "running": "endpoints golden_signals profile replicas scaling value_clock",
    "customers": "rollout traffic",
    "telling": "alerts complaints doctor inbox logs",
}


def __getattr__(name: str) -> Any:
    """Load a view's module when the view is first asked for."""
    for room, names in ROOMS.items():
        if name in names.split():
            return getattr(import_module(f"devops_lab.views.{room}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
