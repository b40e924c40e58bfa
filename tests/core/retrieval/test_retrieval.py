"""Retrieval from large catalogues: exact by blocks, and approximate with an inverted file."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench.ann import FactorScorer
from marquee_core.arrays import Float32
from marquee_core.errors import ArtifactError
from marquee_core.ratings import RatingsMatrix
from marquee_core.retrieval import ann
from marquee_core.retrieval import exact as retrieval
from marquee_core.retrieval.ann import ANN_FILE, AnnConfig, AnnIndex
from marquee_core.retrieval.exact import ExactIndex, Found
from marquee_core.retrieval.top import top_indexes
from marquee_core.scorers.baseline import Baseline
from marquee_core.scorers.scorer import ReleaseData
from marquee_services.scoring.engine import Engine
from marquee_services.scoring.loading import load_index
from marquee_services.scoring.plan import Query
from marquee_trainer.publishing.config import RetrievalConfig
from marquee_trainer.publishing.retrieval import choose_retrieval, exact_best, recall_of

CONFIG = AnnConfig(lists=64, probes=8)


def clustered(items: int, users: int, seed: int = 0) -> tuple[Float32, Float32]:
    """Draw vectors of items and users around common centres, as in real data."""
    random = np.random.default_rng(seed)
    centres = random.normal(size=(40, 16))
    both = centres[random.integers(0, 40, items + users)] + 0.4 * random.normal(
        size=(items + users, 16)
    )
    vectors: Float32 = both.astype(np.float32)
    return vectors[:items], vectors[items:]


def brute_force(
    vectors: Float32, items: Float32, count: int, eligible: np.ndarray | None
) -> list[Found]:
    """The expected items, by scoring the whole catalogue."""
    rows = vectors @ items.T
    tops = [top_indexes(row, count, eligible) for row in rows]
    return [(top.astype(np.int32), row[top]) for row, top in zip(rows, tops, strict=True)]


@given(
    st.integers(1, 900), st.integers(0, 5), st.integers(1, 40), st.integers(0, 99), st.booleans()
)
@settings(max_examples=60)
def test_blocks_find_the_same_items_as_brute_force(
    size: int, users: int, count: int, seed: int, masked: bool
) -> None:
    """Results agree for all sizes; small integers make many ties, which go to the lower index."""
    random = np.random.default_rng(seed)
    items = random.integers(-2, 3, (size, 3)).astype(np.float32)
    vectors = random.integers(-2, 3, (users, 3)).astype(np.float32)
    eligible = random.random(size) < 0.3 if masked else None
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (("_MIN_BLOCK_ITEMS", 64), ("_MIN_BLOCK_RATIO", 1), ("_BLOCK_BYTES", 1)):
            patch.setattr(retrieval, name, value)
        found = ExactIndex(items).search(vectors, count, eligible)
    for (found_items, scores), (expected_items, expected) in zip(
        found, brute_force(vectors, items, count, eligible), strict=True
    ):
        assert found_items.tolist() == expected_items.tolist()
        assert scores.tolist() == expected.tolist()


@pytest.fixture(scope="module")
def built() -> tuple[AnnIndex, Float32, Float32]:
    """An approximate index, its items, and users."""
    items, users = clustered(8_000, 50)
    return AnnIndex.build(items, CONFIG, 2_560, 0), items, users


def test_recall_grows_with_the_number_of_lists(
    built: tuple[AnnIndex, Float32, Float32],
) -> None:
    """Recall reaches nearly 1 with all lists, and all scores are exact."""
    index, items, users = built
    best = exact_best(items, users)
    recalls = [recall_of(index.with_probes(n), best, users) for n in (1, 8, 64)]
    assert recalls == sorted(recalls)
    assert recalls[0] < recalls[2]
    assert recalls[1] >= 0.9
    assert recalls[2] >= 0.99
    for user, (found, scores) in zip(users, index.search(users, 20, None), strict=True):
        np.testing.assert_allclose(scores, items[found] @ user, rtol=1e-5)
        assert (np.diff(scores) <= 0).all()


def test_candidates_are_the_best_items_in_any_order(
    built: tuple[AnnIndex, Float32, Float32],
) -> None:
    """Hardly any of the best items are missing, although their scores are not exact."""
    index, items, users = built
    index = index.with_probes(64)
    for eligible in (None, np.arange(len(items)) % 2 == 0, np.arange(len(items)) < 150):
        expected = brute_force(users, items, 100, eligible)
        for one in (index, ExactIndex(items)):
            found = one.candidates(users, 100, eligible)
            assert [len(found_items) for found_items in found] == [100] * len(users)
            shares = [
                len(np.intersect1d(found_items, best)) / 100
                for found_items, (best, _) in zip(found, expected, strict=True)
            ]
            assert np.mean(shares) >= 0.97
            assert eligible is None or all(eligible[found_items].all() for found_items in found)


@pytest.mark.parametrize("share", [0.5, 0.001, 0.0])
def test_only_eligible_items_are_found(
    built: tuple[AnnIndex, Float32, Float32], share: float
) -> None:
    """The result is complete if enough items are eligible, and a few items are ranked exactly."""
    index, items, users = built
    eligible = np.random.default_rng(1).random(len(items)) < share
    expected = brute_force(users, items, 20, eligible)
    for (found, _), (best, _) in zip(index.search(users, 20, eligible), expected, strict=True):
        assert eligible[found].all()
        assert len(found) == min(20, int(eligible.sum()))
        if share < 0.02:
            assert found.tolist() == best.tolist()


def test_a_saved_index_is_loaded_and_a_mismatching_one_refused(
    built: tuple[AnnIndex, Float32, Float32], tmp_path: Path
) -> None:
    """Damaged files, and files for other items or parameters, are refused."""
    index, items, users = built
    index.save(tmp_path)
    again = AnnIndex.load(tmp_path, items, index.config)
    for (found_items, _), (expected_items, _) in zip(
        again.search(users, 20, None), index.search(users, 20, None), strict=True
    ):
        assert found_items.tolist() == expected_items.tolist()
    with pytest.raises(ArtifactError, match="not"):
        AnnIndex.load(tmp_path, items[:-1], index.config)
    # A separate file: the first one is memory-mapped, and a mapped file must not shrink.
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    with pytest.raises(ArtifactError, match="must be an inverted file of 32 lists"):
        AnnIndex.load(tmp_path, items, replace(index.config, lists=32))
    flat = faiss.IndexFlatIP(items.shape[1])
    flat.add(items)
    faiss.write_index(flat, str(damaged / ANN_FILE))
    with pytest.raises(ArtifactError, match="must be an inverted file"):
        AnnIndex.load(damaged, items, index.config)
    (damaged / ANN_FILE).write_bytes(b"no index")
    with pytest.raises(ArtifactError):
        AnnIndex.load(damaged, items, index.config)


def test_an_index_of_vectors_that_are_not_padded_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Releases of older versions, whose indexes have the width of the items, are still served."""
    random = np.random.default_rng(3)
    items = random.standard_normal((600, 5), dtype=np.float32)
    users = random.standard_normal((4, 5), dtype=np.float32)
    config = AnnConfig(lists=4, probes=4)
    with monkeypatch.context() as patch:
        patch.setattr(ann, "_LANES", 1)
        AnnIndex.build(items, config, 600, 0).save(tmp_path)
    assert faiss.read_index(str(tmp_path / ANN_FILE)).d == 5
    found = AnnIndex.load(tmp_path, items, config).search(users, 20, None)
    for (best, _), (expected, _) in zip(found, brute_force(users, items, 20, None), strict=True):
        assert best.tolist() == expected.tolist()


