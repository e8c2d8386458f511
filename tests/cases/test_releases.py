"""A release is all of its files: a change of any of them is refused; locks mean what they say."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from devops_lab.delivery import image
from devops_lab.delivery.image import images_of
from devops_lab.delivery.materials import pins
from devops_lab.errors import BuildFailed, RegistryRefused
from devops_lab.lab import end_production
from devops_lab.model import Artifact, Pool, Release, Replica
from devops_lab.phases.build import Build
from devops_lab.phases.deploy import Deploy
from devops_lab.phases.release import ReleasePhase, candidate
from devops_lab.phases.test import Test
from devops_lab.pipeline.hook import Pipeline
from devops_lab.platform import locks
from devops_lab.platform.context import LabContext
from devops_lab.platform.control import teardown
from devops_lab.platform.engines.images import WHEEL
from devops_lab.platform.git import git, identity
from devops_lab.platform.processes import processes_of
from devops_lab.platform.settings import Settings, write
from devops_lab.platform.store import Store
from tests.shoplab import commit, found, say_tested

Tamper = Callable[[LabContext, Release], object]


def released(world: LabContext, message: str = "") -> Release:
    """The next version, of a commit that says so; 1.0.0 from its tag."""
    if message:
        commit(world, message)
    say_tested(world, Build(world).run() if message else Build(world).run("v1.0.0"))
    release_phase = ReleasePhase(world)
    if message:
        return release_phase.run()
    artifact = world.store.all(Artifact)[-1]
    with locks.held(release_phase.lock):
        first = release_phase._publish(artifact, release_phase.next_version("v1.0.0"), tag=False, who="")
    world.store.put(first)
    return first


@pytest.fixture(scope="module")
def serving(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    """1.0.0 and then 1.1.0 in production, 1.2.0 in the registry."""
    world = found(tmp_path_factory.mktemp("releases") / "lab", tmp_path_factory)
    try:
        released(world)
        Deploy(world).run("1.0.0", replicas=1)
        released(world, "feat: lunch for two")
        Deploy(world).run("1.1.0", "blue/green")
        released(world, "feat: lunch for three")
        yield world
    finally:
        teardown(world.root)
        assert not processes_of(world.root)
        world.store.close()


@pytest.fixture
def tried(serving: LabContext, tmp_path: Path) -> Iterator[LabContext]:
    """The same, put back afterwards, byte for byte."""
    parts = ("registry", "origin.git", "shop")
    for part in parts:
        shutil.copytree(serving.root / part, tmp_path / part, symlinks=True)
    kept = serving.store.all(Release)
    yield serving
    for part in parts:
        shutil.rmtree(serving.root / part)
        shutil.copytree(tmp_path / part, serving.root / part, symlinks=True)
    serving.store.replace_all(Release, kept)


def rewrite(path: Path, change: Callable[[str], str]) -> None:
    path.chmod(0o644)
    path.write_text(change(path.read_text("utf-8")), "utf-8")


def record(world: LabContext, release: Release, **changed: Any) -> None:
    path = world.registry / release.version / "release.json"
    rewrite(path, lambda text: json.dumps(json.loads(text) | changed, indent=1))


def file_of(world: LabContext, release: Release, end: str) -> Path:
    return next((world.registry / release.version).glob(f"*{end}"))


def add(end: str, text: str) -> Tamper:
    return lambda world, release: rewrite(file_of(world, release, end), lambda old: old + text)


def wheel(world: LabContext, release: Release) -> None:
    path = file_of(world, release, ".whl")
    path.chmod(0o644)
    path.write_bytes(path.read_bytes() + b"!")


BOTH = ("origin", "shop")


def tag(
    world: LabContext, release: Release, repos: tuple[str, ...] = BOTH, message: str = "x", to: str = ""
) -> None:
    for repo in repos:
        options = ["--annotate", "--force", "--message", message, release.tag, to or release.commit]
        git(getattr(world, repo), "tag", *options, env=identity("Mallory"))


def light_tag(world: LabContext, release: Release) -> None:
    git(world.origin, "tag", "--force", release.tag, release.commit)


def link(world: LabContext, release: Release) -> None:
    path = file_of(world, release, ".lock")
    elsewhere = world.work / "elsewhere.lock"
    shutil.copyfile(path, elsewhere)
    path.unlink()
    path.symlink_to(elsewhere)


def agreeing(end: str, text: str) -> Tamper:
    """A changed file, and a record that agrees with it."""

    def change(world: LabContext, release: Release) -> None:
        path = file_of(world, release, end)
        path.chmod(0o644)
        path.write_bytes(path.read_bytes() + text.encode())
        digest = "sha256:" + hashlib.sha256(path.read_bytes()).hexdigest()
        changed: dict[str, Any] = {"files": release.files | {path.name: digest}}
        if end == ".whl":
            changed["digest"] = digest
        record(world, release, **changed)

    return change


def record_and_tag(world: LabContext, release: Release) -> None:
    """Both rewritten, so that they agree with each other."""
    rewrite(file_of(world, release, "sbom.json"), lambda _: "{}")
    digest = "sha256:" + hashlib.sha256(b"{}").hexdigest()
    message = git(world.origin, "tag", "--list", "--format=%(contents)", release.tag)
    tag(world, release, message=message.replace(release.files["sbom.json"], digest))
    made = git(world.origin, "rev-parse", f"refs/tags/{release.tag}")
    record(world, release, files=release.files | {"sbom.json": digest}, tag_object=made)


TAMPERED: dict[str, Tamper] = {
    "wheel": wheel,
    "lock": add(".lock", "iniconfig==2.0.0\n"),
    "lock: a comment": add(".lock", "# nothing\n"),
    "empty bill": lambda world, release: rewrite(file_of(world, release, "sbom.json"), lambda _: "{}"),
    "bill of other packages": lambda world, release: rewrite(
        file_of(world, release, "sbom.json"), lambda text: text.replace("starlette", "starlight")
    ),
    "record: changelog": lambda world, release: record(world, release, notes="nothing new"),
    "record: commit": lambda world, release: record(world, release, commit="0" * 40),
    "record: bytes": lambda world, release: record(world, release, bytes=1),
    "record: as of an older lab": lambda world, release: record(world, release, files={}, tag_object=""),
    "record: another wheel": lambda world, release: record(
        world, release, path=world.store.all(Artifact)[0].path
    ),
    "record: none": lambda world, release: (world.registry / release.version / "release.json").unlink(),
    "record: no JSON": lambda world, release: add("release.json", "}")(world, release),
    "tag moved": lambda world, release: tag(world, release, to="v1.0.0^{}"),
    "tag: message": tag,
    "tag: message, in the clone": lambda world, release: tag(world, release, ("shop",)),
    "tag: lightweight": light_tag,
    "tag deleted": lambda world, release: git(world.origin, "tag", "--delete", release.tag),
    "tag deleted in the clone": lambda world, release: git(world.shop, "tag", "--delete", release.tag),
    "a file more": lambda world, release: (world.registry / release.version / "extra.pth").write_text("x"),
    "a file less": lambda world, release: file_of(world, release, "sbom.json").unlink(),
    "a link in its place": link,
    "wheel and record": agreeing(".whl", "!"),
    "lock and record": agreeing(".lock", "iniconfig==2.0.0\n"),
    "bill and record": agreeing("sbom.json", " "),
    "record and tag": record_and_tag,
}


@pytest.mark.parametrize("what", TAMPERED)
def test_a_release_that_was_changed_is_refused_and_nothing_starts(tried: LabContext, what: str) -> None:
    """4a, 4b: a line more in the lock went into production, and an empty bill of materials passed."""
    release = ReleasePhase(tried).find("1.2.0")
    pools, replicas = tried.store.all(Pool), {replica.id for replica in tried.store.all(Replica)}
    TAMPERED[what](tried, release)
    with pytest.raises(RegistryRefused) as refused:
        Deploy(tried).run("1.2.0", "rolling")
    assert "1.2.0" in str(refused.value)
    assert refused.value.next_step
    assert tried.store.all(Pool) == pools
    assert {replica.id for replica in tried.store.all(Replica)} == replicas
    assert not (tried.production / "envs" / "1.2.0").exists()


@pytest.mark.parametrize("strategy", ["rolling", "blue/green", "canary", "rollback"])
def test_every_way_to_production_looks_at_the_whole_release(tried: LabContext, strategy: str) -> None:
    version = "1.0.0" if strategy == "rollback" else "1.2.0"
    add(".lock", "# nothing\n")(tried, ReleasePhase(tried).find(version))
    deploy = Deploy(tried)
    with pytest.raises(RegistryRefused, match="not what was released"):
        deploy.rollback() if strategy == "rollback" else deploy.run(version, strategy)
    assert deploy.current() == "1.1.0"
    assert deploy.history()[-1].state == "refused"


def test_the_tag_that_is_older_than_its_release_counts_too(tried: LabContext) -> None:
    """The first version's tag comes from the shop's own history, and has no digests in its message."""
    first = ReleasePhase(tried).verify("1.0.0")
    tag(tried, first, message="bento 1.0.0, better")
    with pytest.raises(RegistryRefused, match=r"tag v1\.0\.0 in origin\.git was moved or rewritten"):
        ReleasePhase(tried).verify("1.0.0")


def test_without_the_stores_record_the_tag_still_tells(tried: LabContext) -> None:
    release = ReleasePhase(tried).find("1.2.0")
    tried.store.replace_all(Release, [])
    assert ReleasePhase(tried).verify("1.2.0") == release
    agreeing("sbom.json", " ")(tried, release)
    with pytest.raises(RegistryRefused, match="other digests or notes"):
        ReleasePhase(tried).verify("1.2.0")


def test_a_tag_is_put_back_as_the_error_says(tried: LabContext) -> None:
    release = ReleasePhase(tried).find("1.2.0")
    git(tried.origin, "tag", "--delete", release.tag)
    with pytest.raises(RegistryRefused) as refused:
        ReleasePhase(tried).verify("1.2.0")
    words = refused.value.next_step.partition("git -C ")[2].split()
    git(tried.origin, *words[1:])
    assert ReleasePhase(tried).verify("1.2.0") == release


def test_a_release_of_an_older_lab_is_held_against_what_it_recorded(tried: LabContext) -> None:
    old = replace(ReleasePhase(tried).find("1.2.0"), files={}, tag_object="")
    record(tried, old, files={}, tag_object="")
    tried.store.put(old)
    assert ReleasePhase(tried).verify("1.2.0") == old
    wheel(tried, old)
    with pytest.raises(RegistryRefused, match="not what was released"):
        ReleasePhase(tried).verify("1.2.0")


# ---- between the build and the release
@pytest.fixture
def world(tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> LabContext:
    return found(tmp_path / "lab", tmp_path_factory)


@pytest.mark.parametrize("end", [".lock", ".whl"])
def test_what_changed_beside_the_build_is_neither_tested_nor_released_nor_deployed(
    world: LabContext, end: str
) -> None:
    commit(world, "feat: lunch for two")
    artifact = Build(world).run()
    say_tested(world, artifact)
    path = (world.root / artifact.path).with_suffix(end)
    path.write_bytes(path.read_bytes() + b"\n")
    with pytest.raises(RegistryRefused, match="not the artifact that was built"):
        Test(world).run(artifact)
    with pytest.raises(RegistryRefused, match="not the artifact that was tested"):
        ReleasePhase(world).run()
    with pytest.raises(RegistryRefused, match=f"{end} is not"):
        Deploy(world).install(candidate(artifact), candidate=True)
    assert ReleasePhase(world).registry() == []


# ---- locks
def edited(world: LabContext, path: str, change: Callable[[str], str]) -> None:
    commit(world, "feat: packages", path, change((world.shop / path).read_text("utf-8")))


def asking(world: LabContext, *dependencies: str) -> None:
    """Have pyproject.toml ask for more."""
    lines = "".join(f'\n    "{each}",' for each in dependencies)
    edited(
        world, "pyproject.toml", lambda text: text.replace("\ndependencies = [", f"\ndependencies = [{lines}")
    )


def without(world: LabContext, lock: str, package: str) -> None:
    edited(world, lock, lambda text: re.sub(rf"(?m)^{package}==.*\n", "", text))


@pytest.mark.parametrize(
    ("dependency", "words"),
    [
        ("attrs>=20", "attrs>=20 is not in it"),
        ("starlette<1", "starlette<1 is asked for, and it pins 1"),
        ("Prometheus_Client>=99", "it pins 0"),
        ("psycopg[pool]", "psycopg-pool"),
    ],
)
def test_a_lock_that_does_not_satisfy_pyproject_is_refused(
    world: LabContext, dependency: str, words: str
) -> None:
    """4d: deployed by rolling and canary."""
    asking(world, dependency)
    with pytest.raises(BuildFailed, match=r"requirements\.lock (does not|lacks)") as failed:
        Build(world).run()
    assert words in failed.value.wrong
    assert "Renew it" in failed.value.next_step
    assert world.store.all(Artifact) == []


def test_what_only_other_machines_or_extras_need_is_not_asked_for(world: LabContext) -> None:
    asking(world, "pywin32>=1; sys_platform == 'win32'")
    extra = '[project.optional-dependencies]\nmore = ["attrs"]\n\n[dependency-groups]'
    edited(world, "pyproject.toml", lambda text: text.replace("[dependency-groups]", extra))
    assert "10 packages pinned" in Build(world).run().steps[-1].output


@pytest.mark.parametrize("package", ["h11", "psycopg-binary"], ids=["of a package", "of an extra"])
def test_a_lock_without_what_its_packages_need_is_refused(world: LabContext, package: str) -> None:
    without(world, "requirements.lock", package)
    with pytest.raises(BuildFailed, match="lacks what its own packages need") as failed:
        Build(world).run()
    assert package in failed.value.wrong


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("attrs", "no package with one version"),
        ("attrs>=20", "no package with one version"),
        ("attrs==20.*", "no package with one version"),
        ("attrs @ https://example.org/attrs.whl", "no package with one version"),
        ("-e .", "no package with one version"),
        ("--index-url https://example.org/simple", "no package with one version"),
        ("./attrs.whl", "no package with one version"),
        ("Starlette==1.10.0", "starlette stands there twice"),
        ("psycopg_binary==3.3.9", "psycopg-binary stands there twice"),
        ("\0\1", "no package with one version"),
    ],
)
def test_a_lock_that_pins_nothing_is_refused(world: LabContext, line: str, words: str) -> None:
    edited(world, "requirements.lock", lambda text: f"{text}{line}\n")
    with pytest.raises(BuildFailed, match=words):
        Build(world).run()


def test_hashes_comments_and_markers_are_read() -> None:
    text = """# made by uv
