"""Models of the rated items only can score the whole catalogue."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from marquee_core.arrays import Float32, Int32
from marquee_core.errors import ArtifactError
from marquee_core.output import Output
from marquee_core.ratings import Profiles
from marquee_core.scorers.modelled_items import (
    expand_to_catalogue,
    extend_to_catalogue,
    load_scorer,
    restrict_to_items,
    save_modelled_items,
)
from marquee_core.scorers.scorer import (
    Approximates,
    ComparesItems,
    ExplainsByItems,
    ExplainsByNeighbours,
    ReleaseData,
    Scorer,
    WarmsUp,
)
from toy.ratings import release_data
from toy.release import ToyScorer

RATED = np.array([1, 3, 4, 6], dtype=np.int32)
ITEMS, UNRATED = 9, [0, 2, 5, 7, 8]
DATA = release_data(
    np.array(
        [
            [0, 5, 0, 1, 4, 0, 2, 0, 0],
            [0, 1, 0, 4, 0, 0, 5, 0, 0],
            [0, 0, 0, 0, 0, 0, 0, 0, 0],
        ]
    )
)
OWN = restrict_to_items(DATA, RATED)
VECTORS = np.random.default_rng(0).normal(size=(len(RATED), 3)).astype(np.float32)
# User 0, user 2 without ratings, and a visitor with ratings of both rated and unrated items.
VISITOR = DATA.matrix.profile(-1, np.array([5, 4, 0], np.int32), np.array([1, 5, 2], np.float32))
OUTPUTS = [Output.STARS, Output.AFFINITY]


class RoughScorer:
    """A scorer that approximates but explains nothing."""

    output = Output.AFFINITY

    def score(self, profiles: Profiles, items: Int32 | None = None) -> Float32:
        """Score every item by the number of ratings; users without any cannot be scored."""
        counts = np.where(profiles.counts > 0, profiles.counts, np.nan).astype(np.float32)
        return np.repeat(counts[:, None], len(RATED if items is None else items), axis=1)

    def approximate(self, profiles: Profiles, items: Int32 | None = None) -> Float32 | None:
        """Return the same as `score`."""
        return self.score(profiles, items)


@pytest.fixture(params=OUTPUTS, ids=[output.value for output in OUTPUTS])
def inner(request: pytest.FixtureRequest) -> ToyScorer:
    """A scorer of the rated items."""
    return ToyScorer(VECTORS, OWN, request.param)


def profiles_of(user: int) -> tuple[Profiles, Profiles]:
    """Return the profile of a user with catalogue indexes and with those of the rated items."""
    return DATA.matrix.profiles([user]), OWN.matrix.profiles([user])


def test_reducing_and_expanding_data_is_lossless() -> None:
    """Expanding the reduced data restores the data of the catalogue."""
    again = expand_to_catalogue(OWN, RATED, ITEMS)
    assert again.matrix.items.tolist() == DATA.matrix.items.tolist()
    assert again.matrix.item_count == ITEMS
    assert again.baseline.item_bias.tolist() == DATA.baseline.item_bias.tolist()
    assert (OWN.matrix.item_counts > 0).all()


def test_rated_items_have_the_scores_of_the_model(inner: ToyScorer) -> None:
    """Other items get the baseline's prediction from a rating predictor, and 0 from a ranker."""
    whole = extend_to_catalogue(inner, RATED, DATA)
    for user in (0, 1, 2):
        profile, own = profiles_of(user)
        scores = whole.score(profile)
        assert scores.shape == (1, ITEMS)
        np.testing.assert_array_equal(scores[:, RATED], inner.score(own))
        expected = np.zeros((1, ITEMS), np.float32)
        if inner.output is Output.STARS:
            expected = DATA.baseline.score(profile)
        np.testing.assert_array_equal(scores[:, UNRATED], expected[:, UNRATED])


def test_scoring_a_few_items_equals_scoring_all(inner: ToyScorer) -> None:
    """Chosen items have the same scores, whether they are shared by all users or differ by user."""
    whole = extend_to_catalogue(inner, RATED, DATA)
    profiles = DATA.matrix.profiles([0, 1])
    items = np.array([8, 3, 0, 1], np.int32)
    scores = whole.score(profiles)
    np.testing.assert_allclose(whole.score(profiles, items), scores[:, items], rtol=1e-6)
    pairs = np.array([[0, 1], [6, 7]], np.int32)
    found = whole.score_pairs(profiles, pairs)  # type: ignore[attr-defined]
    np.testing.assert_allclose(found, np.take_along_axis(scores, pairs, 1), rtol=1e-6)


