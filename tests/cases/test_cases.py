"""Each input that failed once has a test, which is marked `case`."""

from __future__ import annotations

from pathlib import Path

from tests.conftest import NUMBERS

CASES = {1: "g", 2: "e", 3: "d", 4: "d", 5: "d", 6: "a", 7: "f", 8: "d", 9: "a", 10: "b", 11: "a", 12: "b"}
CASES |= {13: "b", 14: "d", 15: "a"}  # kind -> its last one


def test_each_case_has_a_test() -> None:
    texts = [path.read_text("utf-8").split('"""') for path in Path(__file__).parent.glob("test_*.py")]
    found = [begins[1] for text in texts for part in text if (begins := NUMBERS.match(part))]
    wanted = {f"{kind}{chr(one)}" for kind, last in CASES.items() for one in range(ord("a"), ord(last) + 1)}
    assert {number for numbers in found for number in numbers.split(", ")} == wanted
