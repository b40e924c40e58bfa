"""The request that describes the lists to compute."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from marquee.v1 import recommender_service_pb2 as pb
from marquee.v1 import types_pb2
from marquee_core.scorers.scorer import LoadScorer
from marquee_core.service_names import CF, INFERENCE
from marquee_services.gateway.settings import GatewaySettings
from marquee_services.gateway.validation import DEFAULT_PAGE_SIZE, validate

Loaders: TypeAlias = Mapping[str, Mapping[str, LoadScorer]]
"""For each backend, the functions that load its models, by the model's name."""


def serving_loaders() -> Loaders:
    """Returns the loaders that the servers use."""
    from marquee_services.cf.models import CF_SCORERS
    from marquee_services.inference.models import loaders

    return {CF: CF_SCORERS, INFERENCE: loaders(tensorflow_threads=1)}


@dataclass(frozen=True)
class ListRequest:
    """A description of the lists to compute, which is sent to other processes.

    Attributes:
        store: The URL of the release store.
        release_id: The release.
        page_size: The maximum number of items of a list; 0 for 20.
        options: The serialised RecommendOptions for all users.
        trusted_keys: PEM file of public keys, one of which must have signed the release; "" to
            accept unsigned releases.
        cache_dir: Folder of the copies of release files.
        dense_limit: The largest catalogue, in items, that is ranked completely.
        candidates: The number of candidates that each model retrieves from a larger catalogue.
        loaders: Returns the loaders of the models. It must be a module-level function, so that it
            can be sent to other processes.
    """

    store: str
    release_id: str
    page_size: int = DEFAULT_PAGE_SIZE
    options: bytes = b""
    trusted_keys: str = ""
    cache_dir: str = GatewaySettings.cache_dir
    dense_limit: int = GatewaySettings.dense_limit
    candidates: int = GatewaySettings.candidates
    loaders: Callable[[], Loaders] = serving_loaders

    @cached_property
    def recommend_options(self) -> pb.RecommendOptions:
        """The options as a message, with the release and without metadata."""
        options = pb.RecommendOptions.FromString(self.options)
        options.release_id = self.release_id
        options.include_metadata = False  # The table adds the metadata once for each item.
        return options

    @property
    def size(self) -> int:
        """The maximum number of items of a list."""
        return self.page_size or DEFAULT_PAGE_SIZE

    def of_user(self, user_id: str) -> pb.RecommendRequest:
        """Returns the equivalent Recommend request for a user."""
        return pb.RecommendRequest(
            subject=types_pb2.Subject(user_id=user_id),
            page_size=self.page_size,
            options=self.recommend_options,
        )

    def check(self) -> None:
        """Checks the parts of the request that do not depend on users or the release.

        Raises:
            InvalidFields: The page size or an option is not allowed.
        """
        validate(self.of_user("user"))

    @cached_property
    def digest(self) -> str:
        """A digest of everything that determines the lists: release, size, options and limits."""
        text = "\n".join(
            (
                self.release_id,
                str(self.size),
                self.recommend_options.SerializeToString(deterministic=True).hex(),
                f"{self.dense_limit} {self.candidates}",
            )
        )
        return hashlib.sha256(text.encode()).hexdigest()
