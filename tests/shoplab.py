"""Labs with the real shop's repository, for the tests of Build, Test, Release and the pipeline."""

from __future__ import annotations

import shutil
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from devops_lab.lab import Lab
from devops_lab.model import Artifact, Case, TestReport
from devops_lab.platform import settings
from devops_lab.platform.context import LabContext
from devops_lab.platform.git import git, identity
from devops_lab.platform.settings import Settings
from devops_lab.platform.store import Store
from devops_lab.shop import found_repository
from tests import sharing


def found(root: Path, factory: pytest.TempPathFactory) -> LabContext:
    """A lab of its own; only the packages that the shop's tests need are shared within a test session."""
    for name in ("registry", "production", "work", "run"):
        (root / name).mkdir(parents=True)
    shared = sharing.shared(factory) / "templates"
    shared.mkdir(exist_ok=True)
    (root / "work" / "templates").symlink_to(shared)
    found_repository(root / "origin.git", root / "shop", date(2026, 1, 5))
    settings.write(root, Settings())
    return LabContext(root, Settings(), Store(root / "lab.db"))


def copied(source: Path, root: Path, **chosen: Any) -> Lab:
    """A lab that begins where another one was left, with these settings; its production serves again."""
    shutil.copytree(source, root, symlinks=True)
    settings.write(root, replace(settings.read(root), **chosen))
    lab = Lab.open(root)
    lab.world.control.ensure()
    lab.world.control.wait_settled(60)
    return lab


def commit(world: LabContext, message: str, path: str = "NOTES.md", text: str = "") -> str:
    """Commit one file on the clone's main, and return the commit's id."""
    file = world.shop / path
    file.parent.mkdir(exist_ok=True, parents=True)
    file.write_text(text or message, encoding="utf-8")
    git(world.shop, "add", "--all")
    git(world.shop, "commit", "--quiet", "--message", message, env=identity("Mia Ito"))
    return git(world.shop, "rev-parse", "HEAD")


def say_tested(world: LabContext, artifact: Artifact, *gate: str) -> TestReport:
    """Say that an artifact was tested, with the gate closed by these reasons."""
    case = Case("unit/test_x::test_y", "unit", "passed", 0.1)
    report = TestReport(artifact.commit, artifact.digest, [case], 95.0, 1.0, artifact.t, list(gate))
    world.store.put(report)
    return report
