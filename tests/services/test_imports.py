"""The gateway and the CF service do not need the packages of other extras."""

from __future__ import annotations

import subprocess
import sys

import pytest

BLOCK = """
import sys
class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {blocked}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Missing())
"""
GATEWAY = "import marquee_services.gateway.main, marquee_services.commands.serve"
CF = "import marquee_services.scoring.main, marquee_services.cf.main, marquee_services.cf.models"
# TensorFlow is imported only for a model that is stored only as a SavedModel.
INFERENCE = "import marquee_services.inference.main, marquee_core.scorers.perceptron"


@pytest.mark.parametrize(
    ("blocked", "imports"),
    [
        ({"tensorflow", "keras", "scipy", "marquee_trainer"}, INFERENCE),
        ({"tensorflow", "keras", "tensorflow_datasets", "scipy", "marquee_trainer"}, GATEWAY),
        ({"tensorflow", "keras", "tensorflow_datasets", "marquee_trainer"}, CF),
        ({"sqlalchemy", "alembic", "psycopg"}, GATEWAY),
    ],
)
def test_the_service_imports_without(blocked: set[str], imports: str) -> None:
    """The service can be imported without the packages that its extra does not install."""
    code = BLOCK.format(blocked=blocked) + imports
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_import_block_is_effective() -> None:
    """Importing TensorFlow fails under the same block, so the tests above can fail."""
    code = BLOCK.format(blocked={"tensorflow"}) + "import marquee_core.scorers.saved_model"
    done = subprocess.run([sys.executable, "-c", code], check=False, capture_output=True)
    assert done.returncode != 0
