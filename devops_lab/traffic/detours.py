"""Detours: the proxy reaches a replica through a relay, as long as the relay's process lives."""

from __future__ import annotations

from dataclasses import dataclass

from devops_lab.processes import process_of
from devops_lab.store import Store


@dataclass(frozen=True)
class Detour:
    """The way to one replica leads through a relay of this machine (an incident drill puts one there).

    Args:
        host, port: the replica's own address.
        via_port: the relay's, on this machine.
        pid, created: the relay's process; when it ends, the proxy goes straight again.
    """

    host: str
    port: int
    via_port: int
    pid: int
    created: float

    @property
    def key(self) -> str:
        return f"{self.host}:{self.port}"


def detours(store: Store) -> dict[tuple[str, int], tuple[str, int]]:
    """The detours that are open now: a replica's address -> where the proxy goes instead."""
    open_now = [each for each in store.all(Detour) if process_of(each.pid, each.created)]
    return {(each.host, each.port): ("127.0.0.1", each.via_port) for each in open_now}
