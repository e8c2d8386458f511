"""Damaged or edited state: it is named with file and field, the rest goes on, and `clean` always works."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from devops_lab.commands import cli
from devops_lab.errors import BadInput, Damaged, LabError, NotALab, RegistryRefused
from devops_lab.lab import Lab, clean
from devops_lab.model import Pool, Replica
from devops_lab.platform import settings
from devops_lab.platform.context import LabContext
from devops_lab.platform.engines.environments import is_whole, read_stamp, uv
from devops_lab.platform.processes import processes_of
from tests.patience import until
from tests.production import new_world, tiny_release, torn_down, with_agent


@pytest.fixture(scope="module")
def founded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    with Lab.open(tmp_path_factory.mktemp("founded") / "lab") as lab:
        return lab.root


@pytest.fixture
def root(founded: Path, tmp_path: Path) -> Path:
    """A lab in which nothing was done."""
    shutil.copytree(founded, tmp_path / "lab", symlinks=True)
    return tmp_path / "lab"


# ---- 8a: the store
def random_bytes(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(8192)
        file.write(os.urandom(20_000))


def other_header(path: Path) -> None:
    path.write_bytes(os.urandom(100) + path.read_bytes()[100:])


def truncated(path: Path) -> None:
    os.truncate(path, 5000)


def emptied(path: Path) -> None:
    os.truncate(path, 0)


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def another_database(path: Path) -> None:
    import sqlite3

    path.unlink()
    with sqlite3.connect(path) as db:
        db.execute("create table events (other text)")


def gone(path: Path) -> None:
    path.unlink()


STORES = [random_bytes, other_header, truncated, emptied, a_folder, another_database, gone]


@pytest.mark.parametrize("damage", STORES)
def test_a_damaged_store_is_named_and_keeps_nobody_from_cleaning(
    root: Path, damage: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    """8a: a traceback of sqlite's from `status`, and from `clean`."""
    for beside in root.glob("lab.db-*"):
        beside.unlink()
    damage(root / "lab.db")
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--lab", str(root)])
    said = capsys.readouterr()
    assert ended.value.code != 0
    assert "lab.db" in said.err
    assert "What to do:" in said.err
    assert "Traceback" not in said.err
    with pytest.raises(SystemExit) as ended:
        cli.main(["clean", "--lab", str(root)])
    assert ended.value.code == 0
    assert not root.exists()


# ---- 8b: the registry
@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("{}", "missing required field"),
        ("", "release.json is damaged"),
        ("[]", "Expected `object`".replace("`", "")),
        ("{", "release.json is damaged"),
        ('{"version": 1}', "version"),
    ],
)
def test_one_damaged_record_is_named_and_the_other_releases_go_on(
    root: Path, text: str, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """8b: `TypeError` from every call of the registry."""
    world = LabContext(root, settings.read(root), Lab.open(root).store)
    for version in ("1.0.0", "1.1.0"):
        tiny_release(world, version)
    with Lab.open(root) as lab:
        for folder in lab.world.registry.glob("1.*"):
            record = {"version": folder.name, "commit": "c", "tag": "t", "digest": "sha256:0", "path": "p"}
            record |= {"bytes": 1, "notes": "", "sbom": "", "t": 0.0}  # type: ignore[dict-item]
            (folder / "release.json").write_text(json.dumps(record))
        (lab.world.registry / "1.0.0" / "release.json").write_text(text)
        assert [release.version for release in lab.release.registry()] == ["1.1.0"]
        with pytest.raises(RegistryRefused, match=r"1\.0\.0/release\.json") as refused:
            lab.release.find("1.0.0")
        assert told in str(refused.value)
        with pytest.raises(BadInput, match=r"no version '9\.9\.9'"):
            lab.release.find("9.9.9")
    with pytest.raises(SystemExit) as ended:
        cli.main(["status", "--lab", str(root)])
    assert ended.value.code == 1
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("damaged")]
    assert "1.0.0/release.json" in row
    clean(root)


# ---- 8c: lab.toml
@pytest.mark.parametrize(
    ("line", "field", "expected"),
    [
        ('grace_seconds = "soon"', "grace_seconds", "seconds, 0 to 600"),
        ("grace_seconds = -1", "grace_seconds", "seconds, 0 to 600"),
        ("grace_seconds = nan", "grace_seconds", "seconds, 0 to 600"),
        ("grace_seconds = inf", "grace_seconds", "seconds, 0 to 600"),
        ('learner = ""', "learner", "name"),
        ('learner = "   "', "learner", "name"),
        ('learner = "Mia\\nIto"', "learner", "name"),
        ('learner = "Mia <x>"', "learner", "name"),
        ("engine = 7", "engine", "str"),
        ('engine = "dokcer"', "engine", "docker"),
        ('replicas = "many"', "replicas", "1 to 8"),
        ("replicas = true", "replicas", "1 to 8"),
        ("replicas = 2.5", "replicas", "1 to 8"),
        ("replicas = 99", "replicas", "1 to 8"),
        ("log_quota_bytes = -1", "log_quota_bytes", "bytes"),
        ("docker_host = 4", "docker_host", "str"),
        ('id = "../../x"', "id", "8 to 32"),
    ],
)
def test_a_setting_that_can_not_be_is_refused_with_field_and_expectation(
    root: Path, line: str, field: str, expected: str
) -> None:
    """8c: hung, failed in git, or in raw words."""
    marker = root / "lab.toml"
    name = line.partition(" ")[0]
    lines = [each for each in marker.read_text().splitlines() if not each.startswith(f"{name} ")]
    marker.write_text("\n".join([*lines, line]))
    with pytest.raises(BadInput) as refused:
        Lab.open(root)
    assert field in refused.value.wrong
    assert expected in refused.value.expected
    clean(root)
    assert not root.exists()


