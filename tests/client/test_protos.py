"""The proto files: generated code, comments, and fields that must stay equal."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from google.protobuf import json_format, message_factory
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.message import Message

from locations import PROJECT
from marquee.v1 import errors_pb2, feedback_service_pb2, recommender_service_pb2

ROOT = PROJECT
GENERATED = Path("clients/python/marquee/v1")


@pytest.mark.skipif(
    not (ROOT / ".venv-protos/ready").is_file(),
    reason="needs the code generator's environment, which `make protos` and `make test` create",
)
def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    """`make protos` would not change the generated code in the repository."""
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["make", "protos", f"GENERATED={tmp_path / 'out'}"],
        cwd=ROOT,
        check=True,
        capture_output=True,
    )
    generated = {path.name: path.read_text() for path in (tmp_path / "out/marquee/v1").iterdir()}
    checked_in = {
        path.name: path.read_text()
        for path in (ROOT / GENERATED).iterdir()
        if path.name != "__init__.py" and path.is_file()
    }
    assert generated == checked_in


def test_every_definition_has_a_comment() -> None:
    """Every service, RPC, message, enum, oneof, field and value has a comment above it."""
    uncommented = []
    for path in sorted((ROOT / "protos").rglob("*.proto")):
        before = ""
        for number, line in enumerate(path.read_text().splitlines(), start=1):
            text = line.strip()
            starts = ("service ", "rpc ", "message ", "enum ", "oneof ")
            field = text.endswith(";") and " = " in text and not text.startswith("//")
            if (text.startswith(starts) or field) and not before.startswith("//"):
                uncommented.append(f"{path.name}:{number}: {text}")
            before = text
    assert not [line for line in uncommented if "syntax" not in line]


def test_a_batch_answer_has_the_fields_of_a_single_answer() -> None:
    """Both messages have the same fields, since the gateway reuses the bytes of either."""

    def fields(message: type[Message]) -> dict[str, FieldDescriptorProto]:
        descriptor = DescriptorProto()
        message.DESCRIPTOR.CopyToProto(descriptor)
        return {field.name: field for field in descriptor.field}

    single = fields(recommender_service_pb2.RecommendResponse)
    batch = fields(recommender_service_pb2.BatchRecommendResponse.Recommendations)
    del single["next_page_token"]
    assert batch == single


def test_the_readme_describes_every_method_and_error() -> None:
    """Each method has an example with a valid request, and each reason has a row in the table."""
    text = (ROOT / "protos/README.md").read_text()
    for service in (
        recommender_service_pb2.DESCRIPTOR.services_by_name["RecommenderService"],
        feedback_service_pb2.DESCRIPTOR.services_by_name["FeedbackService"],
    ):
        examples = re.findall(rf"-d '(.*)' localhost:50051 {service.full_name}/(\w+)", text)
        assert {name for _, name in examples} == set(service.methods_by_name)
        for request, name in examples:
            message = message_factory.GetMessageClass(service.methods_by_name[name].input_type)()
            json_format.Parse(request, message)
    reasons = {name.removeprefix("ERROR_REASON_") for name in errors_pb2.ErrorReason.keys()}  # noqa: SIM118 - not a dict
    assert set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE)) == reasons - {"UNSPECIFIED"}
