"""PostgreSQL in a container: the database that the replicas in containers share."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from devops_lab.errors import LabError
from devops_lab.platform.engines.docker import Container, Docker, labels, named
from devops_lab.platform.waits import until

ROLE = "postgres"  # also its name on the lab's network
PORT = 5432
DATA = "/var/lib/postgresql/data"
USER = DATABASE = "bento"
OWNER = "999"  # the user that it runs as, in the public image and in the prepared one
CONNECTIONS = 400  # a replica takes one a thread, up to 40; in a rollout there are twice as many replicas
MEMORY_BYTES = 1_000_000_000


def password(root: Path) -> str:
    """The password of a lab's database, made once; the file is its owner's alone."""
    file = root / "run" / "postgres-password"
    file.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        aside = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
        with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as out:
            out.write(secrets.token_hex(16))
        try:
            os.link(aside, file)  # whole, and the first one wins
        finally:
            aside.unlink()
    return file.read_text()


def url(root: Path) -> str:
    """Where the database is, for who is on the lab's network."""
    return f"postgresql://{USER}:{password(root)}@{ROLE}:{PORT}/{DATABASE}"


class Postgres:
    """The database server of one lab.

    Args:
        docker: the engine that it runs in.
        root: the lab directory.
        image: asked for what it is started from, when it is made.
    """

    def __init__(self, docker: Docker, root: Path, image: Callable[[], str]) -> None:
        self.docker, self.root, self.image = docker, root, image

    def ensure(self) -> Container:
        """The running server; made, or started again, where there is none.

        Raises:
            LabError: it does not come up; carries its last words.
        """
        found = self.docker.find(self.root, ROLE)
        server = found or self._create()
        with self.docker.calls("start PostgreSQL"):
            if server.status != "running":
                server.start()
        try:
            until(
                lambda: self._answers(server),
                "PostgreSQL to answer",
                seconds=60,
                every_seconds=0.1,
                evidence=lambda: server.logs(tail=10).decode("utf-8", "replace"),
                next_step=f"Read its log: docker logs {named(self.root, ROLE)}",
            )
        except LabError:
            if found is None:
                self.docker.remove(server)
            raise
        return server

    def _create(self) -> Container:
        network, volume = self.docker.network(self.root), self.docker.volume(self.root, ROLE)
        with self.docker.calls("make PostgreSQL's container"):
            return self.docker.client.containers.create(
                self.image(),
                ["-c", f"max_connections={CONNECTIONS}"],
                name=named(self.root, ROLE),
                user=OWNER,
                labels=labels(self.root, ROLE),
                environment={
                    "POSTGRES_USER": USER,
                    "POSTGRES_DB": DATABASE,
                    "POSTGRES_PASSWORD": password(self.root),
                    "PGDATA": f"{DATA}/cluster",  # below the volume, so that it can be made aside and renamed
                },
                volumes={volume: {"bind": DATA, "mode": "rw"}},
                network=network,
                networking_config={network: self.docker.client.api.create_endpoint_config(aliases=[ROLE])},
                read_only=True,
                tmpfs={"/tmp": "size=64m,mode=1777", "/var/run/postgresql": "size=1m,mode=1777"},
                cap_drop=["ALL"],
                security_opt=["no-new-privileges"],
                mem_limit=MEMORY_BYTES,
                pids_limit=CONNECTIONS + 50,
                stop_signal="SIGINT",  # "fast": it does not wait for replicas to hang up
                # Docker keeps it running: it is no replica, so the agent does not replace it.
                restart_policy={"Name": "unless-stopped"},  # type: ignore[arg-type]  # the stub's list is short
            )

    def _answers(self, server: Container) -> bool:
        with self.docker.calls("ask PostgreSQL"):
            server.reload()
            if server.status == "exited":
                raise LabError(f"PostgreSQL ended:\n{server.logs(tail=10).decode('utf-8', 'replace')}")
            if server.status != "running":
                return False
            return bool(server.exec_run(["pg_isready", "-q", "-h", "127.0.0.1"]).exit_code == 0)

    def ask(self, sql: str, between: str = "|") -> str:
        """The answer to a query, a row a line, with `between` its columns; nothing can be changed by it.

        Raises:
            LabError: there is no server, or it refuses; carries its words.
        """
        server = self.docker.find(self.root, ROLE)
        if server is None or server.status != "running":
            raise LabError("There is no database yet.", next_step="Deploy a version first.")
        command = ["psql", "-h", "127.0.0.1", "-U", USER, "-d", DATABASE, "-At", "-F", between, "-c", sql]
        with self.docker.calls("ask PostgreSQL"):
            read_only = "-c default_transaction_read_only=on"
            told = {"PGPASSWORD": password(self.root), "PGOPTIONS": read_only}
            code, output = server.exec_run(command, environment=told)
        assert isinstance(output, bytes)  # it is no stream
        said = output.decode("utf-8", "replace").strip()
        if code:
            raise LabError(f"The database does not answer: {said}")
        return said
