"""A root file system from the distribution's own packages (Debian, Ubuntu): no root, no pull, no chroot.

apt resolves against an empty system in a folder of its own, so what is installed on this machine plays no
part, and nothing of it is touched; the packages' files are then merged into one tar archive.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from devops_lab.errors import LabError, MissingTool
from devops_lab.platform import commands, variables
from devops_lab.platform.waits import until

OnShare = Callable[[float], None]  # how far, from 0 to 1
SECONDS = 900.0  # for a download over a slow line
ARCHITECTURES = {
    "arm": "armhf",
    "ppc64le": "ppc64el",
}  # Docker's names > the distribution's, where they differ
MERGED = ("bin", "sbin", "lib", "lib32", "lib64")  # lie below /usr today, in old packages not yet
# What no program reads; and PostgreSQL's compiler, which it only looks for.
UNREAD = re.compile(
    r"usr/share/(doc|man|info|locale|lintian|bug|doc-base|perl5|menu)/|usr/lib/postgresql/\d+/lib/(bitcode/|llvmjit)"
)
URI = re.compile(r"^'[^']+' (?P<name>[^_\s]+)_(?P<version>[^_\s]+)_\S+\.deb (?P<bytes>\d+)", re.MULTILINE)


@dataclass(frozen=True)
class Package:
    name: str
    version: str
    bytes: int


class Apt:
    """The distribution's packages, seen from an empty system.

    Args:
        folder: where lists and packages are kept.
        architecture: of the machine that shall run them, as Docker calls it, e.g. "amd64".

    Raises:
        MissingTool: this machine has no apt.
    """

    def __init__(self, folder: Path, architecture: str) -> None:
        if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
            raise MissingTool(
                "Images are made here from the packages of Debian or Ubuntu, and this machine has no apt.",
                expected="Debian or Ubuntu (also in WSL), or internet access for the Docker engine",
                next_step="With internet there is nothing to prepare: the lab pulls public images by digest. "
                "Without: prepare on a Debian machine, carry over with docker save and docker load.",
            )
        self.folder, self.packages = folder, folder / "packages"
        for name in ("lists/partial", "cache/archives/partial", "packages"):
            (folder / name).mkdir(parents=True)
        (folder / "status").touch()
        settings = {
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": ARCHITECTURES.get(architecture, architecture),
            "APT::Architectures": ARCHITECTURES.get(architecture, architecture),
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",  # a user of its own could not write into this folder
            "Acquire::Languages": "none",
        }
        self.options = [part for name, value in settings.items() for part in ("-o", f"{name}={value}")]

    def update(self) -> None:
        """Fetch the lists of packages; a source that does not answer is no trouble while the others do."""
        self._get("update", "--quiet", checked=False)

    def resolve(self, wanted: Iterable[str], without: str) -> list[Package]:
        """What has to be there so that `wanted` runs, except names that match `without` wholly."""
        said = self._get("install", "--yes", "--print-uris", *wanted)
        found = [
            Package(m["name"], unquote(m["version"]), int(m["bytes"]))
            for m in URI.finditer(said)
            if not re.fullmatch(without, m["name"])
        ]
        return sorted(found, key=lambda package: package.name)

    def download(self, packages: list[Package], on_share: OnShare) -> list[Path]:
        """Fetch packages; apt checks their digests and signatures."""
        everything = sum(package.bytes for package in packages)
        names = [f"{package.name}={package.version}" for package in packages]
        with (self.folder / "download.log").open("w+b") as log:
            command = ["apt-get", *self.options, "--quiet", "download", *names]
            process = commands.start(
                command, cwd=self.packages, env=variables.fetcher(), stdout=log, stderr=subprocess.STDOUT
            )

            def done() -> bool:
                here = sum(p.stat().st_size for p in self.packages.iterdir() if p.is_file())
                on_share(min(here / everything, 1.0))
                return process.poll() is not None

            try:
                until(done, "the packages to be downloaded", seconds=SECONDS, every_seconds=0.1)
            finally:
                process.kill()
                process.wait()
            log.seek(0)
            if process.returncode:
                raise refused("download", log.read().decode(errors="replace"))
        return sorted(self.packages.glob("*.deb"))

    def _get(self, *arguments: str, checked: bool = True) -> str:
        command = ["apt-get", *self.options, *arguments]
        done = commands.run(
            command,
            env=variables.fetcher(),
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            check=False,
        )
        if done.returncode and checked:
            raise refused(arguments[0], done.stdout + done.stderr)
        return done.stdout


def refused(what: str, words: str) -> LabError:
    """apt's own words, without the addresses of the servers."""
    lines = [re.sub(r"\w+://\S+", "…", line) for line in words.splitlines() if line[:2] in ("E:", "W:")]
    return LabError(
        f"apt can't {what} packages:\n" + "\n".join(lines[-6:]),
        next_step="Check the network and /etc/apt/sources.list (apt-get update), then try again.",
    )


class Root:
    """A root file system in a tar archive: some files of our own, then packages; what is there stays."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self.archive = archive
        self.seen: set[str] = set()
        for name in MERGED:
            self.link(name, f"usr/{name}")

    def add_packages(self, packages: list[Path], on_share: OnShare) -> None:
        """Merge the files of packages; scripts that a package would run when it is installed do not run."""
        for number, package in enumerate(packages, 1):
            command = ["dpkg-deb", "--fsys-tarfile", str(package)]
            with commands.start(command, env=variables.child(), stdout=subprocess.PIPE) as process:
                with tarfile.open(fileobj=process.stdout, mode="r|") as source:
                    for member in source:
                        self._add(member, source)
                if process.wait():
                    raise LabError(f"{package.name} is damaged.", next_step="Try again.")
            on_share(number / len(packages))

    def _add(self, member: tarfile.TarInfo, source: tarfile.TarFile) -> None:
        member.name = merged(member.name)
        if not member.name or member.name in self.seen or UNREAD.match(member.name + "/" * member.isdir()):
            return
        if member.islnk():
            member.linkname = merged(member.linkname)
        self.seen.add(member.name)
        self.archive.addfile(member, source.extractfile(member) if member.isreg() else None)

    def file(self, name: str, text: str, mode: int = 0o644) -> None:
        member = self._member(name, mode)
        content = text.encode()
        member.size = len(content)
        self.archive.addfile(member, io.BytesIO(content))

    def folder(self, name: str, owner: int = 0, mode: int = 0o755) -> None:
        """A folder, with the folders above it; it may be there already."""
        for above in [*reversed(Path(name).parents)][1:]:
            if str(above) not in self.seen:
                self.folder(str(above))
        member = self._member(name, mode)
        member.type, member.uid, member.gid = tarfile.DIRTYPE, owner, owner
        self.archive.addfile(member)

    def link(self, name: str, target: str) -> None:
        member = self._member(name, 0o777)
        member.type, member.linkname = tarfile.SYMTYPE, target
        self.archive.addfile(member)

    def _member(self, name: str, mode: int) -> tarfile.TarInfo:
        member = tarfile.TarInfo(name)
        member.mode = mode
        self.seen.add(name)
        return member


def merged(name: str) -> str:
    """Where a package's file lies in a system whose /bin, /lib and so on are links into /usr."""
    name = name.removeprefix("./").strip("/")
    return f"usr/{name}" if name.partition("/")[0] in MERGED and "/" in name else name
