"""Writes synthetic ratings as a folder in the format of MovieLens 25M.

`python -m bench_scale.movielens 25 FOLDER` writes `ratings.csv` and `movies.csv`, on which
`marquee train --data FOLDER` can be measured.
"""

from __future__ import annotations

from pathlib import Path

import click
import numpy as np
import polars as pl

from bench_scale.ratings import SEED, SIZES, SyntheticRatings

_GENRES = ("Action", "Comedy", "Drama", "Horror", "Romance", "Sci-Fi", "Thriller", "Western")
_FIRST_YEAR, _YEARS = 1920, 100
_START = 1_000_000_000  # the time of the first ratings, in seconds since 1970


@click.command()
@click.argument("size", type=click.Choice(list(SIZES)))
@click.argument("folder", type=click.Path(path_type=Path))
def main(size: str, folder: Path) -> None:
    """Writes ratings of a SIZE in millions of ratings to a new FOLDER."""
    folder.mkdir(parents=True)
    ratings = SyntheticRatings.draw(SIZES[size], SEED)
    pl.DataFrame(
        {
            "userId": ratings.users + 1,
            "movieId": ratings.items + 1,
            "rating": ratings.stars,
            "timestamp": ratings.times + _START,
        }
    ).write_csv(folder / "ratings.csv", float_precision=1)
    items = np.arange(1, ratings.size.items + 1)
    random = np.random.default_rng(SEED)
    years = _FIRST_YEAR + random.integers(0, _YEARS, len(items))
    first, second = random.integers(0, len(_GENRES), (2, len(items)))
    pl.DataFrame(
        {
            "movieId": items,
            "title": [f"Film {item} ({year})" for item, year in zip(items, years, strict=True)],
            "genres": [
                "|".join(dict.fromkeys((_GENRES[a], _GENRES[b])))
                for a, b in zip(first, second, strict=True)
            ],
        }
    ).write_csv(folder / "movies.csv")


if __name__ == "__main__":
    main()
