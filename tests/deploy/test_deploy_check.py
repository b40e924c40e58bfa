"""The manifests and the Dockerfile pass the checks, and the checks find faults."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable

import pytest

from deploy.agreement_faults import AGREEMENT_FAULTS
from deploy.api_faults import API_FAULTS
from deploy.connection_faults import CONNECTION_FAULTS
from deploy.faults import IMAGE_FAULTS, MANIFEST_FAULTS
from deploy.seeding import ImageFault, ManifestFault
from deploy_check.images import DOCKERFILE, check_images
from deploy_check.objects import Object, workloads
from deploy_check.render import COMPONENTS, KUSTOMIZE, OVERLAYS, render, render_with
from deploy_check.static import check_objects

Rendered = Callable[[str, tuple[str, ...]], list[Object]]


@pytest.fixture(scope="session")
def rendered(tmp_path_factory: pytest.TempPathFactory) -> Rendered:
    """Renders an overlay with components, each combination once."""
    made: dict[tuple[str, tuple[str, ...]], list[Object]] = {}

    def get(overlay: str, components: tuple[str, ...]) -> list[Object]:
        if (overlay, components) not in made:
            folder = tmp_path_factory.mktemp("combined")
            made[overlay, components] = (
                render_with(overlay, components, folder)
                if components
                else render(KUSTOMIZE / "overlays" / overlay)
            )
        return copy.deepcopy(made[overlay, components])

    return get


def test_base_is_sound() -> None:
    """The base renders, every reference resolves, and the processes accept their settings."""
    assert check_objects(render(KUSTOMIZE / "base"), is_overlay=False) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_overlays_are_sound(overlay: str, rendered: Rendered) -> None:
    """Each overlay can be applied as it is."""
    assert check_objects(rendered(overlay, ())) == []


def test_production_names_images_by_digest(rendered: Rendered) -> None:
    """A tag that is pushed again changes nothing that runs in production."""
    for workload in workloads(rendered("production", ())):
        for container in workload.containers:
            assert "@sha256:" in container["image"]


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_components_fit_an_overlay(overlay: str, component: str, rendered: Rendered) -> None:
    """Each component fits each overlay: one that denies by default, and one without a CronJob."""
    assert check_objects(rendered(overlay, (component,))) == []


def test_components_fit_each_other(rendered: Rendered) -> None:
    """All components can be added to an overlay at once."""
    assert check_objects(rendered("staging", COMPONENTS)) == []


@pytest.mark.parametrize(
    "fault",
    [*MANIFEST_FAULTS, *API_FAULTS, *CONNECTION_FAULTS, *AGREEMENT_FAULTS],
    ids=lambda fault: fault.name,
)
def test_faults_in_manifests_are_found(fault: ManifestFault, rendered: Rendered) -> None:
    """A fault that is seeded into the manifests is found without a cluster."""
    objects = rendered(fault.overlay, fault.components)
    fault.edit(objects)
    assert check_objects(objects)


@pytest.mark.parametrize("fault", IMAGE_FAULTS, ids=lambda fault: fault.name)
def test_faults_in_the_dockerfile_are_found(fault: ImageFault) -> None:
    """A fault that is seeded into the Dockerfile is found without a build."""
    text = DOCKERFILE.read_text()
    assert fault.old in text
    assert check_images(text.replace(fault.old, fault.new))


def test_dockerfile_is_sound() -> None:
    """The Dockerfile as it is has none of these faults."""
    assert check_images() == []


def test_overlays_and_components_have_instructions() -> None:
    """Each component has a README, and the one of deploy/ names every overlay and component."""
    text = (KUSTOMIZE.parent / "README.md").read_text()
    for name in itertools.chain(OVERLAYS, COMPONENTS):
        assert f"`{name}`" in text
    for component in COMPONENTS:
        assert (KUSTOMIZE / "components" / component / "README.md").is_file()
