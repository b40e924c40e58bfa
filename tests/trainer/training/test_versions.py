"""A release records the versions of the libraries that trained it."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from marquee_trainer.training import versions


@pytest.mark.parametrize("installed", ["tensorflow-cpu", "tensorflow", "tensorflow-rocm"])
def test_the_installed_distribution_of_tensorflow_is_recorded(
    installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A GPU build has another name, and a missing distribution is not an error."""
    known = {"numpy": "2.3", "keras": "3.12", installed: "2.21"}

    def version(name: str) -> str:
        if name not in known:
            raise PackageNotFoundError(name)
        return known[name]

    monkeypatch.setattr(versions, "version", version)
    versions._versions.cache_clear()
    try:
        assert versions.library_versions() == known
    finally:
        versions._versions.cache_clear()


def test_all_libraries_of_this_environment_are_recorded() -> None:
    """Each library is recorded with the version of its distribution."""
    found = versions.library_versions()
    assert {"keras", "numba", "numpy", "scipy", "marquee-recommender"} <= found.keys()
    assert any(name.startswith("tensorflow") for name in found)
