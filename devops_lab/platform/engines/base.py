"""What every engine can do: the one protocol behind process, docker and swarm.

An engine runs replicas; it does not route traffic (Envoy does, for all engines) and it decides nothing
(the agent does, from the desired state).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from devops_lab.model import Pool, Release, Replica, Usage

# What a replica may take, on every engine; above it, it is ended and replaced.
MEMORY_BYTES = 192_000_000  # twice what the platform promises (platform.yaml): the alert comes before the end
PROCESSES = 128  # and threads: the server has a pool of forty
STEADY = "steady"  # what a cluster says of a pool that is as it was told


@dataclass(frozen=True)
class Capabilities:
    """What an engine can do; a notebook shows `why_not` instead of failing.

    Args:
        heals: replaces a dead replica by itself.
        rolls: updates a pool in place, replica by replica, and goes back by itself when that fails.
        images: builds container images.
        why_not: what it can't ("images", "profiles") -> the reason in plain words.
    """

    heals: bool = False
    rolls: bool = False
    images: bool = False
    why_not: dict[str, str] = field(default_factory=dict)


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

    def kill(self, replica: Replica) -> None:
        """End a replica at once, as a crash would (SIGKILL); nobody is told."""
        ...

    def usage(self, replica: Replica) -> Usage | None: ...

    def environment(self, replica: Replica) -> dict[str, str]:
        """The environment that a running replica really has.

        Raises:
            LabError: it is gone, or can't be asked.
        """
        ...

    def log_path(self, replica: Replica) -> Path | None:
        """The file that the replica's standard output goes to, where there is one."""
        ...

    def forget(self, replica: Replica) -> None:
        """Drop what is kept in memory about a replica that is gone."""
        ...

    def sweep(self, known: list[Replica]) -> int:
        """Take over the replicas that are known, and end those of this lab that no record names.

        The agent calls this when it starts: an agent that died may have left a replica half started.

        Returns:
            How many were ended.
        """
        ...

    def database_url(self) -> str:
        """Where production's data is, as a replica is told."""
        ...

    def ask_database(self) -> tuple[str, str]:
        """Ask production's database, read-only, for its version and tables: (what was asked, the answer).

        Raises:
            LabError: there is none yet, or it does not answer.
        """
        ...

    def rest(self) -> None:
        """Stop what serves replicas (a database, a registry) while a lab sleeps; nothing is lost."""
        ...

    def wake(self) -> None:
        """Start what `rest` has stopped, and wait until it answers."""
        ...

    def teardown(self) -> None:
        """Stop and remove all that this engine made for this lab."""
        ...


class Orchestrator(Engine, Protocol):
    """An engine that keeps pools by itself (`heals`): it is told what is wanted, and asked what there is."""

    def ensure(self, pool: Pool) -> str:
        """Make the cluster want this pool: create it, scale it, or update it in place to another release.

        A pool that is wanted back at the release that it had before is rolled back by the cluster's own
        rollback. Safe to repeat: what is wanted already costs no call that changes anything.

        Returns:
            Why the cluster went back from this by itself; it is left alone then. Empty when it did not.

        Raises:
            LabError: the cluster refused; carries its words.
        """
        ...

    def drop(self, pool: str) -> None:
        """Stop a pool and all its replicas; each finishes what is in flight."""
        ...

    def pools(self) -> dict[str, str]:
        """The pools of this lab that the cluster has, with the state of their update in plain words."""
        ...

    def observe(self) -> list[Replica]:
        """Every replica of this lab that the cluster runs or starts now, with its address and node.

        Its state is "starting" or "draining" (told to end): its health is Envoy's to say; or "dead",
        with the reason, as long as the cluster remembers one that nobody told to end.
        """
        ...

    def machines(self) -> dict[str, bool]:
        """The nodes of the cluster by name, and whether each is up, as of the last look (`observe`)."""
        ...
