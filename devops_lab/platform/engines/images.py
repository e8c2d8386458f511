"""Container images around a wheel: built, looked into, pushed, pulled by digest.

    images = Images(docker, root)
    image = images.build(wheel, lock, recipe, "1.1.0", digest, on_line=print)    # -> model.Image
    pushed = images.push(image)                         # the same, with `digest`: that of its manifest
    reference = images.pull(pushed.digest)              # "127.0.0.1:49153/bento@sha256:…", ready to run here
    images.registry.digest_of("1.1.0")                  # what the tag has now, "" where there is none

Nothing is compiled or downloaded in a build: the packages of the lock are installed here, for the image's
Python, and copied. The image carries the digest of the wheel inside as a label.
"""

from __future__ import annotations

import re
import shutil
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

from devops_lab.errors import BuildFailed, DiskFull, LabError, RegistryRefused
from devops_lab.model import Image, Layer, Step
from devops_lab.platform import commands
from devops_lab.platform.engines.docker import LAB_LABEL, Docker, Gone
from devops_lab.platform.engines.environments import built_aside, read_stamp, sha256, uv
from devops_lab.platform.engines.prepared import find
from devops_lab.platform.engines.registry import Registry
from devops_lab.platform.identity import identity

OnLine = Callable[[str], None]
WHEEL, LOCK = "devops-lab.wheel", "devops-lab.lock"  # labels: the digests of what is inside
PACKED = "packages.tar"
CONTEXT = ("Dockerfile", ".dockerignore")
LAST = 20  # lines of a failed instruction that its error carries
STEP = re.compile(r"^Step \d+/\d+ : (.*)")
# Another lab of this engine was removed in the middle of our build, and the cache that both stood on with it.
CACHE_GONE = re.compile(r"unable to find image|no such image|unknown parent image|layer does not exist", re.I)
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}  # Docker's names > uv's


