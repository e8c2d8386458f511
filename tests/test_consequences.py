"""Advice that was ignored in Plan: what comes of it, measured in a real production that is left as it was."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from devops_lab.lab import Lab
from devops_lab.lab.consequences import come_back
from devops_lab.lab.story import FIRST, production_at


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    made = Lab.open(tmp_path_factory.mktemp("back") / "lab", engine="process", pace="quick")
    production_at(made, FIRST)
    yield made
    made.clean()


@pytest.mark.slow
@pytest.mark.timeout(240)
@pytest.mark.parametrize(
    ("change", "figure"),
    [
        ("live-status", "p50 of /api/orders/{id}, ms"),
        ("menu-photos", "the menu as it is sent, kB"),
        ("plate-photos", "memory of a replica, MB"),
        ("log-flood", "log of a replica, MB a minute"),
        ("wrong-total", "wrong bills"),
    ],
)
def test_a_change_against_advice_is_felt_and_goes_again(lab: Lab, change: str, figure: str) -> None:
    found = come_back(lab, change, rate=30, seconds=5)
    print(found)
    felt = found.figures
    before, after = next(pair for name, pair in felt.items() if name.startswith(figure))
    assert after > 1.5 * before
    assert sum(felt["failed, %"]) == 0
    assert lab.deploy.current() == FIRST


@pytest.mark.slow
def test_what_never_reaches_customers_is_refused(lab: Lab) -> None:
    found = come_back(lab, "failing-health", rate=20, seconds=1)
    assert "healthz" in found.refused
    assert "never reached a customer" in str(found)
    assert lab.deploy.current() == FIRST
