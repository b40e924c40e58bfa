"""Packs several sums over the common entries of two sparse vectors x and y into one.

To compute n, the number of common entries, Σ x² and Σ y², a kernel adds up products w d, where w
depends on x and d on y. All three are computed as one sum of 64-bit integers, with X and Y, the
numbers of units in x² and y²: w = 1 + 2²² X and d = 1 + 2⁴² Y yield
w d = 1 + 2²² X + 2⁴² Y + 2⁶⁴ X Y, whose last term does not fit into 64 bits, so it vanishes. The
units are such that Σ X and Σ Y take at most 20 and 21 bits, so the highest bit, the sign of signed
integers, is 0.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np

from marquee_core.arrays import Float32, Int32, Int64, UInt64

# The bits at which X and Y begin, and the number of bits for Σ X and Σ Y.
_FIRST, _SECOND = 22, 42
_OWN_BITS, OTHER_BITS = _SECOND - _FIRST, 63 - _SECOND
# Weights are summed over entries as multiples of 2 to the power of minus this.
_WEIGHT_BITS = 26
# 2 to the power of this is the lowest normal number of float32.
_LEAST_EXPONENT = -126


@dataclass(frozen=True, eq=False)
class OwnSquares:
    """The squares x² of the values of vectors x, in the form that is added up with those of others.

    Attributes:
        packed: 1 and x² in units, as one integer (uint64, nnz).
        units: The unit of each vector (float32, n).
    """

    packed: UInt64
    units: Float32

    @classmethod
    def of(cls, values: Float32, counts: Int64) -> Self:
        """Counts the units in the squares.

        Args:
            values: The values of one vector after the other (float32, nnz).
            counts: The number of values of each vector (int64, n).
        """
        squares = np.square(values)
        vectors = np.repeat(np.arange(len(counts)), counts)
        units = square_units(squares, vectors, len(counts), _OWN_BITS)
        return cls(_pack(count_units(squares, units[vectors]), _FIRST), units)

    def vector(self, index: int, part: slice) -> OwnSquares:
        """Selects a vector.

        Args:
            index: The vector.
            part: The positions of its values.
        """
        return OwnSquares(self.packed[part], self.units[index : index + 1])

    def rounded(self, counts: Int64) -> Float32:
        """Returns x², rounded to units (float32, nnz).

        Args:
            counts: The number of values of each vector (int64, n).
        """
        return (self.packed >> _FIRST).astype(np.float32) * np.repeat(self.units, counts)


def _mask(bits: int) -> int:
    return (1 << bits) - 1


def square_units(squares: Float32, vectors: Int32 | Int64, vector_count: int, bits: int) -> Float32:
    """Returns the units in which the squares of vectors are counted; see `count_units`.

    A unit is a power of 2, and the sum of the squares is less than half of 2 to the power of `bits`
    units.

    Args:
        squares: The squares, which are added in this order (float32, nnz).
        vectors: The vector of each square (int32 or int64, nnz).
        vector_count: The number of vectors.
        bits: The number of bits that the sum of the squares may take, at most 24.

    Returns:
        The unit of each vector (float32, n).
    """
    totals = np.bincount(vectors, squares, vector_count)
    exponents = np.frexp(totals)[1] - (bits - 1)
    units: Float32 = np.ldexp(np.float32(1), np.maximum(exponents, _LEAST_EXPONENT))
    return units


def count_units(squares: Float32, units: Float32) -> Float32:
    """Returns the number of units in each square: rounded, but at least 1 unless the square is 0.

    The sum over a vector of up to half as many values as there may be units fits into the bits, so
    that any sum of its squares is exact, whether it adds integers or float32 multiples of the unit.

    Args:
        squares: The squares (float32, n).
        units: The unit of the vector of each square, or of all squares (float32, n or 1).

    Returns:
        The integers (float32, n).
    """
    counts: Float32 = squares / units
    np.rint(counts, out=counts)
    np.maximum(counts, squares > 0, out=counts)
    return counts


def pack_other(counts: Float32) -> UInt64:
    """Returns 1 and y² as one integer (uint64, n).

    Args:
        counts: The number of units in each y² (float32, n).
    """
    return _pack(counts, _SECOND)


def _pack(counts: Float32, first_bit: int) -> UInt64:
    """Returns 1 and numbers of units, which begin at a bit, as one integer (uint64, n)."""
    packed = counts.astype(np.uint64)
    packed <<= first_bit
    packed |= 1
    return packed


def unpack(
    sums: UInt64, own_units: Float32, other_units: Float32
) -> tuple[Float32, Float32, Float32]:
    """Returns Σ y², Σ x² and n (float32, n each).

    Args:
        sums: The sums of the products of `OwnSquares.packed` and `pack_other` (uint64, n).
        own_units: The unit of x² (float32, n or 1).
        other_units: The unit of y² (float32, n).
    """
    # Signed integers are converted faster.
    signed = sums.view(np.int64)
    return (
        (signed >> _SECOND).astype(np.float32) * other_units,
        (signed >> _FIRST & _mask(_OWN_BITS)).astype(np.float32) * own_units,
        (signed & _mask(_FIRST)).astype(np.float32),
    )


def weights_to_integers(weights: Float32) -> UInt64:
    """Returns weights between 0 and 1 as integers that can be summed with `pack_other`."""
    integers: UInt64 = np.rint(weights * np.float32(1 << _WEIGHT_BITS)).astype(np.uint64)
    return integers


def integers_to_weights(sums: UInt64) -> Float32:
    """Returns the sums of weights, given their sums as integers with `pack_other`.

    Up to 2¹⁶ weights may be summed. The weights occupy the lower bits of a sum. The squares only
    affect those above.
    """
    return (sums & _mask(_SECOND)).view(np.int64).astype(np.float32) * np.float32(
        2.0**-_WEIGHT_BITS
    )
