"""Searches items by the words of their titles."""

from __future__ import annotations

import re
import unicodedata
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Int32, Int64

_WORD = re.compile(r"\w+")
# Appended to a prefix, it sorts after every word with the prefix: UTF-8 never contains this byte.
_AFTER = b"\xff"
# If a list is this many times as long as another, binary search is used instead of marks. Ranks
# are sorted instead of marked if the catalogue is this many times as long.
_MUCH_LONGER = 64
# The items of prefixes of up to this length in characters are sorted in advance if the words with
# the prefix have this many postings: a search would take milliseconds to sort them.
_SHORT, _MANY = 3, 5_000
# The postings of an empty query.
_NOTHING = slice(0, 0)


def words_of(text: str) -> list[str]:
    """Returns the words of a text, lower-cased and without accents."""
    if text.isascii():
        return _WORD.findall(text.lower())
    plain = unicodedata.normalize("NFKD", text.casefold())
    return _WORD.findall("".join(char for char in plain if not unicodedata.combining(char)))


@dataclass(frozen=True)
class TitleQuery:
    """A query whose words have been looked up in the index.

    Attributes:
        prefix: The postings of the words that begin with the last word of the query.
        whole: The postings of the last word itself.
        others: The postings of the other words, which titles must contain as whole words.
        cost: The number of postings to read; each takes a few nanoseconds.
    """

    prefix: slice
    whole: slice
    others: tuple[slice, ...]
    cost: int


