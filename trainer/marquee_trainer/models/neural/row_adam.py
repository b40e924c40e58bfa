"""Adam for a table of which each step updates only a few rows, at the cost of those rows.

Plain Adam changes every row in every step: without a gradient, the moments of a row decay, and the
first moment still moves the row. The cost of an epoch is then steps × rows, which grows with the
square of the data. Here, a row is updated only when it is used again, by a closed form of the
skipped steps.
"""

from __future__ import annotations

from typing import Any

import tensorflow as tf

_BETA_1 = 0.9
_BETA_2 = 0.999
_EPSILON = 1e-7


class RowAdam:
    """Adam (Kingma and Ba, 2015) for the rows of one table.

    In a step s without a gradient, j steps after the last gradient, Adam changes a row w by −α_s
    β₁^j m / (√(β₂^j v) + ε), where α_s = η √(1 − β₂^s) / (1 − β₁^s). Over Δ steps, and with α of
    the first of them, this adds up to −α (m / (√v + ε)) ρ (1 − ρ^Δ) / (1 − ρ), where ρ = β₁ / √β₂.
    It is approximate only in assuming that α changes little while ρ^j decays, within about ten
    steps, and that ε is much smaller than √v.

    Within a compiled function, call `read` for the rows of a step, `apply` to update them, and
    `flush` before the table is used.
    """

    def __init__(self, table: Any) -> None:
        """Creates the state of a table.

        Args:
            table: A `tf.Variable`, float32[R, C]. It is up to date only after `flush`.
        """
        self._table = table
        rows, self._columns = table.shape
        # The values, the first and second moments and the last step of each row, side by side, so
        # that a step needs one read and one write.
        width = 2 * self._columns + 1
        self._state = tf.Variable(tf.pad(table, [[0, 0], [0, width]]), trainable=False)
        self._step = tf.Variable(0.0, trainable=False)
        self._all_rows = tf.range(rows)

    def read(self, rows: Any, learning_rate: Any) -> tuple[Any, Any, Any]:
        """Starts a step: brings rows up to date.

        Args:
            rows: Distinct row indexes: int32[n].
            learning_rate: η: float32.

        Returns:
            The rows, and their first and second moments: float32[n, C] each.
        """
        # Reads from the variable itself; a tensor of it would be copied before the next write.
        state = self._state.sparse_read(rows)
        values, first, second, last = tf.split(state, [*([self._columns] * 3), 1], axis=1)
        gap = self._step - last
        rho = _BETA_1 / _BETA_2**0.5
        moved = rho * (1.0 - tf.pow(rho, gap)) / (1.0 - rho)
        size = moved * self._step_size(last + 1.0, learning_rate)
        values -= size * first / (tf.sqrt(second) + _EPSILON)
        return values, first * tf.pow(_BETA_1, gap), second * tf.pow(_BETA_2, gap)

    def apply(self, rows: Any, read: tuple[Any, Any, Any], gradient: Any, rate: Any) -> None:
        """Ends a step: updates the rows by their gradient.

        Args:
            rows: See `read`.
            read: The result of `read`.
            gradient: The gradient of the loss with respect to the rows: float32[n, C].
            rate: η: float32.
        """
        values, first, second = read
        step = self._step.assign_add(1.0)
        first = _BETA_1 * first + (1.0 - _BETA_1) * gradient
        second = _BETA_2 * second + (1.0 - _BETA_2) * tf.square(gradient)
        values -= self._step_size(step, rate) * first / (tf.sqrt(second) + _EPSILON)
        self._write(rows, values, first, second, step)

    def flush(self, learning_rate: Any) -> None:
        """Brings the whole table up to date.

        Args:
            learning_rate: η of the steps so far: float32.
        """
        read = self.read(self._all_rows, learning_rate)
        self._write(self._all_rows, *read, self._step)
        self._table.assign(read[0])

    def _write(self, rows: Any, values: Any, first: Any, second: Any, step: Any) -> None:
        last = tf.fill([tf.shape(rows)[0], 1], step)
        tf.raw_ops.ResourceScatterUpdate(
            resource=self._state.handle,
            indices=rows,
            updates=tf.concat([values, first, second, last], axis=1),
        )

    def _step_size(self, step: Any, learning_rate: Any) -> Any:
        """α of a step, counted from 1."""
        return learning_rate * tf.sqrt(1.0 - tf.pow(_BETA_2, step)) / (1.0 - tf.pow(_BETA_1, step))
