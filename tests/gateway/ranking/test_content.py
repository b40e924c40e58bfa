"""Content similarity: items without ratings are compared by their catalogue entries."""

from __future__ import annotations

import numpy as np

from marquee_core.attributes import Attributes
from marquee_core.catalogue import Catalogue, Vocabulary
from marquee_services.gateway.ranking.content import content_similarities

FILMS = [
    # title, year, genres, director
    ("New", 2000, ["War", "Drama"], "Reyes"),
    ("Same genres and director", 2000, ["War", "Drama"], "Reyes"),
    ("Same genres", 2000, ["War", "Drama"], "Li"),
    ("Same genres, long ago", 1985, ["War", "Drama"], "Li"),
    ("One genre", 2000, ["Drama", "Comedy"], "Wen"),
    ("Other", 2000, ["Comedy"], "Reye"),
]


def test_items_with_more_in_common_are_more_similar() -> None:
    """Genres, equal attributes and near years count, and items with nothing in common have 0."""
    catalogue = Catalogue.of(
        Vocabulary.of(map(str, range(len(FILMS)))),
        [title for title, *_ in FILMS],
        [year for _, year, *_ in FILMS],
        [genres for _, _, genres, _ in FILMS],
    )
    attributes = Attributes.of({"director": [film[3] for film in FILMS]}, len(FILMS))
    similarity = content_similarities(catalogue, attributes, 0)
    assert similarity.dtype == np.float32
    assert similarity[0] == 0
    assert similarity[1] == 1
    assert (np.diff(similarity[1:]) < 0).all()
    assert similarity[5] == 0


def test_an_item_without_content_is_similar_to_no_other() -> None:
    """Without genres and attributes there is nothing to compare."""
    catalogue = Catalogue.of(Vocabulary.of("ab"), ["A", "B"], [0, 1990], [[], []])
    assert content_similarities(catalogue, Attributes.empty(2), 0).tolist() == [0, 0]
