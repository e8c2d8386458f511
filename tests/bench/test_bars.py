"""The bench: everything that has a bar is measured, and keeps it. `python3 -m devops_lab test -- bench`."""

from __future__ import annotations

import pytest

from tests.bench.measures import Row, run_bench


@pytest.mark.alone
@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_every_bar_is_kept(request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]) -> None:
    """A bar that is missed is measured once more: something else may have taken the machine for a while."""

    def show(row: Row) -> None:
        with capsys.disabled():
            print(row, flush=True)

    with capsys.disabled():
        print()
    once = request.config.getoption("--once")
    missed = {row.name for row in run_bench(once, show) if not row.ok}
    if missed:
        missed &= {row.name for row in run_bench(once, show) if not row.ok}
    assert missed == set()
