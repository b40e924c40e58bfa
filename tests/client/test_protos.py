"""The checked-in protobuf code is what the proto files generate."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message

from locations import PROJECT
from marquee.v1 import recommender_service_pb2

ROOT = PROJECT
GENERATED = Path("clients/python/marquee/v1")


@pytest.mark.skipif(
    not (ROOT / ".venv-protos/ready").is_file(),
    reason="the code generator's environment is not there; `make protos` and `make test` make it",
)
def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    """`make protos` would change nothing."""
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["make", "protos", f"GENERATED={tmp_path / 'out'}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    fresh = {path.name: path.read_text() for path in (tmp_path / "out/marquee/v1").iterdir()}
    kept = {
        path.name: path.read_text()
        for path in (ROOT / GENERATED).iterdir()
        if path.name != "__init__.py" and path.is_file()
    }
    assert fresh == kept


def test_every_definition_has_a_comment() -> None:
    """Services, calls, messages, fields and values are documented where they are defined."""
    lonely = []
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        before = ""
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            text = line.strip()
            starts = ("service ", "rpc ", "message ", "enum ", "oneof ")
            field = text.endswith(";") and " = " in text and not text.startswith("//")
            if (text.startswith(starts) or field) and not before.startswith("//"):
                lonely.append(f"{path.name}:{number}: {text}")
            before = text
    assert not [line for line in lonely if "syntax" not in line]


def test_a_subjects_answer_has_the_fields_of_a_single_one() -> None:
    """The gateway writes the same bytes in either, so their fields must not part."""

    def fields(message: type[Message]) -> dict[str, FieldDescriptorProto]:
        written = DescriptorProto()
        message.DESCRIPTOR.CopyToProto(written)
        return {field.name: field for field in written.field}

    single = fields(recommender_service_pb2.RecommendResponse)
    batch = fields(recommender_service_pb2.BatchRecommendResponse.Recommendations)
    del single["next_page_token"]
    assert batch == single
