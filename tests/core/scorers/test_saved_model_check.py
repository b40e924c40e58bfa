"""A SavedModel that does more than compute is refused before it is loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from marquee_core.errors import ArtifactError
from marquee_core.scorers.quiet_tensorflow import import_tensorflow
from marquee_core.scorers.saved_model_check import check_saved_model

tf = import_tensorflow()


class Computing(tf.Module):  # type: ignore[misc, name-defined]
    """Multiplies by a variable."""

    def __init__(self) -> None:
        super().__init__()
        self.weights = tf.Variable(np.ones((2, 2), np.float32))

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])  # type: ignore[untyped-decorator]
    def score(self, values: Any) -> Any:
        """Return the product, as a probability."""
        return tf.sigmoid(values @ self.weights)


class Reading(Computing):
    """Reads a file while it scores."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])  # type: ignore[untyped-decorator]
    def score(self, values: Any) -> Any:
        """Return the size of a file."""
        return values + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


class Writing(Computing):
    """Writes a file while it scores."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])  # type: ignore[untyped-decorator]
    def score(self, values: Any) -> Any:
        """Return the values."""
        with tf.control_dependencies([tf.io.write_file("/tmp/written", "x")]):  # noqa: S108
            return tf.identity(values)


class Saving(Computing):
    """Writes a checkpoint, as every SavedModel's own saver does, while it scores."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])  # type: ignore[untyped-decorator]
    def score(self, values: Any) -> Any:
        """Return the values."""
        tf.raw_ops.SaveV2(
            prefix="/tmp/saved",  # noqa: S108
            tensor_names=["x"],
            shape_and_slices=[""],
            tensors=[values],
        )
        return tf.identity(values)


class CallingPython(Computing):
    """Calls Python while it scores."""

    @tf.function(input_signature=[tf.TensorSpec([None, 2], tf.float32)])  # type: ignore[untyped-decorator]
    def score(self, values: Any) -> Any:
        """Return the values."""
        return tf.py_function(lambda value: value, [values], tf.float32)


class Initialising(Computing):
    """Has a table that is filled while the model is loaded."""

    def __init__(self) -> None:
        super().__init__()
        self.table = tf.lookup.StaticHashTable(
            tf.lookup.KeyValueTensorInitializer(tf.constant(["a"]), tf.constant([1.0])), 0.0
        )


class WithAsset(Computing):
    """Includes a file."""

    def __init__(self) -> None:
        super().__init__()
        self.asset = tf.saved_model.Asset(__file__)


def saved(module: Any, folder: Path) -> Path:
    """Save a module, and return its folder."""
    tf.saved_model.save(module, str(folder), signatures={"score": module.score})
    return folder


def test_a_model_that_only_computes_is_accepted(tmp_path: Path) -> None:
    """The functions with which a SavedModel saves and restores its variables are allowed."""
    check_saved_model(saved(Computing(), tmp_path / "model"))


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (Reading, "ReadFile"),
        (Writing, "WriteFile"),
        (Saving, "SaveV2"),
        (CallingPython, "PyFunc"),
        (Initialising, "HashTable|LookupTable|resource"),
        (WithAsset, "files of its own|asset"),
    ],
)
def test_a_model_that_does_more_is_refused(module: Any, message: str, tmp_path: Path) -> None:
    """Operations other than computation are refused both at loading and at scoring."""
    with pytest.raises(ArtifactError, match=message):
        check_saved_model(saved(module(), tmp_path / "model"))


def test_a_signature_cannot_call_the_saver(tmp_path: Path) -> None:
    """The saver may use file operations only because nothing else calls it."""
    from tensorflow.core.protobuf import saved_model_pb2

    folder = saved(Computing(), tmp_path / "model")
    path = folder / "saved_model.pb"
    model = saved_model_pb2.SavedModel.FromString(path.read_bytes())
    graph = model.meta_graphs[0]
    saver = graph.saver_def.restore_op_name
    (node,) = (node for node in graph.graph_def.node if node.name == saver)
    extra = graph.graph_def.node.add()
    extra.CopyFrom(node)
    extra.name = "another"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ArtifactError, match="RestoreV2"):
        check_saved_model(folder)


@pytest.mark.parametrize("content", [b"", b"\xff\xff\xff", b"text"])
def test_bytes_that_are_not_a_model_are_refused(content: bytes, tmp_path: Path) -> None:
    """The reason is reported in one line."""
    (tmp_path / "saved_model.pb").write_bytes(content)
    with pytest.raises(ArtifactError):
        check_saved_model(tmp_path)
