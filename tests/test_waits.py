"""Waiting ends at once when the answer is there, and with evidence when it never comes."""

from __future__ import annotations

import pickle

import pytest

from devops_lab.errors import LabError, TimedOut
from devops_lab.platform import waits


def test_the_answer_is_returned_as_soon_as_it_is_true() -> None:
    answers = iter([None, 0, "ready", "never asked"])
    assert waits.until(lambda: next(answers), "an answer", every_seconds=0) == "ready"
    assert next(answers) == "never asked"


def test_a_time_out_carries_what_was_seen_and_the_evidence() -> None:
    with pytest.raises(TimedOut) as caught:
        waits.until(lambda: 0, "a port", seconds=0, evidence=lambda: "last log line: boom", next_step="Look.")
    text = str(caught.value)
    assert "a port" in text
    assert "Last seen: 0" in text
    assert "boom" in text
    assert text.endswith("What to do: Look.")


def test_an_exception_of_the_probe_is_not_swallowed() -> None:
    def broken() -> bool:
        raise LabError("no such thing")

    with pytest.raises(LabError, match="no such thing"):
        waits.until(broken, "nothing")


def test_errors_survive_a_process_border() -> None:
    error = LabError("wrong", expected="right", next_step="do it")
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
