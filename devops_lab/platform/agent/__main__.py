"""The agent: the one background process of a lab, around the control loop (reconciler) and the observer.

It outlives the notebook; killed and started again, it adopts what runs. Start it with
`python -m devops_lab.platform.agent LABDIR` (Control.ensure does). It listens on a private Unix socket,
one line of JSON a command.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import sys
import threading
import traceback
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil

from devops_lab.errors import LabError, is_full
from devops_lab.model import Pool, Replica
from devops_lab.platform import commands, locks, places, records, settings
from devops_lab.platform.agent.cluster import ClusterReconciler
from devops_lab.platform.agent.exposition import Exposition
from devops_lab.platform.agent.observer import Observer
from devops_lab.platform.agent.reconciler import Reconciler
from devops_lab.platform.agent.rest import Rest
from devops_lab.platform.clock import steady
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import LOCK_HELD, NO_ROOM, AgentNote
from devops_lab.platform.identity import mark
from devops_lab.platform.processes import OWNER, created_at, replace_file
from devops_lab.platform.relocation import settle
from devops_lab.platform.store import Store

LANDING_SECONDS = 20.0  # for who is being started when production is ended
AGAIN_SECONDS = 60.0  # a disk that fills up again is said again
BUSY_SECONDS, IDLE_SECONDS = 0.02, 0.25  # between two looks


class Agent:
    """One lab's agent.

    Args:
        root: the lab directory.
        held: the lab's lock, which tells whether the directory is still there.
    """

    def __init__(self, root: Path, held: int) -> None:
        self.root, self.held = root.resolve(), held
        self.run_folder = self.root / "run"
        self.world = LabContext(self.root, settings.read(self.root), Store(self.root / "lab.db"))
        self.wake = asyncio.Event()
        if not self.world.store.all(Replica):  # nothing runs that is being measured
            self.world.store.wind_clock()
        self.since = self.world.store.now()
        self.ending = self.end_production = self.asleep = False
        self.moved_to: Path | None = None
        self.errors: dict[str, float] = {}  # what failed, and when that was said
        self.memory = os.stat(self.root / "lab.db")
        self.server: asyncio.Server | None = None

    async def run(self) -> None:
        """Reconcile until told to stop; a process that ends wakes the loop at once."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        kind = ClusterReconciler if self.world.engine.capabilities().heals else Reconciler
        self.loop = kind(self.world, self.watch)
        rest = Rest(
            self.run_folder,
            0.0 if kind is ClusterReconciler else 60 * self.world.settings.sleep_minutes,
            lambda: sum(host["requests"] for host in self.loop.hosts.values()),  # without health checks
        )
        quiet = threading.Event()
        observer = Observer(self.world, lambda: list(self.loop.replicas.values()), self.failed)
        self.exposition = Exposition(self.world, self.loop.envoy, lambda: observer.newest)
        close = self.exposition.serve(self.run_folder / "scrape-port")
        if adopted := len(self.loop.replicas):
            text = f"the agent was started again and takes over {adopted} replicas"
            self.world.store.event("operate", "agent.restarted", "agent", text, who="agent")
        thread = threading.Thread(target=observer.run, args=(quiet,), name="observer", daemon=True)
        await self.listen()
        thread.start()
        while not self.ending:
            self.wake.clear()
            self.step()
            try:
                await self.stay_found()
            except OSError as error:
                self.failed("listen", error)
            if not self.ending and rest.is_due():
                self.fall_asleep()
            pause = BUSY_SECONDS if self.loop.moving() else IDLE_SECONDS
            with suppress(TimeoutError):
                await asyncio.wait_for(self.wake.wait(), 0 if self.ending else pause)
        if self.server:
            self.server.close()
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
        self.loop.teller.catch_up()

    def failed(self, where: str, error: BaseException) -> None:
        """Record a failure once a kind, when there is room to, and go on; a full disk again after a while."""
        kind, full = f"{where}: {type(error).__name__}: {error}", is_full(error)
        if full:
            kind = "the disk was full: production went on, but not all that it did meanwhile was recorded"
        told = self.errors.get(kind, 0.0)
        if (told and not (full and steady() - told > AGAIN_SECONDS)) or len(self.errors) > 100:
            return
        self.errors[kind] = steady()
        with suppress(OSError):  # agent.log lies on the same disk
            traceback.print_exception(error)
        self.loop.event("agent.error", "agent", kind)

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

    def fall_asleep(self) -> None:
        """End production for now, and this agent: who opens the lab next starts both again."""
        text = f"nobody came for {self.world.settings.sleep_minutes:g} minutes: production sleeps"
        self.loop.event("lab.asleep", "lab", text)
        self.asleep = self.end_production = self.ending = True

    def stop_production(self) -> None:
        """End the replicas and Envoy; the desired state stays, and the next agent starts it all again."""
        self.loop.meet_launched(LANDING_SECONDS)
        with ThreadPoolExecutor(8) as several:
            for replica in self.loop.replicas.values():
                several.submit(self.world.engine.stop, replica, 2.0)
        self.loop.envoy.stop()
        if (self.root / settings.MARKER).exists():
            self.world.store.replace_all(Replica, [])
            if self.asleep:
                self.world.engine.rest()
        else:  # nobody will come back to what the engine keeps
            self.world.engine.teardown()

    # ---- the private line
    async def listen(self) -> None:
        """Open the socket, for this user only, and note where it is."""
        with suppress(FileExistsError):
            self.run_folder.mkdir()
        self.run_folder.chmod(0o700)
        path = self.run_folder / "agent.sock"
        if not places.takes_sockets(self.run_folder):
            path = Path(places.folder_for_socket()) / "agent.sock"
        if self.server:
            self.server.close()
        path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            self.server = await asyncio.start_unix_server(self.answer, str(path))
        finally:
            os.umask(before)
        self.socket = os.stat(path)
        self.note = AgentNote(os.getpid(), created_at(os.getpid()), self.since, str(path))
        replace_file(self.run_folder / "agent.json", json.dumps(asdict(self.note)))

    async def stay_found(self) -> None:
        """Lock, socket and note may be taken away by anybody; without them, nobody finds this agent."""
        elsewhere = not same_file(self.root / "lab.db", self.memory)
        if elsewhere and (folder := self._folder()):
            self.ending, self.moved_to, self.run_folder = True, folder, folder / "run"
            return
        if os.fstat(self.held).st_nlink == 0:
            if elsewhere:  # somebody removed the lab without `clean`
                self.ending = self.end_production = True
                return
            held = lock(self.run_folder)
            if held is None:  # another agent was quicker, and has taken over
                self.ending = True
                return
            os.close(self.held)
            self.held = held
        there = same_file(Path(self.note.socket), self.socket)
        there = there and stat.S_IMODE(self.run_folder.stat().st_mode) == 0o700
        if not there or records.noted(self.run_folder / "agent.json", AgentNote) != self.note:
            await self.listen()

    def _folder(self) -> Path | None:
        """Where the lab is now, if its folder was given another name: this process stands in it."""
        with suppress(OSError):
            here = Path.cwd()
            return here if same_file(here / "lab.db", self.memory) else None
        return None

    def leave(self) -> None:
        """Take away what this agent is found by; another's, of a new lab in the same place, is left alone."""
        if same_file(Path(self.note.socket), self.socket):
            self.note.take_away_socket()
        with suppress(OSError):
            if records.noted(self.run_folder / "agent.json", AgentNote) == self.note:
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
        row: dict[str, Any] = {"name": pool.name, "release": pool.release, "wanted": pool.replicas}
        row |= {"healthy": healthy, "weight": pool.weight, "routed": routed}
        row["launching"] = self.loop.launches.count(pool)
        return row | {"trouble": self.loop.trouble.get(pool.name, "")}


def same_file(path: Path, known: os.stat_result) -> bool:
    """Whether a path still leads to a file that was looked at before."""
    try:
        return os.path.samestat(os.stat(path), known)
    except OSError:
        return False


def lock(folder: Path) -> int | None:
    """Take the lab's agent lock; None when another agent holds it. It is given back when its holder dies."""
    try:
        return locks.take(folder / "agent.lock", wait=False)
    except BlockingIOError:
        return None


def main(arguments: list[str]) -> int:
    """Run the agent of the lab that the one argument names."""
    root = Path(arguments[0]).resolve()
    try:
        settle(root)
        held = lock(root / "run")
        if held is None:
            print(f"another agent works for {root}", file=sys.stderr)
            return LOCK_HELD
        if moved_to := asyncio.run(_run(root, held)):
            command = [sys.executable, "-m", "devops_lab.platform.agent", str(moved_to)]
            os.execve(command[0], command, os.environ | {OWNER: mark(moved_to)})  # all anew, over there
    except (LabError, OSError) as error:
        if not is_full(error):
            raise
        return NO_ROOM
    return 0


async def _run(root: Path, held: int) -> Path | None:
    commands.speak_as("agent", root)
    agent = Agent(root, held)
    await agent.run()
    return agent.moved_to


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
