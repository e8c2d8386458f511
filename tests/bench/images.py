"""Wheel > image > registry > a replica that is ready: by the lab, and by the `docker` command, in turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import tarfile
import time
import zipfile
from dataclasses import replace
from pathlib import Path

from devops_lab.delivery.materials import unpack
from devops_lab.errors import EngineUnavailable
from devops_lab.lab import Lab
from devops_lab.model import Pool, Release
from devops_lab.platform import variables, web
from devops_lab.platform.engines.base import MEMORY_BYTES, PROCESSES
from devops_lab.platform.engines.containers import ContainerEngine
from devops_lab.platform.engines.docker import (
    CPUS,
    LAB_LABEL,
    TMP_BYTES,
    USER,
    named,
)
from devops_lab.platform.engines.environments import sha256
from devops_lab.platform.engines.images import PACKED, WHEEL
from devops_lab.platform.engines.prepared import find
from devops_lab.platform.identity import identity
from devops_lab.platform.processes import HOST
from devops_lab.platform.settings import Settings
from devops_lab.platform.waits import until


def why_not(settings: Settings) -> str:
    """Why nothing of this can be measured here; empty when it can."""
    if not shutil.which("docker"):
        return "there is no docker command to compare with"
    try:
        find(ContainerEngine(Path(), settings).docker, "python")
    except EngineUnavailable as error:
        return error.wrong
    return ""


def to_a_ready_replica(lab: Lab, times: int) -> list[tuple[float, float]]:
    """Seconds from a new wheel to a ready replica, warm, in turns: (the lab, the docker command)."""
    engine = ContainerEngine(lab.root, lab.settings)
    bench = Bench(lab, engine)
    try:
        bench.warm_up()
        return [
            (bench.ours(bench.wheel(2 * n)), bench.theirs(bench.wheel(2 * n + 1))) for n in range(times + 1)
        ][1:]
    finally:
        engine.teardown()


class Bench:
    """One wheel after the other, each with contents of its own, so that no step is in the builder's cache."""

    def __init__(self, lab: Lab, engine: ContainerEngine) -> None:
        self.lab, self.engine = lab, engine
        self.release: Release = lab.release.registry()[0]
        self.released = lab.root / self.release.path
        self.lock = self.released.with_suffix(".lock")
        self.recipe = lab.world.shop
        self.folder = lab.world.work / "bench"
        self.folder.mkdir()

    def wheel(self, number: int) -> Path:
        """The released wheel, and one small module more."""
        made = self.folder / str(number) / self.released.name
        made.parent.mkdir()
        shutil.copyfile(self.released, made)
        with zipfile.ZipFile(made, "a") as archive:
            archive.writestr(zipfile.ZipInfo("bento/bench.py"), f"NUMBER = {number}\n")
        return made

    def warm_up(self) -> None:
        """Registry, database, schema, installed packages: what is there when a change comes."""
        self.ours(self.wheel(-1))

    def ours(self, wheel: Path) -> float:
        """Build, push, pull by digest, start; until it is ready."""
        began = time.perf_counter()
        digest, version = f"sha256:{sha256(wheel)}", f"1.0.{wheel.parent.name}"
        images = self.engine.images
        image = images.push(images.build(wheel, self.lock, self.recipe, version, digest))
        release = replace(self.release, version=version, digest=digest, image=image.digest)
        self.engine.prepare(release)
        if wheel.parent.name == "-1":
            self.engine.migrate(release)
        replica = self.engine.launch(Pool("bench", version, 1, 0), f"bench-{wheel.parent.name}")
        self.wait(replica.port)
        took = time.perf_counter() - began
        self.engine.stop(replica, 5.0)
        return took

    def theirs(self, wheel: Path) -> float:
        """The same by the docker command: the same Dockerfile, packages, limits, network and database."""
        context = self.context(wheel)
        tag = f"{self.engine.images.registry.ensure()}/bento:raw-{wheel.parent.name}"
        name = named(self.lab.root, f"raw-{wheel.parent.name}")
        began = time.perf_counter()
        arguments = {"PYTHON": find(self.engine.docker, "python"), "LAB": identity(self.lab.root)}
        label = f"{LAB_LABEL}={identity(self.lab.root)}"
        options = [part for item in arguments.items() for part in ("--build-arg", "=".join(item))]
        labels = ["--label", label, "--label", f"{WHEEL}=sha256:{sha256(wheel)}"]
        docker("build", "--quiet", "--network", "none", "--tag", tag, *options, *labels, str(context))
        docker("push", "--quiet", tag)
        digest = docker("inspect", "--format", "{{index .RepoDigests 0}}", tag)
        docker("pull", "--quiet", digest)
        docker("run", "--detach", "--name", name, "--label", label, *self.limits(), digest)
        self.wait(int(docker("port", name, "8080/tcp").rpartition(":")[2]))
        took = time.perf_counter() - began
        docker("rm", "--force", name)
        return took

    def context(self, wheel: Path) -> Path:
        """What `docker build` gets: made before the clock runs, but for the wheel."""
        context = self.folder / "context"
        if not context.exists():
            (packed,) = (self.lab.world.work / "layers").glob(f"*/{PACKED}")
            with tarfile.open(packed) as tar:
                unpack(tar, context)
            shutil.copy(self.recipe / "Dockerfile", context)
        shutil.rmtree(context / "dist", ignore_errors=True)
        (context / "dist").mkdir()
        os.link(wheel, context / "dist" / wheel.name)
        return context

    def limits(self) -> list[str]:
        """The same limits as a replica of the lab."""
        return [
            *("--user", USER, "--read-only", "--cap-drop", "ALL", "--security-opt", "no-new-privileges"),
            *("--memory", str(MEMORY_BYTES), "--memory-swap", str(MEMORY_BYTES), "--cpus", str(CPUS)),
            *("--pids-limit", str(PROCESSES), "--tmpfs", f"/tmp:size={TMP_BYTES},noexec,nosuid,nodev"),
            *("--network", named(self.lab.root), "--publish", f"{HOST}::8080", "--health-interval", "10s"),
            *("--env", f"DATABASE_URL={self.engine.database_url()}"),
        ]

    def wait(self, port: int) -> None:
        """Until the shop says that it is ready, which it is when its database answers."""
        url = f"http://{HOST}:{port}/readyz"
        until(lambda: ready(url), "the replica to be ready", seconds=60, every_seconds=0.005)


def ready(url: str) -> bool:
    """Whether a replica calls itself ready."""
    try:
        return web.ask(url, seconds=1).status == 200
    except OSError:
        return False


def docker(*arguments: str) -> str:
    """Run the docker command, with the builder that answers also where the newer one is not installed."""
    environment = variables.command(DOCKER_BUILDKIT="0")
    done = subprocess.run(["docker", *arguments], capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(f"docker {arguments[0]} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    return done.stdout.strip()
