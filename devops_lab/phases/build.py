"""Build: a commit becomes a wheel, by transpiling, compiling, packaging; the same commit, the same digest."""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import sysconfig
import tempfile
import time
import uuid
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import sha256 as hasher
from importlib.resources import files
from pathlib import Path
from platform import machine
from zipfile import ZIP_DEFLATED, ZipFile

import msgspec
import psutil

from devops_lab.delivery.compilers import command, compile_native, is_full, transpile
from devops_lab.delivery.image import build_image, why_no_image
from devops_lab.delivery.materials import LOCK, RENEW, check_lock, export
from devops_lab.delivery.versions import locate, plan_version
from devops_lab.errors import BadInput, BuildFailed, LabError
from devops_lab.model import Artifact, EventKind, Image, Step
from devops_lab.platform import commands
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.environments import no_room, sha256, uv_program
from devops_lab.platform.git import git

OnStep = Callable[[Step], None]
OnLine = Callable[[str], None]
RETAG = (
    """from pathlib import Path; from devops_lab.phases.build import retag; retag(Path({name!r}), {tag!r})"""
)
KEPT = 20  # builds that stay in the scratch space
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
    """The phase Build of one lab.

    Args:
        world: the lab to work on.
        templates: the lab directory that keeps installed packages; its own by default.
    """

    def __init__(self, world: LabContext, templates: Path | None = None) -> None:
        self.world, self.templates = world, templates or world.root

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
                epoch = git(repo, "show", "-s", "--format=%ct", whole)
                step("wheel", lambda: package(tree, epoch, self.templates))
                folder = self._keep(tree, whole[:8])
        except LabError as error:
            self._event("build.failed", whole, error.wrong)
            raise
        artifact = self._describe(folder, whole, version, steps)
        self.world.store.put(artifact)
        self.world.store.link(f"artifact:{artifact.digest}", "built from", f"commit:{whole}")
        self._event("build.done", whole, f"{version} in {artifact.seconds:.2f} s", digest=artifact.digest)
        return artifact

    def twice(self, commit: str = "main") -> tuple[Artifact, Artifact]:
        """Build the same commit two times, in two folders; their digests are the same."""
        return self.run(commit), self.run(commit)

    def image(self, artifact: Artifact | None = None, on_line: OnLine | None = None) -> Image:
        """Build the container image around a wheel (default: the newest); see `delivery.image`."""
        return build_image(self.world, artifact, on_line)

    def why_no_image(self) -> str:
        """Why no image can be built here, in plain words; empty where one can."""
        return why_no_image(self.world)

    def recorded_images(self) -> list[Image]:
        """Images as another machine built them, for who has no engine: new, again, with a line changed."""
        made = files("devops_lab.delivery") / "recorded_images.json"
        return msgspec.json.decode(made.read_bytes(), type=list[Image])

    def scorers(self, artifact: Artifact | None = None) -> dict[str, float]:
        """Measure the search scorers inside a built wheel: "c" and "python" -> seconds per 1000 scores.

        Raises:
            BadInput: nothing was built yet.
        """
        artifact = artifact or self.world.store.last(Artifact)
        if artifact is None:
            raise BadInput("Nothing was built yet.", next_step="Build a commit first.")
        with (
            tempfile.TemporaryDirectory(dir=self.world.work) as folder,
            ZipFile(self.world.root / artifact.path) as wheel,
        ):
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
        edit = f's/^version = ".*"$/version = "{version}"/'
        commands.did("sed", "-i.before", edit, project.name, folder=tree)
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
            if is_full(error):
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
                commands.did("mv", tree, target)
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
            t=self.world.store.now(),
            scorer="python" if wheel.name.endswith("-any.whl") else "c",
            lock=f"sha256:{sha256(wheel.with_suffix('.lock'))}",
        )

    def _event(self, kind: EventKind, commit: str, message: str, **data: str) -> None:
        who = self.world.settings.learner
        self.world.store.event("build", kind, f"commit:{commit}", message, who=who, **data)


def timed(name: str, work: Callable[[], tuple[str, int]]) -> Step:
    """Do one step; `work` returns what it said and how many bytes it made."""
    started, began = time.time(), time.perf_counter()
    output, size = work()
    return Step(name, time.perf_counter() - began, started=started, bytes=size, output=output)


# ---- the wheel
def package(tree: Path, epoch: str, templates: Path) -> tuple[str, int]:
    """The wheel, by uv, and the lock of what is installed beside it, which travels with it.

    Times inside come from the commit, so that the digest depends on the commit alone.
    """
    if not (tree / LOCK).is_file():
        raise BuildFailed(
            f"There is no {LOCK}, so nobody knows what to install beside the wheel.",
            expected="what pyproject.toml asks for, and what that needs, one NAME==VERSION a line",
            next_step=f"Make it ({RENEW[LOCK]}), commit it, and build again.",
        )
    options = ["--wheel", "--offline", "--no-config", "--python", sys.executable, "--out-dir", "dist"]
    said = command(
        [uv_program(), "build", *options, "."], tree, "can't make the wheel", SOURCE_DATE_EPOCH=epoch
    )
    wheel = next((tree / "dist").glob("*.whl"))
    if (tree / "src/bento/_score.so").exists():
        line = RETAG.format(name=str(wheel.relative_to(tree)), tag=platform_tag())
        wheel = retag(wheel, platform_tag())
        commands.did(sys.executable, "-c", line, folder=tree)
    final = wheel.rename(tree / wheel.name)
    commands.did("mv", f"dist/{final.name}", final.name, folder=tree)
    lock = Path(shutil.copyfile(tree / LOCK, final.with_suffix(".lock")))
    commands.did("cp", LOCK, lock.name, folder=tree)
    pinned = check_lock(templates, lock, final)
    return f"{said}\n{final.name}, {pinned}".strip(), final.stat().st_size


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