class Images:
    """The images of one lab.

    Args:
        docker: the engine that builds and keeps them.
        root: the lab directory.
        registry: where they are pushed; the lab's own by default.
    """

    def __init__(self, docker: Docker, root: Path, registry: Registry | None = None) -> None:
        self.docker, self.root = docker, root
        self.registry = registry or Registry(docker, root)

    def tag(self, version: str) -> str:
        """What the image of a version is called in this engine."""
        return f"lab-{identity(self.root)}/bento:{version.replace('+', '-')}"

    # ---- build
    def build(
        self, wheel: Path, lock: Path, recipe: Path, version: str, digest: str, on_line: OnLine | None = None
    ) -> Image:
        """Build an image around a wheel.

        Args:
            wheel: the artifact.
            lock: what is installed beside it.
            recipe: the folder with the Dockerfile.
            version: names the image.
            digest: the wheel's, written into the image.
            on_line: called with each line of the engine's log as it comes.

        Raises:
            BuildFailed: a step failed, with the engine's own words.
            EngineUnavailable: there is no image with Python to stand on.
            DiskFull: there is no room.
        """
        base, began = find(self.docker, "python"), time.perf_counter()
        labels = {LAB_LABEL: identity(self.root), WHEEL: digest, LOCK: f"sha256:{sha256(lock)}"}
        with tempfile.TemporaryFile() as context:
            self._pack(context, wheel, recipe, self._packages(base, lock))
            commands.told(f"Python packs the context: {', '.join(CONTEXT)}, {wheel.name} and its packages.")

            def instructed(*, cached: bool) -> list[Step]:
                context.seek(0)
                with self.docker.calls("build the image"):
                    lines = self.docker.client.api.build(
                        fileobj=context,
                        custom_context=True,
                        tag=self.tag(version),
                        buildargs={"PYTHON": base, "LAB": identity(self.root)},
                        labels=labels,
                        nocache=not cached,
                        rm=True,
                        forcerm=True,
                        network_mode="none",
                        decode=True,
                    )
                    return follow(lines, on_line or (lambda line: None))

            try:
                steps = instructed(cached=True)
            except BuildFailed as failed:
                if not CACHE_GONE.search(failed.wrong.splitlines()[-1]):
                    raise
                steps = instructed(cached=False)  # on layers of its own, which nobody else removes
        return self.look(self.tag(version), version, steps, time.perf_counter() - began)

    def _packages(self, base: str, lock: Path) -> Path:
        """The packages of a lock, installed for the image's Python and machine; kept for the next build."""
        with self.docker.calls(f"look at {base}"):
            about = self.docker.client.images.get(base).attrs
        python = next(
            v[len("PYTHON_VERSION=") :] for v in about["Config"]["Env"] if v.startswith("PYTHON_VERSION=")
        )
        machine = MACHINES.get(about["Architecture"], about["Architecture"])
        stamp = f"{sha256(lock)} {python} {machine}"
        into = self.root / "work" / "layers" / f"{stamp[:16]}-{python}-{machine}"
        if read_stamp(into) == stamp:
            return into
        wanted = ["--python-version", python, "--python-platform", f"{machine}-unknown-linux-gnu"]
        install = ["pip", "install", "--quiet", "--no-config", "--no-deps", "--only-binary", ":all:", *wanted]
        with built_aside(into, stamp) as aside:
            tree = aside / "packages"
            tree.mkdir(parents=True)
            try:
                uv([*install, "--offline", "--target", str(tree), "-r", str(lock)])
            except BuildFailed:  # the cache lacks something: ask the index
                uv([*install, "--target", str(tree), "-r", str(lock)], fetch=True)
            with tarfile.open(aside / PACKED, "w", format=tarfile.GNU_FORMAT) as tar:
                for path in sorted(
                    path for path in tree.rglob("*") if path.is_file() and path.name != ".lock"
                ):
                    tar.add(path, path.relative_to(aside).as_posix(), filter=plain)
            shutil.rmtree(tree)
        return into

    def _pack(self, file: IO[bytes], wheel: Path, recipe: Path, packages: Path) -> None:
        """The build's context; its order and owners depend on nothing but its contents."""
        tar = tarfile.TarFile(fileobj=file, mode="w", format=tarfile.GNU_FORMAT)
        for name in CONTEXT:
            if (recipe / name).is_file():
                tar.add(recipe / name, name, filter=plain)
        tar.add(wheel, f"dist/{wheel.name}", filter=plain)
        # The archive is left open: the packages, packed when they were installed, are the rest of it.
        with (packages / PACKED).open("rb") as rest:
            shutil.copyfileobj(rest, file)

    # ---- look into
    def find(self, version: str) -> Image | None:
        """The image of a version in this engine, if it is there."""
        try:
            return self.look(self.tag(version), version)
        except Gone:
            return None

    def look(
        self, reference: str, version: str = "", steps: Sequence[Step] = (), seconds: float = 0.0
    ) -> Image:
        """An image of this engine, with its layers."""
        with self.docker.calls(f"look at {reference}"):
            image = self.docker.client.images.get(reference)
            history = image.history()
        labels = image.attrs["Config"]["Labels"] or {}
        return Image(
            id=str(image.id),
            version=version,
            wheel=labels.get(WHEEL, ""),
            lock=labels.get(LOCK, ""),
            bytes=image.attrs["Size"],
            layers=layers(history, image.attrs["RootFS"]["Layers"]),
            steps=list(steps),
            seconds=seconds,
            t=time.time(),
        )

    # ---- push and pull
    def push(self, image: Image, tag: str = "") -> Image:
        """Push an image to the lab's registry, under its version or another tag.

        Returns:
            The same, with the digest of its manifest.

        Raises:
            RegistryRefused: that tag is there already with other contents; or the registry's own words.
            DiskFull: the registry is full; the tag is not in it.
        """
        tag = (tag or image.version).replace("+", "-")
        repository = self.registry.repository()
        if there := self.registry.digest_of(tag):
            if self._id(self.pull(there)) != image.id:
                raise RegistryRefused(
                    f"The registry has another image as {tag}, and what is published never changes.",
                    expected=there,
                    next_step="Merge a change: it gets a version of its own.",
                )
            return replace(image, digest=there)
        try:
            with self.docker.calls(f"push {image.version}"):
                self.docker.client.images.get(image.id).tag(repository, tag)
                lines = self.docker.client.api.push(repository, tag, stream=True, decode=True)
                digest = self._follow_push(lines)
        finally:
            self._untag(f"{repository}:{tag}")
        return replace(image, digest=digest)

    def _follow_push(self, lines: Iterator[dict[str, Any]]) -> str:
        digest = ""
        for line in lines:
            status, words = str(line.get("status", "")), line.get("error", "")
            # The engine would try five times, for over a minute; a full disk does not empty itself.
            if (words or status.startswith("Retrying")) and self.registry.is_full():
                raise DiskFull(
                    f"The registry is full, and did not take the image. {words}".rstrip(),
                    next_step="Free some of Docker's volumes (docker system df), then release again.",
                )
            if words:
                raise RegistryRefused(f"The registry would not take the image: {words}")
            digest = line.get("aux", {}).get("Digest", digest)
        return str(digest)

    def pull(self, digest: str) -> str:
        """Have the image with a manifest digest in this engine.

        Returns:
            Its reference, for a container: registry, name and digest.

        Raises:
            RegistryRefused: the registry has none, or what it has does not match the digest.
        """
        repository, said = self.registry.repository(), list[str]()
        try:
            with self.docker.calls(f"pull {digest}"):
                for line in self.docker.client.api.pull(repository, tag=digest, stream=True, decode=True):
                    said += [line["error"]] if "error" in line else []
                self.docker.client.images.get(f"{repository}@{digest}")
        except (Gone, LabError) as error:
            raise RegistryRefused(
                f"The registry can't give the image {digest}: {(said or str(error).splitlines())[0]}",
                expected="an image whose manifest has this digest",
                next_step="Release a new version: a released image is never repaired by hand.",
            ) from error
        return f"{repository}@{digest}"

    def in_engine(self, digest: str) -> str:
        """The name by which this engine has the image with a manifest digest, from any registry; or none."""
        with self.docker.calls("list images"):
            known = self.docker.client.api.images()
        names = (name for image in known for name in image.get("RepoDigests") or [])
        return next((name for name in names if name.endswith(f"@{digest}")), "")

    def _id(self, reference: str) -> str:
        with self.docker.calls(f"look at {reference}"):
            return str(self.docker.client.images.get(reference).id)

    def _untag(self, reference: str) -> None:
        try:
            with self.docker.calls(f"untag {reference}"):
                self.docker.client.images.remove(reference, noprune=True)
        except Gone:
            pass


