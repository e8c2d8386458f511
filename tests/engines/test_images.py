"""Reading an engine's build log and history; these lines are what Docker 20.10 said."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from devops_lab.errors import BuildFailed, DiskFull, LabError
from devops_lab.platform.engines.docker import Docker, labels
from devops_lab.platform.engines.images import Images, follow, layers
from devops_lab.platform.engines.prepared import find
from devops_lab.platform.engines.registry import Registry
from devops_lab.platform.identity import identity
from devops_lab.platform.settings import PUBLIC_IMAGES

BUILD: list[dict[str, Any]] = [
    {"stream": "Step 1/3 : FROM devops-lab/python:3.11"},
    {"stream": "\n"},
    {"stream": " ---> a48ceed0e945\n"},
    {"stream": "Step 2/3 : COPY packages/ /packages/"},
    {"stream": "\n"},
    {"stream": " ---> Using cache\n"},
    {"stream": " ---> 0a66fc4d4ae1\n"},
    {"stream": "Step 3/3 : RUN echo one && echo two"},
    {"stream": "\n"},
    {"stream": " ---> Running in 8d22bcfd4c43\n"},
    {"stream": "one\ntwo\n"},
    {"stream": "Removing intermediate container 8d22bcfd4c43\n"},
    {"stream": " ---> f339872ce7e2\n"},
    {"aux": {"ID": "sha256:f339872ce7e2"}},
    {"stream": "Successfully built f339872ce7e2\n"},
]


def test_each_instruction_becomes_a_step_and_cached_ones_are_told_apart() -> None:
    lines: list[str] = []
    steps = follow(iter(BUILD), lines.append)
    assert [(step.name, step.output.splitlines()) for step in steps] == [
        ("FROM devops-lab/python:3.11", []),
        ("COPY packages/ /packages/", ["cached"]),
        ("RUN echo one && echo two", ["one", "two"]),
    ]
    assert lines[0] == "Step 1/3 : FROM devops-lab/python:3.11"
    assert "two" in lines
    assert "" not in lines


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("The command '/bin/sh -c false' returned a non-zero code: 1", BuildFailed),
        ("write /var/lib/docker/tmp/x: no space left on device", DiskFull),
    ],
)
def test_a_failed_instruction_is_named_with_its_last_words(words: str, kind: type[LabError]) -> None:
    with pytest.raises(kind) as failed:
        follow(iter([*BUILD[:11], {"error": words, "errorDetail": {"message": words}}]), lambda line: None)
    assert "RUN echo one && echo two" in str(failed.value)
    assert "two\n" + words in str(failed.value)


def test_layers_come_lowest_first_without_those_that_add_nothing() -> None:
    copied = "/bin/sh -c #(nop) COPY dir:" + "a" * 64 + " in /opt/packages "
    history = [
        {"CreatedBy": '/bin/sh -c #(nop)  CMD ["python"]', "Size": 0, "Comment": ""},
        {"CreatedBy": copied, "Size": 20, "Comment": ""},
        {"CreatedBy": "/bin/sh -c apt-get update", "Size": 7, "Comment": ""},
        {"CreatedBy": "", "Size": 59, "Comment": "Imported from -"},
    ]
    found = layers(history, ["sha256:1", "sha256:2", "sha256:3"])
    assert [(layer.made_by, layer.bytes, layer.digest) for layer in found] == [
        ("Imported from -", 59, "sha256:1"),
        ("apt-get update", 7, "sha256:2"),
        ("COPY … /opt/packages", 20, "sha256:3"),
    ]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    made = Registry(Docker(), tmp_path / "a lab")
    try:
        yield made
    finally:
        made.teardown()
        made.docker.remove_all(identity(made.root))


@pytest.mark.docker
def test_a_registry_is_made_once_found_again_and_keeps_what_it_has(registry: Registry) -> None:
    address = registry.ensure()
    assert registry.ensure() == address == registry.address()
    assert registry.digest_of("1.0.0") == ""
    container = registry.docker.find(registry.root, "registry")
    assert container is not None
    container.stop(timeout=1)
    assert registry.address() == ""
    assert registry.ensure() == registry.address() != ""
    assert container.attrs["HostConfig"]["PortBindings"]["5000/tcp"][0]["HostIp"] == "127.0.0.1"


@pytest.mark.docker
def test_a_registry_that_the_engine_would_not_trust_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LabError, match=r"does not trust a registry at 192\.0\.2\.7") as refused:
        Registry(Docker(), tmp_path, "192.0.2.7").ensure()
    assert "insecure-registries" in refused.value.next_step


@pytest.mark.docker
def test_a_name_that_is_taken_is_left_alone(registry: Registry, tmp_path: Path) -> None:
    docker = registry.docker.client
    stranger = docker.containers.create(find(registry.docker, "python"), name=registry_name(registry))
    try:
        with pytest.raises(LabError, match="does not carry this lab's mark"):
            registry.ensure()
        stranger.reload()
    finally:
        stranger.remove()


def registry_name(registry: Registry) -> str:
    return f"lab-{labels(registry.root, '')['devops-lab']}-registry"


@pytest.mark.docker
def test_a_full_registry_is_told_and_has_nothing_half(registry: Registry) -> None:
    client, name = registry.docker.client, registry_name(registry)
    room = {"type": "tmpfs", "device": "tmpfs", "o": "size=2m,uid=10001"}
    client.volumes.create(name, driver_opts=room, labels=labels(registry.root, "registry"))
    images, python = Images(registry.docker, registry.root, registry), find(registry.docker, "python")
    with pytest.raises(DiskFull, match="The registry is full") as told:
        images.push(images.look(python, "9.9.9"))
    assert "docker system df" in told.value.next_step
    assert registry.digest_of("9.9.9") == ""
    assert [tag for tag in client.images.get(python).tags if "9.9.9" in tag] == []


@pytest.mark.docker
def test_a_public_image_is_pulled_by_its_digest(registry: Registry, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a registry of our own: the way is the same, and no network is needed."""
    docker = registry.docker
    images = Images(docker, registry.root, registry)
    made = docker.client.containers.create(
        find(docker, "python"), ["true"], labels=labels(registry.root, "test")
    )
    image = made.commit(images.tag("1").partition(":")[0], "1")
    made.remove()
    pushed = images.push(images.look(str(image.id)), "1")
    docker.client.images.remove(str(image.id), force=True)
    monkeypatch.setitem(PUBLIC_IMAGES, "none", f"{registry.repository()}:1@{pushed.digest}")
    for _ in range(2):  # pulled, then there
        assert find(docker, "none") == f"{registry.repository()}@{pushed.digest}"
    assert docker.client.images.get(find(docker, "none")).id == image.id
    docker.client.images.remove(find(docker, "none"))


