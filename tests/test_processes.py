"""Processes of a lab: who may look into them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from devops_lab.platform import processes
from devops_lab.platform.processes import lets_profilers_in


@pytest.mark.parametrize(("scope", "needed"), [("0\n", False), ("1\n", True), ("2\n", False), (None, False)])
def test_a_child_says_that_it_may_be_looked_into_where_that_has_to_be_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str | None, needed: bool
) -> None:
    monkeypatch.setattr(processes, "YAMA", tmp_path / "ptrace_scope")
    if scope:
        processes.YAMA.write_text(scope)
    say = lets_profilers_in()
    assert (say is not None) == needed
    child = subprocess.run([sys.executable, "-c", "print('runs')"], preexec_fn=say, capture_output=True)
    assert (child.returncode, child.stdout) == (0, b"runs\n")  # also on a kernel without Yama
