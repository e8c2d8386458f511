"""`Lab`: founding, opening again, refusing what is no lab, sharing, letting go, and cleaning up."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections import namedtuple
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from devops_lab import lab as labs
from devops_lab import views
from devops_lab.errors import BadInput, DiskFull, LabError, LabInUse, MissingTool, NotALab, TimedOut
from devops_lab.lab import MAKING, RUN_VARIABLE, Lab
from devops_lab.model import Release
from devops_lab.platform import settings
from devops_lab.platform.git import git
from devops_lab.platform.variables import command
from tests.shoplab import say_tested

Usage = namedtuple("Usage", "total used free")
FOUNDED = {"lab.toml", "lab.db", "shop", "origin.git", "registry", "production", "work", "run"}


@pytest.fixture(autouse=True)
def not_within_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(RUN_VARIABLE, raising=False)


def files(root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in root.rglob("*")}


def in_another_process(code: str, root: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    program = f"import sys\nfrom devops_lab import lab as labs\nroot = {str(root)!r}\n{code}"
    return subprocess.run(
        [sys.executable, "-c", program],
        env=command() | variables,
        cwd=Path(labs.__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


# ---- founding and opening
def test_open_founds_a_lab(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "läb of mine"
    with Lab.open(root, learner="Ada") as lab:
        assert {p.name for p in root.iterdir()} - {"lab.db-wal", "lab.db-shm"} == FOUNDED
        assert replace(lab.settings, id="", home="") == settings.Settings(learner="Ada")
        assert lab.code.head().id == git(lab.world.origin, "rev-parse", "main")
        assert "v1.0.0" in git(lab.world.shop, "tag")
        (event,) = lab.store.events(kind="lab.founded")
        assert event.who == "Ada"
        assert "0 of 10" in views.lifecycle(lab.store).caption, "to open a lab is not to plan"
        assert (lab.url, lab.replicas()) == ("", [])
    assert (root / "run").stat().st_mode & 0o077 == 0


def test_it_opens_again_with_what_it_has_and_with_new_wishes(tmp_path: Path) -> None:
    Lab.open(tmp_path / "lab", pace="class", learner="Ada").close()
    with Lab.open(tmp_path / "lab") as lab:
        assert (lab.settings.pace, lab.settings.learner) == ("class", "Ada")
        assert len(lab.store.events(kind="lab.founded")) == 1
    with Lab.open(tmp_path / "lab", pace="quick", engine="auto") as lab:
        assert (lab.settings.pace, lab.settings.engine, lab.settings.learner) == ("quick", "auto", "Ada")
    assert settings.read(tmp_path / "lab").pace == "quick"


def test_a_founding_that_was_broken_off_is_begun_again(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    (root / "shop" / "half").mkdir(parents=True)
    (root / "lab.toml").write_text("")
    (root / MAKING).touch()
    with Lab.open(root) as lab:
        assert lab.code.head()
    assert not (root / "shop" / "half").exists()
    assert not (root / MAKING).exists()


def fail(error: BaseException) -> Callable[..., None]:
    def raising(*_: Any) -> None:
        raise error

    return raising


@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_a_founding_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    (tmp_path / "empty").mkdir()
    with monkeypatch.context() as broken:
        broken.setattr(settings, "write", fail(error))
        for name in ("new", "empty"):
            with pytest.raises((KeyboardInterrupt, DiskFull)):
                Lab.open(tmp_path / name)
    assert files(tmp_path) == {"empty"}
    Lab.open(tmp_path / "empty").close()


def test_two_notebooks_found_one_lab_at_the_same_moment(tmp_path: Path) -> None:
    opened: list[Lab] = []
    threads = [threading.Thread(target=lambda: opened.append(Lab.open(tmp_path / "lab"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(opened) == 3
    assert len(opened[0].store.events(kind="lab.founded")) == 1
    for lab in opened:
        lab.close()


# ---- what is no place for a lab
@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"thesis.txt": "precious"}, "is not a lab"),
        ({"lab.toml": "format = 99\n", "lab.db": "?"}, "newer version"),
        ({"lab.toml": "format = = 1\n", "lab.db": "?"}, "does not parse"),
    ],
)
def test_a_directory_with_something_else_is_refused_and_left_alone(
    tmp_path: Path, content: dict[str, str], told: str
) -> None:
    for name, text in content.items():
        (tmp_path / name).write_text(text)
    for attempt in (Lab.open, labs.clean):
        with pytest.raises(NotALab, match=told) as refused:
            attempt(tmp_path)
        assert refused.value.next_step
    assert {p.name: p.read_text() for p in tmp_path.iterdir()} == content


def test_a_file_is_no_place_nor_below_one(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    with pytest.raises(NotALab, match="is a file"):
        Lab.open(file)
    with pytest.raises(LabError, match="Can't make a lab"):
        Lab.open(file / "lab")
    assert file.read_text() == "mine"


def test_where_nobody_may_write_says_so(tmp_path: Path) -> None:
    if os.geteuid() == 0:
        pytest.skip("root may write everywhere")
    tmp_path.chmod(0o500)
    with pytest.raises(LabError, match="directory that you can write to"):
        Lab.open(tmp_path / "lab")


@pytest.mark.parametrize("wish", [{"engine": "podman"}, {"pace": "quik"}])
def test_an_unknown_wish_is_refused_before_anything_is_made(tmp_path: Path, wish: dict[str, str]) -> None:
    with pytest.raises(BadInput, match=next(iter(wish.values()))):
        Lab.open(tmp_path / "lab", **wish)
    assert files(tmp_path) == set()
    Lab.open(tmp_path / "lab").close()
    before = (tmp_path / "lab" / "lab.toml").read_text()
    with pytest.raises(BadInput):
        Lab.open(tmp_path / "lab", **wish)
    assert (tmp_path / "lab" / "lab.toml").read_text() == before


def test_a_full_disk_is_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 10**6, 10**6))
    with pytest.raises(DiskFull, match=r"Only 1 MB.*\nExpected: 300 MB\nWhat to do: Free"):
        Lab.open(tmp_path / "lab")
    assert files(tmp_path) == set()


def test_without_git_nothing_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingTool, match=r"(?s)no git.*Install it"):
        Lab.open(tmp_path / "lab")
    assert files(tmp_path) == set()


# ---- sharing
def test_notebooks_share_a_lab_and_a_run_has_it_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "lab"
    refused = pytest.raises(LabInUse, match="notebook or run")
    with Lab.open(root), Lab.open(root), refused, labs.held(root):
        pass
    with labs.held(root):
        for attempt in (Lab.open, labs.clean):
            with pytest.raises(LabInUse, match="another run"):
                attempt(root)
        with pytest.raises(LabInUse), labs.held(root):
            pass
        monkeypatch.setenv(RUN_VARIABLE, "1")  # as the run's own kernels have it
        Lab.open(root).close()
        monkeypatch.delenv(RUN_VARIABLE)
    assert (root / "lab.toml").exists()
    Lab.open(root).close()


def test_a_run_in_another_process_excludes_and_its_death_lets_go(tmp_path: Path) -> None:
    root = tmp_path / "lab"
    lab = Lab.open(root)
    tried = in_another_process("with labs.held(labs.Path(root)): pass", root)
    assert "LabInUse" in tried.stderr
    lab.close()
    code = "import os\nheld = labs.held(labs.Path(root))\nheld.__enter__()\nos.kill(os.getpid(), 9)"
    assert in_another_process(code, root).returncode == -9
    Lab.open(root).close()


def test_close_lets_go_and_may_be_repeated(tmp_path: Path) -> None:
    with Lab.open(tmp_path / "lab") as lab:
        pass
    lab.close()
    with labs.held(tmp_path / "lab"):
        pass


def test_labs_live_side_by_side(tmp_path: Path) -> None:
    with Lab.open(tmp_path / "one", learner="Ada") as one, Lab.open(tmp_path / "two", learner="Bo") as two:
        one.store.event("plan", "plan.added", "lab", "here")
        assert two.store.events(kind="plan.added") == []
        assert one.world.control.identity() is None
        one.clean()
        assert not (tmp_path / "one").exists()
        assert two.status()["lab"] == "two"
        assert two.code.head()


# ---- cleaning
def test_clean_removes_also_what_is_read_only(tmp_path: Path) -> None:
    lab = Lab.open(tmp_path / "lab")
    wheel = lab.world.registry / "1.0.0" / "bento.whl"
    wheel.parent.mkdir()
    wheel.touch(0o400)
    wheel.parent.chmod(0o500)
    lab.clean()
    assert files(tmp_path) == set()


def test_a_founding_that_was_broken_off_can_be_cleaned(tmp_path: Path) -> None:
    (tmp_path / "lab" / "shop").mkdir(parents=True)
    (tmp_path / "lab" / MAKING).touch()
    labs.clean(tmp_path / "lab")
    assert files(tmp_path) == set()


def test_a_removal_that_is_slow_is_no_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, remove = Lab.open(tmp_path / "lab"), shutil.rmtree
    clock = [0.0]

    def slow(*arguments: Any, **more: Any) -> None:
        clock[0] += 60.0
        remove(*arguments, **more)

    monkeypatch.setattr("devops_lab.lab.shutil.rmtree", slow)
    monkeypatch.setattr("devops_lab.platform.clock.steady", lambda: clock[0])
    lab.clean()
    assert files(tmp_path) == set()


def test_what_can_not_be_removed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lab, clock = Lab.open(tmp_path / "lab"), iter(range(0, 10_000, 2))
    with monkeypatch.context() as broken:
        broken.setattr("devops_lab.lab.shutil.rmtree", lambda *_, **__: None)
        broken.setattr("devops_lab.platform.clock.steady", lambda: float(next(clock)))
        with pytest.raises(TimedOut, match=r"to be removed.*\nWhat to do"):
            lab.clean()
    lab.clean()


# ---- what it tells
def test_status_and_trail_of_a_released_version(tmp_path: Path) -> None:
    with Lab.open(tmp_path / "lab") as lab:
        assert lab.status()["releases"] == []
        change = "dietary-filter"
        lab.code.branch("work")
        lab.code.apply(change)
        lab.code.merge("work")
        artifact = lab.build.run()
        say_tested(lab.world, artifact)
        release = lab.release.run(why="customers asked for it", artifact=artifact)
        status = lab.status()
        assert status["releases"] == [release.version] == ["1.1.0"]
        assert (status["in_production"], status["agent"], status["production"]) == ("", False, {})
        assert status["head"] == lab.code.head().short
        links = [row[:3] for row in lab.trail("1.1.0")]
        assert links[0][0] == "release:1.1.0"
        assert (f"artifact:{artifact.digest}", "built from", f"commit:{artifact.commit}") in links
        with pytest.raises(BadInput, match=r"1\.1\.0"):
            lab.trail("1.1.1")


def test_the_default_lab_is_named_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVOPS_LAB_DIR", str(tmp_path / "mine"))
    with Lab.open() as lab:
        assert lab.root == tmp_path / "mine"
    assert (tmp_path / "mine" / "lab.toml").exists()


def test_a_new_lab_takes_the_engine_of_the_environment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEVOPS_LAB_ENGINE", "docker")
    with Lab.open(tmp_path / "lab") as lab:
        assert lab.settings.engine == "docker"
    monkeypatch.delenv("DEVOPS_LAB_ENGINE")
    with Lab.open(tmp_path / "lab") as lab:
        assert lab.settings.engine == "docker", "a lab keeps its engine"


def test_a_lab_with_releases_stays_on_its_engine(tmp_path: Path) -> None:
    with Lab.open(tmp_path / "lab") as lab:
        lab.store.put(Release("1.0.0", "c", "v1.0.0", "sha256:0", "p", 1, "", "", 0.0))
    with pytest.raises(BadInput, match="made for the engine process"):
        Lab.open(tmp_path / "lab", engine="docker")
    with Lab.open(tmp_path / "lab") as lab:
        assert lab.settings.engine == "process"
