"""The agent's eyes: once a second it measures replicas, takes in logs, lets alerts and scaling look."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from devops_lab.errors import LabError
from devops_lab.model import Alert, EventKind, Keyed, LogLine, Replica
from devops_lab.platform import web
from devops_lab.platform.agent.autoscaler import autoscale_step
from devops_lab.platform.agent.exposition import Observation, Scrape, Seen, figures, parse, together
from devops_lab.platform.agent.notices import Gaps
from devops_lab.platform.clock import steady
from devops_lab.platform.context import LabContext
from devops_lab.platform.monitoring.alerts import Alerting
from devops_lab.platform.monitoring.notify import notify

EVERY_SECONDS = 1.0
KEEP_SECONDS = 6 * 3600.0  # samples, log lines, requests
LINES_A_TICK = 2000  # of one log; above, a sample is kept and the rest counted
BYTES_A_TICK = 4_000_000
KNOWN = {"time", "level", "message", "replica", "release", "endpoint", "request_id", "status", "seconds"}
KEY_EVENTS: set[EventKind] = {
    *("deploy.started", "deploy.done", "deploy.refused", "rollback.done"),
    *("operate.scaled", "operate.configured", "process.ended"),
    *("replica.died", "replica.replaced", "replica.crash_loop", "replica.hung", "replica.failed"),
    *("alert.firing", "alert.resolved", "agent.restarted", "agent.error", "envoy.restarted", "log.truncated"),
    *("agent.gap", "operate.autoscale", "autoscaler.blind", "alert.stale"),
}


@dataclass(frozen=True)
class LogPosition(Keyed, by="replica"):
    """How far a replica's log has been taken in, so that a restarted agent goes on there."""

    replica: str
    bytes: int