def plain(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Nobody's, readable by all, and as old as time: the same contents give the same layer anywhere."""
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime = 0
    member.mode = 0o755 if member.mode & 0o100 else 0o644
    return member


def follow(lines: Iterator[dict[str, Any]], on_line: OnLine) -> list[Step]:
    """Read a build's log as it comes; each instruction becomes a step, "cached" where nothing was to be done.

    Raises:
        BuildFailed: an instruction failed.
        DiskFull: it had no room.
    """
    steps: list[Step] = []
    said: list[str] = []
    began = time.perf_counter()

    def close() -> None:
        if steps:
            cached = any("Using cache" in line for line in said)
            kept = [
                line
                for line in said
                if not line.startswith((" --->", "Removing intermediate", "Successfully"))
            ]
            output = "cached" if cached else "\n".join(kept).strip()
            steps[-1] = replace(steps[-1], seconds=time.perf_counter() - began, output=output)

    for line in lines:
        if words := line.get("error"):
            close()
            where = f"{steps[-1].name}\n" if steps else ""
            kind = DiskFull if "no space left" in words.lower() else BuildFailed
            raise kind(
                f"The image can't be built: {where}" + "\n".join([*said[-LAST:], words]),
                next_step="Mend the Dockerfile or what it copies, commit, and build again.",
            )
        for text in str(line.get("stream", "")).splitlines():
            if text.strip():
                on_line(text)
            if found := STEP.match(text):
                close()
                steps.append(Step(found[1].strip(), 0.0, started=time.time()))
                said, began = [], time.perf_counter()
            else:
                said.append(text)
    close()
    return steps


def layers(history: list[dict[str, Any]], digests: list[str]) -> list[Layer]:
    """The layers of an image, lowest first; instructions that add no files are left out."""
    rows = [row for row in reversed(history) if row["Size"]]
    known = digests if len(digests) == len(rows) else [""] * len(rows)
    return [Layer(told(row), row["Size"], digest) for row, digest in zip(rows, known, strict=True)]


def told(row: dict[str, Any]) -> str:
    """What made a layer, in the words of its Dockerfile."""
    words = re.sub(r"^/bin/sh -c (#\(nop\) *)?", "", row["CreatedBy"] or "").strip()
    words = re.sub(r"(dir|file|multi):[0-9a-f]{64} in", "…", words)
    return words or row["Comment"] or "the base image"
