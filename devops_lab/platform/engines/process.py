"""The embedded engine: a replica is a process of this machine, from its release's own environment."""

from __future__ import annotations

import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from pathlib import Path

import psutil

from devops_lab.errors import DeployRefused, LabError, RegistryRefused
from devops_lab.model import Pool, Release, Replica, Usage
from devops_lab.platform import commands, variables
from devops_lab.platform.engines.base import MEMORY_BYTES, PROCESSES, Capabilities
from devops_lab.platform.engines.environments import environment, unchanged
from devops_lab.platform.identity import mark
from devops_lab.platform.processes import (
    HOST,
    OWNER,
    Identity,
    created_at,
    end,
    free_port,
    in_session,
    lets_profilers_in,
    process_of,
    processes_of,
)

FILE_BYTES = 1_000_000_000  # one file that a replica writes
AT_ONCE_BYTES = 1_000_000_000  # of memory, before anybody looks; stacks of threads count, used or not
MIGRATION = "migration"  # the replica's name that a migration goes by


class ProcessEngine:
    """Runs replicas as processes.

    Args:
        root: the lab directory.
    """

    name = "process"

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self.production = self.root / "production"
        self._children: dict[int, subprocess.Popen[bytes]] = {}  # ours to reap
        self._measured: dict[Identity, psutil.Process] = {}
        self._overran: dict[int, str] = {}  # why a process had to be ended

    def capabilities(self) -> Capabilities:
        return Capabilities(
            why_not={"images": "Processes run from wheels; images are for engines that run containers."}
        )

    # ---- a release
    def environment_of(self, version: str) -> Path:
        """The Python of a release's own environment."""
        return self.production / "envs" / version / "bin" / "python"

    def prepare(self, release: Release) -> None:
        """Install a release into an environment of its own, if its files are those that were released.

        Raises:
            RegistryRefused: one is missing or changed, or nobody knows which packages it needs.
        """
        wheel = unchanged(self.root, release)
        lock = wheel.with_suffix(".lock")
        if not lock.is_file():
            raise RegistryRefused(
                f"Release {release.version} has no pinned packages.",
                expected=f"{lock.name} beside the wheel",
                next_step="Release it again, as a new version.",
            )
        environment(self.root, lock, wheel, self.production / "envs" / release.version)

    # ---- the database
    @property
    def database(self) -> Path:
        return self.production / "data" / "bento.db"

    def database_url(self) -> str:
        """Where production's data is; the lab's replicas share one SQLite file."""
        return f"sqlite:///{self.database}"

    def ask_database(self) -> tuple[str, str]:
        """SQLite's version and tables, from the replicas' own file; a scratch one where there is none yet."""
        file, url = self.database, self.database_url()
        where = f"{file.as_uri()}?mode=ro" if file.is_file() else ":memory:"
        note = "" if file.is_file() else " (a scratch one: production has none yet)"
        try:
            with closing(sqlite3.connect(where, uri=True, timeout=3)) as db:
                (version,) = db.execute("select sqlite_version()").fetchone()
                rows = db.execute("select name from sqlite_master where type = 'table' order by name")
                tables = ", ".join(name for (name,) in rows)
        except sqlite3.Error as error:
            raise LabError(f"The database does not answer: {error}") from error
        asked = f"DATABASE_URL={url}{note}: select sqlite_version(), name from sqlite_master"
        return asked, f"SQLite {version}; tables: {tables or 'none'}"

    def migrate(self, release: Release) -> str:
        """Bring the database's schema to this release, with a backup first.

        Returns:
            What the migration said.

        Raises:
            DeployRefused: it failed; the schema is as it was. Carries the migration's own words.
        """
        python = self._prepared(release.version)
        self.database.parent.mkdir(parents=True, exist_ok=True)
        before = self.database.with_name(f"before-{release.version}.db")
        fresh = not self.database.exists()
        if not fresh:
            _copy_database(self.database, before)
        done = commands.run(
            [str(python), "-m", "bento", "migrate"],
            env=self._child_environment(release.version, MIGRATION),
            cwd=self.production,
            capture_output=True,
            text=True,
        )
        if done.returncode == 0:
            return done.stdout.strip()
        restored = self._undo_migration(before, fresh)
        raise DeployRefused(
            f"The migration to {release.version} failed:\n{(done.stderr or done.stdout).strip()}\n{restored}",
            expected="a migration that runs to its end",
            next_step="Mend the migration and release it as a new version.",
        )

    def _undo_migration(self, before: Path, fresh: bool) -> str:
        if fresh:
            for file in self.database.parent.glob(f"{self.database.name}*"):
                file.unlink()
            return "There was no database before, and there is none now."
        if _schema(self.database) == _schema(before):
            return "It left the schema as it was; nothing had to be restored."
        _copy_database(before, self.database)
        return f"The database is restored from the backup {before.name}."

    # ---- replicas
    def launch(self, pool: Pool, replica_id: str) -> Replica:
        """Start one replica on a free port; it outlives the process that started it."""
        python = self._prepared(pool.release)
        port = free_port()
        log = self.production / "logs" / f"{replica_id}.log"
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as out:  # appending, so that the log may be cut short while the replica writes
            child = commands.start(
                [str(python), "-m", "bento", "serve", "--host", HOST, "--port", str(port)],
                env=self._child_environment(pool.release, replica_id) | pool.env,
                cwd=self.production,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=lets_profilers_in(),
            )
        if sys.platform == "linux":  # elsewhere only what `_bound` sees is bounded
            for limit, most in ((resource.RLIMIT_FSIZE, FILE_BYTES), (resource.RLIMIT_DATA, AT_ONCE_BYTES)):
                with suppress(ProcessLookupError):  # it has ended already
                    resource.prlimit(child.pid, limit, (most, most))
        self._children[child.pid] = child
        born = created_at(child.pid)
        return Replica(replica_id, pool.name, pool.release, HOST, port, child.pid, born)

    def _prepared(self, version: str) -> Path:
        python = self.environment_of(version)
        if not python.exists():
            raise DeployRefused(
                f"Release {version} is not installed in production.",
                expected=f"an environment in production/envs/{version}",
                next_step=f"Deploy it with lab.deploy.run({version!r}).",
            )
        return python

    def _child_environment(self, version: str, replica_id: str) -> dict[str, str]:
        return variables.child(
            BENTO_RELEASE=version,
            BENTO_REPLICA=replica_id,
            DATABASE_URL=self.database_url(),
            PYTHONUNBUFFERED="1",
            PYTHONSAFEPATH="1",  # the current directory is no place to import from
            **{OWNER: mark(self.root)},
        )

    def alive(self, replica: Replica) -> bool:
        """Whether this very process still runs; a zombie, or a stranger with its number, does not count."""
        if child := self._children.get(replica.pid):
            return child.poll() is None
        return process_of(replica.pid, replica.born) is not None

    def ended(self, replica: Replica) -> str:
        """How a replica ended, as far as this process can know it."""
        child = self._children.get(replica.pid)
        code = child.poll() if child else None
        if replica.pid in self._overran:
            return self._overran[replica.pid]
        if code is None:
            return "ended"
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    def stop(self, replica: Replica, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL for what is still there after the grace."""
        end([(replica.pid, replica.born)], grace_seconds)
        if child := self._children.get(replica.pid):
            with suppress(subprocess.TimeoutExpired):
                child.wait(1)

    def kill(self, replica: Replica) -> None:
        """SIGKILL, as a crash or the kernel's out-of-memory killer would send it."""
        if process := process_of(replica.pid, replica.born):
            with suppress(psutil.Error):
                process.kill()
                commands.signalled(replica.pid, signal.SIGKILL)

    def environment(self, replica: Replica) -> dict[str, str]:
        """What the process was started with, as the system keeps it."""
        try:
            if process := process_of(replica.pid, replica.born):
                return process.environ()
        except psutil.Error as error:
            raise LabError(f"The environment of {replica.id} can't be read: {error}") from error
        raise LabError(f"{replica.id} does not run any more.", next_step="Ask one that lab.replicas() lists.")

    def usage(self, replica: Replica) -> Usage | None:
        """CPU since the last call, and memory; None when the replica is gone."""
        key = (replica.pid, replica.born)
        process = self._measured.get(key) or process_of(*key)
        if process is None:
            return None
        self._measured[key] = process  # psutil counts CPU between two calls on the same object
        try:
            with process.oneshot():
                used = Usage(process.cpu_percent(), process.memory_info().rss)
            self._bound(replica, process, used.memory_bytes)
            return used
        except psutil.Error:
            self._measured.pop(key, None)
            return None

    def _bound(self, replica: Replica, process: psutil.Process, memory_bytes: int) -> None:
        """End a replica that runs away, with all that it started, as a container's limits would."""
        children = in_session(replica.pid)
        for child in children:
            with suppress(psutil.Error):
                memory_bytes += child.memory_info().rss
        if memory_bytes > MEMORY_BYTES:
            why = f"it took more than {MEMORY_BYTES / 1e6:g} MB"
        elif len(children) + process.num_threads() > PROCESSES:
            why = f"it had more than {PROCESSES} processes and threads"
        else:
            return
        self._overran[replica.pid] = f"SIGKILL, since {why}"
        for each in (process, *children):
            with suppress(psutil.Error):
                each.kill()
                commands.signalled(each.pid, signal.SIGKILL)

    def log_path(self, replica: Replica) -> Path | None:
        return self.production / "logs" / f"{replica.id}.log"

    def forget(self, replica: Replica) -> None:
        """Drop what is kept in memory about a replica that is gone."""
        self._children.pop(replica.pid, None)
        self._measured.pop((replica.pid, replica.born), None)
        self._overran.pop(replica.pid, None)

    def sweep(self, known: list[Replica]) -> int:
        """End replicas of this lab that no record names; found by what each carries in its environment."""
        names, found = {(replica.pid, replica.born) for replica in known}, []
        for process in processes_of(self.root):
            with suppress(psutil.Error):
                name = process.environ().get("BENTO_REPLICA", MIGRATION)
                who = (process.pid, created_at(process.pid))
                if name != MIGRATION and who not in names:
                    found.append(who)
        end(found, 1.0)
        return len(found)

    def rest(self) -> None:
        """Nothing to do: the database is a file."""

    def wake(self) -> None:
        """Nothing to do: the database is a file."""

    def teardown(self) -> None:
        """End every replica of this lab, and remove the environments."""
        self.sweep([])
        shutil.rmtree(self.production / "envs", ignore_errors=True)


def _copy_database(source: Path, target: Path) -> None:
    """SQLite's own backup: consistent while others read and write, and seen by open connections."""
    old, new = sqlite3.connect(source, timeout=15), sqlite3.connect(target, timeout=15)
    with closing(old), closing(new):
        old.backup(new)


def _schema(path: Path) -> list[tuple[str, ...]]:
    with closing(sqlite3.connect(path, timeout=15)) as db:
        return db.execute("select type, name, sql from sqlite_master order by type, name").fetchall()
