"""What the catalogue says about items, from a file of items to the answers of a gateway."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from end_to_end.test_implicit_feedback import served
from end_to_end.test_own_data import ITEMS, ROWS, table
from marquee.cli import main as marquee_command
from marquee_core.release.store import ReleaseStore


@pytest.mark.timeout(300)
async def test_attributes_and_unrated_items_are_served(tmp_path: Path) -> None:
    """GetItem returns attributes; an unrated item is found and compared, but never recommended."""
    films = [(f"i{n}", f"Film {n} (1990)", "War" if n % 2 else "Drama", "") for n in range(ITEMS)]
    films.append(("new", "Unseen Work (1991)", "War", "Zoë\nReyes"))
    (tmp_path / "r.csv").write_text(table("user,item,rating,time", ROWS))
    (tmp_path / "films.csv").write_text(table("id,title,genres,director", films))
    store = ReleaseStore(str(tmp_path / "store"))
    command = ["train", "--data", str(tmp_path / "r.csv"), "--items", str(tmp_path / "films.csv")]
    command += ["--store", store.url, "--models", "ease,item_cf,ials"]
    result = CliRunner().invoke(marquee_command, command)
    assert result.exit_code == 0, result.output
    async with served(store, tmp_path) as client:
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
        page = await client.recommend("u3", allowed_item_ids=["new"])
        assert [item.item_id for item in page] == ["new"]
    production = store.production()
    assert production is not None
    assert "attributes/text.npy" in store.manifest(production.release_id).files