Attrs==25.4.0 \\
    --hash=sha256:aaaa \\
    --hash=sha256:bbbb
    # via bento
pywin32==311 ; sys_platform == 'win32'
typing_extensions==4.16.0 ; python_version >= '3.8'  # via starlette
"""
    assert pins(text) == {"attrs": "25.4.0", "typing-extensions": "4.16.0"}


def test_a_commit_without_a_lock_is_refused(world: LabContext) -> None:
    git(world.shop, "rm", "--quiet", "requirements.lock")
    git(world.shop, "commit", "--quiet", "--message", "fix: no lock", env=identity("Mia Ito"))
    with pytest.raises(BuildFailed, match=r"There is no requirements\.lock") as failed:
        Build(world).run()
    assert "uv pip compile" in failed.value.next_step


class _Empty(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, format: str, *args: Any) -> None:
        pass


def test_a_package_that_does_not_exist_is_found_in_build(
    world: LabContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    """4c: build, test and release were green; it was found at deployment."""
    only = "no-such-package-of-the-shop"
    asks = re.compile(r"(?s)\ndependencies = \[.*?\n\]")
    edited(world, "pyproject.toml", lambda text: asks.sub(f'\ndependencies = ["{only}"]', text))
    edited(world, "requirements.lock", lambda text: f"{only}==1.0\n")
    with ThreadingHTTPServer(("127.0.0.1", 0), _Empty) as server:
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
        monkeypatch.setenv("UV_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
        with pytest.raises(BuildFailed, match=f"{only} was not found") as failed:
            Build(world).run()
        server.shutdown()
    assert "has no such package or version" in failed.value.next_step
    assert world.store.all(Artifact) == []


def attrs() -> str:
    """A package that the lab's own environment has, so that no network is needed."""
    lock = Path(__file__).parents[2] / "requirements.lock"
    return next(line for line in lock.read_text("utf-8").splitlines() if line.startswith("attrs=="))