@pytest.mark.parametrize("text", ["", "format = \n", "\x00\xff", "format = 1\nsauce = 1", 'format = "1"'])
def test_settings_that_do_not_parse_are_named_and_keep_nobody_from_cleaning(root: Path, text: str) -> None:
    (root / "lab.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises((BadInput, NotALab), match=r"lab\.toml"):
        Lab.open(root)
    clean(root)
    assert not root.exists()


def test_settings_that_another_editor_wrote_are_read(root: Path) -> None:
    text = (root / "lab.toml").read_text().replace("\n", "\r\n")
    (root / "lab.toml").write_text("\ufeff" + text)
    known = settings.read(root)
    with Lab.open(root) as lab:
        assert lab.settings.replicas == known.replicas
        assert known.id


@pytest.mark.parametrize("text", ["", "[]", "7", '{"pid": "x"}', "{", '{"engine": 3}'])
def test_notes_of_what_runs_that_are_damaged_are_found_out_again(root: Path, text: str) -> None:
    for name in ("agent.json", "engine.json", "drill.json"):
        (root / "run" / name).write_text(text)
    (root / "production" / "envoy").mkdir(parents=True)
    (root / "production" / "envoy" / "envoy.json").write_text(text)
    with Lab.open(root) as lab:
        lab.world.control.ensure()
        assert lab.url
    clean(root)
    assert processes_of(root) == []


def test_a_record_of_another_version_is_named(root: Path) -> None:
    with Lab.open(root) as lab:
        lab.store.put(Pool("a", "1.0.0", 1, 0))
        with lab.store._write() as db:
            db.execute("update records set data = '{\"name\": 1}' where kind = 'Pool'")
        with pytest.raises(Damaged, match=r"A record Pool in .*lab\.db"):
            lab.store.all(Pool)


# ---- 8d: production's environment
@pytest.fixture(scope="module")
def serving(templates: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabContext]:
    with torn_down(new_world(tmp_path_factory.mktemp("labs") / "lab", templates)) as made:
        with_agent(made, "1.0.0")
        made.store.put(Pool("v1.0.0-1", "1.0.0", 2, 100))
        made.control.wait_settled(60)
        yield made


def uv_cache() -> Path:
    """What is damaged there is damaged for every lab of this reader."""
    return Path(uv(["cache", "dir"]).strip())


@pytest.mark.parametrize("what", ["deleted", "truncated", "a package's file"])
def test_an_environment_that_was_damaged_is_made_again(serving: LabContext, what: str) -> None:
    """8d: 30 s, "0 of 2 healthy", and no reason; the file is the template's, too (a hard link)."""
    env = serving.production / "envs" / "1.0.0"
    (packages,) = env.glob("lib/python*/site-packages")
    if what == "deleted":
        shutil.rmtree(env)
    else:
        file = packages / ("bento/__main__.py" if what == "truncated" else "uvicorn/main.py")
        assert not any(
            path.samefile(file) for path in uv_cache().glob(f"archive-v0/*/{file.parent.name}/{file.name}")
        )
        file.write_text("x = (")
        shutil.rmtree(packages / "bento" / "__pycache__", ignore_errors=True)
        shutil.rmtree(packages / "uvicorn" / "__pycache__", ignore_errors=True)
    victims = serving.store.all(Replica)
    for replica in victims:
        serving.engine.kill(replica)
    gone = {replica.id for replica in victims}
    until(
        lambda: gone.isdisjoint(r.id for r in serving.store.all(Replica)),
        "who died to be noticed",
        seconds=20,
    )
    serving.control.wait_settled(60)
    assert {r.pid for r in victims}.isdisjoint(r.pid for r in serving.store.all(Replica))
    assert is_whole(env, read_stamp(env))
    assert read_stamp(env)


def test_what_can_not_be_made_again_is_said_with_its_reason(serving: LabContext) -> None:
    release = tiny_release(serving, "2.0.0")
    serving.store.put(release)
    (serving.root / release.path).unlink()
    serving.store.put(Pool("v2.0.0-2", "2.0.0", 1, 0))
    with pytest.raises(LabError, match=r"(?s)Release 2\.0\.0 is not installed.*It can't be installed again"):
        serving.control.wait_settled(60)
    serving.store.remove(Pool, "v2.0.0-2")
    serving.control.wait_settled(60)
