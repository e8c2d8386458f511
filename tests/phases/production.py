"""A lab with a real production for tests; its releases are made straight from the shop's template."""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from functools import cache
from pathlib import Path

from devops_lab.delivery.image import name_version
from devops_lab.model import Release
from devops_lab.platform import settings
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import teardown
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from tests.production import pushed, running

SHOP = Path(__file__).resolve().parents[2] / "devops_lab" / "shop"
# version -> a prepared change, or (file, before, after)
VERSIONS: dict[str, str | tuple[str, str, str]] = {
    "1.0.0": "",
    "1.1.0": "",
    "1.2.0": (
        "src/bento/app.py",
        "    query = request.query_params",
        "    1 / 0\n    query = request.query_params",
    ),
    "1.3.0": "slow-search",
    "1.4.0": "failing-health",
    "1.5.0": ("src/bento/__main__.py", '"""', 'raise SystemExit("bento can not start")\n"""'),
    "1.6.0": "broken-migration",
    "1.8.0": ("src/bento/server.py", "logs.configure(config)", 'raise SystemExit("bento can not serve")'),
    "1.7.0": "lying-health",
    "1.9.0": (
        "src/bento/app.py",
        "    query = request.query_params",
        '    if "runaway" in request.query_params:\n'
        '        request.app.state.kept = b"x" * 250_000_000\n'
        "    query = request.query_params",
    ),
}


@cache
def wheels() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="bento-wheels-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


@cache
def wheel(version: str) -> Path:
    """Build one version of the shop; a version differs from the template as `VERSIONS` says."""
    source = wheels() / f"source-{version}"
    shutil.copytree(SHOP / "template", source, ignore=shutil.ignore_patterns("dist", ".venv", "__pycache__"))
    edit = VERSIONS[version]
    if isinstance(edit, tuple):
        name, before, after = edit
        text = (source / name).read_text("utf-8")
        assert before in text
        (source / name).write_text(text.replace(before, after, 1), "utf-8")
    elif edit:
        patch = SHOP / "changes" / f"{edit}.patch"
        subprocess.run(["git", "apply", str(patch)], cwd=source, check=True)
    project = source / "pyproject.toml"
    project.write_text(
        project.read_text("utf-8").replace('version = "1.0.0"', f'version = "{version}"'), "utf-8"
    )
    if compiler := shutil.which(
        "cc"
    ):  # without it the shop scores in Python, which is slower and right as well
        native = ["-O2", "-shared", "-fPIC", "-o", str(source / "src/bento/_score.so")]
        subprocess.run([compiler, *native, str(source / "native/score.c")], check=True)
    uv = Path(sys.executable).parent / "uv"
    out = source / "dist"
    subprocess.run(
        [str(uv) if uv.exists() else "uv", "build", "--quiet", "--wheel", "--out-dir", str(out), str(source)],
        check=True,
    )
    return next(out.glob("*.whl"))


def release(world: LabContext, version: str) -> Release:
    """Put one version into the lab's registry."""
    built = wheel(version)
    home = world.registry / version
    home.mkdir(parents=True)
    shutil.copyfile(built, home / built.name)
    shutil.copyfile(SHOP / "template" / "requirements.lock", (home / built.name).with_suffix(".lock"))
    digest = "sha256:" + hashlib.sha256(built.read_bytes()).hexdigest()
    path = world.relative(home / built.name)
    image = pushed(world, home / built.name, version, digest) if world.engine.capabilities().images else ""
    size = built.stat().st_size
    made = Release(version, "0" * 40, f"v{version}", digest, path, size, "", "", time.time(), image)
    (home / "release.json").write_text(json.dumps(asdict(made)))
    world.store.put(made)
    if image:
        name_version(world, made)
    return made


@contextmanager
def production(
    root: Path, *versions: str, replicas: int = 2, engine: str = "process", docker_host: str = ""
) -> Iterator[LabContext]:
    """A lab whose registry holds `versions`; everything that it starts is stopped in the end."""
    for name in ("registry", "production", "work", "run"):
        (root / name).mkdir(parents=True)
    chosen = Settings(replicas=replicas, engine=engine, docker_host=docker_host)
    settings.write(root, chosen)
    world = LabContext(root, chosen, Store(root / "lab.db"))
    share_environments(root)
    try:
        for version in versions:
            release(world, version)
        yield world
    finally:
        teardown(root)
        world.engine.teardown()
        assert running(world) == []
        world.store.close()


def share_environments(root: Path) -> None:
    """Environments' templates are alike in all these labs: installed once."""
    common = wheels() / "templates"
    common.mkdir(exist_ok=True)
    os.symlink(common, root / "work" / "templates")
