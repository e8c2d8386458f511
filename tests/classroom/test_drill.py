"""The same blind drill in every lab of a class: begun by the teacher, mended by each, seen on the board."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest

from devops_lab.commands import cli
from devops_lab.errors import BadInput
from devops_lab.lab import Lab
from devops_lab.platform import commands, settings
from devops_lab.platform.processes import processes_of
from devops_lab.platform.settings import Settings
from devops_lab.production import drills
from devops_lab.production.drills import Drill, faults, record
from devops_lab.workbook.classroom import drill as classroom
from tests.patience import until
from tests.shoplab import copied


@pytest.fixture
def labs(operated: Path, tmp_path: Path) -> Iterator[dict[str, Lab]]:
    """Two learners' labs whose production serves, in homes as a hub has them."""
    made: dict[str, Lab] = {}
    for name in ("ann", "bob"):
        (tmp_path / name).mkdir()
        made[name] = copied(operated, tmp_path / name / "my-lab", learner=name)
    yield made
    for lab in made.values():
        lab.clean()


def found(lab: Lab) -> Drill:
    drill = lab.operate.current_drill()
    assert drill
    return drill


def command(*words: str) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["classroom", *words])
    assert not ended.value.code


def beside(lab: Lab) -> list[str]:
    """What a drill lets run: its process, the one that attends it, and its customers."""
    running = []
    for process in processes_of(lab.root):
        with suppress(psutil.Error):  # it has just ended
            running.append(" ".join(process.cmdline()))
    names = ("drills.jobs", "classroom.drill", "traffic.customers")
    return [text for text in running if any(name in text for name in names)]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_one_drill_for_all_is_mended_by_each(
    labs: dict[str, Lab], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    ann, bob = labs["ann"], labs["bob"]
    seed = next(words for words in map(str, count()) if faults.draw(ann.world, words) == "lock")
    new = tmp_path / "eve" / "my-lab"
    with Lab.open(new, learner="eve"):
        pass
    bob.world.control.stop(production=True)
    (bob.root / "run" / settings.ASLEEP).touch()  # opening it tells so, before the drill does
    damaged = tmp_path / "zoe"
    damaged.mkdir()
    settings.write(damaged, Settings(learner="zoe"))
    (damaged / "lab.db").write_bytes(b"no database" * 500)
    command("drill", str(tmp_path), "--seed", seed)
    said = capsys.readouterr().out
    assert [f"{lab.root}: begun" in said for lab in (ann, bob)] == [True, True]
    assert f"{new}: Nothing is in production." in said
    assert f"{damaged}: begun" not in said
    assert damaged.name in said
    notes = [record.read(lab.world) for lab in (ann, bob)]
    assert [note and note.fault for note in notes] == ["lock", "lock"]
    assert all(drill.run.blind and not drill.run.fault for drill in (found(ann), found(bob)))
    with pytest.raises(BadInput, match="A drill runs already"):
        ann.operate.drill()

    drill = found(ann)
    until(drill.detected, "its sign", seconds=60)
    assert drill.diagnose("lock")
    drill.mend()
    until(drill.restored, "service", seconds=90, every_seconds=0.5, evidence=drill.seen)
    assert "lock" in found(bob).give_up()
    for lab in (ann, bob):
        until(lambda: beside(lab) == [], f"{lab.root} to be quiet", evidence=lambda: str(beside(lab)))  # noqa: B023
        assert lab.operate.current_drill() is None

    command("board", str(tmp_path), "--watch")
    rows = [line.split() for line in capsys.readouterr().out.splitlines()[-4:]]
    assert [row[0] for row in rows] == ["ann", "bob", "eve", "zoe"]
    assert [" ".join(row[2:4]) for row in rows[1:]] == ["given up", "none -", "unreadable -"]
    assert rows[0][2] == "restored"
    assert all(cell.isdigit() for cell in rows[0][3::2])


def test_a_folder_without_labs_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="There is no lab in"):
        classroom.labs_in(tmp_path)


def test_each_learner_draws_another_one_where_that_is_wished(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[str | None, object, bool | None]] = []

    class Attended:
        def attend(self) -> None:
            pass

    class Opened:
        world = None

        def __enter__(self) -> Opened:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def start(_: object, name: str | None, seed: object, blind: bool | None) -> Attended:
        drawn.append((name, seed, blind))
        return Attended()

    monkeypatch.setattr(Lab, "open", lambda _: Opened())
    monkeypatch.setattr(drills, "start", start)
    monkeypatch.setattr(faults, "draw", lambda _, seed: f"fault of {seed}")
    monkeypatch.setattr(os, "dup2", lambda *_: None)
    for same in (True, False):
        classroom.run(Path("lab"), "7", same)
    assert drawn == [("fault of 7", "7", True), (None, "7", True)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may begin it as somebody else")
def test_it_runs_as_the_labs_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root would write into a learner's lab, the learner could not."""
    settings.write(tmp_path, Settings())
    nobody = pwd.getpwnam("nobody")
    os.chown(tmp_path, nobody.pw_uid, nobody.pw_gid)
    asked: dict[str, Any] = {}
    monkeypatch.setenv("UV_INDEX_URL", "http://teacher:s3cret@127.0.0.1/simple")

    def start(*_: object, **options: Any) -> None:
        asked.update(options)
        raise PermissionError("not here")

    monkeypatch.setattr(commands, "start", start)
    assert dict(classroom.begin([tmp_path], "x")) == {
        tmp_path: "It can't be started as the lab's owner: not here"
    }
    assert (asked["user"], asked["group"], asked["extra_groups"]) == (nobody.pw_uid, nobody.pw_gid, [])
    assert asked["env"]["HOME"] == nobody.pw_dir
    assert "s3cret" not in str(asked["env"])
    os.chown(tmp_path, 4_000_000, 4_000_000)
    assert "can't be started as the lab's owner" in dict(classroom.begin([tmp_path], "x"))[tmp_path]
