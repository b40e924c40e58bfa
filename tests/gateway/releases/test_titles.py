"""The title index agrees with a scan of all titles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from marquee_services.gateway.releases import titles
from marquee_services.gateway.releases.titles import TitleIndex, words_of

# Words that are prefixes of others, including other alphabets and accents.
WORDS = ["a", "at", "ate", "the", "then", "Été", "ete", "straße", "STRASSE", "я", "яд", "東京", "2"]
texts = st.lists(st.sampled_from([*WORDS, "!", "\n"]), max_size=5).map(" ".join)


def by_scanning(items: list[str], popularity: list[int], query: str) -> list[int]:
    """Return the items that a query matches, best first, by scanning all titles."""
    found = []
    *whole, last = words_of(query) or [""]
    for item, title in enumerate(items):
        words = words_of(title)
        if last and set(whole) <= set(words) and any(word.startswith(last) for word in words):
            found.append((last not in words, len(words), -popularity[item], item))
    return [item for *_, item in sorted(found)]


@pytest.mark.parametrize(("much_longer", "many"), [(0, 1), (2, 1), (1000, 1), (2, 1000)])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.tuples(texts, st.integers(0, 2)), max_size=12),
    texts,
    st.integers(0, 6),
    st.integers(0, 6),
)
@example([("the the then", 0), ("then", 0)], "the the", 0, 5)
def test_the_index_finds_what_a_scan_finds(
    monkeypatch: pytest.MonkeyPatch,
    much_longer: int,
    many: int,
    items: list[tuple[str, int]],
    query: str,
    start: int,
    size: int,
) -> None:
    """Pages and counts agree, however the posting lists are searched."""
    monkeypatch.setattr(titles, "_MUCH_LONGER", much_longer)
    monkeypatch.setattr(titles, "_MANY", many)
    names, popularity = [title for title, _ in items], [count for _, count in items]
    index = TitleIndex(names, np.array(popularity, np.int64))
    expected = by_scanning(names, popularity, query)
    found, count = index.search(index.look_up(query), start, start + size)
    assert found.tolist() == expected[start : start + size]
    assert count == len(expected)


def test_the_cost_of_a_query_is_the_number_of_entries_read() -> None:
    """A letter that many titles begin with costs more than a word of one title."""
    names = [f"T{number} {number}" for number in range(50)]
    index = TitleIndex(names, np.zeros(50, np.int64))
    assert index.look_up("t").cost == 50
    assert index.look_up("4").cost == 12  # as a prefix of 11 words, and as a word
    assert index.look_up("49").cost == 0  # only as a word, whose items are in order
    assert index.look_up("nothing").cost == 0
    assert index.look_up("!").cost == 0
