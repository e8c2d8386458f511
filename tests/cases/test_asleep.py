"""A lab in which nobody works and nobody shops ends its production, and goes on when it is opened."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest

from devops_lab.errors import BadInput
from devops_lab.lab import Lab, clean
from devops_lab.lab.removal import RUN_VARIABLE
from devops_lab.platform import locks, settings, web
from devops_lab.platform.agent.rest import Rest
from devops_lab.platform.processes import processes_of
from tests.patience import until
from tests.phases.production import release
from tests.production import ENGINES
from tests.shoplab import copied

MINUTES = 1 / 30  # two seconds


def asleep(root: Path) -> bool:
    return (root / "run" / settings.ASLEEP).exists() and not list(processes_of(root))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("engine", ENGINES)
def test_a_lab_sleeps_when_nobody_is_there_and_wakes_where_it_was(
    engine: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operated: Path
) -> None:
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    monkeypatch.setenv("DEVOPS_LAB_SLEEP_MINUTES", str(MINUTES))
    root = tmp_path / "lab"
    with (
        Lab.open(root, engine=engine)
        if engine == "docker"
        else copied(operated, root, sleep_minutes=MINUTES) as lab
    ):
        if engine == "docker":
            lab.deploy.run(release(lab.world, "1.0.0"))
        version = lab.deploy.current()
        answer = web.ask(f"{lab.world.control.url()}/menu")
    until(lambda: asleep(root), "the lab to sleep", seconds=60)
    with Lab.open(root) as lab:
        assert lab.deploy.current() == version
        assert web.ask(f"{lab.world.control.url()}/menu").text == answer.text
        kinds = [event.kind for event in lab.store.events(limit=100_000)]
        assert kinds.count("lab.asleep") == kinds.count("lab.awake") == 1
        assert "replica.died" not in kinds
        assert not (root / "run" / settings.ASLEEP).exists()
    clean(root)


def test_an_agent_that_was_killed_on_its_way_to_sleep_locks_nobody_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, operated: Path
) -> None:
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    root = tmp_path / "lab"
    with copied(operated, root) as lab:
        version = lab.deploy.current()
        who = lab.world.control.identity()
        assert who
    (root / "run" / settings.ASLEEP).write_text("2026-01-01 00:00")
    os.kill(who[0], signal.SIGKILL)
    with Lab.open(root) as lab:
        assert lab.deploy.current() == version
        assert web.ask(f"{lab.world.control.url()}/menu").status
        assert "serves again" in lab.store.events(kind="lab.awake")[-1].message
    clean(root)


def test_a_production_that_can_not_come_back_keeps_nobody_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    operated: Path,
) -> None:
    monkeypatch.delenv(RUN_VARIABLE, raising=False)
    root = tmp_path / "lab"
    copied(operated, root, sleep_minutes=MINUTES).close()
    until(lambda: asleep(root), "the lab to sleep", seconds=60)
    shutil.rmtree(root / "production/envs")
    for wheel in (root / "registry").rglob("*.whl"):
        wheel.unlink()
    with Lab.open(root) as lab:
        assert "can't serve again" in capsys.readouterr().out
        assert lab.store.events(kind="lab.awake")
    clean(root)


def test_who_has_the_lab_open_and_who_shops_keeps_it_awake(tmp_path: Path) -> None:
    now, requests = 0.0, 0
    rest = Rest(tmp_path, 100.0, lambda: requests)
    rest.awake = lambda: now  # type: ignore[assignment]
    rest.busy_until = now
    note = tmp_path / settings.ASLEEP

    def due(at: float, served: int) -> bool:
        nonlocal now, requests
        now, requests = at, served
        return rest.is_due()

    assert not due(99.0, 0)
    assert not due(99.5, 1)
    assert not due(199.0, 1), "a customer came at 99.5"
    notebook = locks.take(tmp_path / "lock", shared=True)
    assert not due(200.0, 1), "a notebook is open"
    assert not note.exists()
    os.close(notebook)
    assert not due(299.0, 1), "it may have been closed a moment ago"
    assert due(300.5, 1)
    assert note.exists()
    assert not Rest(tmp_path, 0.0, lambda: 0).is_due(), "0 = never"


def test_the_variable_is_minutes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DEVOPS_LAB_SLEEP_MINUTES", "soon")
    with pytest.raises(BadInput, match="minutes"):
        settings.standard()
    monkeypatch.setenv("DEVOPS_LAB_SLEEP_MINUTES", "")
    assert settings.standard() == settings.Settings()
