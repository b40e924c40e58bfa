"""Finds items by words of their titles."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from marquee_core.arrays import Int32, Int64

_WORD = re.compile(r"\w+")
_AFTER_ALL_WORDS = chr(0x10FFFF)


def fold(text: str) -> list[str]:
    """The words of a text without case and accents."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(char for char in plain if not unicodedata.combining(char)))


class TitleIndex:
    """An inverted index from words to items, with the words sorted for look-ups by prefix."""

    def __init__(self, titles: Sequence[str]) -> None:
        """Indexes titles by their place."""
        places: dict[str, list[int]] = {}
        self._lengths = np.zeros(len(titles), dtype=np.int32)
        for place, title in enumerate(titles):
            words = fold(title)
            self._lengths[place] = len(words)
            for word in set(words):
                places.setdefault(word, []).append(place)
        self._words = sorted(places)
        self._items = [np.array(places[word], dtype=np.int32) for word in self._words]

    def search(self, query: str, popularity: Int64) -> Int32:
        """Items whose titles have all words of the query, best first.

        The last word may be the beginning of one. Titles that have it whole come first, then those
        with fewer other words, then those with more popularity, then the lower index.

        Args:
            query: The words.
            popularity: Of each item (items).

        Returns:
            Item indexes (int32).
        """
        words = fold(query)
        if not words:
            return np.empty(0, dtype=np.int32)
        found = self._beginning_with(words[-1])
        for word in words[:-1]:
            found = np.intersect1d(found, self._exactly(word), assume_unique=True)
        partial = ~np.isin(found, self._exactly(words[-1]))
        return found[np.lexsort((found, -popularity[found], self._lengths[found], partial))]

    def _exactly(self, word: str) -> Int32:
        place = bisect_left(self._words, word)
        if place < len(self._words) and self._words[place] == word:
            return self._items[place]
        return np.empty(0, dtype=np.int32)

    def _beginning_with(self, prefix: str) -> Int32:
        first = bisect_left(self._words, prefix)
        last = bisect_left(self._words, prefix + _AFTER_ALL_WORDS)
        if first == last:
            return np.empty(0, dtype=np.int32)
        return np.unique(np.concatenate(self._items[first:last]))
