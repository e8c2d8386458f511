"""What a release carries along, and what needs no release: the bill of materials, and static pages."""

from __future__ import annotations

import io
import re
import shutil
import tarfile
import threading
import urllib.request
import uuid
from datetime import UTC, datetime
from email import message_from_bytes
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from devops_lab.errors import LabError
from devops_lab.model import Artifact

STATIC = "src/bento/static"


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
    parts = {name.lower(): component(name, version) for name, version in pins(lock).items()}
    bill = Bom(components=parts.values(), serial_number=uuid.uuid5(uuid.NAMESPACE_URL, artifact.digest))
    bill.metadata.component = shop
    bill.metadata.timestamp = datetime.fromtimestamp(made, UTC)
    bill.register_dependency(shop, [parts[name] for name in requirements(wheel) if name in parts])
    return JsonV1Dot6(bill).output_as_string(indent=1)


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock: name -> version."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)==([^\s;]+)", lock, re.MULTILINE))


def requirements(wheel: Path) -> list[str]:
    """The names of what a wheel requires directly, extras left out."""
    with ZipFile(wheel) as archive:
        path = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        lines = message_from_bytes(archive.read(path)).get_all("Requires-Dist", [])
    found = (re.match(r"[A-Za-z0-9._-]+", line) for line in lines if "extra ==" not in line)
    return [name[0].lower() for name in found if name]


def export(repo: Path, commit: str, into: Path, *paths: str) -> None:
    """Write a commit's files (all, or some folders) into a folder, without touching any working tree."""
    import subprocess

    from devops_lab import git

    done = subprocess.run(
        ["git", "-C", str(repo), "archive", "--format=tar", commit, "--", *paths],
        env=git.environment(), capture_output=True,
    )  # fmt: skip
    if done.returncode:
        raise LabError(f"git can't export {commit[:8]}: {done.stderr.decode(errors='replace').strip()}")
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
            opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
            with opener.open(url, timeout=5) as answer:
                return url, answer.status, len(answer.read())
        finally:
            server.shutdown()
