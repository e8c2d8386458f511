"""The line to a lab's agent: start it, ask it, wait for it, stop it; and end all that a lab runs."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from devops_lab.errors import AgentDown, LabError
from devops_lab.processes import OWNER, Identity, clean_environment, end, process_of, processes_of
from devops_lab.waits import until

LOCK_HELD = 3  # the exit code of an agent that finds another one at work
_started: list[subprocess.Popen[bytes]] = []  # kept, so that Python reaps them without a warning


class Control:
    """Talks to the agent of one lab.

    Args:
        root: the lab directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.run = self.root / "run"

    # ---- the agent's life
    def ensure(self, seconds: float = 20.0) -> None:
        """Start the agent, if it isn't there, and wait until it answers.

        Raises:
            AgentDown: it ended, or does not answer; carries its own words.
        """
        if self.alive():
            return
        self.run.mkdir(parents=True, exist_ok=True)
        with (self.run / "agent.log").open("ab") as out:
            child = subprocess.Popen(
                [sys.executable, "-m", "devops_lab.agent", str(self.root)],
                env=clean_environment(
                    **{OWNER: str(self.root), "PYTHONPATH": _package_home(), "PYTHONSAFEPATH": "1"}
                ),
                cwd=self.root,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # else it would die with the notebook's kernel
            )
        _started.append(child)
        until(
            lambda: self.alive() or child.poll() not in (None, LOCK_HELD),
            "the lab's agent to answer",
            seconds=seconds,
            evidence=self.words,
            next_step=f"Read {self.run / 'agent.log'}.",
        )
        if not self.alive():
            raise AgentDown(
                f"The agent ended at once (exit code {child.returncode}).\n{self.words()}",
                next_step=f"Read {self.run / 'agent.log'}.",
            )

    def alive(self) -> bool:
        """Whether the agent answers."""
        try:
            return bool(self.call("ping", seconds=2.0).get("ok"))
        except LabError:
            return False

    def stop(self, production: bool = False) -> None:
        """End the agent, if there is one; with `production` also the replicas and the proxy."""
        who = self.identity()
        with suppress(AgentDown):
            self.call("stop", production=production, seconds=30.0)
        if who:
            until(lambda: process_of(*who) is None, "the agent to end", seconds=30, evidence=self.words)

    def identity(self) -> Identity | None:
        """The agent's process, as it noted it itself; None when there is no such note."""
        state = self.noted()
        return (state["pid"], state["created"]) if state else None

    def noted(self) -> dict[str, Any]:
        try:
            state = json.loads((self.run / "agent.json").read_text())
        except (OSError, ValueError):
            return {}
        return state if isinstance(state, dict) else {}

    def words(self) -> str:
        """The last lines that the agent wrote about itself."""
        with suppress(OSError):
            return "\n".join((self.run / "agent.log").read_text(errors="replace").splitlines()[-10:])
        return ""

    # ---- questions
    def call(self, do: str, seconds: float = 15.0, **arguments: Any) -> dict[str, Any]:
        """Send one command as a line of JSON and return the answer.

        Raises:
            AgentDown: nobody answers.
            LabError: the agent refused; carries its words.
        """
        try:
            with socket.socket(socket.AF_UNIX) as line:
                line.settimeout(seconds)
                line.connect(str(self.noted().get("socket") or self.run / "agent.sock"))
                line.sendall(json.dumps({"do": do, **arguments}).encode() + b"\n")
                with line.makefile("rb") as answers:
                    answer = json.loads(answers.readline() or b"null")
        except (OSError, ValueError) as error:
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

        def settled() -> bool:
            seen.clear()
            seen.update(self.status())
            return bool(seen["settled"])

        def evidence() -> str:
            rows = [f"{r['id']} of {r['pool']}: {r['state']} {r['reason']}" for r in seen.get("replicas", [])]
            pools = [
                f"pool {p['name']}: {p['healthy']} of {p['wanted']} healthy" for p in seen.get("pools", [])
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
    state, ended = control.noted(), 0
    if who := control.identity():
        end([who], 2.0)  # first, because it would start again what is ended here
    spared = _self_and_ancestors()
    for _ in range(5):  # what is ended may just have started something else
        found = [(p.pid, p.create_time()) for p in _listed(root) if p.pid not in spared]
        if not found:
            break
        ended += len(found)
        end(found, 2.0)
    if folder := state.get("socket_folder"):
        shutil.rmtree(folder, ignore_errors=True)
    for name in ("agent.json", "agent.sock"):
        (control.run / name).unlink(missing_ok=True)
    return ended


def _listed(root: Path) -> list[psutil.Process]:
    """The lab's processes; the agent's also by its command line, should its environment be unreadable."""
    found = {process.pid: process for process in processes_of(root)}
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.cmdline()[1:] == ["-m", "devops_lab.agent", str(root.resolve())]:
                found[process.pid] = process
    return [process for process in found.values() if process.is_running()]


def _self_and_ancestors() -> set[int]:
    me = psutil.Process()
    return {me.pid, *(parent.pid for parent in me.parents())}


def _package_home() -> str:
    """Where `devops_lab` is imported from, so that the agent finds the same one, also in a plain checkout."""
    return os.fspath(Path(__file__).resolve().parent.parent)
