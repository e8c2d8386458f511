"""The Docker engine: a replica is a hardened container, from an image that was pulled by its digest."""

from __future__ import annotations

import json
import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from devops_lab.errors import DeployRefused, LabError, RegistryRefused
from devops_lab.model import Pool, Release, Replica, Usage
from devops_lab.platform.engines import log_follower, postgres
from devops_lab.platform.engines.base import Capabilities
from devops_lab.platform.engines.docker import Container, Docker, Gone, LogConfig, hardened, labels, named
from devops_lab.platform.engines.images import WHEEL, Images
from devops_lab.platform.engines.log_follower import Follower
from devops_lab.platform.engines.metrics import Meter, how_it_ended, measure, profiling_refused, visible
from devops_lab.platform.engines.postgres import Postgres
from devops_lab.platform.engines.prepared import find
from devops_lab.platform.identity import identity
from devops_lab.platform.processes import HOST, created_at, process_of, replace_file
from devops_lab.platform.settings import Settings

PORT = 8080  # the shop's, inside its container
REPLICA, MIGRATION = "replica", "migration"
LOOK_SECONDS = 0.2  # how old the list of running containers may be, where their processes can't be seen
MIGRATION_SECONDS = 120.0


class ContainerEngine:
    """Runs replicas as containers of one Docker engine, and PostgreSQL beside them.

    Args:
        root: the lab directory.
        settings: the lab's configuration.
        docker: the engine; the one of the settings when None.
    """

    name = "docker"

    def __init__(self, root: Path, settings: Settings, docker: Docker | None = None) -> None:
        self.root = root.resolve()
        self.settings = settings
        self.docker = docker or Docker(settings.docker_host)
        self.production = self.root / "production"
        self.images = Images(self.docker, self.root)
        self._followers: dict[str, Follower] = {}
        self._meters: dict[str, Meter] = {}
        self._running: tuple[float, set[str]] = (0.0, set())

    def capabilities(self) -> Capabilities:
        blind = profiling_refused()
        return Capabilities(images=True, why_not={"profiles": blind} if blind else {})

    # ---- a release
    def prepare(self, release: Release) -> None:
        """Pull a release's image by its digest, and start PostgreSQL if it does not run yet.

        Raises:
            RegistryRefused: it was released without an image, or the registry has not got that one.
        """
        if not release.image:
            raise RegistryRefused(
                f"Release {release.version} has no container image.",
                expected="an image in the registry, known by its digest",
                next_step="Build and release it again while a Docker engine answers.",
            )
        found = self.images.pull(release.image)
        with self.docker.calls(f"look at {found}"):
            image = self.docker.client.images.get(found)
        if (inside := image.labels.get(WHEEL)) != release.digest:
            raise RegistryRefused(
                f"The image of release {release.version} holds another wheel: {inside}",
                expected=release.digest,
                next_step="Build and release it again, as a new version.",
            )
        note = self._note(release.version)
        note.parent.mkdir(parents=True, exist_ok=True)
        replace_file(note, json.dumps({"digest": release.image, "image": image.id}))
        self.database().ensure()

    def _note(self, version: str) -> Path:
        return self.production / "images" / f"{version}.json"

    def _prepared(self, version: str, what: str = "image") -> str:
        """The image of a release by its content (or its manifest's "digest"): a tag may have moved since."""
        try:
            return str(json.loads(self._note(version).read_text())[what])
        except FileNotFoundError as error:
            raise DeployRefused(
                f"Release {version} is not installed in production.",
                expected="its image, pulled by its digest",
                next_step=f"Deploy it with lab.deploy.run({version!r}).",
            ) from error

    # ---- the database
    def database(self) -> Postgres:
        """The lab's PostgreSQL; it need not run yet."""
        return Postgres(self.docker, self.root, lambda: find(self.docker, "postgres"))

    def database_url(self) -> str:
        return postgres.url(self.root)

    def ask_database(self) -> tuple[str, str]:
        """PostgreSQL's version and the shop's tables, asked by psql inside its container."""
        tables = (
            "select string_agg(tablename, ', ' order by tablename) from pg_tables where schemaname = 'public'"
        )
        sql = f"select split_part(version(), ' (', 1), 'tables: ' || coalesce(({tables}), 'none')"
        url = self.database_url().replace(postgres.password(self.root), "***")
        asked = f"DATABASE_URL={url}: select version(), tablename from pg_tables"
        return asked, self.database().ask(sql, "; ")

    def migrate(self, release: Release) -> str:
        """Bring the schema to this release, in a container that is there for that alone.

        PostgreSQL undoes a transaction with all its changes to the schema: no backup has to be put back.

        Raises:
            DeployRefused: it failed; the schema is as it was. Carries the migration's own words.
        """
        image = self._prepared(release.version)
        self.database().ensure()
        left = self.docker.find(self.root, MIGRATION)
        if left:  # only one migrates at a time (the deployment's lock), so this one lost its process
            self.docker.remove(left)
        command = ["python", "-m", "bento", "migrate"]
        container = self._create(image, MIGRATION, MIGRATION, release.version, command, {})
        try:
            with needed(release.version), self.docker.calls(f"migrate to {release.version}"):
                container.start()
                if not self.docker.ended_within(container, MIGRATION_SECONDS):
                    container.kill()
                container.reload()
                code = container.attrs["State"]["ExitCode"]
                said = container.logs().decode("utf-8", "replace").strip()
        finally:
            self.docker.remove(container)
        if code == 0:
            return str(said)
        raise DeployRefused(
            f"The migration to {release.version} failed:\n{said or how_it_ended(container.attrs['State'])}\n"
            "It ran in one transaction, which PostgreSQL has undone; nothing had to be restored.",
            expected="a migration that runs to its end",
            next_step="Mend the migration and release it as a new version.",
        )

    # ---- replicas
    def launch(self, pool: Pool, replica_id: str) -> Replica:
        """Start one container, published on a free port of this machine alone; its log is followed."""
        image = self._prepared(pool.release)
        if left := self.docker.find(self.root, replica_id):
            self.docker.remove(left)  # half started by an agent that died
        command = ["python", "-m", "bento", "serve", "--host", "0.0.0.0", "--port", str(PORT)]
        container = self._create(
            image, REPLICA, replica_id, pool.release, command, pool.env, ports={f"{PORT}/tcp": (HOST, None)}
        )
        try:
            with needed(pool.release), self.docker.calls(f"start {replica_id}"):
                container.start()
                container.reload()
        except Exception:
            self.docker.remove(container)
            raise
        self._watch(container, replica_id)
        return self._replica(container, pool, replica_id)

    def _create(
        self,
        image: str,
        role: str,
        what: str,
        version: str,
        command: list[str],
        environment: dict[str, str],
        **more: Any,
    ) -> Container:
        """A container of the shop, not started yet, that can do no more than it has to."""
        network = self.docker.network(self.root)
        told = {"BENTO_RELEASE": version, "BENTO_REPLICA": what, "DATABASE_URL": self.database_url()}
        with needed(version), self.docker.calls(f"make the container of {what}"):
            return self.docker.client.containers.create(
                image,
                command,
                name=named(self.root, what),
                labels=labels(self.root, role),
                environment=told | {"PYTHONUNBUFFERED": "1"} | environment,
                network=network,
                log_config=LogConfig(type="json-file", config={"max-size": "20m", "max-file": "2"}),
                **hardened(),
                **more,
            )

    def _replica(self, container: Container, pool: Pool, replica_id: str) -> Replica:
        state = container.attrs["State"]
        bound = container.attrs["NetworkSettings"]["Ports"].get(f"{PORT}/tcp") or [{"HostPort": "0"}]
        pid = visible(int(state["Pid"]), str(container.id))
        return Replica(
            replica_id,
            pool.name,
            pool.release,
            HOST,
            int(bound[0]["HostPort"]),  # 0: it has ended already, and published nothing
            pid,
            created_at(pid) if pid else "",
            engine=self.name,
            handle=str(container.id),
        )

    def _watch(self, container: Container, replica_id: str) -> None:
        """Take in its log and its figures from now on; only who keeps replicas (the agent) does that."""
        path = self.production / "logs" / f"{replica_id}.log"
        self._followers[str(container.id)] = Follower(self.docker, str(container.id), path)
        self._meters[str(container.id)] = Meter(self.docker, str(container.id))

    def alive(self, replica: Replica) -> bool:
        """Whether its process runs; an engine that does not answer is no reason to think it died."""
        if replica.pid:
            return process_of(replica.pid, replica.born) is not None
        when, running = self._running
        if time.monotonic() - when > LOOK_SECONDS or replica.handle not in running:
            try:
                running = self.docker.running(self.root)
            except LabError:
                return True
            self._running = time.monotonic(), running
        return replica.handle in running

    def ended(self, replica: Replica) -> str:
        """How a replica ended, as the engine noted it; its last words are in its log by then."""
        try:
            with self.docker.calls(f"ask how {replica.id} ended"):
                container = self.docker.client.containers.get(replica.handle)
                self.docker.ended_within(container, 5.0)
                container.reload()
        except (Gone, LabError):
            return "ended"
        if follower := self._followers.get(replica.handle):
            follower.join(2.0)
        return how_it_ended(container.attrs["State"])

    def stop(self, replica: Replica, grace_seconds: float) -> None:
        """SIGTERM, then SIGKILL for what is still there after the grace."""
        with suppress(Gone), self.docker.calls(f"stop {replica.id}"):
            container = self.docker.client.containers.get(replica.handle)
            if container.status == "running":
                self.docker.signal(container, "SIGTERM")
                if not self.docker.ended_within(container, grace_seconds):
                    self.docker.signal(container, "SIGKILL")
                    self.docker.ended_within(container, 5.0)

    def kill(self, replica: Replica) -> None:
        """SIGKILL, as a crash or the kernel's out-of-memory killer would send it."""
        with suppress(Gone), self.docker.calls(f"kill {replica.id}"):
            self.docker.signal(self.docker.client.containers.get(replica.handle), "SIGKILL")

    def environment(self, replica: Replica) -> dict[str, str]:
        """What the container was started with, as the engine keeps it."""
        try:
            with self.docker.calls(f"ask for the environment of {replica.id}"):
                container = self.docker.client.containers.get(replica.handle)
            if container.status in ("created", "running"):
                return dict(line.split("=", 1) for line in container.attrs["Config"]["Env"])
        except Gone:
            pass
        raise LabError(f"{replica.id} does not run any more.", next_step="Ask one that lab.replicas() lists.")

    def usage(self, replica: Replica) -> Usage | None:
        """CPU and memory of the container's last second, from its own accounts (cgroup)."""
        if meter := self._meters.get(replica.handle):
            return meter.last if self.alive(replica) else None
        return measure(self.docker, replica.handle)

    def log_path(self, replica: Replica) -> Path | None:
        return self.production / "logs" / f"{replica.id}.log"

    def forget(self, replica: Replica) -> None:
        """Remove the container of a replica that is gone, and what is kept in memory about it."""
        if follower := self._followers.pop(replica.handle, None):
            follower.join(2.0)
            log_follower.forget(follower.path)
        if meter := self._meters.pop(replica.handle, None):
            meter.ended.set()
        threading.Thread(target=self._remove, args=(replica,), daemon=True).start()

    def _remove(self, replica: Replica) -> None:
        """Aside, because it takes a fifth of a second, and somebody waits for the replacement."""
        with suppress(Gone, LabError), self.docker.calls(f"remove {replica.id}"):  # the next sweep finds it
            self.docker.remove(self.docker.client.containers.get(replica.handle))

    def sweep(self, known: list[Replica]) -> int:
        """Follow the logs of the replicas that are known; remove containers that no record names."""
        names, ended = {replica.handle: replica.id for replica in known}, 0
        for container in self.docker.containers(self.root, REPLICA):
            if name := names.get(str(container.id)):
                if container.id not in self._followers:
                    self._watch(container, name)
            else:
                ended += container.status == "running"
                self.docker.remove(container)
        return ended

    def rest(self) -> None:
        """Stop PostgreSQL and the registry; their volumes stay."""
        self.docker.stop_all(self.root)

    def wake(self) -> None:
        """Start PostgreSQL again; the registry is started by who asks it for something."""
        self.database().ensure()

    def teardown(self) -> None:
        """Remove every container, network, volume and image of this lab."""
        self.docker.remove_all(identity(self.root))
        shutil.rmtree(self.production / "images", ignore_errors=True)
        (self.root / "run" / "postgres-password").unlink(missing_ok=True)


@contextmanager
def needed(version: str) -> Iterator[None]:
    """Around what needs an image and a network: somebody may have removed them (`docker system prune`)."""
    try:
        yield
    except Gone as error:
        raise DeployRefused(
            f"What release {version} needs is gone from the Docker engine: {error.explanation or error}",
            expected="its image and the lab's network, as they were when it was deployed",
            next_step=f"Deploy {version} again: its image is pulled anew.",
        ) from error
