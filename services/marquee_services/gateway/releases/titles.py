"""Searches items by the words of their titles."""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Int32, Int64

_WORD = re.compile(r"\w+")
# Sorts after every word that begins with the text before it: no UTF-8 has this byte.
_AFTER = b"\xff"
# A list this many times as long as another is searched for the other's places, and not marked;
# and lists are sorted rather than marked if the catalogue is this many times as long.
_MUCH_LONGER = 64
# What an empty query finds.
_NOTHING = slice(0, 0)


def words_of(text: str) -> list[str]:
    """The words of a text, lower-cased and without accents."""
    if text.isascii():
        return _WORD.findall(text.lower())
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(char for char in plain if not unicodedata.combining(char)))


@dataclass(frozen=True)
class TitleQuery:
    """A query that has been looked up: where its words are in the index.

    Attributes:
        prefix: The places of the words that begin with the last word of the query.
        whole: The places of the last word itself.
        others: The places of the other words, which titles must contain as they are.
        cost: The number of places to read; a search takes some nanoseconds for each.
    """

    prefix: slice
    whole: slice
    others: tuple[slice, ...]

    @property
    def cost(self) -> int:
        """The number of places that the search reads."""
        return sum(_length(part) for part in (self.prefix, self.whole, *self.others))


class TitleIndex:
    """An inverted index from words to items.

    The items are numbered by the order in which searches list them, and the words are sorted. So
    the items of all words with a prefix are side by side in one array, and found items are in
    order once they are sorted by their numbers.
    """

    def __init__(self, titles: Iterable[str], popularity: Int64) -> None:
        """Indexes the titles of a catalogue.

        Args:
            titles: The titles, in the order of the item indexes.
            popularity: The number of ratings of each item (int64, items).
        """
        # Words are numbered as they come, and then by their order.
        numbers: dict[str, int] = {}
        words = array("i")
        word_counts, distinct_counts = array("i"), array("i")
        for title in titles:
            found = words_of(title)
            distinct = set(found)
            word_counts.append(len(found))
            distinct_counts.append(len(distinct))
            words.extend([numbers.setdefault(word, len(numbers)) for word in distinct])
        # The items in the order of the results, and the place of each in it.
        counts = np.frombuffer(word_counts, dtype=np.int32)
        self._items = np.lexsort((-popularity, counts)).astype(np.int32)
        ranks = np.empty_like(self._items)
        ranks[self._items] = np.arange(len(ranks), dtype=np.int32)
        sorted_words = sorted(numbers)
        places = np.empty(len(numbers), dtype=np.int64)
        places[[numbers[word] for word in sorted_words]] = np.arange(len(numbers))
        of_word = places[np.frombuffer(words, dtype=np.int32)]
        self._starts = np.zeros(len(numbers) + 1, dtype=np.int64)
        np.cumsum(np.bincount(of_word, minlength=len(numbers)), out=self._starts[1:])
        # One key for word and rank: sorting it is several times faster than by two arrays.
        of_word *= max(1, len(ranks))
        of_word += np.repeat(ranks, np.frombuffer(distinct_counts, dtype=np.int32))
        of_word.sort()
        # The ranks of the items that contain each word, ascending for each word.
        self._postings: Int32 = (of_word % max(1, len(ranks))).astype(np.int32)
        self._words = _PackedWords(sorted_words)

    def look_up(self, query: str) -> TitleQuery:
        """Looks the words of a query up; it takes some microseconds in any catalogue.

        Args:
            query: The text to search for.
        """
        words = words_of(query)
        if not words:
            return TitleQuery(_NOTHING, _NOTHING, ())
        last = words[-1].encode()
        first = bisect_left(self._words, last)
        end = bisect_left(self._words, last + _AFTER)
        prefix = slice(int(self._starts[first]), int(self._starts[end]))
        others = tuple(self._places(word.encode()) for word in dict.fromkeys(words[:-1]))
        return TitleQuery(prefix, self._places(last), others)

    def search(self, query: TitleQuery, start: int, end: int) -> tuple[Int32, int]:
        """Finds items whose titles contain all words of the query.

        The last word of the query may be a prefix of a title's word. Titles that contain it as a
        whole word come first, then titles with fewer words, then more popular items, then items
        with lower indexes.

        Args:
            query: What `look_up` returned.
            start: The place of the first result to return.
            end: The place after the last.

        Returns:
            Item indexes, best first (int32), and the number of all results.
        """
        found = self._with_prefix(query.prefix, query.others)
        if _length(query.whole):
            whole = self._among(found, self._postings[query.whole])
            found = np.concatenate([found[whole], found[~whole]])
        return self._items[found[start:end]], len(found)

    def _places(self, word: bytes) -> slice:
        """Where the items of a word are."""
        place = bisect_left(self._words, word)
        if place < len(self._words) and self._words[place] == word:
            return slice(int(self._starts[place]), int(self._starts[place + 1]))
        return _NOTHING

    def _with_prefix(self, prefix: slice, others: tuple[slice, ...]) -> Int32:
        """The ranks of the items with the prefix and all other words, ascending."""
        with_prefix = self._postings[prefix]
        if not others:
            return self._distinct(with_prefix)
        shortest, *longer = sorted(others, key=_length)
        found = self._postings[shortest]
        for part in longer:
            found = found[self._among(found, self._postings[part])]
        if len(with_prefix) * _MUCH_LONGER < len(found):
            with_prefix = self._distinct(with_prefix)
            return with_prefix[self._among(with_prefix, found)]
        marks = self._marks(with_prefix)
        return found[marks[found]]

    def _distinct(self, ranks: Int32) -> Int32:
        """Ranks in any order, ascending and without repetitions."""
        if len(ranks) * _MUCH_LONGER < len(self._items):
            distinct: Int32 = np.unique(ranks)
            return distinct
        return np.flatnonzero(self._marks(ranks)).astype(np.int32)

    def _among(self, ranks: Int32, others: Int32) -> NDArray[np.bool_]:
        """Which of the ranks are among others; both ascend."""
        if not len(others):
            return np.zeros(len(ranks), dtype=np.bool_)
        if len(ranks) * _MUCH_LONGER < len(others):
            places = np.searchsorted(others, ranks)
            places[places == len(others)] = 0
            found: NDArray[np.bool_] = others[places] == ranks
            return found
        return self._marks(others)[ranks]

    def _marks(self, ranks: Int32) -> NDArray[np.bool_]:
        """True at some ranks (bool, items)."""
        marks = np.zeros(len(self._items), dtype=np.bool_)
        marks[ranks] = True
        return marks


class _PackedWords:
    """Sorted words in one string: a list of them would take five times the memory."""

    def __init__(self, words: Sequence[str]) -> None:
        encoded = [word.encode() for word in words]
        self._text = b"".join(encoded)
        self._ends = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(word) for word in encoded], out=self._ends[1:])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, place: int) -> bytes:
        return self._text[self._ends[place] : self._ends[place + 1]]


def _length(part: slice) -> int:
    length: int = part.stop - part.start
    return length
