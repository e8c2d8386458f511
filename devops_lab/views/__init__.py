"""Pictures of what happened, drawn from the lab's records and its store; a view never acts.

Every view returns a `Picture`; matplotlib and ipywidgets are loaded when the first one needs them.
"""

from devops_lab.views.delivery import (
    before_after,
    build,
    checks,
    diff,
    image,
    image_log,
    pipeline,
    registry,
    rollout_steps,
    scorers,
    services,
)
from devops_lab.views.feedback import (
    alerts,
    complaints,
    doctor,
    endpoints,
    inbox,
    logs,
    post_mortem,
    profile,
    suspects,
)
from devops_lab.views.history import git_graph, trail
from devops_lab.views.learning import calibration
from devops_lab.views.planning import board, forecast, lifecycle, modes
from devops_lab.views.production import (
    canary,
    deployments,
    next_rollout,
    race,
    replicas,
    rollout,
    value_clock,
)
from devops_lab.views.screen import beside, form, frame, live, mode, watching
from devops_lab.views.signals import budget, golden_signals, loops, memory, scaling
from devops_lab.views.standing import now
from devops_lab.views.style import Picture, show
from devops_lab.views.testing import matrix, test_grid, tests
from devops_lab.views.transcript import commands

__all__ = [
    "Picture", "alerts", "before_after", "beside", "board", "budget", "build", "calibration", "canary",
    "checks", "commands", "complaints", "deployments", "diff", "doctor", "endpoints", "forecast", "form",
    "frame", "git_graph", "golden_signals", "image", "image_log", "inbox", "lifecycle", "live", "logs",
    "loops", "matrix", "memory", "mode", "modes", "next_rollout", "now", "pipeline", "post_mortem",
    "profile", "race", "registry", "replicas", "rollout", "rollout_steps", "scaling", "scorers", "services",
    "show", "suspects", "test_grid", "tests", "trail", "value_clock", "watching",
]  # fmt: skip
