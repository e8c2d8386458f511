"""The line to a lab's agent: start it, ask it, wait for it, stop it; and end all that a lab runs."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from devops_lab.errors import AgentDown, DiskFull, LabError, TimedOut, is_full
from devops_lab.platform import commands, locks, records, variables
from devops_lab.platform.clock import GAP_SECONDS, steady, this_boot
from devops_lab.platform.identity import mark
from devops_lab.platform.processes import OWNER, Identity, created_at, end, process_of, processes_of
from devops_lab.platform.settings import MARKER
from devops_lab.platform.waits import until

LOCK_HELD, NO_ROOM = 3, 4  # exit codes of an agent: another one is at work; the disk is full
SOCKET_FOLDER = "devops-lab-"  # begins the name of a socket's own folder, where the lab's path is too long
# A pool whose replicas can't start, or die, for so long is not waited for any longer. While one is being
# launched is not counted: what it runs from may be made again, which takes its time on a busy machine.
TROUBLE_SECONDS = 5.0
_started: list[subprocess.Popen[bytes]] = []  # kept, so that Python reaps them without a warning


@dataclass(frozen=True)
class AgentNote:
    """What an agent writes down about itself, to be found by."""

    pid: int
    created: str
    since: float
    socket: str

    def take_away_socket(self) -> None:
        """Remove the socket, and the folder that was made for it where the lab's own path is too long."""
        path = Path(self.socket)
        with suppress(OSError):
            if path.name == "agent.sock":
                path.unlink()
            if path.parent.name.startswith(SOCKET_FOLDER):
                path.parent.rmdir()  # removes nothing but an empty folder, whatever the note says


