"""The agent: the one background process of a lab, around the control loop (reconciler) and the observer.

It outlives the notebook; killed and started again, it adopts what runs. Start it with
`python -m devops_lab.agent LABDIR` (Control.ensure does). It listens on a private Unix socket,
one line of JSON a command.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import IO, Any

import psutil

from devops_lab import settings
from devops_lab.agent.cluster import ClusterReconciler
from devops_lab.agent.exposition import Exposition
from devops_lab.agent.observe import Observer
from devops_lab.agent.reconciler import Reconciler
from devops_lab.control import LOCK_HELD
from devops_lab.model import Pool, Replica
from devops_lab.phases import World
from devops_lab.processes import created_at, replace_file
from devops_lab.store import Store

LANDING_SECONDS = 20.0  # for who is being started when production is ended
BUSY_SECONDS, IDLE_SECONDS = 0.02, 0.25  # between two looks
SOCKET_PATH_BYTES = 100  # what every system takes


class Agent:
    """One lab's agent.

    Args:
        root: the lab directory.
        held: the lab's lock, which tells whether the directory is still there.
    """

    def __init__(self, root: Path, held: IO[str]) -> None:
        self.root, self.held = root.resolve(), held
        self.run_folder = self.root / "run"
        self.world = World(self.root, settings.read(self.root), Store(self.root / "lab.db"))
        self.wake = asyncio.Event()
        self.since = time.time()
        self.ending = self.end_production = False
        self.errors: set[str] = set()

    async def run(self) -> None:
        """Reconcile until told to stop; a process that ends wakes the loop at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        kind = ClusterReconciler if self.world.engine.capabilities().heals else Reconciler
        self.loop = kind(self.world, self.watch)
        quiet = threading.Event()
        observer = Observer(self.world, lambda: list(self.loop.replicas.values()), self.failed)
        self.exposition = Exposition(self.world, self.loop.envoy, lambda: observer.newest)
        close = self.exposition.serve(self.run_folder / "scrape-port")
        if adopted := len(self.loop.replicas):
            text = f"the agent was started again and takes over {adopted} replicas"
            self.world.store.event("operate", "agent.restarted", "agent", text, who="agent")
        thread = threading.Thread(target=observer.run, args=(quiet,), name="observer", daemon=True)
        server = await self.listen()
        thread.start()
        while not self.ending:
            self.wake.clear()
            self.step()
            if os.fstat(self.held.fileno()).st_nlink == 0:  # somebody removed the lab without `clean`
                self.end_production = True
                break
            pause = BUSY_SECONDS if self.loop.moving() else IDLE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), pause)
        server.close()
        close()
        quiet.set()
        await asyncio.to_thread(thread.join, 5.0)
        if self.end_production:
            await asyncio.to_thread(self.stop_production)
        self.leave()

    def step(self) -> None:
        try:
            self.loop.reconcile()
        except Exception as error:  # whatever it is, production needs its agent
            self.failed("reconcile", error)

    def failed(self, where: str, error: BaseException) -> None:
        """Record a failure once a kind, and go on."""
        kind = f"{where}: {type(error).__name__}: {error}"
        if kind not in self.errors and len(self.errors) < 100:
            self.errors.add(kind)
            traceback.print_exception(error)
            with suppress(Exception):
                self.world.store.event("operate", "agent.error", "agent", kind, who="agent")

    def watch(self, pid: int) -> None:
        """Wake the loop when a process ends; where the system has no pidfd, the next look finds it."""
        if not hasattr(os, "pidfd_open"):
            return
        with suppress(OSError):
            fd = os.pidfd_open(pid)
            asyncio.get_running_loop().add_reader(fd, self._ended, fd)

    def _ended(self, fd: int) -> None:
        asyncio.get_running_loop().remove_reader(fd)
        os.close(fd)
        self.wake.set()

    def stop(self) -> None:
        self.ending = True
        self.wake.set()

    def stop_production(self) -> None:
        """End the replicas and Envoy; the desired state stays, and the next agent starts it all again."""
        self.loop.meet_launched(LANDING_SECONDS)
        with ThreadPoolExecutor(8) as several:
            for replica in self.loop.replicas.values():
                several.submit(self.world.engine.stop, replica, 2.0)
        self.loop.envoy.stop()
        if (self.root / settings.MARKER).exists():
            self.world.store.replace_all(Replica, [])
        else:  # nobody will come back to what the engine keeps
            self.world.engine.teardown()

    # ---- the private line
    async def listen(self) -> asyncio.Server:
        """Open the socket, for this user only, and note where it is."""
        path, folder = self.run_folder / "agent.sock", ""
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
            folder = tempfile.mkdtemp(prefix="devops-lab-")
            path = Path(folder) / "agent.sock"
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            server = await asyncio.start_unix_server(self.answer, str(path))
        finally:
            os.umask(before)
        me = os.getpid()
        self.note: dict[str, Any] = {"pid": me, "created": created_at(me), "since": self.since}
        self.note |= {"socket": str(path), "socket_folder": folder}
        replace_file(self.run_folder / "agent.json", json.dumps(self.note))
        return server

    def leave(self) -> None:
        """Take away what this agent is found by; another's, of a new lab in the same place, is left alone."""
        if self.note["socket_folder"]:
            shutil.rmtree(self.note["socket_folder"], ignore_errors=True)
        with suppress(OSError, ValueError):
            if json.loads((self.run_folder / "agent.json").read_text()) == self.note:
                Path(self.note["socket"]).unlink(missing_ok=True)
                (self.run_folder / "agent.json").unlink()

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await reader.readline()
            answer: dict[str, Any]
            try:
                answer = {"ok": True, **self.do(json.loads(line))}
            except Exception as error:
                answer = {"ok": False, "error": f"{type(error).__name__}: {error}"}
            writer.write(json.dumps(answer).encode() + b"\n")
            await writer.drain()
        except OSError:  # who asked has gone
            pass
        finally:
            writer.close()

    def do(self, command: dict[str, Any]) -> dict[str, Any]:
        """Carry out one command: ping, status, reconcile, stop."""
        match command.get("do"):
            case "ping":
                return {"pid": os.getpid()}
            case "status":
                return self.status()
            case "reconcile":
                self.wake.set()
                self.step()
                return {}
            case "stop":
                self.end_production = bool(command.get("production"))
                self.stop()
                return {}
        raise ValueError(f"no command {command.get('do')!r}; expected ping, status, reconcile or stop")

    def status(self) -> dict[str, Any]:
        loop, memory = self.loop, psutil.Process().memory_info().rss
        rows = []
        for replica in loop.replicas.values():
            host = loop.hosts.get((replica.host, replica.port), {})
            rows.append({**asdict(replica), "in_flight": host.get("in_flight", 0)})
        return {
            "agent": {"pid": os.getpid(), "since": self.since, "memory_bytes": memory},
            "url": f"http://127.0.0.1:{loop.envoy.port}",
            "scrape_url": self.exposition.url,
            "port": loop.envoy.port,
            "admin_port": loop.envoy.admin_port,
            "envoy": {"pid": loop.envoy.pid, "created": loop.envoy.created},
            "replicas": rows,
            "pools": [self._pool_row(pool) for pool in self.world.store.all(Pool)],
            "settled": loop.settled(),
        }

    def _pool_row(self, pool: Pool) -> dict[str, Any]:
        healthy = len(self.loop.healthy(pool.name))
        routed = self.loop.routed.get(pool.name, 0)
        row = {"name": pool.name, "release": pool.release, "wanted": pool.replicas, "healthy": healthy}
        return {**row, "weight": pool.weight, "routed": routed}


def lock(folder: Path) -> IO[str] | None:
    """Take the lab's agent lock; None when another agent holds it. It is given back when its holder dies."""
    folder.mkdir(parents=True, exist_ok=True)
    file = (folder / "agent.lock").open("w")
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        file.close()
        return None
    return file


def main(arguments: list[str]) -> int:
    """Run the agent of the lab that the one argument names."""
    root = Path(arguments[0]).resolve()
    held = lock(root / "run")
    if held is None:
        print(f"another agent works for {root}", file=sys.stderr)
        return LOCK_HELD
    with held:
        asyncio.run(_run(root, held))
    return 0


async def _run(root: Path, held: IO[str]) -> None:
    await Agent(root, held).run()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
