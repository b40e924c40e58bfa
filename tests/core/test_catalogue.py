"""Vocabularies map ids to indexes and back."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from marquee_core.catalogue import Vocabulary

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=6)


@given(st.sets(NAMES, max_size=8), st.lists(NAMES, max_size=8))
def test_an_index_is_the_rank_of_the_id_in_byte_order(ids: set[str], others: list[str]) -> None:
    """Single and bulk look-ups agree, and unknown ids of any length have the index -1."""
    vocabulary = Vocabulary.of(ids)
    order = sorted(ids, key=str.encode)
    names = [*order, *others, *(name + "x" for name in order), *(name[:-1] for name in order)]
    expected = [order.index(name) if name in ids else -1 for name in names]
    assert vocabulary.indexes(names).tolist() == expected
    assert [vocabulary.index(name) for name in names] == expected
    assert vocabulary.ids(range(len(order))) == order


def test_more_ids_than_int32_indexes_are_refused() -> None:
    """Indexes of further ids would overflow; the ids here share one byte of memory."""
    ids = np.broadcast_to(np.array([b"a"]), 2**31)
    with pytest.raises(ValueError, match="2,147,483,648 ids"):
        Vocabulary(ids)
