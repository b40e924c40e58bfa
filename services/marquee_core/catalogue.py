"""The ids of users and items, and the metadata of items: titles, years and genres."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise, repeat
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import ArrayError, Bool, Int32, Int64, load_array, save_array

# Up to this number of ids are looked up in a dictionary, which takes about 100 bytes per id.
_MAX_INDEXED_IDS = 100_000

MAX_TITLE_BYTES = 16_384
"""The maximum length of an item's title, in bytes of UTF-8."""


class Vocabulary:
    """Maps ids to indexes and back; an id's index is its rank among all ids in UTF-8 byte order.

    The ids are stored as one sorted array of byte strings, which can be memory-mapped. Lookups use
    a dictionary for small vocabularies and binary search for large ones. Indexes do not depend on
    the order of the input rows.
    """

    def __init__(self, ids: NDArray[np.bytes_]) -> None:
        """Takes sorted, distinct ids as UTF-8 bytes.

        Raises:
            ValueError: The ids are not sorted or not distinct, or there are too many for int32.
        """
        if len(ids) > np.iinfo(np.int32).max:
            raise ValueError(f"{len(ids):,} ids exceed the maximum of 2³¹ − 1")
        if len(ids) > 1 and not bool((ids[:-1] < ids[1:]).all()):
            raise ValueError("ids are not sorted and distinct")
        self._ids = ids

    @classmethod
    def of(cls, ids: Iterable[str]) -> Vocabulary:
        """Creates a vocabulary from ids in any order; duplicates are removed."""
        encoded = sorted({name.encode() for name in ids})
        return cls(np.array(encoded, dtype=np.bytes_) if encoded else np.empty(0, dtype="S1"))

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        """Returns the id at an index."""
        return bytes(self._ids[index]).decode()

    def ids(self, indexes: Sequence[int] | NDArray[Any]) -> list[str]:
        """Returns the ids at the given indexes."""
        return [name.decode() for name in self.encoded_ids(indexes)]

    @cached_property
    def index_by_id(self) -> Mapping[str, int]:
        """The index of each id; empty if there are too many ids for a dictionary."""
        if len(self._ids) > _MAX_INDEXED_IDS:
            return {}
        # Ids that are not valid UTF-8 never match a lookup.
        names = (name.decode(errors="surrogateescape") for name in self._ids.tolist())
        return {name: index for index, name in enumerate(names)}

    def encoded_ids(self, indexes: Sequence[int] | NDArray[Any]) -> list[bytes]:
        """Returns the ids at the given indexes, as UTF-8."""
        found: list[bytes] = self._ids.take(np.asarray(indexes, dtype=np.intp)).tolist()
        return found

    def take(self, indexes: Int32) -> Vocabulary:
        """Returns a vocabulary of the ids at the given ascending indexes (int32, m)."""
        return Vocabulary(self._ids[indexes])

    def index(self, name: str) -> int:
        """Returns the index of an id; -1 if it is unknown."""
        if self.index_by_id:
            return self.index_by_id.get(name, -1)
        encoded = name.encode()
        if not 0 < len(encoded) <= self._ids.dtype.itemsize:
            return -1
        index = int(self._ids.searchsorted(np.array(encoded, dtype=self._ids.dtype)))
        return index if index < len(self._ids) and self._ids[index] == encoded else -1

    def indexes(self, names: Sequence[str]) -> Int32:
        """Returns the index of each id (int32, n); -1 if it is unknown."""
        if self.index_by_id:
            indexes = map(self.index_by_id.get, names, repeat(-1))
            return np.fromiter(indexes, np.int32, len(names))
        if not names or not len(self._ids):
            return np.full(len(names), -1, dtype=np.int32)
        encoded = [name.encode() for name in names]
        # The dtype of the stored ids, because NumPy would convert all stored ids to another one.
        # It truncates longer ids; the comparison of lengths below excludes them.
        queries = np.array(encoded, dtype=self._ids.dtype)
        found = np.searchsorted(self._ids, queries).astype(np.int32)
        found[found == len(self._ids)] = 0
        same = (self._ids[found] == queries).tolist()
        width = self._ids.dtype.itemsize
        return np.array(
            [
                index if is_same and len(name) <= width else -1
                for index, is_same, name in zip(found.tolist(), same, encoded, strict=True)
            ],
            dtype=np.int32,
        )

    def save(self, path: Path) -> None:
        """Writes the ids to a `.npy` file."""
        save_array(path, self._ids)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Memory-maps the file written by `save`.

        Raises:
            ArrayError: The file is missing, or is not an array of byte strings.
            ValueError: The ids are not sorted, not distinct or not UTF-8.
        """
        ids = load_array(path, "S", (None,))
        if not ids.tobytes().isascii():
            for name in ids.tolist():
                name.decode()
        return cls(ids)


@dataclass(frozen=True)
class Catalogue:
    """The metadata of items, by item index.

    Attributes:
        items: The ids of the items.
        title_text: All titles, concatenated as UTF-8 (uint8).
        title_offsets: Item i's title is at `title_offsets[i]:title_offsets[i + 1]` in `title_text`
            (int64, items + 1).
        years: Year of each item; 0 if unknown (int16, items).
        genre_bits: A row of packed bits for each item: bit g of a row, counted from the lowest
            bit of its first byte, is set if the item has genre g (uint8, items × bytes).
        genres: Genre names, sorted.
    """

    items: Vocabulary
    title_text: NDArray[np.uint8]
    title_offsets: Int64
    years: NDArray[np.int16]
    genre_bits: NDArray[np.uint8]
    genres: tuple[str, ...]

    @classmethod
    def of(
        cls,
        items: Vocabulary,
        titles: Sequence[str],
        years: Sequence[int],
        genres: Sequence[Sequence[str]],
    ) -> Catalogue:
        """Creates a catalogue.

        Args:
            items: The ids of the items.
            titles: The title of each item.
            years: The year of each item; 0 if unknown.
            genres: The genres of each item.
        """
        names = tuple(sorted({genre for row in genres for genre in row}))
        bit_of = {genre: bit for bit, genre in enumerate(names)}
        bits = np.array([bit_of[genre] for row in genres for genre in row], dtype=np.int64)
        rows = np.repeat(np.arange(len(genres)), [len(row) for row in genres])
        genre_bits = np.zeros((len(genres), (len(names) + 7) // 8), dtype=np.uint8)
        np.bitwise_or.at(genre_bits, (rows, bits // 8), (1 << bits % 8).astype(np.uint8))
        encoded = [title.encode() for title in titles]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(title) for title in encoded], out=offsets[1:])
        return cls(
            items=items,
            title_text=np.frombuffer(b"".join(encoded), dtype=np.uint8),
            title_offsets=offsets,
            years=np.array(years, dtype=np.int16),
            genre_bits=genre_bits,
            genres=names,
        )

    def __len__(self) -> int:
        return len(self.items)

    def take(self, items: Int32) -> Catalogue:
        """Returns a catalogue of the given items only; it keeps all genre names.

        Args:
            items: The item indexes, ascending (int32, m).
        """
        texts = [self.title(item).encode() for item in items.tolist()]
        offsets = np.zeros(len(items) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in texts], out=offsets[1:])
        return Catalogue(
            self.items.take(items),
            np.frombuffer(b"".join(texts), dtype=np.uint8),
            offsets,
            self.years[items],
            self.genre_bits[items],
            self.genres,
        )

    def title(self, index: int) -> str:
        """Returns the title of an item."""
        start, end = self.title_offsets[index], self.title_offsets[index + 1]
        return self.title_text[start:end].tobytes().decode()

    def titles(self) -> Iterator[str]:
        """Returns the titles of all items, in order. Much faster than `title` for each item."""
        text = self.title_text.tobytes()
        for start, end in pairwise(self.title_offsets.tolist()):
            yield text[start:end].decode()

    def item_genres(self, index: int) -> tuple[str, ...]:
        """Returns the names of an item's genres."""
        bits = np.unpackbits(
            self.genre_bits[index], count=len(self.genres), bitorder="little"
        ).tolist()
        return tuple(name for name, is_set in zip(self.genres, bits, strict=True) if is_set)

    def genre_matrix(self) -> Bool:
        """Returns True where an item has a genre (bool, items × genres)."""
        bits = np.unpackbits(self.genre_bits, axis=1, count=len(self.genres), bitorder="little")
        return bits.astype(np.bool_)

    def has_any_genre(self, names: Iterable[str]) -> Bool:
        """Returns True for items that have at least one of the genres (bool, items).

        Args:
            names: Genre names, compared case-insensitively. No item has an unknown genre.
        """
        folded = {name.casefold() for name in names}
        mask = np.array([genre.casefold() in folded for genre in self.genres], np.bool_)
        common = self.genre_bits & np.packbits(mask, bitorder="little")
        has_any: Bool = np.any(common, axis=1)
        return has_any

    def has_all_genres(self, names: Iterable[str]) -> Bool:
        """Returns True for items that have all of the genres (bool, items).

        Args:
            names: Genre names, compared case-insensitively. No item has an unknown genre.
        """
        found = np.ones(len(self), dtype=np.bool_)
        for name in {name.casefold() for name in names}:
            found &= self.has_any_genre([name])
        return found

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder. The genre names are stored in the release's manifest."""
        self.items.save(folder / "items.npy")
        save_array(folder / "title_text.npy", self.title_text)
        save_array(folder / "title_offsets.npy", self.title_offsets)
        save_array(folder / "years.npy", self.years)
        save_array(folder / "genre_matrix.npy", self.genre_bits)

    @classmethod
    def load(cls, folder: Path, genres: tuple[str, ...]) -> Catalogue:
        """Memory-maps the arrays written by `save`.

        Args:
            folder: The folder of the arrays.
            genres: Genre names, in the order of the bits.

        Raises:
            ArrayError: A file is missing or damaged, or has an unexpected dtype or size, or a
                title is too long.
            ValueError: The ids are not sorted or not distinct.
        """
        items = Vocabulary.load(folder / "items.npy")
        text = load_array(folder / "title_text.npy", np.uint8, (None,))
        offsets = load_array(folder / "title_offsets.npy", np.int64, (len(items) + 1,))
        lengths = np.diff(offsets)
        if offsets[0] or offsets[-1] != len(text) or (lengths < 0).any():
            raise ArrayError("title_offsets.npy: the offsets do not match the titles")
        if len(items) and lengths.max() > MAX_TITLE_BYTES:
            raise ArrayError(f"title_text.npy: a title has more than {MAX_TITLE_BYTES} bytes")
        catalogue = cls(
            items=items,
            title_text=text,
            title_offsets=offsets,
            years=load_array(folder / "years.npy", np.int16, (len(items),)),
            genre_bits=_load_genres(folder, len(items), len(genres)),
            genres=genres,
        )
        try:
            for _ in catalogue.titles():
                pass
        except UnicodeDecodeError as error:
            raise ArrayError(f"title_text.npy: a title is not UTF-8: {error}") from error
        return catalogue


def _load_genres(folder: Path, item_count: int, genre_count: int) -> NDArray[np.uint8]:
    """Loads the packed genre bits; converts those of older releases (one uint32 per item)."""
    width = (genre_count + 7) // 8
    if not (folder / "genre_bits.npy").exists():
        return load_array(folder / "genre_matrix.npy", np.uint8, (item_count, width))
    words = load_array(folder / "genre_bits.npy", np.uint32, (item_count,))
    return words.astype("<u4").view(np.uint8).reshape(item_count, 4)[:, :width]
