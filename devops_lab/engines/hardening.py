"""What a container of the shop may not do, whatever runs in it (each is tried: test_hardening.py)."""

from __future__ import annotations

from typing import Any

USER = "10001"  # no name, no home, no rights; the image says so too
MEMORY_BYTES = 192_000_000  # twice what the platform promises (platform.yaml): the alert comes before the end
CPUS = 1.0
PROCESSES = 128  # and threads: the server has a pool of forty
TMP_BYTES = 16_000_000
NANO = 1_000_000_000


def hardened() -> dict[str, Any]:
    """The options of docker-py's `create` for a container that serves strangers."""
    return {
        "user": USER,
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges"],
        "mem_limit": MEMORY_BYTES,
        "memswap_limit": MEMORY_BYTES,  # the same: no swap on top
        "nano_cpus": int(CPUS * NANO),
        "pids_limit": PROCESSES,
        "tmpfs": {"/tmp": f"size={TMP_BYTES},mode=1777,noexec,nosuid,nodev"},
        # Docker's own check starts a Python each time, and is for `docker ps` only: Envoy's decides.
        "healthcheck": {"interval": 10 * NANO},
    }
