"""Custom attributes of items: the fields of a catalogue other than title, year and genres."""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from marquee_core.arrays import Bool, Int32, Int64, load_array, save_array
from marquee_core.errors import ArtifactError

MAX_ITEM_BYTES = 32_768
"""The maximum size of an item's attributes, names and values together, in bytes of UTF-8."""
MAX_NAME_BYTES = 256
"""The maximum length of an attribute's name, in bytes of UTF-8."""
_CHUNK = 1 << 24


@dataclass(frozen=True)
class Attributes:
    """The attributes of all items, stored as arrays that can be memory-mapped.

    Attributes:
        names: The names of the attributes, as UTF-8 (bytes, names).
        item_offsets: Item i has the values `item_offsets[i]:item_offsets[i + 1]` (int64,
            items + 1).
        value_names: The index in `names` of each value's attribute (int32, values).
        value_offsets: Value v is at `value_offsets[v]:value_offsets[v + 1]` in `text` (int64,
            values + 1).
        text: All values, concatenated as UTF-8 (uint8).
    """

    names: NDArray[np.bytes_]
    item_offsets: Int64
    value_names: Int32
    value_offsets: Int64
    text: NDArray[np.uint8]

    @classmethod
    def empty(cls, item_count: int) -> Attributes:
        """Returns the attributes of `item_count` items that have none."""
        return cls.of({}, item_count)

    @classmethod
    def of(cls, columns: Mapping[str, Sequence[str]], item_count: int) -> Attributes:
        """Packs the attributes of items.

        Args:
            columns: For each name, one string per item; empty if the item lacks the attribute.
            item_count: The number of items.

        Raises:
            ValueError: The length of a column is not `item_count`, a name is longer than
                `MAX_NAME_BYTES`, or the attributes of an item exceed `MAX_ITEM_BYTES`.
        """
        names = [name.encode() for name in columns]
        for name, values in columns.items():
            if len(values) != item_count:
                raise ValueError(f"attribute {name!r} has {len(values)} values, not {item_count}")
            if len(name.encode()) > MAX_NAME_BYTES:
                raise ValueError(
                    f"the name of attribute {name[:40]!r}… exceeds {MAX_NAME_BYTES} bytes"
                )
        value_names: list[int] = []
        texts: list[bytes] = []
        offsets = np.zeros(item_count + 1, dtype=np.int64)
        for item, row in enumerate(zip(*columns.values(), strict=True) if columns else ()):
            for name_index, value in enumerate(row):
                if value:
                    value_names.append(name_index)
                    texts.append(value.encode())
            offsets[item + 1] = len(texts)
        ends = np.zeros(len(texts) + 1, dtype=np.int64)
        np.cumsum([len(text) for text in texts], out=ends[1:])
        packed = cls(
            np.array(names, dtype=np.bytes_) if names else np.empty(0, dtype="S1"),
            offsets,
            np.array(value_names, dtype=np.int32),
            ends,
            np.frombuffer(b"".join(texts), dtype=np.uint8),
        )
        if packed._oversized().any():
            item = int(packed._oversized().argmax())
            raise ValueError(f"the attributes of item {item} exceed {MAX_ITEM_BYTES:,} bytes")
        return packed

    def __len__(self) -> int:
        """Returns the number of items."""
        return len(self.item_offsets) - 1

    def of_item(self, index: int) -> dict[str, str]:
        """Returns the attributes that an item has, by name."""
        values = range(int(self.item_offsets[index]), int(self.item_offsets[index + 1]))
        return {self.names[self.value_names[v]].decode(): self._value(v) for v in values}

    def save(self, folder: Path) -> None:
        """Writes the arrays to a folder."""
        for name, array in self._arrays().items():
            save_array(folder / f"{name}.npy", array)

    @classmethod
    def load(cls, folder: Path, item_count: int) -> Attributes:
        """Memory-maps the arrays written by `save`, and checks that every value can be decoded.

        Args:
            folder: The folder of the arrays.
            item_count: The number of items.

        Raises:
            ArtifactError: A file is missing or damaged, or the arrays are inconsistent.
        """
        loaded = cls(
            load_array(folder / "names.npy", "S", (None,)),
            load_array(folder / "item_offsets.npy", np.int64, (item_count + 1,)),
            load_array(folder / "value_names.npy", np.int32, (None,)),
            load_array(folder / "value_offsets.npy", np.int64, (None,)),
            load_array(folder / "text.npy", np.uint8, (None,)),
        )
        loaded._check()
        return loaded

    def _value(self, index: int) -> str:
        start, end = self.value_offsets[index], self.value_offsets[index + 1]
        return self.text[start:end].tobytes().decode()

    def _arrays(self) -> dict[str, NDArray[Any]]:
        return {
            "names": self.names,
            "item_offsets": self.item_offsets,
            "value_names": self.value_names,
            "value_offsets": self.value_offsets,
            "text": self.text,
        }

    def _oversized(self) -> Bool:
        """Returns whether the attributes of each item exceed `MAX_ITEM_BYTES` (bool, items)."""
        lengths = np.char.str_len(self.names) if len(self.names) else np.empty(0, dtype=np.int64)
        of_names = np.zeros(len(self.value_names) + 1, dtype=np.int64)
        np.cumsum(lengths[self.value_names], out=of_names[1:])
        sizes = (self.value_offsets + of_names)[self.item_offsets]
        oversized: Bool = np.diff(sizes) > MAX_ITEM_BYTES
        return oversized

    def _check(self) -> None:
        """Checks that the arrays are consistent and that every value can be decoded.

        Raises:
            ArtifactError: They are not, or a value cannot be decoded.
        """
        for name, offsets, end in (
            ("item_offsets", self.item_offsets, len(self.value_names)),
            ("value_offsets", self.value_offsets, len(self.text)),
        ):
            ascending = len(offsets) > 0 and bool((np.diff(offsets) >= 0).all())
            if not ascending or offsets[0] != 0 or offsets[-1] != end:
                raise ArtifactError(f"attributes: {name} does not ascend from 0 to {end}")
        if len(self.value_offsets) != len(self.value_names) + 1:
            raise ArtifactError("attributes: value_names and value_offsets differ in length")
        name_indexes = self.value_names
        if len(name_indexes) and not (
            name_indexes.min() >= 0 and name_indexes.max() < len(self.names)
        ):
            raise ArtifactError("attributes: a value refers to a name that does not exist")
        if self.names.dtype.itemsize > MAX_NAME_BYTES or self._oversized().any():
            raise ArtifactError(
                f"attributes: a name exceeds {MAX_NAME_BYTES} bytes, or an item's attributes "
                f"exceed {MAX_ITEM_BYTES:,} bytes"
            )
        starts = self.value_offsets[:-1]
        first_bytes = self.text[starts[starts < len(self.text)]]
        is_cut = bool(((first_bytes & 0xC0) == 0x80).any())
        try:
            for name in self.names.tolist():
                name.decode()
            decoder = codecs.getincrementaldecoder("utf-8")()
            for start in range(0, len(self.text), _CHUNK):
                decoder.decode(self.text[start : start + _CHUNK].tobytes())
            decoder.decode(b"", final=True)
        except UnicodeDecodeError as error:
            raise ArtifactError(f"attributes: {error}") from error
        if is_cut:
            raise ArtifactError("attributes: a value starts in the middle of a UTF-8 character")