class Observer:
    """Measures production into the store.

    Args:
        world: the lab.
        replicas: asked for the replicas that there are now.
        failed: told about what went wrong, with where; the observer goes on.
    """

    def __init__(
        self,
        world: LabContext,
        replicas: Callable[[], list[Replica]],
        failed: Callable[[str, BaseException], None],
    ) -> None:
        self.world, self.replicas, self.failed = world, replicas, failed
        self.before: dict[str, Scrape] = {}
        self.newest = Observation()
        self.alerting = Alerting(world)  # kept: its objectives know how far they have read
        self.positions = {position.replica: position.bytes for position in world.store.all(LogPosition)}
        self.seen_event = max([event.id for event in world.store.events(limit=1)], default=0)
        self.pool = ThreadPoolExecutor(4, "scrape")
        self.messenger = ThreadPoolExecutor(1, "notify")  # of its own: an address may be slow to answer
        self.message: Future[None] | None = None
        self.ticks = 0
        self.gaps = Gaps(world, world.store.now())

    def run(self, quiet: threading.Event) -> None:
        """One tick a second, until told to be quiet."""
        ahead = self.gaps.looked - steady()
        while not quiet.wait(EVERY_SECONDS - (steady() + ahead) % EVERY_SECONDS):
            self.tick()
        self.pool.shutdown(wait=False)
        self.messenger.shutdown(wait=False, cancel_futures=True)

    def tick(self) -> None:
        """Measure, take in logs, judge, scale, notify; one that fails does not keep back the others."""
        try:
            now = self.world.store.now()
            calm = self.gaps.look(now)
        except LabError as error:
            self.failed("clock", error)
            return
        steps: list[tuple[str, Callable[[], object]]] = [
            ("logs", lambda: self.take_in_logs(now)),
            ("notify", self.notify_aside),
            ("forget", lambda: self.forget(now)),
        ]
        if calm:
            steps.insert(0, ("scrape", lambda: self.measure(now)))
            steps.insert(2, ("alerts", lambda: self.alerting.evaluate(now)))
            steps.insert(3, ("autoscale", lambda: autoscale_step(self.world, now)))
        else:
            self.before.clear()  # what was counted meanwhile belongs to no second
        for name, step in steps:
            try:
                step()
            except Exception as error:
                self.failed(name, error)

    # ---- samples
    def measure(self, now: float) -> None:
        """Scrape every replica and keep what it says, with its process's own figures."""
        replicas = self.replicas()
        rows: list[tuple[float, str, str, str, str, float]] = []
        seen: list[Seen] = []
        for replica, text in zip(replicas, self.pool.map(fetch, replicas), strict=True):
            who = (replica.id, replica.release)
            if replica.state in ("healthy", "unhealthy"):  # who starts or drains is not expected to answer
                rows.append((now, "up", *who, "", 1.0 if text else 0.0))
            if text:
                scrape = parse(now, text)
                found = figures(self.before.get(replica.id), scrape)
                rows += [(now, metric, *who, endpoint, value) for metric, endpoint, value in found]
                self.before[replica.id] = scrape
            if usage := self.world.engine.usage(replica):
                rows.append((now, "cpu_percent", *who, "", usage.cpu_percent))
                if replica.state != "starting":  # what importing takes is no growth
                    rows.append((now, "memory_bytes", *who, "", float(usage.memory_bytes)))
            log_bytes = size_of(self.world.engine.log_path(replica))
            rows.append((now, "log_bytes", *who, "", float(log_bytes)))
            if replica.state in ("healthy", "unhealthy") or (text and replica.state == "draining"):
                seen.append(Seen(replica, text, usage, log_bytes))
        rows += [(now, metric, "", "", endpoint, value) for metric, endpoint, value in together(rows)]
        healthy = sum(replica.state == "healthy" for replica in replicas)
        rows.append((now, "replicas", "", "", "", float(healthy)))
        self.newest = Observation(now, seen, self.disk_bytes())
        rows.append((now, "disk_bytes", "", "", "", float(self.newest.disk_bytes)))
        self.world.store.add_samples(rows)
        known = {replica.id for replica in replicas}
        self.before = {name: scrape for name, scrape in self.before.items() if name in known}

    def disk_bytes(self) -> int:
        """What production writes: data, logs, the proxy's files (environments are links to shared files)."""
        total = 0
        for part in ("data", "logs", "envoy"):
            for folder, _, names in os.walk(self.world.production / part):
                total += sum(size_of(Path(folder) / name) for name in names)
        return total

    def forget(self, now: float) -> None:
        """Now and then, drop what is too old to be looked at; events and the trail stay."""
        self.ticks += 1
        if self.ticks % 30 == 0:  # often, because a flood of logs may bring thousands of lines a second
            self.world.store.forget(now - KEEP_SECONDS)
            for alert in self.world.store.all(Alert):
                if alert.state == "resolved" and alert.resolved < now - KEEP_SECONDS:
                    self.world.store.remove(Alert, alert.key)  # its events stay

    # ---- logs
    def take_in_logs(self, now: float) -> None:
        """Copy new log lines into the store; cut a log over its quota, remove one of a replica long gone."""
        folder, replicas = self.world.production / "logs", {r.id: r for r in self.replicas()}
        paths = sorted(folder.glob("*.log")) if folder.is_dir() else []
        taken = {}
        for path in paths:
            try:
                taken[path] = self._taken(path, now, replicas.get(path.stem))
            except OSError as error:  # the others' lines are taken in all the same
                self.failed("logs", error)
        read = {path.stem: position for path, (_, position) in taken.items()}
        # all in one go: each transaction adds a part to the index of words, which is merged with the others
        if kept := [line for lines, _ in taken.values() for line in lines]:
            self.world.store.add_logs(kept)
        if further := {name: at for name, at in read.items() if at != self.positions.get(name, 0)}:
            self._remember(further)
        for path in paths:
            if size_of(path) > self.world.settings.log_quota_bytes:
                self._cut(path)
            with suppress(OSError):
                if path.stem not in replicas and time.time() - path.stat().st_mtime > 60:
                    path.unlink()
                    self.positions.pop(path.stem, None)
                    self.world.store.remove(LogPosition, path.stem)

    def _taken(self, path: Path, now: float, replica: Replica | None) -> tuple[list[LogLine], int]:
        """A log's new lines, and how far it is read with them."""
        start, size = self.positions.get(path.stem, 0), size_of(path)
        release = replica.release if replica else ""
        if size < start:
            start = 0
        if size == start:
            return [], start
        skipped = max(size - start - BYTES_A_TICK, 0)
        with path.open("rb") as file:
            file.seek(start + skipped)
            data = file.read(size - start - skipped)
        whole = data.rfind(b"\n") + 1 if len(data) < BYTES_A_TICK else len(data)
        lines = data[:whole].splitlines()
        step = -(-len(lines) // LINES_A_TICK)
        late = -round(self.gaps.apart, 1)  # replicas write down the wall clock's time
        taken = lines[:: step or 1]
        kept = [log_line(line, now, path.stem, release, late) for line in taken if line.strip()]
        if (dropped := len(lines) - len(taken)) or skipped:
            text = f"log flood: {dropped} lines and {skipped} bytes of {path.stem} were not kept"
            extra = {"dropped_lines": dropped, "dropped_bytes": skipped}
            kept.append(LogLine(now, "WARNING", text, path.stem, release, extra=extra))
        return kept, start + skipped + whole

    def _cut(self, path: Path) -> None:
        size = size_of(path)
        os.truncate(path, 0)  # the replica appends, so it goes on at the new end
        self._remember({path.stem: 0})
        text = f"the log of {path.stem} had {size} bytes, over its quota: it was taken in and emptied"
        self.world.store.event(
            "monitor", "log.truncated", f"replica:{path.stem}", text, who="agent", bytes=size
        )

    def _remember(self, positions: dict[str, int]) -> None:
        self.positions |= positions
        self.world.store.put(*(LogPosition(replica, position) for replica, position in positions.items()))

    # ---- what is made of it
    def notify_aside(self) -> None:
        if self.message is None or self.message.done():
            if self.message and (error := self.message.exception()):
                self.failed("notify", error)
            self.message = self.messenger.submit(self.notify)

    def notify(self) -> None:
        """Pass on every key event, whoever recorded it."""
        for event in self.world.store.events(after_id=self.seen_event):
            self.seen_event = event.id
            if event.kind in KEY_EVENTS:
                notify(self.world, event)


def fetch(replica: Replica) -> str:
    """A replica's /metrics; empty when it does not answer within half a second."""
    try:
        answer = web.ask(f"http://{replica.host}:{replica.port}/metrics", seconds=0.5)
    except OSError:
        return ""
    return answer.text if answer.status == 200 else ""


def log_line(raw: bytes, now: float, replica: str, release: str, late: float = 0.0) -> LogLine:
    """One line of a replica's output; what is not JSON (a traceback) is kept as it is."""
    text = raw.decode("utf-8", "replace")
    try:
        data: dict[str, Any] = json.loads(text)
        when = datetime.fromisoformat(data["time"]).timestamp()
        return LogLine(
            when + late,
            str(data.get("level", "INFO")),
            str(data.get("message", "")),
            replica,
            str(data.get("release", release)),
            str(data.get("endpoint") or ""),
            str(data.get("request_id") or ""),
            int(data.get("status") or 0),
            float(data.get("seconds") or 0),
            {key: value for key, value in data.items() if key not in KNOWN},
        )
    except (ValueError, TypeError, KeyError, AttributeError):
        return LogLine(now, "ERROR", text[:2000], replica, release)


def last_lines(path: Path | None, count: int = 5) -> str:
    """The end of a log, for a message."""
    if path is None or not path.is_file():
        return ""
    with path.open("rb") as file:
        file.seek(max(size_of(path) - 4000, 0))
        return "\n".join(file.read().decode("utf-8", "replace").splitlines()[-count:])


def size_of(path: Path | None) -> int:
    try:
        return path.stat().st_size if path else 0
    except OSError:
        return 0
