"""Requests whose answers must be computed: visitors, fresh ratings and filters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np

from bench.release import COPIES
from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.release.contents import open_gateway_files, open_release
from marquee_core.release.manifest import Manifest
from marquee_core.release.store import ReleaseStore
from marquee_core.service_names import GATEWAY

PAGE_SIZE = 20
_VISITOR_RATINGS = (3, 30, 300)
_FRESH_RATINGS = 3
_LIKE = 4.0


def held_out_visitors(
    store: ReleaseStore, manifest: Manifest, count: int, seed: int
) -> list[tuple[pb.RecommendRequest, frozenset[str]]]:
    """Makes visitors with half of a user's ratings, and the liked items in the other half.

    Args:
        store: The release store.
        manifest: The manifest of the release in service.
        count: Number of users to draw; users without liked items in the other half are skipped.
        seed: Seed of the draw.

    Returns:
        For each visitor, a request and the ids of the held-out liked items.
    """
    files, _ = open_release(store, manifest.release_id, GATEWAY, Path(store.url).parent / COPIES)
    _, catalogue, _, _ = open_gateway_files(files)
    random = np.random.default_rng(seed)
    halved = []
    for user in random.choice(files.data.matrix.user_count, count, replace=False).tolist():
        profile = files.data.matrix.profiles([user])
        order = random.permutation(len(profile.items))
        given, rest = order[::2], order[1::2]
        liked = profile.items[rest][profile.ratings[rest] >= _LIKE]
        pairs = zip(profile.items[given].tolist(), profile.ratings[given].tolist(), strict=True)
        ratings = [
            types_pb2.Rating(item_id=catalogue.items.id(item), stars=stars) for item, stars in pairs
        ]
        if len(liked):
            subject = types_pb2.Subject(ratings=ratings)
            request = pb.RecommendRequest(subject=subject, page_size=PAGE_SIZE)
            halved.append((request, frozenset(catalogue.items.ids(liked))))
    return halved


def computed_requests(
    store: ReleaseStore, manifest: Manifest, count: int, seed: int
) -> Mapping[str, list[bytes]]:
    """Makes Recommend requests whose answers are neither cached nor precomputed.

    A visitor gets random ratings of one user, or of several users if one has too few.

    Args:
        store: The release store.
        manifest: The manifest of the release in service.
        count: Number of requests of each kind.
        seed: Seed of the draw.

    Returns:
        Serialised requests by kind.
    """
    files, _ = open_release(store, manifest.release_id, GATEWAY, Path(store.url).parent / COPIES)
    users, catalogue, _, _ = open_gateway_files(files)
    matrix = files.data.matrix
    random = np.random.default_rng(seed)

    def ratings(number: int) -> list[types_pb2.Rating]:
        stars: dict[int, float] = {}
        while len(stars) < number:
            profile = matrix.profiles([int(random.integers(matrix.user_count))])
            pairs = list(zip(profile.items.tolist(), profile.ratings.tolist(), strict=True))
            random.shuffle(pairs)
            stars.update(pairs[: number - len(stars)])
        return [
            types_pb2.Rating(item_id=catalogue.items.id(item), stars=value)
            for item, value in stars.items()
        ]

    def user() -> str:
        return users.id(int(random.integers(len(users))))

    def options() -> pb.RecommendOptions:
        genre = str(random.choice(manifest.data.genres))
        return pb.RecommendOptions(filter=types_pb2.ItemFilter(genres_any=[genre]))

    def visitor(number: int) -> pb.RecommendRequest:
        subject = types_pb2.Subject(ratings=ratings(number))
        return pb.RecommendRequest(subject=subject, page_size=PAGE_SIZE)

    kinds: dict[str, Callable[[], pb.RecommendRequest]] = {
        f"visitors with {number} ratings": partial(visitor, number) for number in _VISITOR_RATINGS
    }
    kinds |= {
        "known users with fresh ratings": lambda: pb.RecommendRequest(
            subject=types_pb2.Subject(user_id=user(), ratings=ratings(_FRESH_RATINGS)),
            page_size=PAGE_SIZE,
        ),
        "known users, genre filter": lambda: pb.RecommendRequest(
            subject=types_pb2.Subject(user_id=user()), page_size=PAGE_SIZE, options=options()
        ),
    }
    return {
        name: [make().SerializeToString() for _ in range(count)] for name, make in kinds.items()
    }
