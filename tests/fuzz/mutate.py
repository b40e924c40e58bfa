"""Makes damaged inputs from valid ones, reproducibly for a given seed."""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

Mutate: TypeAlias = Callable[[random.Random, Sequence[bytes]], bytes]

_MAX_CHANGES = 4
_MAX_INSERTED = 24
_NUMBERS = (0, 1, -1, 127, 128, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**63 - 1, 2**63, 2**70)
_WORDS = (
    *(b"\x00", b"\xff", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", b"\x80", b"\n", b"\r\n"),
    *(b"NaN", b"Infinity", b"-1", b"1e999", b"0x10", b"null", b"[]", b"{}", b'""', b"\\ud800"),
    *(b"\xed\xa0\x80", b"\xef\xbb\xbf", "\u0661".encode(), "\u202e".encode(), b"../", b"%s"),
)
_DEPTH = 100_000
_VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1.5, float("nan"), float("inf"), 2**31, 2**63, 2**64, 2**200),
    *("", " ", "0", "x" * 5_000, "\0", "\ud800", "../../etc/passwd", "\u202e", 1e308, -1e308),
    *([], {}, [[]], [None], {"": None}, [0] * 1_000),
)
_DIGITS = re.compile(rb"\d+")


def mutate_bytes(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Returns a valid input with one to four random changes to its bytes."""
    data = bytearray(rng.choice(seeds))
    for _ in range(rng.randint(1, _MAX_CHANGES)):
        _CHANGES[rng.randrange(len(_CHANGES))](rng, data, seeds)
    return bytes(data)


def mutate_json(rng: random.Random, seeds: Sequence[bytes]) -> bytes:
    """Returns a valid JSON document with changed values and keys, or in a third of cases bytes."""
    kind = rng.randrange(12)
    if kind < 4:
        return mutate_bytes(rng, seeds)
    if kind == 4 and not rng.randrange(20):
        return b"[" * _DEPTH
    value = json.loads(rng.choice(seeds))
    for _ in range(rng.randint(1, _MAX_CHANGES)):
        value = mutate_value(rng, value)
    return json.dumps(value).encode()


def mutate_value(rng: random.Random, value: Any) -> Any:
    """Returns a JSON value with one change at a random depth; may modify the value in place."""
    if isinstance(value, dict) and value and rng.random() < 0.9:
        key = rng.choice(list(value))
        kind = rng.randrange(8)
        if kind == 0:
            del value[key]
        elif kind == 1:
            value[rng.choice(("", "x", key * 2, key.upper()))] = value[key]
        else:
            value[key] = mutate_value(rng, value[key])
        return value
    if isinstance(value, list) and value and rng.random() < 0.9:
        place = rng.randrange(len(value))
        kind = rng.randrange(8)
        if kind == 0:
            del value[place]
        elif kind == 1:
            value.insert(place, value[place])
        else:
            value[place] = mutate_value(rng, value[place])
        return value
    if isinstance(value, str) and value and rng.random() < 0.5:
        return mutate_bytes(rng, [value.encode("utf-8", "surrogatepass")]).decode(
            "utf-8", "replace"
        )
    return copy.deepcopy(rng.choice(_VALUES))


def _flip(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    if data:
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)


def _replace(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    word = rng.choice(_WORDS)
    place = rng.randrange(len(data) + 1)
    data[place : place + len(word)] = word


def _insert(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    data[place:place] = rng.randbytes(rng.randint(1, _MAX_INSERTED))


def _delete(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    del data[place : place + rng.randint(1, _MAX_INSERTED)]


def _cut(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    del data[rng.randrange(len(data) + 1) :]


def _repeat(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    place = rng.randrange(len(data) + 1)
    part = data[place : place + rng.randint(1, _MAX_INSERTED)]
    data[place:place] = part * rng.choice((1, 2, 100))


def _join(rng: random.Random, data: bytearray, seeds: Sequence[bytes]) -> None:
    other = rng.choice(seeds)
    place, start = rng.randrange(len(data) + 1), rng.randrange(len(other) + 1)
    data[place:] = other[start:]


def _number(rng: random.Random, data: bytearray, _seeds: Sequence[bytes]) -> None:
    """Replaces a decimal number, or else overwrites four or eight bytes with a number."""
    found = list(_DIGITS.finditer(data))
    number = rng.choice(_NUMBERS)
    if found and rng.random() < 0.7:
        start, end = rng.choice(found).span()
        data[start:end] = str(number).encode()
        return
    size = rng.choice((4, 8))
    place = rng.randrange(len(data) + 1)
    data[place : place + size] = (number & (2 ** (8 * size) - 1)).to_bytes(size, "little")


_CHANGES = (_flip, _replace, _insert, _delete, _cut, _repeat, _join, _number, _flip)
