"""Generates a sample that resembles MovieLens, so that a first run requires no network."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from marquee_core.arrays import Float64, Int64
from marquee_trainer.data.dataset import RatingsDataset
from marquee_trainer.data.errors import RatingsError
from marquee_trainer.data.film_titles import film_titles
from marquee_trainer.data.item_metadata import ItemMetadata

_GENRES = (
    "Action",
    "Adventure",
    "Animation",
    "Comedy",
    "Crime",
    "Drama",
    "Fantasy",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "Western",
)
_MOST_GENRES = 3  # per item

_DAY_S = 86_400
_START, _SPAN_DAYS = 978_307_200, 3 * 365  # users join within three years from January 2001
_YEARS = (1950, 2001)
_SESSION_GAP_DAYS = 20.0  # mean gap between a user's sessions
_RATING_GAP_S = 20.0  # mean gap between the ratings of a session
_FEWEST = 20  # users and items of a sample
# Users are processed in blocks of about this many (user, item) cells, to limit memory.
_BLOCK_CELLS = 4_000_000


@dataclass(frozen=True)
class SampleConfig:
    """The parameters of a sample. Deviations are standard deviations, in stars unless noted.

    Attributes:
        users: Number of users.
        items: Number of items; a few of the least popular may get no ratings and are omitted.
        ratings: Number of ratings.
        least: Smallest number of ratings of a user.
        mean: Mean rating if every user rated every item.
        user_deviation: Deviation of the users' biases.
        item_deviation: Deviation of the items' biases.
        taste_deviation: Deviation of the part of a rating that is explained by tastes.
        noise: Deviation of the random part of a rating.
        tastes: Number of latent factors of tastes and of interests.
        genre_weight: Share of the variance of an item's factors that is explained by its genres.
        activity_deviation: Deviation of the logarithm of the number of ratings per user.
        popularity_exponent: Exponent of the long tail: popularity ~ rank^-exponent.
        interest_deviation: Deviation of the log odds of being rated that is explained by interests.
            Interests are independent of tastes: users do not like everything that interests them.
        selection: Increase of the log odds of being rated per star of taste: users prefer to
            watch what they will like.
        session: Mean number of ratings per session.
    """

    users: int = 600
    items: int = 500
    ratings: int = 40_000
    least: int = 15
    mean: float = 3.3
    user_deviation: float = 0.4
    item_deviation: float = 0.45
    taste_deviation: float = 0.65
    noise: float = 0.75
    tastes: int = 6
    genre_weight: float = 0.5
    activity_deviation: float = 0.9
    popularity_exponent: float = 1.0
    interest_deviation: float = 1.5
    selection: float = 1.0
    session: float = 15.0

    def __post_init__(self) -> None:
        fewest_items = max(_FEWEST, 2 * self.least)
        if self.users < _FEWEST or self.items < fewest_items:
            raise RatingsError(
                f"a sample has at least {_FEWEST} users and {fewest_items} items, not "
                f"{self.users} and {self.items}"
            )
        if not self.users * self.least <= self.ratings <= self.users * self.items // 2:
            raise RatingsError(
                f"a sample of {self.users} users and {self.items} items has "
                f"{self.users * self.least} to {self.users * self.items // 2} ratings, "
                f"not {self.ratings}"
            )


@dataclass(frozen=True)
class SampleTastes:
    """The opinions of a sample's users about all items, including those they have not rated.

    Attributes:
        config: The parameters of the sample.
        user_tastes: The users' factors (users × tastes).
        item_tastes: The items' factors (items × tastes).
        user_bias: The users' biases in stars (users).
        item_bias: The items' biases in stars (items).
    """

    config: SampleConfig
    user_tastes: Float64
    item_tastes: Float64
    user_bias: Float64
    item_bias: Float64

    def stars(self, user_id: str, item_id: str, random: np.random.Generator) -> float:
        """Draws a user's rating of an item from the same distribution as the sample's ratings.

        Args:
            user_id: The user's id in the sample.
            item_id: The item's id in the sample.
            random: Generates the random part of the rating.
        """
        user, item = int(user_id) - 1, int(item_id) - 1
        taste = float(self.user_tastes[user] @ self.item_tastes[item])
        bias = self.config.mean + self.user_bias[user] + self.item_bias[item]
        return float(_rounded(bias + taste + self.config.noise * random.normal()))


def generate_sample(config: SampleConfig, seed: int) -> RatingsDataset:
    """Generates ratings; see `generate_sample_with_tastes`."""
    return generate_sample_with_tastes(config, seed)[0]


def generate_sample_with_tastes(
    config: SampleConfig, seed: int
) -> tuple[RatingsDataset, SampleTastes]:
    """Generates ratings with biases, latent tastes, a long tail and selection bias.

    A rating is round(μ + b_u + b_i + p_u · q_i + ε), clipped to 1 … 5. Each user's items are drawn
    without replacement with odds popularity_i · exp(b_i / 2 + selection · p_u · q_i + s_u · t_i),
    where p and q are factors of tastes, and s and t factors of interests. Interests affect which
    items are rated, but not the ratings.

    Args:
        config: The parameters of the sample.
        seed: Seed for all randomness.

    Returns:
        The ratings, and the tastes of the users.
    """
    random = np.random.default_rng(seed)
    genres = _genres(config, random)
    item_tastes = config.taste_deviation * _item_factors(config, genres, random)
    user_tastes = random.normal(size=(config.users, config.tastes))
    item_interests = config.interest_deviation * _item_factors(config, genres, random)
    user_interests = random.normal(size=(config.users, config.tastes))
    user_bias = config.user_deviation * random.normal(size=config.users)
    item_bias = config.item_deviation * random.normal(size=config.items)
    ranks = 1.0 + random.permutation(config.items)
    # All users watch good items more often.
    pull = -config.popularity_exponent * np.log(ranks) + 0.5 * item_bias
    counts = _activity(config, random)
    users = np.repeat(np.arange(config.users), counts)
    items = np.empty(config.ratings, dtype=np.int64)
    stars = np.empty(config.ratings)
    starts = np.concatenate([[0], np.cumsum(counts)])
    block = max(1, _BLOCK_CELLS // config.items)
    for first in range(0, config.users, block):
        here = slice(first, first + block)
        taste = user_tastes[here] @ item_tastes.T
        # Gumbel noise makes the top n a draw without replacement with odds exp(attraction).
        attraction = pull + config.selection * taste + user_interests[here] @ item_interests.T
        attraction += random.gumbel(size=taste.shape)
        order = np.argsort(-attraction, axis=1)
        drawn = np.arange(config.items) < counts[here, None]
        rows = slice(starts[first], starts[min(first + block, config.users)])
        items[rows] = order[drawn]
        stars[rows] = np.take_along_axis(taste, order, axis=1)[drawn]
    stars += config.mean + user_bias[users] + item_bias[items]
    stars += config.noise * random.normal(size=config.ratings)
    ratings = _rounded(stars).astype(np.float32)
    timestamps = _timestamps(config, users, starts, random)
    titles = film_titles(config.items, random)
    years = random.integers(*_YEARS, size=config.items)
    metadata = {
        str(item + 1): ItemMetadata(titles[item], int(years[item]), tuple(genres[item]))
        for item in range(config.items)
    }
    dataset = RatingsDataset.of(
        _ids(users), _ids(items), ratings, timestamps, metadata, _description(config, seed)
    )
    return dataset, SampleTastes(config, user_tastes, item_tastes, user_bias, item_bias)


def _rounded(stars: Float64) -> Float64:
    """Stars on the scale; rounded half up, because np.rint would favour even stars."""
    rounded: Float64 = np.clip(np.floor(stars + 0.5), 1, 5)
    return rounded


def _genres(config: SampleConfig, random: np.random.Generator) -> list[list[str]]:
    """The genres of each item, one to three."""
    counts = random.integers(1, _MOST_GENRES + 1, size=config.items)
    return [random.choice(_GENRES, size=count, replace=False).tolist() for count in counts]


def _item_factors(
    config: SampleConfig, genres: list[list[str]], random: np.random.Generator
) -> Float64:
    """Generates the items' factors, which their genres partly explain (float64, items × tastes).

    Their mean squared length is 1, so that products with the users' factors, which have unit
    variance, have unit variance too.
    """
    leaning = {name: random.normal(size=config.tastes) for name in _GENRES}
    of_genres = np.stack([np.mean([leaning[name] for name in names], axis=0) for names in genres])
    own = random.normal(size=of_genres.shape)
    positions = np.sqrt(config.genre_weight) * of_genres / of_genres.std()
    positions += np.sqrt(1.0 - config.genre_weight) * own
    unit: Float64 = positions / np.sqrt(np.mean(np.sum(positions**2, axis=1)))
    return unit


def _activity(config: SampleConfig, random: np.random.Generator) -> Int64:
    """The number of ratings of each user: log-normal, limited, with the configured sum."""
    raw = random.lognormal(sigma=config.activity_deviation, size=config.users)
    most = max(config.items * 3 // 4, config.ratings // config.users + 1)
    low, high = 0.0, config.ratings / raw.min()
    for _ in range(64):  # bisects the scale of the raw counts
        middle = (low + high) / 2
        short = np.clip(raw * middle, config.least, most).sum() < config.ratings
        low, high = (middle, high) if short else (low, middle)
    exact = np.clip(raw * low, config.least, most)
    counts = np.floor(exact).astype(np.int64)
    # The remainder after rounding down goes to the users with the largest fractions.
    missing = config.ratings - int(counts.sum())
    counts[np.argsort(counts - exact, kind="stable")[:missing]] += 1
    return counts


def _timestamps(
    config: SampleConfig, users: Int64, starts: Int64, random: np.random.Generator
) -> Int64:
    """Generates times in seconds since 1970: users rate in sessions that are weeks apart."""
    joined = _START + _DAY_S * random.integers(0, _SPAN_DAYS, size=config.users)
    pauses = random.exponential(_RATING_GAP_S, size=len(users))
    away = random.random(len(users)) < 1.0 / config.session
    pauses[away] += _DAY_S * random.exponential(_SESSION_GAP_DAYS, size=int(away.sum()))
    clock = np.cumsum(pauses)
    return (joined[users] + clock - clock[starts[:-1]][users]).astype(np.int64)


def _ids(indexes: Int64) -> list[str]:
    return [str(index + 1) for index in indexes.tolist()]


def _description(config: SampleConfig, seed: int) -> str:
    default = asdict(SampleConfig())
    changed = {name: value for name, value in asdict(config).items() if value != default[name]}
    return f"sample({', '.join(f'{k}={v}' for k, v in ({'seed': seed} | changed).items())})"
