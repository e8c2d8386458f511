"""Customers' processes of a folder that is no lab would be leftovers to any lab that is founded meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest

from devops_lab.platform.identity import MARKER


@pytest.fixture(autouse=True)
def lab_of_customers(tmp_path: Path) -> None:
    (tmp_path / MARKER).touch()
