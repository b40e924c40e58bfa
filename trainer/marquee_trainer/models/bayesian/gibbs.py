"""A Gibbs sampler of Bayesian matrix factorization with biases and implicit feedback.

The model, r_ui = μ + x_u · (q_i, 1) + b_i + noise with x_u = (p_u, b_u), and alike y_i = (q_i, b_i)
from the items' side. The noise is Gaussian of precision α_u γ_i, α_u ~ Gamma(a, b) and γ_i ~
Gamma(c, c): some users, and some items, are rated less predictably than others. Each side has a
Gaussian prior, N(m + Fβ, Λ⁻¹), whose features F are the set of what a row rated, or was rated by,
each 1/√n. Conditionals are those of BPMF (Salakhutdinov and Mnih, 2008) and, for the links β, of
Macau (Simm et al., 2017), in blocks: all of a row's numbers are drawn at once, and all links.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_array

from marquee_core.arrays import Float64, Int32, Int64
from marquee_core.ratings import RatingsMatrix
from marquee_trainer.models.bayesian.gaussian_rows import Conditionals, draw_rows

if TYPE_CHECKING:
    from typing import TypeAlias

    Matrix: TypeAlias = "csr_array[np.float64, tuple[int, int]]"

# Pairs whose factors are gathered at once; more would not fit a processor's cache.
_BLOCK = 8_192
# Hyperpriors, as vague as they can be: Λ ~ Wishart(I, width), m ~ N(0, (κ Λ)⁻¹), and
# Gamma(½, rate ½) for b and for the precision of links.
_MEAN_STRENGTH = 2.0  # κ, in rows
_GAMMA = 0.5
_FIRST_DEVIATION = 0.1  # of the factors that the chain begins with


def gamma(random: np.random.Generator, count: float, squares: float) -> float:
    """Draws a precision given `count` numbers that it is of, and the sum of their squares."""
    return float(random.gamma(_GAMMA + count / 2, 1 / (_GAMMA + squares / 2)))


def wishart(random: np.random.Generator, degrees: float, inverse_scale: Float64) -> Float64:
    """Draws from a Wishart distribution by Bartlett's decomposition.

    Args:
        random: The source of randomness.
        degrees: Degrees of freedom, at least the width.
        inverse_scale: The inverse of the scale matrix (float64, width × width).
    """
    width = len(inverse_scale)
    factor = np.tril(random.standard_normal((width, width)), -1)
    factor.flat[:: width + 1] = np.sqrt(random.chisquare(degrees - np.arange(width)))
    # With LLᵀ the inverse scale, L⁻ᵀ L⁻¹ is the scale.
    root = np.linalg.solve(np.linalg.cholesky(inverse_scale).T, factor)
    drawn: Float64 = root @ root.T
    return drawn


class Links:
    """F, and the solution of ridge problems in it.

    FᵀF + λI is solved for one λ after another, so the smaller of FᵀF and FFᵀ is decomposed once.
    """

    def __init__(self, rated: Matrix, most: int) -> None:
        """Takes who rated what.

        Args:
            rated: Whatever values; a row's ratings are its features (float64, n × m).
            most: At most so many rows or columns; beyond, the columns with the most ratings.
        """
        counts = np.bincount(rated.indices, minlength=rated.shape[1])
        kept = np.argsort(-counts, kind="stable")
        if min(rated.shape) > most:
            kept = kept[:most]
        self.columns: Int64 = np.sort(kept)
        scales = 1 / np.sqrt(np.maximum(np.diff(rated.indptr), 1))
        values = np.repeat(scales, np.diff(rated.indptr))
        whole = csr_array((values, rated.indices, rated.indptr), shape=rated.shape)
        self.features: Matrix = whole[:, self.columns].tocsr()
        self._transposed: Matrix = self.features.T.tocsr()
        self._by_rows = self.features.shape[0] < self.features.shape[1]
        first, second = self.features, self._transposed
        if not self._by_rows:
            first, second = second, first
        values, self._basis = np.linalg.eigh((first @ second).toarray())
        self._eigenvalues = np.maximum(values, 0.0)

    def ridge(self, wanted: Float64, noise: Float64, penalty: float) -> Float64:
        """(FᵀF + λI)⁻¹ (Fᵀ wanted + √λ noise) (float64, columns × width).

        Args:
            wanted: float64, n × width.
            noise: float64, columns × width.
            penalty: λ, above 0.
        """
        right: Float64 = self._transposed @ wanted + np.sqrt(penalty) * noise
        basis, shrunk = self._basis, (self._eigenvalues + penalty)[:, None]
        if not self._by_rows:
            outer: Float64 = basis @ ((basis.T @ right) / shrunk)
            return outer
        # Woodbury: (FᵀF + λI)⁻¹ = (I − Fᵀ (FFᵀ + λI)⁻¹ F) / λ.
        inner = basis @ ((basis.T @ (self.features @ right)) / shrunk)
        solved: Float64 = right - self._transposed @ inner
        solved /= penalty
        return solved


class Side:
    """The rows of one side, users or items, with their prior.

    Attributes:
        rated: The ratings of each row, less μ (float64, n × m).
        links: F.
        vectors: x, factors then bias (float64, n × width).
        noise: Of each row's ratings the precision: α in 1 / stars², or γ (float64, n).
        mean: m (float64, width).
        precision: Λ (float64, width × width).
        weights: β (float64, columns of F × width).
    """

    def __init__(self, rated: Matrix, width: int, most: int, random: np.random.Generator) -> None:
        """Takes the ratings; see `Links` for `most`."""
        self.rated = rated
        self.links = Links(rated, most)
        self.vectors: Float64 = _FIRST_DEVIATION * random.standard_normal((rated.shape[0], width))
        self.vectors[:, -1] = 0.0
        self.noise: Float64 = np.ones(rated.shape[0])
        self.mean: Float64 = np.zeros(width)
        self.precision: Float64 = np.eye(width)
        self.weights: Float64 = np.zeros((len(self.links.columns), width))
        # F β
        self._linked: Float64 = np.zeros_like(self.vectors)
        self._penalty = 1.0
        self._random = random

    def draw_vectors(self, other: Side) -> None:
        """Draws all rows' vectors, given the other side and the noise.

        The precision of a rating is the product of its row's and its column's.
        """
        roots = np.sqrt(other.noise)
        # Scaled by the root of a column's precision, so that products hold the precision itself.
        design = other.vectors * roots[:, None]
        design[:, -1] = roots
        columns = self.rated.indices
        wanted = self.rated.data - other.vectors[:, -1].take(columns)
        wanted *= roots.take(columns)
        pulls = (self.mean + self._linked) @ self.precision
        rows = Conditionals(
            self.rated.indptr, columns, wanted, design, self.noise, self.precision, pulls
        )
        self.vectors = draw_rows(rows, self._random.standard_normal(pulls.shape))

    def draw_prior(self) -> None:
        """Draws Λ and m, then β, then the precision of β, given the vectors."""
        count, width = self.vectors.shape
        departures = self.vectors - self._linked
        centre = departures.mean(axis=0)
        departures -= centre
        strength = _MEAN_STRENGTH + count
        inverse_scale = (
            np.eye(width)
            + departures.T @ departures
            + _MEAN_STRENGTH * count / strength * np.outer(centre, centre)
            + self._penalty * self.weights.T @ self.weights
        )
        degrees = width + count + len(self.weights)
        self.precision = wishart(self._random, degrees, inverse_scale)
        # Rows of z L⁻¹ have the covariance Λ⁻¹.
        colour = np.linalg.inv(np.linalg.cholesky(self.precision))
        spread = self._random.standard_normal(width) @ colour / np.sqrt(strength)
        self.mean = count * centre / strength + spread
        first = self._random.standard_normal((count, width)) @ colour
        second = self._random.standard_normal(self.weights.shape) @ colour
        self.weights = self.links.ridge(self.vectors - self.mean + first, second, self._penalty)
        self._linked = np.asarray(self.links.features @ self.weights)
        squares = float(np.sum((self.weights @ self.precision) * self.weights))
        self._penalty = gamma(self._random, self.weights.size, squares)


class GibbsSampler:
    """A chain of samples of the posterior.

    Attributes:
        users: The users' side, with α.
        items: The items' side, with γ.
        noise_rate: b, in stars².
        residuals: r less what the present sample predicts, in stars and in the order of the
            matrix (float64, ratings).
    """

    def __init__(
        self,
        matrix: RatingsMatrix,
        mean: float,
        rank: int,
        noise_shapes: tuple[float, float],
        max_linked: int,
        seed: int,
    ) -> None:
        """Begins a chain.

        Args:
            matrix: The ratings.
            mean: μ, in stars.
            rank: k.
            noise_shapes: a and c; the larger, the less users, or items, differ.
            max_linked: See `Links`.
            seed: Of all randomness.
        """
        random = np.random.default_rng(seed)
        values = matrix.ratings.astype(np.float64) - mean
        shape = matrix.user_count, matrix.item_count
        rated = csr_array((values.copy(), matrix.items, matrix.indptr), shape=shape)
        self.users = Side(rated, rank + 1, max_linked, random)
        self.items = Side(rated.T.tocsr(), rank + 1, max_linked, random)
        self.noise_rate = noise_shapes[0]
        self.residuals: Float64 = values
        self._noise_shapes = noise_shapes
        self._rows = matrix.users
        self._values = values
        # Where the items' side has each rating of the matrix.
        self._by_item = np.argsort(matrix.items, kind="stable")
        self._random = random

    def leave_out(self, part: Float64) -> None:
        """Has the coming sweeps explain the ratings less a part that something else explains.

        Args:
            part: In stars and in the order of the matrix (float64, ratings).
        """
        rest = self._values - part
        self.users.rated.data[:] = rest
        self.items.rated.data[:] = rest[self._by_item]

    def precisions(self) -> Float64:
        """The precision of each rating's noise, in 1 / stars² (float64, ratings)."""
        found: Float64 = self.users.noise.take(self._rows)
        found *= self.items.noise.take(self.users.rated.indices)
        return found

    def sweep(self) -> None:
        """Draws everything once."""
        self.users.draw_vectors(self.items)
        self.users.draw_prior()
        self.items.draw_vectors(self.users)
        self.items.draw_prior()
        rated = self.users.rated
        self.residuals = rated.data - self.predict(self._rows, rated.indices)
        self._draw_noise()

    def predict(self, users: Int32, items: Int32) -> Float64:
        """What the present sample predicts for pairs, less μ, in stars (float64, n)."""
        x, y = self.users.vectors, self.items.vectors
        rank = x.shape[1] - 1
        predicted: Float64 = x[:, rank].take(users) + y[:, rank].take(items)
        p, q = np.ascontiguousarray(x[:, :rank]), np.ascontiguousarray(y[:, :rank])
        for start in range(0, len(users), _BLOCK):
            block = slice(start, start + _BLOCK)
            predicted[block] += np.einsum(
                "nk,nk->n", p.take(users[block], axis=0), q.take(items[block], axis=0)
            )
        return predicted

    def _draw_noise(self) -> None:
        """Draws α, b and γ in turn, each given the others and the residuals; all are conjugate."""
        users, items = self.users, self.items
        of_users, of_items = self._noise_shapes
        rows, columns = self._rows, users.rated.indices
        squares = np.square(self.residuals)
        weighted = squares * items.noise.take(columns)
        users.noise = self._precisions(rows, weighted, users, of_users, self.noise_rate)
        self.noise_rate = gamma(
            self._random, 2 * of_users * len(users.noise), 2 * float(users.noise.sum())
        )
        weighted = squares * users.noise.take(rows)
        items.noise = self._precisions(columns, weighted, items, of_items, of_items)

    def _precisions(
        self, rows: Int32, squares: Float64, side: Side, shape: float, rate: float
    ) -> Float64:
        """Draws the noise of a side's rows, given the row and squared residual of each rating."""
        rates = rate + np.bincount(rows, squares, minlength=len(side.noise)) / 2
        return self._random.gamma(shape + np.diff(side.rated.indptr) / 2, 1 / rates)
