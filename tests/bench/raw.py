"""What the bench compares the lab with: the way to production by raw commands, in the fastest order.

No records, no events, no agent: git, node, cc, uv, pytest, `python -m bento`, and Envoy's files.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import date
from pathlib import Path

from devops_lab.delivery.compilers import STRIP_TYPES, compilers, node, why_useless
from devops_lab.platform import variables
from devops_lab.platform.engines.environments import clone, template_for, uv_program
from devops_lab.platform.processes import HOST, created_at, end, free_port
from devops_lab.platform.traffic.envoy import Envoy
from devops_lab.platform.waits import until
from devops_lab.production.verify import first_answer
from devops_lab.shop import found_repository

REPLICAS = 2


class RawShop:
    """One shop without a lab.

    Args:
        root: a folder that does not exist yet.
    """

    def __init__(self, root: Path) -> None:
        self.root, self.shop = root, root / "shop"
        root.mkdir()
        found_repository(root / "origin.git", self.shop, date.today())
        lock, tools = self.shop / "requirements.lock", self.shop / "requirements-test.lock"
        self.templates = {lock.name: template_for(root, lock), tools.name: template_for(root, lock, tools)}
        self.compiler = next((words for words in compilers() if not why_useless(words)), None)
        self.envoy = Envoy(root / "envoy", owner=root)
        self.envoy.start()
        self.serving: tuple[str, list[subprocess.Popen[bytes]]] = "", []
        self.addresses: list[tuple[str, int]] = []

    def close(self) -> None:
        """End what runs."""
        self._end(self.serving[1])
        self.serving = "", []
        self.envoy.stop()

    def push_to_production(self, version: str) -> float:
        """Push main, and return how many seconds later the new version answers."""
        began = time.time()
        tree = self.root / f"tree-{version}"
        tree.mkdir()
        self._run(["git", "push", "--quiet", "origin", "main"], self.shop)
        archive = subprocess.Popen(
            ["git", "archive", "main"],
            cwd=self.root / "origin.git",
            env=variables.child(),
            stdout=subprocess.PIPE,
        )
        tar = ["tar", "-x", "-C", str(tree)]
        subprocess.run(tar, env=variables.child(), stdin=archive.stdout, check=True)
        archive.wait()
        wheel = self._build(tree, version)
        with ThreadPoolExecutor(max_workers=1) as pool:
            tests = pool.submit(self._test, tree, wheel)
            pool_name, replicas, endpoints = self._start(tree, wheel, version)
            try:
                tests.result()
            except BaseException:
                self._end(replicas)
                raise
        self._run(["git", "tag", "-m", version, f"v{version}", "main"], self.root / "origin.git")
        shutil.copyfile(wheel, self.root / wheel.name)
        self.envoy.apply(endpoints, {pool_name: 100})
        seconds = first_answer(f"http://{HOST}:{self.envoy.port}", version, lambda: False, time.time) - began
        self._end(self.serving[1])
        self.serving = pool_name, replicas
        return seconds

    def _build(self, tree: Path, version: str) -> Path:
        project = tree / "pyproject.toml"
        project.write_text(project.read_text().replace('version = "1.0.0"', f'version = "{version}"', 1))
        script = ["frontend/app.ts", "src/bento/static/app.js"]
        types = [node(), "--disable-warning=ExperimentalWarning", "-e", STRIP_TYPES, *script]
        steps = [self._begin(types, tree)]
        if self.compiler:
            flags = ["-O2", "-shared", "-fPIC", "-o", "src/bento/_score.so", "native/score.c"]
            steps.append(self._begin([*self.compiler, *flags], tree))
        for step in steps:
            self._done(step)
        options = ["--wheel", "--offline", "--quiet", "--no-config", "--python", sys.executable]
        self._run([uv_program(), "build", *options, "--out-dir", "dist", "."], tree)
        return next((tree / "dist").glob("*.whl"))

    def _environment(self, lock: str, wheel: Path, into: Path) -> str:
        clone(self.templates[lock], into)
        python = str(into / "bin" / "python")
        options = [
            "--quiet",
            "--no-config",
            "--offline",
            "--no-deps",
            "--compile-bytecode",
            "--python",
            python,
        ]
        self._run([uv_program(), "pip", "install", *options, str(wheel)], into)
        return python

    def _test(self, tree: Path, wheel: Path) -> None:
        """In a folder without the source tree; red tests or too little coverage raise."""
        here = tree / "test"
        here.mkdir()
        os.rename(tree / "tests", here / "tests")
        shutil.copy(tree / "pyproject.toml", here)
        python = self._environment("requirements-test.lock", wheel, tree / "env-test")
        pytest = ["pytest", "-q", "-p", "no:cacheprovider", "--junitxml=report.xml"]
        self._run([python, "-m", "coverage", "run", "-m", *pytest], here)
        self._run([python, "-m", "coverage", "report", "--fail-under=80"], here)

    def _start(
        self, tree: Path, wheel: Path, version: str
    ) -> tuple[str, list[subprocess.Popen[bytes]], dict[str, list[tuple[str, int]]]]:
        """Install, migrate, start; wait until Envoy sees all healthy. They get no traffic yet."""
        python = self._environment("requirements.lock", wheel, tree / "env")
        database = {"DATABASE_URL": f"sqlite:///{self.root / 'bento.db'}", "BENTO_RELEASE": version}
        self._run([python, "-m", "bento", "migrate"], tree, **database)
        replicas, ports = [], []
        for number in range(REPLICAS):
            ports.append(free_port())
            serve = [python, "-m", "bento", "serve", "--host", HOST, "--port", str(ports[-1])]
            replicas.append(self._begin(serve, tree, BENTO_REPLICA=f"raw-{number}", **database))
        name, old = f"raw-{version}", self.serving[0]
        endpoints = {name: [(HOST, port) for port in ports]}
        if old:
            endpoints[old] = self.addresses
        self.addresses = endpoints[name]
        self.envoy.apply(endpoints, {old: 100} if old else {})
        try:
            until(lambda: self._healthy(name) == REPLICAS, "replicas", every_seconds=0.005)
        except BaseException:
            self._end(replicas)
            raise
        return name, replicas, {name: endpoints[name]}

    def _healthy(self, pool: str) -> int:
        return sum(host["healthy"] and host["pool"] == pool for host in self.envoy.hosts().values())

    # ---- processes
    def _begin(self, command: list[str], folder: Path, **environment: str) -> subprocess.Popen[bytes]:
        with (self.root / "output.log").open("ab") as out:
            return subprocess.Popen(
                command,
                cwd=folder,
                env=variables.child(**environment),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
            )

    def _done(self, process: subprocess.Popen[bytes]) -> None:
        if process.wait():
            words = (self.root / "output.log").read_text(errors="replace")[-2000:]
            raise RuntimeError(f"a raw command ended with {process.returncode}:\n{words}")

    def _run(self, command: list[str], folder: Path, **environment: str) -> None:
        self._done(self._begin(command, folder, **environment))

    def _end(self, processes: list[subprocess.Popen[bytes]]) -> None:
        end([(process.pid, created_at(process.pid)) for process in processes], 5.0)
        for process in processes:
            with suppress(subprocess.TimeoutExpired):
                process.wait(5)