class TitleIndex:
    """An inverted index from words to items.

    Items are ranked in the order in which searches list them, and words are sorted. The postings of
    all words with a prefix are therefore adjacent in one array, and sorting ranks puts the items
    that were found in the order of the results.
    """

    def __init__(self, titles: Iterable[str], popularity: Int64) -> None:
        """Indexes the titles of a catalogue.

        Args:
            titles: The titles, in the order of the item indexes.
            popularity: The number of ratings of each item (int64, items).
        """
        # Words are numbered first by their occurrence, and later alphabetically.
        numbers: dict[str, int] = {}
        words = array("i")
        word_counts, distinct_counts = array("i"), array("i")
        for title in titles:
            found = words_of(title)
            distinct = set(found)
            word_counts.append(len(found))
            distinct_counts.append(len(distinct))
            words.extend([numbers.setdefault(word, len(numbers)) for word in distinct])
        # The items in the order of results, and the rank of each item in it.
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
        # A single key of word and rank is several times faster to sort than two arrays.
        of_word *= max(1, len(ranks))
        of_word += np.repeat(ranks, np.frombuffer(distinct_counts, dtype=np.int32))
        of_word.sort()
        # The ranks of the items that contain each word, ascending for each word.
        self._postings: Int32 = (of_word % max(1, len(ranks))).astype(np.int32)
        self._words = _PackedWords(sorted_words)
        self._sorted_prefixes: dict[tuple[int, int], Int32] = {}
        for length in range(1, _SHORT + 1):
            self._sort_prefixes(sorted_words, length)

    def look_up(self, query: str) -> TitleQuery:
        """Looks up the words of a query, which takes a few microseconds in any catalogue.

        Args:
            query: The text to search for.
        """
        words = words_of(query)
        if not words:
            return TitleQuery(_NOTHING, _NOTHING, (), 0)
        last = words[-1].encode()
        first = bisect_left(self._words, last)
        end = bisect_left(self._words, last + _AFTER)
        prefix = slice(int(self._starts[first]), int(self._starts[end]))
        whole = self._postings_of(last)
        others = tuple(self._postings_of(word.encode()) for word in dict.fromkeys(words[:-1]))
        cost = sum(_length(part) for part in (prefix, whole, *others))
        is_sorted = prefix == whole or (prefix.start, prefix.stop) in self._sorted_prefixes
        return TitleQuery(prefix, whole, others, 0 if is_sorted and not others else cost)

    def search(self, query: TitleQuery, start: int, end: int) -> tuple[Int32, int]:
        """Finds items whose titles contain all words of the query.

        The last word of the query may be a prefix of a title's word. Titles that contain it as a
        whole word come first, then titles with fewer words, then more popular items, then items
        with lower indexes.

        Args:
            query: The result of `look_up`.
            start: The position of the first result to return.
            end: The position after the last result to return.

        Returns:
            Item indexes, the best first (int32), and the total number of results.
        """
        whole = self._postings[query.whole]
        if query.others:
            found = self._with_prefix_and_words(query)
            whole = whole[self._among(whole, found)]
        else:
            found = whole if query.prefix == query.whole else self._with_prefix(query.prefix)
        page = whole[start:end]
        if end > len(whole):
            # This many results include enough that do not contain the last word as a whole.
            more = found[:end]
            more = more[~self._among(more, whole)]
            page = np.concatenate([page, more[max(0, start - len(whole)) : end - len(whole)]])
        return self._items[page], len(found)

    def _sort_prefixes(self, words: Sequence[str], length: int) -> None:
        """Sorts the items of each prefix of a length in advance, if there are many."""
        first = 0
        for _, group in groupby(words, lambda word: word[:length]):
            end = first + sum(1 for _ in group)
            part = slice(int(self._starts[first]), int(self._starts[end]))
            if _length(part) >= _MANY and end > first + 1:
                self._sorted_prefixes[part.start, part.stop] = self._distinct(self._postings[part])
            first = end

    def _postings_of(self, word: bytes) -> slice:
        """Returns the postings of a word."""
        number = bisect_left(self._words, word)
        if number < len(self._words) and self._words[number] == word:
            return slice(int(self._starts[number]), int(self._starts[number + 1]))
        return _NOTHING

    def _with_prefix(self, prefix: slice) -> Int32:
        """Returns the ranks of the items with the prefix, ascending."""
        in_order = self._sorted_prefixes.get((prefix.start, prefix.stop))
        return self._distinct(self._postings[prefix]) if in_order is None else in_order

    def _with_prefix_and_words(self, query: TitleQuery) -> Int32:
        """Returns the ranks of the items with the prefix and all other words, ascending."""
        shortest, *longer = sorted(query.others, key=_length)
        found = self._postings[shortest]
        for part in longer:
            found = found[self._among(found, self._postings[part])]
        if _length(query.prefix) * _MUCH_LONGER < len(found):
            with_prefix = self._with_prefix(query.prefix)
            return with_prefix[self._among(with_prefix, found)]
        return found[self._marks(self._postings[query.prefix])[found]]

    def _distinct(self, ranks: Int32) -> Int32:
        """Returns the distinct ranks in ascending order."""
        if len(ranks) * _MUCH_LONGER < len(self._items):
            distinct: Int32 = np.unique(ranks)
            return distinct
        return np.flatnonzero(self._marks(ranks)).astype(np.int32)

    def _among(self, ranks: Int32, others: Int32) -> NDArray[np.bool_]:
        """Returns whether each rank is among others (bool, ranks); both arrays are ascending."""
        if not len(others):
            return np.zeros(len(ranks), dtype=np.bool_)
        if len(ranks) * _MUCH_LONGER < len(others):
            places = np.searchsorted(others, ranks)
            places[places == len(others)] = 0
            found: NDArray[np.bool_] = others[places] == ranks
            return found
        return self._marks(others)[ranks]

    def _marks(self, ranks: Int32) -> NDArray[np.bool_]:
        """Returns an array that is True at the given ranks (bool, items)."""
        marks = np.zeros(len(self._items), dtype=np.bool_)
        marks[ranks] = True
        return marks


class _PackedWords:
    """Sorted words in a single byte string; a list would take five times the memory."""

    def __init__(self, words: Sequence[str]) -> None:
        encoded = [word.encode() for word in words]
        self._text = b"".join(encoded)
        self._ends = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(word) for word in encoded], out=self._ends[1:])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> bytes:
        return self._text[self._ends[number] : self._ends[number + 1]]


def _length(part: slice) -> int:
    length: int = part.stop - part.start
    return length
