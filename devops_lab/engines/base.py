"""What every engine can do: the one protocol behind process, docker and swarm.

An engine runs replicas; it does not route traffic (Envoy does, for all engines) and it decides nothing
(the agent does, from the desired state).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from devops_lab.model import Pool, Release, Replica, Usage


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; a notebook shows `why_not` instead of failing.

    Args:
        heals: replaces a dead replica by itself.
        limits: enforces memory and CPU limits.
        images: builds container images.
        why_not: capability name -> the reason in plain words.
    """

    heals: bool
    limits: bool
    images: bool
    nodes: bool
    why_not: dict[str, str]


class Engine(Protocol):
    """Runs replicas of releases for one lab. Every call is safe to repeat."""

    name: str

    def capabilities(self) -> Capabilities: ...

    def prepare(self, release: Release) -> None:
        """Make a release ready to launch (install or pull it) and check its digest.

        Raises:
            RegistryRefused: the artifact is not there, or is not the one that was released.
        """
        ...

    def migrate(self, release: Release) -> str:
        """Bring the database's schema to this release; return what was done.

        Raises:
            DeployRefused: the migration failed; the database is as it was.
        """
        ...

    def launch(self, pool: Pool, replica_id: str) -> Replica:
        """Start one replica of a prepared release; returns before it is healthy."""
        ...

    def alive(self, replica: Replica) -> bool: ...

    def ended(self, replica: Replica) -> str:
        """How a replica ended, e.g. "SIGKILL" or "exit code 3", as far as the engine knows."""
        ...

    def stop(self, replica: Replica, grace_seconds: float) -> None:
        """Ask a replica to finish what is in flight, and end it after `grace_seconds` at the latest."""
        ...

    def usage(self, replica: Replica) -> Usage | None: ...

    def log_path(self, replica: Replica) -> Path | None:
        """The file that the replica's standard output goes to, where there is one."""
        ...

    def forget(self, replica: Replica) -> None:
        """Drop what is kept in memory about a replica that is gone."""
        ...

    def sweep(self, known: list[Replica]) -> int:
        """End replicas of this lab that no record names (an agent died while it started them); how many."""
        ...

    def database_url(self) -> str: ...

    def teardown(self) -> None:
        """Stop and remove all that this engine made for this lab."""
        ...