def test_typical_users_determine_which_items_share_a_list(tmp_path: Path) -> None:
    """A component that separates items, but hardly matters to users, does not determine the lists.

    The sketch of Bayesian MF has such a component: the biases of the items.
    """
    items, users = clustered(4_000, 100)
    random = np.random.default_rng(5)
    items = np.hstack([items, 50 * random.standard_normal((len(items), 1), dtype=np.float32)])
    users = np.hstack([users, np.full((len(users), 1), 1e-3, np.float32)])
    best = exact_best(items, users[:50])
    plain = AnnIndex.build(items, CONFIG, 2_560, 0)
    index = AnnIndex.build(items, CONFIG, 2_560, 0, users[50:])
    assert recall_of(index, best, users[:50]) > recall_of(plain, best, users[:50]) + 0.2
    index.save(tmp_path)
    loaded = AnnIndex.load(tmp_path, items, CONFIG)
    for one, (found, scores), expected in zip(
        users, loaded.search(users, 20, None), index.search(users, 20, None), strict=True
    ):
        assert found.tolist() == expected[0].tolist()
        np.testing.assert_allclose(scores, items[found] @ one, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("damage", ["bias", "width", "nan", "two"])
def test_a_damaged_transformation_is_refused(tmp_path: Path, damage: str) -> None:
    """A server does not search with vectors of another width or with values that are not finite."""
    items, users = clustered(600, 20)
    config = AnnConfig(lists=4, probes=4)
    AnnIndex.build(items, config, 600, 0, users).save(tmp_path)
    saved = faiss.read_index(str(tmp_path / ANN_FILE))
    matrix = faiss.downcast_VectorTransform(saved.chain.at(0))
    values = faiss.vector_to_array(matrix.A)
    width = matrix.d_in + 1 if damage == "width" else matrix.d_in
    changed = faiss.LinearTransform(width, matrix.d_out, damage == "bias")
    values = np.resize(values, width * matrix.d_out)
    values[0] = np.nan if damage == "nan" else values[0]
    faiss.copy_array_to_vector(values, changed.A)
    if damage == "bias":
        faiss.copy_array_to_vector(np.ones(matrix.d_out, np.float32), changed.b)
    changed.is_trained = True
    damaged = faiss.IndexPreTransform(changed, faiss.downcast_index(saved.index))
    if damage == "two":
        first = faiss.RemapDimensionsTransform(matrix.d_in, matrix.d_in, True)
        damaged.prepend_transform(first)
    faiss.write_index(damaged, str(tmp_path / "damaged"))
    (tmp_path / ANN_FILE).unlink()
    (tmp_path / "damaged").rename(tmp_path / ANN_FILE)
    with pytest.raises(ArtifactError):
        AnnIndex.load(tmp_path, items, config)


@pytest.fixture(scope="module")
def data() -> ReleaseData:
    """Fifty users with one rating each, and eight thousand items."""
    users = np.arange(50, dtype=np.int32)
    matrix = RatingsMatrix.of(users, users, np.full(50, 4.0, np.float32), 50, 8_000)
    return ReleaseData(matrix, Baseline.fit(matrix, 5.0, 5.0, 1))


def test_the_trainer_chooses_the_fewest_lists_that_reach_the_recall(
    built: tuple[AnnIndex, Float32, Float32], data: ReleaseData
) -> None:
    """The manifest records the measurement, and `auto` uses exact search for small catalogues."""
    scorer = FactorScorer(*built[1:])
    chosen = choose_retrieval(scorer, data, RetrievalConfig("ann", max_probe_share=1.0), 0)
    assert chosen.index is not None
    assert chosen.entry["kind"] == "ann"
    assert chosen.entry["recall_at_100"] >= 0.95
    assert chosen.entry["parameters"] == asdict(chosen.index.config)
    assert json.loads(json.dumps(chosen.entry)) == chosen.entry
    fewer = chosen.index.with_probes(max(1, int(0.8 * chosen.index.config.probes)))
    if fewer.config.probes < chosen.index.config.probes:
        assert recall_of(fewer, exact_best(*built[1:]), built[2]) < 0.95
    assert choose_retrieval(scorer, data, RetrievalConfig(), 0).entry == {"kind": "exact"}
    few = RetrievalConfig("auto", ann_items=1, target_recall=1.01)
    rejected = choose_retrieval(scorer, data, few, 0)
    assert rejected.index is None
    assert rejected.entry["rejected"]["recall_at_100"] < 1.01


def test_the_server_uses_the_index_of_the_release(
    built: tuple[AnnIndex, Float32, Float32], data: ReleaseData, tmp_path: Path
) -> None:
    """The server uses the index in the manifest, and refuses damaged or unknown entries."""
    index, items, users = built
    scorer = FactorScorer(items, users)
    index.save(tmp_path)
    entry = {"kind": "ann", "parameters": asdict(index.config), "recall_at_100": 0.9}
    no_ratings = np.empty(0, np.int32), np.empty(0, np.float32)
    queries = [Query(user, *no_ratings, None) for user in range(5)]
    found = {}
    for kind, loaded in (("ann", entry), ("exact", {"kind": "exact"})):
        used = load_index(tmp_path, scorer, loaded)
        assert used is not None
        engine = Engine("r", data, {"mf": scorer}, {"mf": used})
        found[kind] = engine.retrieve(queries, (), 20, None)["mf"]
    for user, (items_of, _) in enumerate(found["exact"]):
        assert (
            items_of.tolist() == brute_force(users[user : user + 1], items, 20, None)[0][0].tolist()
        )
        assert len(np.intersect1d(items_of, found["ann"][user][0])) >= 15
    for bad in ({"kind": "ann"}, {"kind": "ann", "parameters": {"x": 1}}, {"kind": "guess"}):
        with pytest.raises(ArtifactError):
            load_index(tmp_path, scorer, bad)
