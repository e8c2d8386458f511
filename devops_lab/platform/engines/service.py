"""What Swarm is told about a pool (the specification of its service), and how its answers read; no calls."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from devops_lab.model import Pool
from devops_lab.platform.engines.base import MEMORY_BYTES, PROCESSES, STEADY
from devops_lab.platform.engines.cluster import Json, container_of
from devops_lab.platform.engines.containers import PORT, REPLICA
from devops_lab.platform.engines.docker import CPUS, NANO, TMP_BYTES, USER, labels

POOL = "devops-lab.pool"  # labels of a service: which pool it is,
WANTED = "devops-lab.wanted"  # and what of it was wanted: release, replicas, environment
RELEASE = "devops-lab.release"  # a task's
REPLICA_VARIABLE = "BENTO_REPLICA"
NAME = 'r{{.Task.Slot}}-{{printf "%.4s" .Task.ID}}'  # Swarm's template of a replica's name; see name_of
DRAIN_SECONDS = 1.5  # a replica that was told to end says so, and serves on; Envoy asks each 0.25 s
MONITOR_SECONDS = 2.0  # a task that fails so soon after its start counts against an update
CHECK_SECONDS = 2.0  # each check costs a process, and a start is seen that much later at the most
READY = (
    "import socket; s = socket.create_connection(('127.0.0.1', 8080), 1); "
    "s.sendall(b'GET /readyz HTTP/1.0\\r\\n\\r\\n'); raise SystemExit(b' 200 ' not in s.recv(99))"
)


def specification(
    root: Path,
    name: str,
    pool: Pool,
    *,
    image: str,
    network: str,
    environment: dict[str, str],
    grace_seconds: float,
) -> Json:
    """The service of a pool: how many of what, within which limits, and how it is updated."""
    update = {"Order": "start-first", "Monitor": int(MONITOR_SECONDS * NANO), "MaxFailureRatio": 0}
    limits = {"NanoCPUs": int(CPUS * NANO), "MemoryBytes": MEMORY_BYTES, "Pids": PROCESSES}
    return {
        "Name": name,
        "Labels": labels(root, "pool") | {POOL: pool.name, WANTED: as_wanted(pool)},
        "Mode": {"Replicated": {"Replicas": pool.replicas}},
        "TaskTemplate": {
            "ContainerSpec": container(root, pool, image, environment, grace_seconds),
            "Resources": {"Limits": limits},
            "RestartPolicy": {"Condition": "any", "Delay": NANO // 2},
            "Placement": {"Preferences": [{"Spread": {"SpreadDescriptor": "node.id"}}]},
            "Networks": [{"Target": network}],
        },
        "UpdateConfig": {**update, "Parallelism": 1, "FailureAction": "rollback"},
        "RollbackConfig": {**update, "Parallelism": 0, "FailureAction": "pause"},  # 0: all at once
        "EndpointSpec": {
            "Mode": "dnsrr",  # Envoy asks each task at a port of its node, not Swarm's mesh
            "Ports": [{"Protocol": "tcp", "TargetPort": PORT, "PublishMode": "host"}],
        },
    }


def container(root: Path, pool: Pool, image: str, environment: dict[str, str], grace_seconds: float) -> Json:
    """The container of each task: it may as little as a replica in Docker, as far as Swarm can say so."""
    told = {REPLICA_VARIABLE: NAME, "BENTO_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}"} | environment
    return {
        "Image": image,
        "Command": ["python", "-m", "bento", "serve", "--host", "0.0.0.0", "--port", str(PORT)],
        "Env": [f"{name}={value}" for name, value in sorted(told.items())],
        "Labels": labels(root, REPLICA) | {POOL: pool.name, RELEASE: pool.release},
        "User": USER,
        "ReadOnly": True,
        "CapabilityDrop": [
            "ALL"
        ],  # Swarm 20.10 can't say no-new-privileges; without rights there is little to gain
        "Mounts": [{"Type": "tmpfs", "Target": "/tmp", "TmpfsOptions": {"SizeBytes": TMP_BYTES}}],
        "StopGracePeriod": int((DRAIN_SECONDS + grace_seconds) * NANO),
        # A task runs, for Swarm, once this says so: then its predecessor is told to end.
        "Healthcheck": {
            "Test": ["CMD", "python", "-ISc", READY],
            "Interval": int(CHECK_SECONDS * NANO),
            "Timeout": 3 * NANO,
            "StartPeriod": 3 * NANO,
            "Retries": 5,
        },
    }


def as_wanted(pool: Pool) -> str:
    """What of a pool is Swarm's business; its share of the traffic is Envoy's."""
    return json.dumps([pool.release, pool.replicas, pool.env], sort_keys=True)


def running(spec: Json) -> Json:
    """What of a specification a task is made from, as far as we decide it."""
    about = spec["TaskTemplate"]["ContainerSpec"]
    return {"release": about["Labels"][RELEASE], "environment": sorted(about["Env"])}


def went_back(service: Json) -> bool:
    """Whether the last thing that Swarm did to a service was to go back."""
    state = str((service.get("UpdateStatus") or {}).get("State", ""))
    return state.startswith("rollback") or state == "paused"


def in_words(service: Json) -> str:
    """The state of a service's update: steady, updating, rolled back: …"""
    status = service.get("UpdateStatus") or {}
    state, why = str(status.get("State", "")), str(status.get("Message", ""))
    words = {
        "": STEADY,
        "completed": STEADY,
        "rollback_started": "rolling back",
        "rollback_completed": "rolled back",
    }
    return f"{words.get(state, state)}: {why}" if went_back(service) else words.get(state, state)


def name_of(task: Json) -> str:
    """A replica's name: its place in the service, and enough of its task's id to be one of a kind."""
    given = f"{REPLICA_VARIABLE}="
    told: str = next(line for line in container_of(task)["Env"] if line.startswith(given))[len(given) :]
    if told != NAME:
        return told
    return f"r{task.get('Slot', 0)}-{task['ID'][:4]}"


def moment(stamp: str) -> float:
    """POSIX seconds of a time as Docker writes it, which has more digits than Python reads."""
    return datetime.fromisoformat(stamp[:19] + "+00:00").timestamp() + float("0." + (stamp[20:-1] or "0"))
