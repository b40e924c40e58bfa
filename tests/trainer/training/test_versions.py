"""A release names the libraries that trained it, whatever TensorFlow is called."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError

import pytest

from marquee_trainer.training import versions


@pytest.mark.parametrize("installed", ["tensorflow-cpu", "tensorflow", "tensorflow-rocm"])
def test_the_installed_distribution_of_tensorflow_is_named(
    installed: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A build for GPUs has another name; that another one is absent is no error."""
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


def test_this_environment_has_what_training_needs() -> None:
    """Each with the version of the distribution."""
    found = versions.library_versions()
    assert {"keras", "numba", "numpy", "scipy", "marquee-recommender"} <= found.keys()
    assert any(name.startswith("tensorflow") for name in found)