def test_a_model_ignores_ratings_of_items_it_does_not_know(inner: ToyScorer) -> None:
    """Only the baseline uses all ratings of a visitor."""
    whole = extend_to_catalogue(inner, RATED, DATA)
    own = OWN.matrix.profile(-1, np.array([2], np.int32), np.array([5], np.float32))
    np.testing.assert_array_equal(whole.score(VISITOR)[:, RATED], inner.score(own))
    if inner.output is Output.STARS:
        expected = DATA.baseline.score(VISITOR)[:, UNRATED]
        np.testing.assert_array_equal(whole.score(VISITOR)[:, UNRATED], expected)


def test_evidence_sums_to_the_score(inner: ToyScorer) -> None:
    """This includes items without ratings, which no rated item explains."""
    whole = extend_to_catalogue(inner, RATED, DATA)
    assert isinstance(whole, ExplainsByItems)
    items = np.array([0, 6, 8, 3], np.int32)
    for profile in (VISITOR, profiles_of(0)[0]):
        scores = whole.score(profile, items)[0]
        found = whole.rated_evidence(profile, items, 5)
        sums = [evidence.total + evidence.remainder for evidence in found]
        np.testing.assert_allclose(sums, scores, rtol=1e-5, atol=1e-6)
        assert set(np.concatenate([e.items for e in found]).tolist()) <= set(RATED.tolist())
        assert [len(found[n].items) for n in (0, 2)] == [0, 0]
    assert isinstance(whole, ExplainsByNeighbours)
    counts = [e.count for e in whole.neighbour_evidence(VISITOR, items)]
    assert counts == DATA.matrix.item_counts[items].tolist()


def test_unknown_items_are_similar_only_to_themselves(inner: ToyScorer) -> None:
    """Known items have the similarities of the model, and 0 to unknown items."""
    whole = extend_to_catalogue(inner, RATED, DATA)
    assert isinstance(whole, ComparesItems)
    row, own = whole.similarities(3), inner.similarities(1)
    np.testing.assert_allclose(row[RATED], own, rtol=1e-6)
    assert not row[UNRATED].any()
    similarities = whole.similarities(0)
    assert np.flatnonzero(similarities).tolist() == [0]


def test_capabilities_are_those_of_the_model(inner: ToyScorer) -> None:
    """The scorer of the catalogue lacks what the model lacks, and NaN stays NaN."""
    assert not isinstance(extend_to_catalogue(inner, RATED, DATA), Approximates)
    rough = extend_to_catalogue(RoughScorer(), RATED, DATA)
    assert isinstance(rough, Approximates)
    assert not isinstance(rough, ComparesItems | ExplainsByItems | ExplainsByNeighbours | WarmsUp)
    scores = rough.approximate(DATA.matrix.profiles([0, 2]))
    assert scores is not None
    assert scores[0].tolist() == [0, 4, 0, 4, 4, 0, 4, 0, 0]
    assert np.isnan(scores[1]).all()
    some = rough.approximate(DATA.matrix.profiles([0]), np.array([8, 3, 6], np.int32))
    assert some is not None
    assert some.tolist() == [[0, 4, 4]]


def test_a_folder_lists_the_items_its_model_knows(tmp_path: Path) -> None:
    """The loader gets the data of these items only, or of all items if the folder lists none."""
    seen: list[int] = []

    def load(folder: Path, data: ReleaseData) -> Scorer:
        assert folder == tmp_path
        seen.append(data.matrix.item_count)
        return RoughScorer()

    assert isinstance(load_scorer(load, tmp_path, DATA), RoughScorer)
    save_modelled_items(tmp_path, RATED)
    assert load_scorer(load, tmp_path, DATA).score(DATA.matrix.profiles([0])).shape == (1, ITEMS)
    assert seen == [ITEMS, len(RATED)]


@pytest.mark.parametrize("items", [[1, 3, 4], [3, 1, 4, 6], [1, 3, 4, 6, 9], [-1, 1, 3, 4, 6]])
def test_a_damaged_list_of_items_is_refused(items: list[int], tmp_path: Path) -> None:
    """The list must name items of the catalogue in order, including all that are rated."""
    save_modelled_items(tmp_path, np.array(items, np.int32))
    with pytest.raises(ArtifactError, match="modelled_items"):
        load_scorer(lambda _, __: RoughScorer(), tmp_path, DATA)
