"""The manifests and the Dockerfile pass the checks, and the checks find seeded faults."""

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
    """Renders overlays with components, caching each combination."""
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
    """Production is not affected when a tag is pushed again."""
    for workload in workloads(rendered("production", ())):
        for container in workload.containers:
            assert "@sha256:" in container["image"]


@pytest.mark.parametrize("component", COMPONENTS)
@pytest.mark.parametrize("overlay", OVERLAYS)
def test_components_fit_an_overlay(overlay: str, component: str, rendered: Rendered) -> None:
    """Each component works in each overlay: one denies by default, and one has no CronJob."""
    assert check_objects(rendered(overlay, (component,))) == []


def test_components_fit_each_other(rendered: Rendered) -> None:
    """All components can be added to the same overlay."""
    assert check_objects(rendered("staging", COMPONENTS)) == []


@pytest.mark.parametrize(
    "fault",
    [*MANIFEST_FAULTS, *API_FAULTS, *CONNECTION_FAULTS, *AGREEMENT_FAULTS],
    ids=lambda fault: fault.name,
)
def test_faults_in_manifests_are_found(fault: ManifestFault, rendered: Rendered) -> None:
    """The checks find each fault seeded into the manifests, without a cluster."""
    objects = rendered(fault.overlay, fault.components)
    fault.edit(objects)
    assert check_objects(objects)


@pytest.mark.parametrize("fault", IMAGE_FAULTS, ids=lambda fault: fault.name)
def test_faults_in_the_dockerfile_are_found(fault: ImageFault) -> None:
    """The checks find each fault seeded into the Dockerfile, without a build."""
    text = DOCKERFILE.read_text()
    assert fault.old in text
    assert check_images(text.replace(fault.old, fault.new))


def test_dockerfile_is_sound() -> None:
    """The project's Dockerfile has no faults."""
    assert check_images() == []


def test_overlays_and_components_have_instructions() -> None:
    """Each component has a README, and deploy/README.md names every overlay and component."""
    text = (KUSTOMIZE.parent / "README.md").read_text()
    for name in itertools.chain(OVERLAYS, COMPONENTS):
        assert f"`{name}`" in text
    for component in COMPONENTS:
        assert (KUSTOMIZE / "components" / component / "README.md").is_file()
