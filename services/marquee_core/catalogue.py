"""What a release knows about its users and items: ids, titles, years, genres."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Int32, Int64, load_array, save_array


class Vocabulary:
    """Ids and their indexes: an id's index is its place among all ids sorted by UTF-8 bytes.

    The ids are one sorted array of bytes, so a vocabulary is memory-mapped and a look-up is a
    binary search; the order of the rows that the ids came from cannot matter.
    """

    def __init__(self, ids: NDArray[np.bytes_]) -> None:
        """Takes ids that are sorted and distinct.

        Raises:
            ValueError: They are not.
        """
        if len(ids) > 1 and not bool((ids[:-1] < ids[1:]).all()):
            raise ValueError("ids are not sorted and distinct")
        self._ids = ids

    @classmethod
    def of(cls, ids: Iterable[str]) -> Vocabulary:
        """Makes a vocabulary of ids in any order, repeats allowed."""
        encoded = sorted({name.encode() for name in ids})
        return cls(np.array(encoded, dtype=np.bytes_) if encoded else np.empty(0, dtype="S1"))

    def __len__(self) -> int:
        return len(self._ids)

    def id(self, index: int) -> str:
        """The id at an index."""
        return bytes(self._ids[index]).decode()

    def ids(self, indexes: Sequence[int] | NDArray[Any]) -> list[str]:
        """The ids at indexes."""
        return [name.decode() for name in self._ids[np.asarray(indexes, dtype=np.int64)].tolist()]

    def index(self, name: str) -> int:
        """The index of an id, -1 when unknown."""
        encoded = name.encode()
        if not 0 < len(encoded) <= self._ids.dtype.itemsize:
            return -1
        place = int(self._ids.searchsorted(np.array(encoded, dtype=self._ids.dtype)))
        return place if place < len(self._ids) and self._ids[place] == encoded else -1

    def indexes(self, names: Sequence[str]) -> Int32:
        """The indexes of ids (int32, one each), -1 where unknown."""
        if not names or not len(self._ids):
            return np.full(len(names), -1, dtype=np.int32)
        encoded = [name.encode() for name in names]
        # In the type of the ids, or the search would copy all of them into another. A longer id is
        # cut, and then differs from what was wanted.
        wanted = np.array(encoded, dtype=self._ids.dtype)
        found = np.searchsorted(self._ids, wanted).astype(np.int32)
        found[found == len(self._ids)] = 0
        same = (self._ids[found] == wanted).tolist()
        width = self._ids.dtype.itemsize
        return np.array(
            [
                place if is_same and len(name) <= width else -1
                for place, is_same, name in zip(found.tolist(), same, encoded, strict=True)
            ],
            dtype=np.int32,
        )

    def save(self, path: Path) -> None:
        """Writes the ids as an array file."""
        save_array(path, self._ids)

    @classmethod
    def load(cls, path: Path) -> Vocabulary:
        """Maps a file that `save` wrote.

        Raises:
            ArrayError: The file is not such an array.
            ValueError: The ids are not sorted and distinct.
        """
        return cls(load_array(path, "S", (None,)))


@dataclass(frozen=True)
class Catalogue:
    """Item metadata by item index.

    Attributes:
        items: The items' ids.
        title_text: All titles one after another, UTF-8 (uint8).
        title_offsets: Where each title begins, and the end of the last (int64, items + 1).
        years: Years; 0 when unknown (int16, items).
        genre_bits: Bit g is set when the item has genre g (uint32, items).
        genres: Genre names; at most 32.
    """

    items: Vocabulary
    title_text: NDArray[np.uint8]
    title_offsets: Int64
    years: NDArray[np.int16]
    genre_bits: NDArray[np.uint32]
    genres: tuple[str, ...]

    @classmethod
    def of(
        cls,
        items: Vocabulary,
        titles: Sequence[str],
        years: Sequence[int],
        genres: Sequence[Sequence[str]],
    ) -> Catalogue:
        """Makes a catalogue of each item's title, year (0 when unknown) and genres.

        Raises:
            ValueError: There are more than 32 genres.
        """
        names = tuple(sorted({genre for row in genres for genre in row}))
        if len(names) > 32:
            raise ValueError(f"{len(names)} genres, more than 32")
        bit = {genre: 1 << place for place, genre in enumerate(names)}
        encoded = [title.encode() for title in titles]
        offsets = np.zeros(len(encoded) + 1, dtype=np.int64)
        np.cumsum([len(title) for title in encoded], out=offsets[1:])
        return cls(
            items=items,
            title_text=np.frombuffer(b"".join(encoded), dtype=np.uint8),
            title_offsets=offsets,
            years=np.array(years, dtype=np.int16),
            genre_bits=np.array([sum(bit[g] for g in set(row)) for row in genres], dtype=np.uint32),
            genres=names,
        )

    def __len__(self) -> int:
        return len(self.items)

    def title(self, index: int) -> str:
        """The title of an item."""
        start, end = self.title_offsets[index], self.title_offsets[index + 1]
        return self.title_text[start:end].tobytes().decode()

    def item_genres(self, index: int) -> tuple[str, ...]:
        """The genres of an item."""
        bits = int(self.genre_bits[index])
        return tuple(name for place, name in enumerate(self.genres) if bits >> place & 1)

    def genre_mask(self, names: Iterable[str]) -> int:
        """The bits of genres, case-insensitively; unknown names have none."""
        places = {genre.casefold(): place for place, genre in enumerate(self.genres)}
        mask = 0
        for name in names:
            place = places.get(name.casefold())
            if place is not None:
                mask |= 1 << place
        return mask

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder; the genre names go into the manifest."""
        self.items.save(folder / "items.npy")
        save_array(folder / "title_text.npy", self.title_text)
        save_array(folder / "title_offsets.npy", self.title_offsets)
        save_array(folder / "years.npy", self.years)
        save_array(folder / "genre_bits.npy", self.genre_bits)

    @classmethod
    def load(cls, folder: Path, genres: tuple[str, ...]) -> Catalogue:
        """Maps the arrays that `save` wrote.

        Raises:
            ArrayError: A file is not the array that it should be.
            ValueError: The ids are not sorted and distinct.
        """
        items = Vocabulary.load(folder / "items.npy")
        return cls(
            items=items,
            title_text=load_array(folder / "title_text.npy", np.uint8, (None,)),
            title_offsets=load_array(folder / "title_offsets.npy", np.int64, (len(items) + 1,)),
            years=load_array(folder / "years.npy", np.int16, (len(items),)),
            genre_bits=load_array(folder / "genre_bits.npy", np.uint32, (len(items),)),
            genres=genres,
        )