@pytest.mark.slow
def test_the_tests_get_what_production_gets_and_its_pins_win(world: LabContext) -> None:
    """The tests had a lock of their own: what production lacked, or had in another version, was not seen."""
    edited(world, "requirements.lock", lambda text: f"{text}{attrs()}\n")
    edited(world, "requirements-test.lock", lambda text: f"{text}click==0.0.1\n")
    git(world.shop, "rm", "-r", "--quiet", "tests")
    text = (
        "from importlib.metadata import version\n\n\ndef test_it():\n    import bento.menu\n"
        f"    assert version('attrs') == '{attrs().partition('==')[2]}'\n"
        "    assert version('click') != '0.0.1'\n"
    )
    commit(world, "test: what is installed", "tests/unit/test_packages.py", text)
    report = Test(world).run(Build(world).run())
    assert [case.outcome for case in report.cases] == ["passed"], report.cases


def test_tools_that_do_not_go_with_production_are_named(world: LabContext) -> None:
    without(world, "requirements-test.lock", "pluggy")
    artifact = Build(world).run()
    with pytest.raises(BuildFailed, match=r"The test tools don't go with(.|\n)*pluggy") as failed:
        Test(world).run(artifact)
    assert "requirements-test.lock" in failed.value.next_step


# ---- images
@pytest.fixture(scope="module")
def of_images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    """The same on containers: 1.0.0 serves, 1.1.0 is in the registry."""
    root = found(tmp_path_factory.mktemp("images") / "lab", tmp_path_factory).root
    write(root, Settings(engine="docker", replicas=1))
    world = LabContext(root, Settings(engine="docker", replicas=1), Store(root / "lab.db"))
    try:
        released(world)
        Deploy(world).run("1.0.0")
        released(world, "feat: lunch for two")
        yield world
    finally:
        teardown(root)
        end_production(root)
        world.store.close()