class Control:
    """Talks to the agent of one lab.

    Args:
        root: the lab directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.run = self.root / "run"
        self._wanted = False  # whether this one has asked for an agent
        self._seen: Identity | None = None

    # ---- the agent's life
    def keep(self) -> bool:
        """Start the agent again where it is gone, or stopped by a signal, without having been told to.

        Whoever waits for production calls this as often as it looks: it costs a tenth of a millisecond.

        Returns:
            Whether there is an agent: False where nobody has asked for one, or it was told to end.

        Raises:
            AgentDown: it can't be started; carries its own words.
            DiskFull: nor could it write what it has to.
        """
        process = self._process()
        if process and process.status() != psutil.STATUS_STOPPED:
            return True
        if self._expected():
            self.ensure()
        return self.alive()

    def _expected(self) -> bool:
        """Who is told to end takes its note away; one from before the machine was off is history."""
        note = self.noted()
        return self._wanted or (note is not None and note.created.startswith(f"{this_boot()}:"))

    def ensure(self, seconds: float = 20.0) -> None:
        """Start the agent, if it isn't there, and wait until it answers.

        Raises:
            AgentDown: it ended, or does not answer; carries its own words.
            DiskFull: it ended, because it could not write what it has to.
        """
        child: subprocess.Popen[bytes] | None = None

        def answers() -> bool:
            nonlocal child
            self._end_stopped()
            if self.alive():
                return True
            code = child.poll() if child else LOCK_HELD
            if code in (LOCK_HELD, -signal.SIGKILL) and self._vacant():
                child = self._start()
            elif code not in (None, LOCK_HELD, -signal.SIGKILL):
                raise self._ended(code)
            return False

        until(
            answers,
            "the lab's agent to answer",
            seconds=seconds,
            evidence=self.words,
            next_step=f"Read {self.run / 'agent.log'}; or end it (its process is noted in run/agent.json): "
            "the next call starts another one.",
        )
        self._wanted = True

    def _start(self) -> subprocess.Popen[bytes]:
        if not (self.root / MARKER).exists():
            raise AgentDown(f"There is no lab at {self.root} any more.", next_step="Open a lab (Lab.open).")
        try:
            self.run.mkdir(mode=0o700, exist_ok=True)
            with (self.run / "agent.log").open("ab") as out:
                child = commands.start(
                    [sys.executable, "-m", "devops_lab.platform.agent", str(self.root)],
                    env=variables.agent(**{OWNER: mark(self.root)}),
                    cwd=self.root,
                    stdin=subprocess.DEVNULL,
                    stdout=out,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,  # else it would die with the notebook's kernel
                )
        except OSError as error:
            raise (
                DiskFull(f"No room left in {self.run}.")
                if is_full(error)
                else AgentDown(
                    f"The lab's agent can't be started: {error}",
                    next_step=f"See that you may write {self.run}.",
                )
            ) from error
        _started.append(child)
        return child

    def _ended(self, code: int) -> LabError:
        if code == NO_ROOM:
            return DiskFull(f"The lab's agent can't work: no room left to write in {self.root}.")
        return AgentDown(
            f"The agent ended at once (exit code {code}).\n{self.words()}",
            next_step=f"Read {self.run / 'agent.log'}.",
        )

    def _vacant(self) -> bool:
        """Whether no agent works, nor starts or ends."""
        if self._process():
            return False
        try:
            os.close(locks.take(self.run / "agent.lock", wait=False))
        except BlockingIOError:
            return False
        except OSError:
            pass  # no such folder: there is nobody
        return True

    def _end_stopped(self) -> None:
        """Make room where the agent was stopped by a signal: all that it knew can be found again."""
        process = self._process()
        if process and process.status() == psutil.STATUS_STOPPED:
            with suppress(OSError), (self.run / "agent.log").open("a") as log:
                log.write(f"process {process.pid} was stopped by a signal (SIGSTOP): another takes over\n")
            with suppress(psutil.Error):
                process.kill()
                commands.signalled(process.pid, signal.SIGKILL)

    def alive(self) -> bool:
        """Whether the agent answers."""
        try:
            return bool(self._ask("ping", 2.0, {}).get("ok"))
        except LabError:
            return False

    def stop(self, production: bool = False) -> None:
        """End the agent, if there is one; with `production` also the replicas and the proxy."""
        with suppress(AgentDown):
            if production:
                self.keep()
            self._end_stopped()
            self._ask("stop", 30.0, {"production": production})
        who, self._wanted = self.identity(), False
        if who:
            until(lambda: process_of(*who) is None, "the agent to end", seconds=30, evidence=self.words)

    def identity(self) -> Identity | None:
        """The agent's process, as it noted it itself; None when there is no such note."""
        note = self.noted()
        return (note.pid, note.created) if note else None

    def _process(self) -> psutil.Process | None:
        """The agent that runs, also when its note was taken away since it was seen last."""
        self._seen = self.identity() or self._seen
        return process_of(*self._seen) if self._seen else None

    def noted(self) -> AgentNote | None:
        """What the agent wrote down, to be found by."""
        return records.noted(self.run / "agent.json", AgentNote)

    def words(self) -> str:
        """The last lines that the agent wrote about itself."""
        with suppress(OSError):
            return "\n".join((self.run / "agent.log").read_text(errors="replace").splitlines()[-10:])
        return ""

    # ---- questions
    def call(self, do: str, seconds: float = 15.0, **arguments: Any) -> dict[str, Any]:
        """Send one command as a line of JSON and return the answer; an agent that died is started again.

        Raises:
            AgentDown: nobody answers.
            LabError: the agent refused; carries its words.
        """
        self.keep()
        if do != "status":  # asked a hundred times a second while somebody waits
            commands.told(f"The lab's agent is told: {do} {arguments or ''}".rstrip())
        try:
            return self._ask(do, seconds, arguments)
        except AgentDown as error:
            if isinstance(error.__cause__, TimeoutError) or not self._expected():
                raise
        self.ensure()  # it died just now, or its socket was taken away: it makes a new one
        return self._ask(do, seconds, arguments)

    def _ask(self, do: str, seconds: float, arguments: dict[str, Any]) -> dict[str, Any]:
        note, began = self.noted(), steady()
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(seconds)
                line.connect(note.socket if note else str(self.run / "agent.sock"))
                line.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
                with line.makefile("rb") as answers:
                    answer = json.loads(answers.readline() or b"null")
        except (OSError, ValueError) as error:
            if isinstance(error, TimeoutError) and steady() - began > seconds + GAP_SECONDS:
                return self._ask(do, seconds, arguments)  # we slept meanwhile, and so did the agent
            raise AgentDown(
                f"The lab's agent does not answer: {error}",
                expected="one agent a lab",
                next_step="Open the lab again (Lab.open), which starts it; production goes on meanwhile.",
            ) from error
        if not isinstance(answer, dict):
            raise AgentDown("The lab's agent hung up.", next_step="Open the lab again (Lab.open).")
        if not answer.get("ok"):
            raise LabError(f"The agent refused {do!r}: {answer.get('error')}")
        return answer

    def poke(self) -> None:
        """Tell the agent that the desired state has changed; it acts before it answers."""
        self.call("reconcile")

    def status(self) -> dict[str, Any]:
        """Agent, url, admin_port, replicas, pools, and whether production is as desired (`settled`)."""
        return self.call("status")

    def url(self) -> str:
        """Where customers find the shop."""
        return str(self.status()["url"])

    def wait_settled(self, seconds: float = 30.0) -> dict[str, Any]:
        """Wait until production is as desired, and return the status.

        Raises:
            TimedOut: it is not by then; the message says what every replica is doing.
        """
        seen: dict[str, Any] = {}
        looked, stuck = time.monotonic(), 0.0

        def settled() -> bool:
            nonlocal looked, stuck
            seen.clear()
            seen.update(self.status())
            before, looked = looked, time.monotonic()
            in_trouble = [pool for pool in seen["pools"] if pool["trouble"]]
            if not in_trouble:
                stuck = 0.0
            elif not all(pool["launching"] for pool in in_trouble):
                stuck += looked - before
            if stuck > TROUBLE_SECONDS:
                raise TimedOut(f"Production can't become as it is wanted.\n{evidence()}")
            return bool(seen["settled"])

        def evidence() -> str:
            rows = [f"{r['id']} of {r['pool']}: {r['state']} {r['reason']}" for r in seen.get("replicas", [])]
            pools = [
                f"pool {p['name']}: {p['healthy']} of {p['wanted']} healthy. {p['trouble']}".rstrip(". ")
                for p in seen.get("pools", [])
            ]
            return "\n".join(pools + rows)

        self.poke()
        until(settled, "production to be as desired", seconds=seconds, every_seconds=0.01, evidence=evidence)
        return seen


