"""Searches items by the words of their titles."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from marquee_core.arrays import Int32, Int64

_WORD = re.compile(r"\w+")
# Sorts after every character that a word may contain.
_LAST_CHARACTER = chr(0x10FFFF)


def words_of(text: str) -> list[str]:
    """The words of a text, lower-cased and without accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(char for char in plain if not unicodedata.combining(char)))


class TitleIndex:
    """An inverted index from words to items; the words are sorted, for look-ups by prefix."""

    def __init__(self, titles: Sequence[str]) -> None:
        """Indexes the titles of a catalogue, in the order of the item indexes."""
        items_of: dict[str, list[int]] = {}
        self._word_counts = np.zeros(len(titles), dtype=np.int32)
        for item, title in enumerate(titles):
            words = words_of(title)
            self._word_counts[item] = len(words)
            for word in set(words):
                items_of.setdefault(word, []).append(item)
        self._words = sorted(items_of)
        self._items = [np.array(items_of[word], dtype=np.int32) for word in self._words]

    def search(self, query: str, popularity: Int64) -> Int32:
        """Finds items whose titles contain all words of the query.

        The last word of the query may be a prefix of a title's word. Titles that contain it as a
        whole word come first, then titles with fewer words, then more popular items, then items
        with lower indexes.

        Args:
            query: The text to search for.
            popularity: The number of ratings of each item (int64, items).

        Returns:
            Item indexes, best first (int32).
        """
        words = words_of(query)
        if not words:
            return np.empty(0, dtype=np.int32)
        found = self._with_prefix(words[-1])
        for word in words[:-1]:
            found = np.intersect1d(found, self._with_word(word), assume_unique=True)
        partial = ~np.isin(found, self._with_word(words[-1]))
        return found[np.lexsort((found, -popularity[found], self._word_counts[found], partial))]

    def _with_word(self, word: str) -> Int32:
        place = bisect_left(self._words, word)
        if place < len(self._words) and self._words[place] == word:
            return self._items[place]
        return np.empty(0, dtype=np.int32)

    def _with_prefix(self, prefix: str) -> Int32:
        first = bisect_left(self._words, prefix)
        last = bisect_left(self._words, prefix + _LAST_CHARACTER)
        if first == last:
            return np.empty(0, dtype=np.int32)
        return np.unique(np.concatenate(self._items[first:last]))
