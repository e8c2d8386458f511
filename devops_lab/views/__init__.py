"""Pictures of what happened, drawn from the lab's records and its store; a view never acts.

Every view returns a `Picture`; matplotlib and ipywidgets are loaded when the first one needs them.
"""

from devops_lab.views.budget import budget
from devops_lab.views.comparing import canary, loops, race
from devops_lab.views.customers import rollout
from devops_lab.views.imaging import image, image_log
from devops_lab.views.making import (
    before_after,
    build,
    build_steps,
    checks,
    diff,
    matrix,
    pipeline,
    registry,
    rollout_steps,
    scorers,
    services,
    test_progress,
    tests,
    trail,
)
from devops_lab.views.picture import Picture
from devops_lab.views.planning import board, forecast, lifecycle, modes
from devops_lab.views.profiling import profile
from devops_lab.views.running import (
    endpoints,
    golden_signals,
    memory,
    replicas,
    scaling,
    value_clock,
)
from devops_lab.views.screen import button, form, frame, live, mode, show, watching
from devops_lab.views.telling import alerts, complaints, deployments, doctor, inbox, logs, post_mortem

__all__ = [
    "Picture", "alerts", "before_after", "board", "budget", "build", "build_steps", "button", "canary",
    "checks", "complaints", "deployments", "diff", "doctor", "endpoints", "forecast", "form", "frame",
    "golden_signals", "image", "image_log", "inbox", "lifecycle", "live", "logs", "loops", "matrix",
    "memory", "mode", "modes", "pipeline", "post_mortem", "profile", "race", "registry", "replicas",
    "rollout", "rollout_steps", "scaling", "scorers", "services", "show", "test_progress", "tests",
    "trail", "value_clock", "watching",
]  # fmt: skip