def teardown(root: Path) -> int:
    """End everything that a lab runs, also what no record names (after a `kill -9` of kernel and agent).

    Args:
        root: the lab directory.

    Returns:
        How many processes were ended.
    """
    control = Control(root)
    note, ended = control.noted(), 0
    who = control.identity()
    if who and who[0] != os.getpid():
        end([who], 2.0)  # first, because it would start again what is ended here
    spared = _self_and_ancestors()
    for _ in range(5):  # what is ended may just have started something else
        found = [(p.pid, created_at(p.pid)) for p in _listed(root) if p.pid not in spared]
        if not found:
            break
        ended += len(found)
        end(found, 2.0)
    if note:
        note.take_away_socket()
    for name in ("agent.json", "agent.sock"):
        with suppress(OSError):
            (control.run / name).unlink()
    return ended


def _listed(root: Path) -> list[psutil.Process]:
    """The lab's processes; the agent's also by its command line, should its environment be unreadable."""
    found = {process.pid: process for process in processes_of(root)}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[1:] == ["-m", "devops_lab.platform.agent", str(root.resolve())]:
                found[process.pid] = process
    return [process for process in found.values() if process.is_running()]


def _self_and_ancestors() -> set[int]:
    me = psutil.Process()
    return {me.pid, *(parent.pid for parent in me.parents())}
