"""Prefetching for compiled loops that read many short stretches of large arrays.

The processor prefetches the continuation of a long stretch by itself, but each new stretch starts
with a wait for the memory.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

# The compiler of Numba, which requires exactly one version of it.
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

CACHE_LINE_BYTES = 64
"""The bytes that one prefetch loads."""

# Arguments of LLVM's `prefetch`: for reading, into all levels of the cache, data.
_READ, _ALL_LEVELS, _DATA = 0, 3, 1


def _prefetch(_: Any, array: Any, index: Any) -> Any:
    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer_type = ir.IntType(8).as_pointer()
        number_type = ir.IntType(32)
        function = builder.module.declare_intrinsic(
            "llvm.prefetch",
            [pointer_type],
            ir.FunctionType(ir.VoidType(), [pointer_type, *3 * [number_type]]),
        )
        line = builder.bitcast(builder.gep(data, [arguments[1]]), pointer_type)
        numbers = [ir.Constant(number_type, value) for value in (_READ, _ALL_LEVELS, _DATA)]
        builder.call(function, [line, *numbers])
        return context.get_dummy_value()

    return types.void(array, index), generate


prefetch = cast("Callable[[NDArray[Any], int], None]", intrinsic(_prefetch))
"""Starts to load the line of the cache with an element of an array of one dimension, and does not
wait for it. Only compiled code may call it. An index outside the array does no harm."""
