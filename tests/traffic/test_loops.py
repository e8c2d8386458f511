"""Both kinds of load on one server that freezes: the open one sees it, the closed one hardly does."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from devops_lab.errors import BadInput
from devops_lab.lab import Lab
from devops_lab.platform.processes import processes_of
from devops_lab.platform.traffic.load import percentile
from devops_lab.platform.traffic.loops import compare_loops, freeze, serving
from tests.patience import until


def test_a_closed_loop_leaves_out_what_customers_wait(tmp_path: Path) -> None:
    found = compare_loops(tmp_path, rate=100, seconds=3, freeze_seconds=1, users=2)
    # a third of all requests fell due while the server stood still, and waited half of that time on average
    assert percentile(found.open, 0.9) > 0.4
    assert percentile(found.closed, 0.9) < 0.2
    assert sum(waited > 0.5 for waited in found.closed) <= 2
    assert sum(waited > 0.5 for waited in found.open) >= 40
    assert found.open[-1] > 0.9
    assert found.closed[-1] > 0.9
    assert processes_of(tmp_path) == []
    assert list((tmp_path / "work").iterdir()) == []


def test_an_interrupt_leaves_no_frozen_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("devops_lab.platform.traffic.loops.pause", interrupted)
    with pytest.raises(KeyboardInterrupt), serving(tmp_path) as (server, _):
        freeze(server, 1.0)
    assert processes_of(tmp_path) == []


def test_a_lab_that_is_founded_meanwhile_takes_nothing_for_left_over(tmp_path: Path) -> None:
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(compare_loops, tmp_path, rate=20, seconds=3, freeze_seconds=0.5, users=1)
        until(lambda: len(processes_of(tmp_path)) == 2, "server and customers")
        Lab.open(tmp_path / "another").clean()
        assert found.result().open


@pytest.mark.parametrize(("freeze_seconds", "users"), [(3.0, 2), (0.0, 2), (1.0, 0), (1.0, 99)])
def test_a_comparison_that_makes_no_sense_is_refused(
    tmp_path: Path, freeze_seconds: float, users: int
) -> None:
    with pytest.raises(BadInput, match="A freeze of"):
        compare_loops(tmp_path, seconds=5, freeze_seconds=freeze_seconds, users=users)
