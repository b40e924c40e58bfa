"""Implicit feedback, from a file to served recommendations: rankers only, no predicted stars."""

from __future__ import annotations

import asyncio
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from marquee import FailedPrecondition, InvalidArgument
from marquee.cli import _output
from marquee.cli import main as marquee_command
from marquee_core.release.manifest import IMPLICIT, Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import CF
from marquee_services.cf.models import CF_SCORERS
from marquee_services.standalone.verification import verify_release
from toy.trained_services import serve_trained

USERS, ITEMS = 40, 30


def write_plays(path: Path, counted: bool) -> dict[str, set[str]]:
    """Write plays of two groups of users who prefer two groups of items.

    Args:
        path: The CSV file to write.
        counted: Whether rows have a number of plays; otherwise each row counts as 1.

    Returns:
        The items that each user played, by user id.
    """
    random = np.random.default_rng(0)
    played: dict[str, set[str]] = {}
    lines = ["user,item,plays,time" if counted else "user,item,rating,time"]
    for user in range(USERS):
        odds = np.where(np.arange(ITEMS) % 2 == user % 2, 0.6, 0.1)
        for item in random.permutation(np.flatnonzero(random.random(ITEMS) < odds)).tolist():
            played.setdefault(f"u{user}", set()).add(f"i{item}")
            count = int(random.integers(1, 900)) if counted else 1
            lines.append(f"u{user},i{item},{count},{1_700_000_000 + len(lines)}")
    path.write_text("\n".join(lines) + "\n")
    return played


def train(folder: Path, *options: str) -> tuple[ReleaseStore, Manifest, str]:
    """Run `marquee train` on the plays, and return the store, the release and the output."""
    store = ReleaseStore(str(folder / "store"))
    result = CliRunner().invoke(
        marquee_command,
        ["train", "--data", str(folder / "plays.csv"), "--store", store.url, *options],
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    production = store.production()
    assert production is not None
    return store, store.manifest(production.release_id), result.output


@pytest.mark.parametrize("counted", [True, False], ids=["counts", "ones"])
async def test_implicit_feedback_is_served_by_rankers(counted: bool, tmp_path: Path) -> None:
    """Every answer is complete and personal, has no stars, and contains nothing already played."""
    played = write_plays(tmp_path / "plays.csv", counted)
    store, manifest, output = await asyncio.to_thread(train, tmp_path)
    assert "MSE" not in output
    assert "NDCG@10" in output
    assert manifest.data.feedback == IMPLICIT
    assert {model.name for model in manifest.models} == {
        *("ease", "slit", "ials", "popularity", "recent_popularity")
    }
    await verify_release(store, manifest.release_id, {CF: CF_SCORERS})
    async with serve_trained(store, tmp_path) as client:
        hits = total = 0
        async for answer in client.batch_recommend(list(played), page_size=10):
            page = answer.unwrap()
            user = list(played)[answer.index]
            assert not page.source.degraded
            assert not {item.item_id for item in page} & played[user]
            assert all(item.predicted_stars is None for item in page)
            own = [int(item.item_id[1:]) % 2 == int(user[1:]) % 2 for item in page][:3]
            hits, total = hits + sum(own), total + len(own)
        assert hits > 0.8 * total
        # Computed answers, and visitors whose counts exceed all counts in the release.
        computed = await client.recommend("u1", page_size=5, diversity=0.2, include_reasons=True)
        visitor = await client.recommend(
            ratings={"i1": 5000, "i3": 1}, liked_item_ids=["i5"], page_size=3, include_metadata=True
        )
        for page in (computed, visitor):
            assert not page.source.degraded
            assert all(item.predicted_stars is None for item in page)
        assert all(int(item.item_id[1:]) % 2 for item in visitor)
        assert all(item.metadata and item.metadata.mean_stars is None for item in visitor)
        # A strength of 0 means that there was no interaction, so it has no effect.
        without = await client.recommend(ratings={"i1": 5}, page_size=ITEMS)
        with_none = await client.recommend(ratings={"i1": 5, "i2": 0}, page_size=ITEMS)
        assert [(item.item_id, item.score) for item in with_none] == [
            (item.item_id, item.score) for item in without if item.item_id != "i2"
        ]
        # A subject without any interaction is a cold start, whatever it does not want to see.
        nobody = await client.recommend("nobody", page_size=ITEMS)
        first = nobody[0].item_id
        unwanted = await client.recommend(ratings={first: 0}, page_size=ITEMS)
        assert unwanted.subject_kind == nobody.subject_kind
        assert [(item.item_id, item.score, item.proposed_by) for item in unwanted] == [
            (item.item_id, item.score, item.proposed_by) for item in nobody if item.item_id != first
        ]
        assert len({item.score for item in nobody}) > 1
        for model in ("ease", "slit", "ials"):
            with pytest.raises(FailedPrecondition, match=model) as failed:
                await client.recommend("nobody", model=model)
            assert failed.value.reason == "MODEL_ABSTAINS"
        with pytest.raises(InvalidArgument, match="must be at least 0, not -1"):
            await client.recommend(ratings={"i1": -1})
        only = await client.recommend("u1", allowed_item_ids=["i2"], include_seen=True)
        assert only[0].proposed_by
        reasons = _output.recommendations(computed)
        assert "with strength" in reasons
        assert "stars" not in reasons
        with pytest.raises(InvalidArgument, match="implicit feedback"):
            await client.recommend("u1", min_predicted_stars=3.0)
        with pytest.raises(FailedPrecondition, match="implicit feedback") as failed:
            await client.predict_ratings("u1", ["i1"])
        assert failed.value.reason == "NO_PREDICTED_STARS"
        release = (await client.status()).release
    assert release is not None
    assert release.evaluation is not None
    assert release.implicit_feedback
    assert release.refitted
    assert release.rating_count == sum(len(items) for items in played.values())
    assert release.evaluation.split.startswith("last of each user")
    assert (
        release.evaluation.training_ratings + release.evaluation.test_ratings
        == release.rating_count
    )
    assert "ndcg@10" in release.ensemble_metrics
    assert "test_mse" not in release.ensemble_metrics


def test_implicit_feedback_needs_a_ranker(tmp_path: Path) -> None:
    """The error is one sentence, before anything is fitted or published."""
    write_plays(tmp_path / "plays.csv", counted=False)
    result = CliRunner().invoke(
        marquee_command,
        shlex.split(
            f"train --data {tmp_path}/plays.csv --models mf,item_cf --store {tmp_path}/store"
        ),
    )
    assert result.exit_code == 1
    assert "none of the selected models is a ranker" in result.output
    assert "fit mf" not in result.output
    assert not ReleaseStore(str(tmp_path / "store")).ids()


def test_the_evaluation_of_implicit_feedback_has_only_ranking_metrics(tmp_path: Path) -> None:
    """Metrics and report have no rating errors, and the omitted models are named."""
    write_plays(tmp_path / "plays.csv", counted=True)
    result = CliRunner().invoke(
        marquee_command,
        shlex.split(
            f"evaluate --data {tmp_path}/plays.csv --models ease,item_cf "
            f"--json {tmp_path}/metrics.json --report {tmp_path}/report"
        ),
        catch_exceptions=False,
    )
    assert result.exit_code == 0, result.output
    assert "left out: item_cf, which predict ratings" in result.stderr
    assert "mse" not in (tmp_path / "metrics.json").read_text()
    assert "NDCG@10" in (tmp_path / "report" / "report.html").read_text()
