"""A Gibbs sampler for Bayesian matrix factorization with biases and implicit feedback.

The model is r_ui = μ + p_u · q_i + b_u + b_i + noise. A user's vector is x_u = (p_u, b_u) and an
item's y_i = (q_i, b_i). The noise is Gaussian with precision α_u γ_i, where α_u ~ Gamma(a, b) and
γ_i ~ Gamma(c, c), because the ratings of some users and of some items are less predictable than
others. The vectors of each side, users or items, have the Gaussian prior N(m + Fβ, Λ⁻¹). The
features F of a row are the columns that it has ratings in, with the value 1/√n for n ratings. The
conditional distributions are those of BPMF (Salakhutdinov and Mnih, 2008) and, for the links β, of
Macau (Simm et al., 2017). They are drawn in blocks: the whole vector of a row jointly, and all
links jointly.
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

# Number of pairs whose factors are gathered at a time; more would not fit into the processor's
# cache.
_BLOCK = 8_192
# Weakly informative hyperpriors: Λ ~ Wishart(I, width), m ~ N(0, (κ Λ)⁻¹), and Gamma(½, rate ½) for
# b and for the precision of the links.
_MEAN_STRENGTH = 2.0  # κ, in rows
_GAMMA = 0.5
_INITIAL_DEVIATION = 0.1  # of the factors at the start of a chain


def gamma(random: np.random.Generator, count: float, squares: float) -> float:
    """Draws the precision of zero-mean Gaussian numbers from its conditional distribution.

    Args:
        random: The random generator.
        count: The number of these numbers.
        squares: The sum of their squares.
    """
    return float(random.gamma(_GAMMA + count / 2, 1 / (_GAMMA + squares / 2)))


def wishart(random: np.random.Generator, degrees: float, inverse_scale: Float64) -> Float64:
    """Draws from a Wishart distribution by Bartlett's decomposition.

    Args:
        random: The random generator.
        degrees: The degrees of freedom, at least the width.
        inverse_scale: The inverse of the scale matrix (float64, width × width).

    Returns:
        The drawn matrix (float64, width × width).
    """
    width = len(inverse_scale)
    factor = np.tril(random.standard_normal((width, width)), -1)
    factor.flat[:: width + 1] = np.sqrt(random.chisquare(degrees - np.arange(width)))
    # If LLᵀ is the inverse scale, L⁻ᵀ L⁻¹ is the scale.
    root = np.linalg.solve(np.linalg.cholesky(inverse_scale).T, factor)
    drawn: Float64 = root @ root.T
    return drawn


class Links:
    """The features F of a side, and ridge regressions on them.

    Each sweep solves a system with FᵀF + λI for a new λ, so the smaller of FᵀF and FFᵀ is
    eigendecomposed once.

    Attributes:
        columns: The columns that are features, ascending (int64).
        features: F (float64, n × features).
    """

    def __init__(self, rated: Matrix, max_linked: int) -> None:
        """Builds and decomposes the features.

        Args:
            rated: A matrix whose nonzero pattern gives the features; its values are ignored
                (float64, n × m).
            max_linked: The largest size of the decomposition. If both the numbers of rows and of
                columns exceed it, only this many columns, those with the most ratings, are
                features.
        """
        counts = np.bincount(rated.indices, minlength=rated.shape[1])
        kept = np.argsort(-counts, kind="stable")
        if min(rated.shape) > max_linked:
            kept = kept[:max_linked]
        self.columns: Int64 = np.sort(kept)
        scales = 1 / np.sqrt(np.maximum(np.diff(rated.indptr), 1))
        values = np.repeat(scales, np.diff(rated.indptr))
        all_features = csr_array((values, rated.indices, rated.indptr), shape=rated.shape)
        self.features: Matrix = all_features[:, self.columns].tocsr()
        self._transposed: Matrix = self.features.T.tocsr()
        self._by_rows = self.features.shape[0] < self.features.shape[1]
        first, second = self.features, self._transposed
        if not self._by_rows:
            first, second = second, first
        values, self._basis = np.linalg.eigh((first @ second).toarray())
        self._eigenvalues = np.maximum(values, 0.0)

    def ridge(self, targets: Float64, noise: Float64, penalty: float) -> Float64:
        """Computes (FᵀF + λI)⁻¹ (Fᵀ targets + √λ noise) (float64, features × width).

        Args:
            targets: The targets of the regression (float64, n × width).
            noise: Noise for a draw from the conditional distribution (float64, features × width).
            penalty: λ, positive.
        """
        right: Float64 = self._transposed @ targets + np.sqrt(penalty) * noise
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
    """The parameters of one side, users or items, with their prior.

    Attributes:
        rated: The ratings of each row minus μ, in stars (float64, n × m).
        links: The features F.
        vectors: x or y: the factors, then the bias (float64, n × width).
        noise: The noise precision of each row: α in 1 / stars², or γ (float64, n).
        mean: m (float64, width).
        precision: Λ (float64, width × width).
        weights: β (float64, features × width).
        link_precision: The precision of β, relative to Λ.
    """

    def __init__(
        self, rated: Matrix, width: int, max_linked: int, random: np.random.Generator
    ) -> None:
        """Draws the initial vectors.

        Args:
            rated: The ratings of each row minus μ, in stars (float64, n × m).
            width: The length of a vector, k + 1.
            max_linked: See `Links`.
            random: The random generator.
        """
        self.rated = rated
        self.links = Links(rated, max_linked)
        self.vectors: Float64 = _INITIAL_DEVIATION * random.standard_normal((rated.shape[0], width))
        self.vectors[:, -1] = 0.0
        self.noise: Float64 = np.ones(rated.shape[0])
        self.mean: Float64 = np.zeros(width)
        self.precision: Float64 = np.eye(width)
        self.weights: Float64 = np.zeros((len(self.links.columns), width))
        # F β
        self._linked: Float64 = np.zeros_like(self.vectors)
        self.link_precision = 1.0
        self._random = random

    def set_weights(self, weights: Float64) -> None:
        """Sets β (float64, features × width)."""
        self.weights = weights
        self._linked = np.asarray(self.links.features @ weights)

    def draw_vectors(self, other: Side) -> None:
        """Draws the vectors of all rows, given the other side and the noise.

        The noise precision of a rating is the product of that of its row and that of its column.
        """
        roots = np.sqrt(other.noise)
        # Scaled by the square root of the column's noise precision, so that products contain the
        # precision.
        design = other.vectors * roots[:, None]
        design[:, -1] = roots
        columns = self.rated.indices
        targets = self.rated.data - other.vectors[:, -1].take(columns)
        targets *= roots.take(columns)
        pulls = (self.mean + self._linked) @ self.precision
        rows = Conditionals(
            self.rated.indptr, columns, targets, design, self.noise, self.precision, pulls
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
            + self.link_precision * self.weights.T @ self.weights
        )
        degrees = width + count + len(self.weights)
        self.precision = wishart(self._random, degrees, inverse_scale)
        # If LLᵀ is Λ and z is standard normal, rows of z L⁻¹ have the covariance Λ⁻¹.
        colour = np.linalg.inv(np.linalg.cholesky(self.precision))
        spread = self._random.standard_normal(width) @ colour / np.sqrt(strength)
        self.mean = count * centre / strength + spread
        first = self._random.standard_normal((count, width)) @ colour
        second = self._random.standard_normal(self.weights.shape) @ colour
        targets = self.vectors - self.mean + first
        self.set_weights(self.links.ridge(targets, second, self.link_precision))
        squares = float(np.sum((self.weights @ self.precision) * self.weights))
        self.link_precision = gamma(self._random, self.weights.size, squares)


class GibbsSampler:
    """A Markov chain of samples of the posterior.

    Attributes:
        users: The parameters of the users, with α.
        items: The parameters of the items, with γ.
        noise_rate: b, in stars².
        residuals: The ratings minus the predictions of the current sample, in stars and in the
            order of the matrix (float64, ratings).
    """

    def __init__(
        self,
        matrix: RatingsMatrix,
        mean: float,
        factors: int,
        noise_shapes: tuple[float, float],
        max_linked: int,
        seed: int,
    ) -> None:
        """Starts a chain.

        Args:
            matrix: The ratings.
            mean: μ, in stars.
            factors: k, the number of latent factors.
            noise_shapes: a and c. The larger they are, the less the noise precision varies between
                users or between items.
            max_linked: See `Links`.
            seed: The seed for all randomness.
        """
        random = np.random.default_rng(seed)
        values = matrix.ratings.astype(np.float64) - mean
        shape = matrix.user_count, matrix.item_count
        rated = csr_array((values.copy(), matrix.items, matrix.indptr), shape=shape)
        self.users = Side(rated, factors + 1, max_linked, random)
        self.items = Side(rated.T.tocsr(), factors + 1, max_linked, random)
        self.noise_rate = noise_shapes[0]
        self.residuals: Float64 = values
        self._noise_shapes = noise_shapes
        self._rows = matrix.users
        self._values = values
        # The order of the matrix's ratings in `items.rated`.
        self._by_item = np.argsort(matrix.items, kind="stable")
        self._random = random

    def subtract(self, effects: Float64) -> None:
        """Makes the following sweeps explain the original ratings minus some effects.

        Args:
            effects: The effects outside this model, in stars and in the order of the matrix
                (float64, ratings).
        """
        rest = self._values - effects
        self.users.rated.data[:] = rest
        self.items.rated.data[:] = rest[self._by_item]

    def precisions(self) -> Float64:
        """The noise precision of each rating, in 1 / stars² (float64, ratings)."""
        precisions: Float64 = self.users.noise.take(self._rows)
        precisions *= self.items.noise.take(self.users.rated.indices)
        return precisions

    def sweep(self) -> None:
        """Draws every parameter once, given all others."""
        self.users.draw_vectors(self.items)
        self.users.draw_prior()
        self.items.draw_vectors(self.users)
        self.items.draw_prior()
        rated = self.users.rated
        self.residuals = rated.data - self.predict(self._rows, rated.indices)
        self._draw_noise()

    def predict(self, users: Int32, items: Int32) -> Float64:
        """Predicts (user, item) pairs with the current sample.

        Args:
            users: The user of each pair (int32, n).
            items: The item of each pair (int32, n).

        Returns:
            The predictions minus μ, in stars (float64, n).
        """
        x, y = self.users.vectors, self.items.vectors
        predicted: Float64 = x[:, -1].take(users) + y[:, -1].take(items)
        p, q = np.ascontiguousarray(x[:, :-1]), np.ascontiguousarray(y[:, :-1])
        for start in range(0, len(users), _BLOCK):
            block = slice(start, start + _BLOCK)
            predicted[block] += np.einsum(
                "nk,nk->n", p.take(users[block], axis=0), q.take(items[block], axis=0)
            )
        return predicted

    def _draw_noise(self) -> None:
        """Draws α, b and γ, each given the others and the residuals; all are conjugate."""
        users, items = self.users, self.items
        user_shape, item_shape = self._noise_shapes
        rows, columns = self._rows, users.rated.indices
        squares = np.square(self.residuals)
        weighted = squares * items.noise.take(columns)
        users.noise = self._precisions(rows, weighted, users, user_shape, self.noise_rate)
        self.noise_rate = gamma(
            self._random, 2 * user_shape * len(users.noise), 2 * float(users.noise.sum())
        )
        weighted = squares * users.noise.take(rows)
        items.noise = self._precisions(columns, weighted, items, item_shape, item_shape)

    def _precisions(
        self, rows: Int32, squares: Float64, side: Side, shape: float, rate: float
    ) -> Float64:
        """Draws the noise precision of each row of a side.

        Args:
            rows: The row of each rating (int32, ratings).
            squares: The squared residual of each rating, times the noise precision of the other
                side (float64, ratings).
            side: The side to draw for.
            shape: The shape of the Gamma prior.
            rate: The rate of the Gamma prior.
        """
        rates = rate + np.bincount(rows, squares, minlength=len(side.noise)) / 2
        return self._random.gamma(shape + np.diff(side.rated.indptr) / 2, 1 / rates)
