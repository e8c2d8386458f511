"""What runs the replicas: processes of this machine; containers and clusters will follow."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from devops_lab.errors import EngineUnavailable
from devops_lab.settings import Settings

if TYPE_CHECKING:
    from devops_lab.engines.base import Engine

NOT_YET = {
    "docker": "This version of the lab runs processes only; containers are not built in yet.",
    "swarm": "This version of the lab runs processes only; a cluster is not built in yet.",
}


def choose(root: Path, settings: Settings) -> Engine:
    """The engine that the settings ask for; "auto" takes the process engine.

    Raises:
        EngineUnavailable: it can't be used on this machine, with the reason.
    """
    if settings.engine in NOT_YET:
        raise EngineUnavailable(
            NOT_YET[settings.engine],
            expected="process or auto",
            next_step='Set engine = "process" in lab.toml.',
        )
    if sys.platform == "win32":
        raise EngineUnavailable(
            "The process engine needs Unix sockets and signals, which Windows lacks.",
            expected="Linux or macOS",
            next_step="Use WSL 2 (Windows Subsystem for Linux) and start again inside it.",
        )
    from devops_lab.engines.process import ProcessEngine

    return ProcessEngine(root, settings)
