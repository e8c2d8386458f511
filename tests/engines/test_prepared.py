"""Base images from the distribution's packages: what goes in, what a failure leaves, which one is used."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devops_lab.errors import EngineUnavailable, LabError, MissingTool
from devops_lab.platform.engines import prepared
from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.engines.packages import Apt, Root, merged
from devops_lab.platform.settings import PUBLIC_IMAGES

apt = pytest.mark.skipif(not shutil.which("apt-get"), reason="this machine has no apt")


@pytest.fixture
def name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An image of our own, made as the registry's is; the machine's own stay as they are."""
    what = f"test-{uuid.uuid4().hex[:8]}"
    monkeypatch.setitem(prepared.RECIPES, what, prepared.RECIPES["registry"])
    yield what
    for image in Docker().client.images.list(f"devops-lab/{what}"):
        Docker().client.images.remove(str(image.id), force=True)


@pytest.mark.parametrize(
    ("path", "place"),
    [
        ("./lib/x86_64-linux-gnu/libc.so.6", "usr/lib/x86_64-linux-gnu/libc.so.6"),
        ("./bin/", "bin"),
        ("./usr/bin/x", "usr/bin/x"),
        ("./etc/lib/x", "etc/lib/x"),
    ],
)
def test_old_packages_are_put_below_usr(path: str, place: str) -> None:
    assert merged(path) == place


@apt
def test_a_package_becomes_part_of_the_root_without_what_nobody_reads(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    files = ("DEBIAN/control", "bin/tool", "usr/share/doc/tool/README", "etc/passwd", "usr/share/tool/data")
    for file in files:
        (tree / file).parent.mkdir(parents=True, exist_ok=True)
        (tree / file).write_text("theirs")
    (tree / "DEBIAN").chmod(0o755)
    control = "Package: tool\nVersion: 1\nArchitecture: all\nMaintainer: x <x@example.com>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(control)
    subprocess.run(
        ["dpkg-deb", "--build", str(tree), str(tmp_path / "a.deb")], check=True, capture_output=True
    )
    shares: list[float] = []
    with tarfile.open(tmp_path / "root.tar", "w") as tar:
        root = Root(tar)
        root.folder("etc")
        root.file("etc/passwd", "ours")
        root.add_packages([tmp_path / "a.deb"], shares.append)
    with tarfile.open(tmp_path / "root.tar") as tar:
        names = tar.getnames()
        assert tar.extractfile("etc/passwd").read() == b"ours"  # type: ignore[union-attr]
        assert tar.getmember("bin").linkname == "usr/bin"
    assert {"usr/bin/tool", "usr/share/tool/data"} <= set(names)
    assert not [found for found in names if "doc" in found]
    assert len(names) == len(set(names))  # an engine refuses an archive with a name twice
    assert shares == [1.0]


@apt
@pytest.mark.docker
@pytest.mark.slow
def test_an_image_is_made_without_a_pull_and_tells_how_far_it_is(name: str) -> None:
    told: list[tuple[str, float]] = []
    docker = Docker()
    tag = prepared.prepare(docker, name, lambda words, share: told.append((words, share)))
    shares = [share for _, share in told]
    assert shares == sorted(shares)
    assert (shares[0], told[-1]) == (0.0, ("done", 1.0))
    assert any("downloading" in words for words, _ in told)
    assert prepared.there(docker)[name] == tag
    said = docker.client.containers.run(tag, ["--help"], entrypoint="docker-registry", remove=True)
    assert b"serve" in said
    assert docker.client.images.get(tag).attrs["Config"]["User"] == "10001"


@apt
@pytest.mark.docker
@pytest.mark.slow
def test_an_image_that_can_not_be_finished_leaves_nothing(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(prepared.RECIPES[name], finish=("docker-registry", "no-such-command"))
    monkeypatch.setitem(prepared.RECIPES, name, recipe)
    docker = Docker()
    made: list[str] = []
    finish = prepared.finish

    def noted(docker: Docker, image: str, *more: Any) -> None:
        made.append(image)
        finish(docker, image, *more)

    monkeypatch.setattr(prepared, "finish", noted)
    with pytest.raises(LabError):
        prepared.prepare(docker, name)
    assert name not in prepared.there(docker)
    assert len(made) == 1
    assert made[0] not in {image.id for image in docker.client.images.list(all=True)}
    assert docker.client.containers.list(all=True, filters={"ancestor": made[0]}) == []


def test_a_machine_without_apt_is_told_what_to_do(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match="no apt") as refused:
        Apt(tmp_path / "apt", "amd64")
    assert "docker save" in refused.value.next_step
    assert not (tmp_path / "apt").exists()


@apt
def test_apts_own_words_are_kept_without_addresses(tmp_path: Path) -> None:
    with pytest.raises(LabError, match="no-such-package-at-all") as refused:
        Apt(tmp_path / "apt", "amd64").resolve(["no-such-package-at-all"], "")
    assert "://" not in str(refused.value)


@pytest.mark.docker
def test_what_is_neither_there_nor_to_be_had_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = f"127.0.0.1:1/none:1@sha256:{'0' * 64}"
    monkeypatch.setitem(PUBLIC_IMAGES, "none", nowhere)
    with pytest.raises(EngineUnavailable, match="no none image here") as refused:
        prepared.find(Docker(), "none")
    assert "doctor --prepare" in refused.value.next_step
    assert "can't be pulled: connection refused" in refused.value.wrong  # the cause, without addresses


@pytest.mark.docker
def test_a_prepared_image_is_preferred_and_an_image_made_from_it_is_none(name: str) -> None:
    docker = Docker()
    base = docker.client.images.get(prepared.find(docker, "python"))
    base.tag(f"devops-lab/{name}", "1")
    base.tag(f"other-{name}", "1")
    try:
        assert prepared.there(docker)[name] == prepared.find(docker, name) == f"devops-lab/{name}:1"
    finally:
        for tag in (f"devops-lab/{name}:1", f"other-{name}:1"):
            docker.client.images.remove(tag)
