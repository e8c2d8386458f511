"""The scorers, and that C and Python agree to the last digit."""

import random

import pytest

from bento import search
from bento.search import closeness, distance, fold, rank, score_python

MENU = [
    fold(text)
    for text in ("Salmon Teriyaki glazed salmon", "Tofu Katsu breaded tofu", "Pad Thai rice noodles")
]


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        (b"soba", b"soba", 0),
        (b"soba", b"sobs", 1),
        (b"soba", b"soa", 1),
        (b"soba", b"osba", 1),
        (b"soba", b"ramen", 5),
        (b"", b"udon", 4),
    ],
)
def test_distance(a, b, expected):
    assert distance(a, b) == distance(b, a) == expected


def test_fold_drops_accents_case_and_punctuation():
    assert fold("  Crème-Brûlée,  2 pcs ") == b"creme brulee 2 pcs"


def test_an_exact_word_is_best():
    assert closeness(b"soba", b"soba") == search.BEST


def test_a_beginning_is_better_than_a_typing_error():
    assert closeness(b"teri", b"teriyaki") > closeness(b"teryaki", b"teriyaki") > 600


def test_typing_errors_still_find_the_box():
    assert [index for _, index in rank("teryaki samon", MENU)] == [0]


def test_nonsense_finds_nothing():
    assert rank("xylophone", MENU) == []


def test_ties_keep_the_order_of_the_menu():
    assert [index for _, index in rank("tofu", [b"tofu box", b"tofu pan", b"tofu"])] == [0, 1, 2]


def test_no_more_results_than_asked_for():
    assert len(rank("tofu", [b"tofu"] * 30, limit=4)) == 4


@pytest.mark.parametrize("query", ["", "   ", "!?"])
def test_an_empty_query_scores_nothing(query):
    assert search.score(query, "Soba") == 0


def test_c_and_python_agree():
    # A wheel without a compiled scorer is a whole shop; one whose compiled scorer can't be loaded is not.
    assert (search.SCORER == "c") == search.LIBRARY.exists()
    dice = random.Random(7)

    def words(most: int) -> bytes:
        return b" ".join(
            bytes(dice.choices(b"abcde", k=dice.choice((1, 2, 3, 5, 8, 30))))
            for _ in range(dice.randint(0, most))
        )

    for _ in range(60):
        query, text = words(10), words(6)
        assert search.score_folded(query, text) == score_python(query, text), (query, text)


def test_a_library_that_is_not_there_is_no_error(tmp_path):
    assert search.load_c(tmp_path / "_score.so") is None
