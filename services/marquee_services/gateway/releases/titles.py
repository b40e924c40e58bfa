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
# Sorts after every word that begins with the text before it: no UTF-8 has this byte.
_AFTER = b"\xff"
# A list this many times as long as another is searched for the other's places, and not marked;
# and lists are sorted rather than marked if the catalogue is this many times as long.
_MUCH_LONGER = 64
# Beginnings of words up to this length, in characters, whose items are kept in order if the words
# have this many places: a search would take milliseconds to bring them in order.
_SHORT, _MANY = 3, 5_000
# What an empty query finds.
_NOTHING = slice(0, 0)


def words_of(text: str) -> list[str]:
    """Returns the words of a text, lower-cased and without accents."""
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
    cost: int


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
        self._in_order: dict[tuple[int, int], Int32] = {}
        for length in range(1, _SHORT + 1):
            self._keep_in_order(sorted_words, length)

    def look_up(self, query: str) -> TitleQuery:
        """Looks the words of a query up; it takes some microseconds in any catalogue.

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
        whole = self._places(last)
        others = tuple(self._places(word.encode()) for word in dict.fromkeys(words[:-1]))
        cost = sum(_length(part) for part in (prefix, whole, *others))
        is_in_order = prefix == whole or (prefix.start, prefix.stop) in self._in_order
        return TitleQuery(prefix, whole, others, 0 if is_in_order and not others else cost)

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
        whole = self._postings[query.whole]
        if query.others:
            found = self._with_prefix_and_words(query)
            whole = whole[self._among(whole, found)]
        else:
            found = whole if query.prefix == query.whole else self._with_prefix(query.prefix)
        page = whole[start:end]
        if end > len(whole):
            # So many of those found must include enough that are not among the first.
            more = found[:end]
            more = more[~self._among(more, whole)]
            page = np.concatenate([page, more[max(0, start - len(whole)) : end - len(whole)]])
        return self._items[page], len(found)

    def _keep_in_order(self, words: Sequence[str], length: int) -> None:
        """Keeps the items of all words with a common beginning of a length, if they are many."""
        first = 0
        for _, group in groupby(words, lambda word: word[:length]):
            end = first + sum(1 for _ in group)
            part = slice(int(self._starts[first]), int(self._starts[end]))
            if _length(part) >= _MANY and end > first + 1:
                self._in_order[part.start, part.stop] = self._distinct(self._postings[part])
            first = end

    def _places(self, word: bytes) -> slice:
        """Where the items of a word are."""
        place = bisect_left(self._words, word)
        if place < len(self._words) and self._words[place] == word:
            return slice(int(self._starts[place]), int(self._starts[place + 1]))
        return _NOTHING

    def _with_prefix(self, prefix: slice) -> Int32:
        """Returns the ranks of the items with the prefix, ascending."""
        in_order = self._in_order.get((prefix.start, prefix.stop))
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