@pytest.mark.docker
def test_a_cache_that_goes_with_another_lab_costs_a_second_build_and_no_failure(
    registry: Registry, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, said = Images(registry.docker, registry.root, registry), list[str]()
    wheel = registry.root / "bento-1.0.0-py3-none-any.whl"
    wheel.parent.mkdir(exist_ok=True)
    wheel.write_bytes(b"not looked into by these instructions")
    (registry.root / "Dockerfile").write_text(f"FROM {find(registry.docker, 'python')}\nLABEL a=b\n")
    (lock := registry.root / "requirements.lock").write_text("")
    real, asked = registry.docker.client.api.build, list[bool]()

    def build(*, nocache: bool, **rest: Any) -> Iterator[dict[str, Any]]:
        asked.append(nocache)
        if len(asked) == 1:
            yield {"stream": "Step 2/2 : LABEL a=b\n"}
            yield {"error": f'unable to find image "sha256:{"30" * 32}"'}
        yield from real(nocache=nocache, **rest)

    monkeypatch.setattr(registry.docker.client.api, "build", build)
    image = images.build(wheel, lock, registry.root, "1.0.0", "sha256:" + "0" * 64, said.append)
    assert asked == [False, True]
    assert images.find("1.0.0")
    assert not [step.name for step in image.steps if step.output == "cached"]