def relabelled(world: LabContext, release: Release) -> str:
    """Push the released image with another label over its tag; return the digest of that."""
    images = images_of(world)
    where = images.registry.repository()
    made = images.docker.client.containers.create(images.pull(release.image), ["true"])
    label = f"LABEL {WHEEL}=sha256:{'0' * 64}"
    made.commit(where, release.version, changes=[label])
    made.remove()
    said = images.docker.client.api.push(where, release.version, stream=True, decode=True)
    return str(next(line["aux"]["Digest"] for line in said if "aux" in line))


@pytest.mark.docker
@pytest.mark.slow
def test_an_image_that_was_changed_is_refused_and_nothing_starts(of_images: LabContext) -> None:
    """Its label under the old tag; then also the record, and in the end the lab's own record."""
    world, release = of_images, ReleasePhase(of_images).find("1.1.0")
    replicas = {replica.id for replica in world.store.all(Replica)}
    changed = relabelled(world, release)

    def refusal() -> str:
        with pytest.raises(RegistryRefused) as refused:
            Deploy(world).run("1.1.0")
        assert {replica.id for replica in world.store.all(Replica)} == replicas
        assert Deploy(world).current() == "1.0.0"
        return refused.value.wrong

    assert "was moved" in refusal()
    record(world, release, image=changed)
    assert "another image than the lab's store" in refusal()
    world.store.remove(Release, "1.1.0")
    assert "other digests or notes" in refusal()


@pytest.mark.docker
@pytest.mark.slow
def test_another_lock_beside_the_same_wheel_makes_another_image(of_images: LabContext) -> None:
    """Images were told apart by their wheel alone: new packages came with the old image."""
    world = of_images
    commit(world, "feat: lunch for three")
    first = Build(world).run()
    pushed = image.publish(world, first)
    edited(world, "requirements.lock", lambda text: f"{text}{attrs()}\n")
    second = Build(world).run()
    assert first.digest == second.digest
    other = image.publish(world, second)
    assert other != pushed
    with pytest.raises(RegistryRefused, match="holds another lock"):
        image.matches(images_of(world), pushed, second)


@pytest.mark.docker
@pytest.mark.slow
def test_a_push_deploys_an_image_too(of_images: LabContext) -> None:
    """An image is made by its release: prepared before that, every deployment by push was refused."""
    Pipeline(of_images).install_hook("deployment")
    commit(of_images, "feat: lunch for four")
    run, _ = Pipeline(of_images).push()
    assert run.ok, run.cause
    assert Deploy(of_images).current() == run.version
