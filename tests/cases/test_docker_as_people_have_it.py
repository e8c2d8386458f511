"""Docker as people have it: contexts, an engine outside of our container, mirrors, rate limits, logins."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from devops_lab.commands.doctor import containers
from devops_lab.errors import EngineUnavailable, LabError
from devops_lab.lab import Lab
from devops_lab.platform import settings
from devops_lab.platform.engines import best, choose, chosen, docker, prepared
from devops_lab.platform.engines.address import USUAL, address
from devops_lab.platform.engines.docker import Docker
from devops_lab.platform.settings import Settings

SOCKET = USUAL.removeprefix("unix://")


@pytest.fixture(autouse=True)
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A reader's own ~/.docker, and no variable that names an engine."""
    for name in ("DOCKER_HOST", "DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "docker"))
    return tmp_path / "docker"


def write_context(config: Path, name: str, host: str, in_use: bool = True) -> None:
    """What `docker context create` and `docker context use` write."""
    meta = config / "contexts" / "meta" / hashlib.sha256(name.encode()).hexdigest()
    meta.mkdir(parents=True)
    endpoints = {"docker": {"Host": host, "SkipTLSVerify": False}}
    (meta / "meta.json").write_text(json.dumps({"Name": name, "Metadata": {}, "Endpoints": endpoints}))
    (config / "config.json").write_text(json.dumps({"currentContext": name} if in_use else {}))


@pytest.fixture
def elsewhere(tmp_path: Path) -> Iterator[str]:
    """The engine's socket at another path, as Docker Desktop, Colima and rootless have it."""
    folder = Path("/tmp") / f"dl-{uuid4().hex[:8]}"  # short: a socket's path has 100 bytes
    folder.mkdir()
    (folder / "d.sock").symlink_to(SOCKET)
    yield f"unix://{folder}/d.sock"
    shutil.rmtree(folder)


# ---- 11a: the engine that the `docker` command would use
def test_the_context_in_use_is_taken_and_the_variables_go_first(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert str(address()) == USUAL
    write_context(config, "colima", "unix:///home/mia/.colima/docker.sock")
    write_context(config, "desktop-linux", "unix:///home/mia/.docker/desktop/docker.sock")
    assert str(address()) == "unix:///home/mia/.docker/desktop/docker.sock, context desktop-linux"
    monkeypatch.setenv("DOCKER_CONTEXT", "colima")
    assert address().context == "colima"
    monkeypatch.setenv("DOCKER_CONTEXT", "default")
    assert str(address()) == USUAL
    monkeypatch.setenv("DOCKER_HOST", "unix:///run/mine.sock")
    assert str(address()) == "unix:///run/mine.sock"
    assert address("unix:///home/mia/.colima/docker.sock").context == "colima"


@pytest.mark.parametrize("damage", ["gone", "[]", "{"])
def test_a_context_that_can_not_be_used_is_named(
    config: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    write_context(config, "work", "unix:///nowhere.sock")
    (meta,) = config.rglob("meta.json")
    meta.write_text(damage) if damage != "gone" else shutil.rmtree(config / "contexts")
    monkeypatch.setenv("DOCKER_CONTEXT", "work")
    with pytest.raises(EngineUnavailable, match=r"(?s)docker context work can't be used.*docker context ls"):
        address()
    row = containers.containers()[0]
    assert row.ok is None
    assert "docker context work can't be used" in row.detail


def test_a_context_whose_engine_is_away_is_named(config: Path) -> None:
    write_context(config, "colima", "unix:///nowhere/colima.sock")
    with pytest.raises(EngineUnavailable, match=r"(?s)colima.sock, context colima.*docker context use"):
        Docker()
    assert "context colima" in containers.containers()[0].detail


@pytest.mark.docker
def test_the_engine_of_a_context_is_used_and_named(config: Path, elsewhere: str, tmp_path: Path) -> None:
    """11a: "installed, and no answer", though `docker ps` worked."""
    write_context(config, "colima", elsewhere)
    row = containers.containers()[0]
    assert row.ok is not False
    assert f"({elsewhere}, context colima)" in row.detail
    with Lab.open(tmp_path / "lab", engine="docker") as lab:
        assert "context colima" in lab.engine
        assert choose(lab.root, lab.settings).name == "docker"


@pytest.mark.docker
def test_a_lab_stays_with_its_engine_when_another_context_is_used(
    config: Path, elsewhere: str, tmp_path: Path
) -> None:
    """Else its agent and its notebook would talk to two engines."""
    write_context(config, "colima", elsewhere)
    asked = Settings(engine="docker")
    assert choose(tmp_path, asked).name == "docker"
    write_context(config, "work", "unix:///nowhere.sock")
    assert chosen(tmp_path, asked).host == elsewhere
    assert choose(tmp_path, asked).name == "docker"
    own = Settings(engine="docker", docker_host=USUAL)
    assert chosen(tmp_path, own).host == USUAL  # what lab.toml says goes first


# ---- 11: inside a container, with the host's socket
APART = """
from pathlib import Path
from devops_lab.commands.doctor import containers
from devops_lab.platform.engines import best, choose
from devops_lab.errors import EngineUnavailable
from devops_lab.platform.settings import Settings
found = best()
try:
    choose(Path("{lab}"), Settings(engine="docker"))
    raised = ""
except EngineUnavailable as error:
    raised = str(error)
print([found.engine, found.why, raised, containers.containers()[0].what_to_do])
"""


@pytest.mark.docker
@pytest.mark.parametrize("network", ["own", "host"])
def test_in_a_container_beside_the_engine_it_is_said_at_once(tmp_path: Path, network: str) -> None:
    """A container is, for this, other namespaces of processes and of the network."""
    options = ["--pid", "--fork", "--mount-proc", *(["--net"] if network == "own" else [])]
    command = ["unshare", *options, sys.executable, "-c", APART.format(lab=tmp_path / "lab")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode and "unshare" in done.stderr:
        pytest.skip(f"no namespaces of our own here: {done.stderr.strip()}")
    engine, why, raised, row = eval(done.stdout)
    if network == "host":
        assert (engine, raised) == ("docker", "")
        return
    assert engine == "process"
    for words in (why, raised, row):
        assert "inside a container" in words
    assert "--network host" in raised


# ---- 11: mirrors, rate limits, logins, proxies
def test_images_and_a_mirror_can_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned = settings.PUBLIC_IMAGES["python"]
    assert settings.public_image("python") == pinned
    monkeypatch.setenv("DEVOPS_LAB_MIRROR", "harbor.example:5000/hub/")
    assert settings.public_image("python") == f"harbor.example:5000/hub/library/{pinned}"
    name, digest = "harbor.example:5000/hub/library/python", pinned.partition("@")[2]
    assert settings.by_digest(settings.public_image("python")) == f"{name}@{digest}"
    monkeypatch.setenv("DEVOPS_LAB_IMAGE_PYTHON", "harbor.example/school/python:3.12")
    assert settings.public_image("python") == "harbor.example/school/python:3.12"
    assert settings.by_digest("harbor.example/school/python:3.12") == "harbor.example/school/python:3.12"


@pytest.mark.docker
def test_an_image_that_is_named_is_used_also_where_one_is_prepared(monkeypatch: pytest.MonkeyPatch) -> None:
    engine, tag = Docker(), f"school-{uuid4().hex[:8]}/python:3.12"
    engine.client.images.get(prepared.find(engine, "python")).tag(tag)
    try:
        monkeypatch.setenv("DEVOPS_LAB_IMAGE_PYTHON", tag)
        assert prepared.find(engine, "python") == tag
        assert tag.partition(":")[0] in containers.prepared(engine.client.api.images()).detail
    finally:
        engine.client.images.remove(tag)


@pytest.mark.parametrize(
    ("words", "reason", "advice"),
    [
        ("toomanyrequests: You have reached your pull rate limit.", "rate limit", "DEVOPS_LAB_MIRROR"),
        ("429 Too Many Requests", "rate limit", "docker login"),
        ("x509: certificate signed by unknown authority", "certificate", "certificate"),
        ("unauthorized: authentication required", "logged in", "docker login"),
        ("no matching manifest for linux/arm64/v8", "this machine", "DEVOPS_LAB_IMAGE"),
    ],
)
def test_a_refused_pull_is_called_what_it_is(
    monkeypatch: pytest.MonkeyPatch, words: str, reason: str, advice: str
) -> None:
    class Images:
        def get(self, name: str) -> None:
            raise docker.Gone("no such image")

        def pull(self, *_: object, **__: object) -> None:
            raise LabError(f"The Docker engine refused to pull python:3.12-slim: {words}")

    engine = object.__new__(Docker)
    engine.__dict__["client"] = type("Client", (), {"images": Images()})()
    monkeypatch.setattr(prepared, "there", lambda docker: {})
    with pytest.raises(EngineUnavailable) as refused:
        prepared.find(engine, "python")
    assert reason in refused.value.wrong
    assert advice in refused.value.next_step
    assert "doctor --prepare" in refused.value.next_step


@pytest.mark.docker
def test_a_missing_credential_helper_and_the_readers_proxies_touch_nothing(
    config: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Found: every build failed, and the proxy with its password stood in each container's environment."""
    config.mkdir()
    way_out = {"default": {"httpProxy": "http://mia:secret@127.0.0.1:9"}}
    (config / "config.json").write_text(json.dumps({"credsStore": "nope", "proxies": way_out}))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("ALL_PROXY", "socks5://127.0.0.1:9")
    engine, base = Docker(), prepared.find(Docker(), "python")
    container = engine.client.containers.create(base, ["true"])
    try:
        assert "secret" not in str(container.attrs["Config"]["Env"])
        vars(engine.client.api)["_auth_configs"].get_all_credentials()  # as a build does
        assert engine.login("example.org/x") is None
    finally:
        container.remove()


def test_auto_says_why_it_took_processes(config: Path, tmp_path: Path) -> None:
    write_context(config, "colima", "unix:///nowhere/colima.sock")
    with Lab.open(tmp_path / "lab", engine="auto") as lab:
        assert lab.engine.startswith("process (No Docker engine answers at unix:///nowhere/colima.sock, con")
        assert best().engine == "process"
