"""What a release carries along: its files from git, locked packages, bill of materials; and static pages.

`requirements.lock` is what production installs. The tests install the same, and then their own tools:
`requirements-test.lock`, without what production pins already.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tarfile
import threading
import uuid
from datetime import UTC, datetime
from email import message_from_bytes
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from devops_lab.errors import BuildFailed, LabError
from devops_lab.model import Artifact
from devops_lab.platform import commands, git, web
from devops_lab.platform.engines.environments import template_for, uv

STATIC = "src/bento/static"
LOCK, TOOLS = "requirements.lock", "requirements-test.lock"
RENEW = {
    LOCK: f"uv pip compile pyproject.toml -o {LOCK}",
    TOOLS: f"uv pip compile --group test -c {LOCK} -o {TOOLS}",
}


def bill_of_materials(wheel: Path, artifact: Artifact, lock: str, made: float) -> str:
    """The software bill of materials of a wheel, as CycloneDX JSON (https://cyclonedx.org).

    Args:
        wheel: the file; its metadata names what it requires directly.
        artifact: what is known of it.
        lock: the text of the lock, which pins all that is installed beside it.
        made: POSIX seconds; the commit's, so that the same artifact has the same bill.
    """
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output.json import JsonV1Dot6
    from packageurl import PackageURL

    def component(name: str, version: str, **more: Any) -> Component:
        return Component(
            name=name, version=version, bom_ref=name, purl=PackageURL("pypi", None, name, version), **more
        )

    digest = HashType(alg=HashAlgorithm.SHA_256, content=artifact.digest.removeprefix("sha256:"))
    shop = component("bento", artifact.version, type=ComponentType.APPLICATION, hashes=[digest])
    parts = {name: component(name, version) for name, version in pins(lock).items()}
    bill = Bom(components=parts.values(), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, artifact.digest))
    bill.metadata.component = shop
    bill.metadata.timestamp = datetime.fromtimestamp(made, UTC)
    direct = [canonicalize_name(wanted.name) for wanted in requirements(wheel)]
    bill.register_dependency(shop, [parts[name] for name in direct if name in parts])
    return JsonV1Dot6(bill).output_as_string(indent=1)


def export(repo: Path, commit: str, into: Path, *paths: str) -> None:
    """Write a commit's files (all, or some folders) into a folder, without touching any working tree."""
    args = ["git", "archive", "--format=tar", commit, "--", *paths]
    commands.did("mkdir", "-p", into)
    with commands.ran(args, repo, passed=["tar", "-x", "-C", str(into)]) as running:
        there = ["git", "-C", str(repo), *args[1:]]
        done = subprocess.run(there, env=git.environment(), capture_output=True)
        running.exit_code = done.returncode
    if done.returncode:
        words = done.stderr.decode(errors="replace").strip()
        raise git.trouble(repo, words) or LabError(f"git can't export {commit[:8]}: {words}")
    into.mkdir(parents=True, exist_ok=True)
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        unpack(archive, into)


def unpack(archive: tarfile.TarFile, into: Path) -> None:
    """Unpack, without what would reach beyond the folder; Python before 3.11.4 can't be asked for that."""
    if hasattr(tarfile, "data_filter"):
        archive.extractall(into, filter="data")
    else:
        archive.extractall(into)


class _Silent(SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        pass


def serve_once(repo: Path, commit: str, folder: Path) -> tuple[str, int, int]:
    """Copy the static pages of a commit into a folder, serve it, and read the page: (url, status, bytes)."""
    shutil.rmtree(folder, ignore_errors=True)
    export(repo, commit, folder, STATIC)
    handler = partial(_Silent, directory=str(folder / STATIC))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/index.html"
        try:
            answer = web.ask(url)
            return url, answer.status, len(answer.body)
        finally:
            server.shutdown()


def pins(text: str, name: str = LOCK) -> dict[str, str]:
    """The packages that a lock installs on this machine: normalised name -> version.

    Raises:
        BuildFailed: a line is no pinned package, or a package stands there twice.
    """
    found: dict[str, str] = {}
    for line in text.replace("\\\n", " ").splitlines():
        if not (pin := re.sub(r"(^|\s)#.*|\s--hash=\S+", "", line).strip()):
            continue
        try:
            wanted = Requirement(pin)
            (version,) = [each.version for each in wanted.specifier if each.operator == "=="]
            if len(wanted.specifier) > 1 or wanted.url or "*" in version:
                raise ValueError(pin)
        except (InvalidRequirement, ValueError) as error:
            raise _refused(name, f"{pin!r} is no package with one version") from error
        if wanted.marker and not wanted.marker.evaluate():
            continue
        if (package := canonicalize_name(wanted.name)) in found:
            raise _refused(name, f"{package} stands there twice")
        found[package] = version
    return found


def _refused(name: str, wrong: str) -> BuildFailed:
    return BuildFailed(
        f"{name}: {wrong}.",
        expected="NAME==VERSION, each package once, without options, addresses and paths",
        next_step=f"Renew it ({RENEW[name]}), commit, and build again.",
    )


def requirements(wheel: Path) -> list[Requirement]:
    """What a wheel requires directly on this machine, without its extras."""
    with ZipFile(wheel) as archive:
        path = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = message_from_bytes(archive.read(path)).get_all("Requires-Dist", [])
    wanted = [Requirement(line) for line in lines]
    return [each for each in wanted if not each.marker or each.marker.evaluate({"extra": ""})]


def check_lock(root: Path, lock: Path, wheel: Path) -> str:
    """Insist that a lock can be installed, and holds all that a wheel needs.

    Args:
        root: the lab directory, where the installed packages are kept for tests and production.
        lock: as the commit has it.
        wheel: asks for what `pyproject.toml` says.

    Returns:
        What there is to say of it.

    Raises:
        BuildFailed: it can't, or does not; names the packages.
    """
    pinned, wrong = pins(lock.read_text(encoding="utf-8", errors="replace")), []
    for wanted in requirements(wheel):
        version = pinned.get(canonicalize_name(wanted.name))
        if version is None:
            wrong.append(f"{wanted} is not in it")
        elif not wanted.specifier.contains(version, prereleases=True):
            wrong.append(f"{wanted} is asked for, and it pins {version}")
    if wrong:
        raise BuildFailed(
            f"{LOCK} does not satisfy pyproject.toml: {'; '.join(wrong)}.",
            expected="a pin for each of its dependencies",
            next_step=f"Renew it ({RENEW[LOCK]}), commit, and build again.",
        )
    python = template_for(root, lock) / "bin" / "python"
    alone = ["--dry-run", "--offline", "--no-index", "--no-config", "--quiet", "--python", str(python)]
    try:
        # Extras, and what packages need of each other. (By its name: uv reads more than a path into paths.)
        uv(["pip", "install", *alone, f"./{wheel.name}"], folder=wheel.parent)
    except BuildFailed as error:
        words = error.wrong.partition("\n")[2].partition("\n\nhint:")[0]
        raise BuildFailed(
            f"{LOCK} lacks what its own packages need:\n{words}",
            next_step=f"Renew it ({RENEW[LOCK]}), commit, and build again.",
        ) from error
    return f"{len(pinned)} packages pinned"


def tools_beside(lock: Path, tools: Path) -> None:
    """Take out of the test tools' lock what production pins: those versions are tested."""
    taken = pins(lock.read_text(encoding="utf-8"))
    wanted = pins(tools.read_text(encoding="utf-8", errors="replace"), TOOLS)
    lines = [f"{name}=={version}\n" for name, version in wanted.items() if name not in taken]
    tools.write_text("".join(lines), encoding="utf-8")
