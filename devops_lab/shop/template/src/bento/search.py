"""Fuzzy search: a query finds boxes in spite of typing errors ("teryaki samon").

Each word of the query is held against each word of the text by its edit distance (optimal string alignment: a
swap of neighbours counts as one); the best match counts. All in whole numbers, so that the C scorer
(native/score.c, compiled to _score.so) and the Python one below give the same result to the last digit.
"""

import ctypes
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path

WORD = 24
QUERY_WORDS = 8
BEST = 1000
GOOD = 600
LIBRARY = Path(__file__).with_name("_score.so")


def fold(text: str) -> bytes:
    """Lower case, no accents, only letters, digits and single spaces: what the scorers compare."""
    plain = unicodedata.normalize("NFKD", text.lower()).encode("ascii", "ignore")
    return b" ".join(bytes(c if chr(c).isalnum() else 32 for c in plain).split())


def distance(a: bytes, b: bytes) -> int:
    """Edit distance between two words (optimal string alignment)."""
    before: list[int] = []
    above = list(range(len(b) + 1))
    for i, x in enumerate(a, 1):
        row = [i]
        for j, y in enumerate(b, 1):
            cost = min(above[j] + 1, row[j - 1] + 1, above[j - 1] + (x != y))
            if i > 1 and j > 1 and x == b[j - 2] and a[i - 2] == y:
                cost = min(cost, before[j - 2] + 1)
            row.append(cost)
        before, above = above, row
    return above[-1]


def closeness(word: bytes, other: bytes) -> int:
    """0 to 1000: how close a word of the query is to a word of the text."""
    if word == other:
        return BEST
    if len(word) >= 3 and other.startswith(word):
        return 900
    longest = max(len(word), len(other))
    if 2 * abs(len(word) - len(other)) > longest:
        return 0
    return 800 * (longest - distance(word, other)) // longest


def score_python(query: bytes, text: bytes) -> int:
    """How well a folded text answers a folded query, 0 to 1000: the mean over the query's words."""
    wanted = [word[:WORD] for word in query.split(b" ") if word][:QUERY_WORDS]
    words = [word[:WORD] for word in text.split(b" ") if word]
    if not wanted or not words:
        return 0
    return sum(best(word, words) for word in wanted) // len(wanted)


def best(word: bytes, words: list[bytes]) -> int:
    """The closeness of the closest word; what can't win by its length alone is not compared."""
    if word in words:
        return BEST
    closest = 0
    for other in words:
        longest, gap = max(len(word), len(other)), abs(len(word) - len(other))
        if 800 * (longest - gap) // longest > closest or other.startswith(word):
            closest = max(closest, closeness(word, other))
    return closest


def load_c(path: Path = LIBRARY) -> Callable[[bytes, bytes], int] | None:
    """The compiled scorer, or None where it wasn't built for this machine."""
    try:
        function = ctypes.CDLL(str(path)).bento_score
    except (OSError, AttributeError):
        return None
    function.argtypes = (ctypes.c_char_p, ctypes.c_char_p)
    function.restype = ctypes.c_int
    return function  # type: ignore[no-any-return]


_score_c = load_c()
SCORER = "python" if _score_c is None else "c"
score_folded: Callable[[bytes, bytes], int] = _score_c or score_python


def score(query: str, text: str) -> int:
    """How well a text answers a query, 0 to 1000, by the fastest scorer there is."""
    return score_folded(fold(query), fold(text))


def rank(query: str, texts: Sequence[bytes], limit: int = 10) -> list[tuple[int, int]]:
    """The best matches as (score, index into the folded texts), best first, ties in menu order."""
    wanted = fold(query)
    scored = ((score_folded(wanted, text), index) for index, text in enumerate(texts))
    return sorted((each for each in scored if each[0] >= GOOD), key=lambda each: (-each[0], each[1]))[:limit]
