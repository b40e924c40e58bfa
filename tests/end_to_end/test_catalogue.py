"""What the catalogue says about items, from a file of items to the answers of a gateway."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from click.testing import CliRunner

from marquee.cli import main as marquee_command
from marquee_core.release.store import ReleaseStore
from marquee_trainer.data import dataset
from marquee_trainer.gate.inputs import summary_of_production
from toy.trained_services import serve_trained
from toy.two_groups import ITEMS, ROWS, table


@pytest.mark.timeout(300)
@pytest.mark.parametrize("unrated", [1, ITEMS + 1])
async def test_attributes_and_unrated_items_are_served(
    unrated: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """GetItem returns attributes; an unrated item is found and compared, but never recommended.

    The same holds for a large catalogue in which most items are unrated, and models know only the
    rated ones.
    """
    monkeypatch.setattr(dataset, "_SMALL_CATALOGUE", ITEMS)
    films = [(f"i{n}", f"Film {n} (1990)", "War" if n % 2 else "Drama", "") for n in range(ITEMS)]
    films.append(("new", "Unseen Work (1991)", "War", "Zoë\nReyes"))
    films += [(f"a{n}", f"Shelved {n} (1992)", "Opera", "") for n in range(unrated - 1)]
    (tmp_path / "r.csv").write_text(table("user,item,rating,time", ROWS))
    (tmp_path / "films.csv").write_text(table("id,title,genres,director", films))
    store = ReleaseStore(str(tmp_path / "store"))
    command = ["train", "--data", str(tmp_path / "r.csv"), "--items", str(tmp_path / "films.csv")]
    command += ["--store", store.url, "--models", "ease,item_cf,ials"]
    # In a thread, because the gate runs its own event loop.
    result = await asyncio.to_thread(CliRunner().invoke, marquee_command, command)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"  loading ratings from {tmp_path / 'r.csv'}\n")
    assert "  publish\n" in result.stderr
    async with serve_trained(store, tmp_path) as client:
        new = await client.get_item("new")
        assert (new.title, new.attributes) == ("Unseen Work", {"director": "Zoë\nReyes"})
        assert (await client.get_item("i1")).attributes == {}
        assert [item.item_id for item in await client.search_items("unseen")] == ["new"]
        similar = await client.similar_items("new", include_metadata=True)
        assert len(similar) == ITEMS // 2
        assert all(item.metadata and item.metadata.genres == ("War",) for item in similar)
        assert similar.source.models == ()
        for user, ratings in (("u3", {}), (None, {"i1": 5.0}), ("stranger", {})):
            page = await client.recommend(user, ratings=ratings, page_size=ITEMS, include_seen=True)
            assert sorted(item.item_id for item in page) == sorted(f"i{n}" for n in range(ITEMS))
            assert all((item.predicted_stars or 0) >= 1 for item in page)
        page = await client.recommend("u3", allowed_item_ids=["new"])
        assert [item.item_id for item in page] == ["new"]
        of_visitor = await client.recommend(ratings={"new": 5.0, "i1": 5.0}, page_size=3)
        assert (of_visitor.subject_kind.value, len(of_visitor)) == ("VISITOR", 3)
        assert of_visitor.unknown_item_ids == ()
        explained = await client.recommend("u3", page_size=3, include_reasons=True)
        assert all(item.reasons for item in explained)
    production = store.production()
    assert production is not None
    files = store.manifest(production.release_id).files
    assert ("models/ease/modelled_items.npy" in files) == (unrated > 1)
    # A later training must not mistake the unrated items for lost ones.
    summary = summary_of_production(store)
    assert summary is not None
    assert summary.items == ITEMS
    assert "attributes/text.npy" in files
