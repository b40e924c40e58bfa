"""Checks a SavedModel against an allow-list before it is loaded, because a SavedModel is a program.

A TensorFlow graph can read and write files, open connections and call Python, and loading a
SavedModel runs parts of it. This check only parses the description of the graph. It rejects every
operation that does more than compute.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from marquee_core.errors import ArtifactError
from marquee_core.scorers.quiet_tensorflow import import_tensorflow

_MAX_BYTES = 256 * 1024 * 1024

_COMPUTING = """
    Abs Add AddN AddV2 All Any ArgMax ArgMin BatchMatMul BatchMatMulV2 BatchMatMulV3 BiasAdd
    BroadcastTo Cast Cholesky ClipByValue Concat ConcatV2 Const CumProd Cumsum Div DivNoNan Einsum
    Elu EnsureShape Equal Erf Exp ExpandDims Fill FloorDiv FloorMod Gather GatherNd GatherV2 Greater
    GreaterEqual Identity IdentityN InvertPermutation IsFinite IsInf IsNan L2Loss LeakyRelu Less
    LessEqual Log Log1p LogSoftmax LogicalAnd LogicalNot LogicalOr MatMul MatrixBandPart MatrixDiag
    MatrixDiagV3 MatrixInverse MatrixSolve MatrixTriangularSolve Max Maximum Mean Min Minimum Mul
    Neg NoOp NotEqual OneHot OnesLike Pack Pad PadV2 PartitionedCall Placeholder Pow Prod Range Rank
    ReadVariableOp RealDiv Reciprocal Relu Relu6 Reshape ResourceGather ResourceGatherNd ReverseV2
    Rsqrt ScatterNd Select SelectV2 Selu Shape ShapeN Sigmoid Sign Size Slice Softmax Softplus
    Softsign SparseTensorDenseMatMul Split SplitV Sqrt Square SquaredDifference Squeeze
    StatefulPartitionedCall StopGradient StridedSlice Sub Sum Tanh TensorScatterAdd
    TensorScatterUpdate Tile TopKV2 Transpose Unpack UnsortedSegmentSum VarHandleOp Where ZerosLike
"""
ALLOWED_OPERATIONS = frozenset(_COMPUTING.split())
"""The operations that a served model may consist of."""

# Every SavedModel has a function that saves its variables and one that restores them. Both are
# called from the main graph only. Loading does not run them, because TensorFlow restores the
# variables from the object graph.
_SAVER_OPERATIONS = ALLOWED_OPERATIONS | {
    "AssignVariableOp",
    "DisableCopyOnRead",
    "MergeV2Checkpoints",
    "RestoreV2",
    "SaveV2",
    "ShardedFilename",
    "StaticRegexFullMatch",
    "StringJoin",
}
_OBJECT_KINDS = frozenset(
    {"user_object", "variable", "function", "bare_concrete_function", "constant"}
)
_USER_OBJECTS = frozenset(
    {
        "_generic_user_object",
        "signature_map",
        "trackable_dict_wrapper",
        "trackable_list_wrapper",
        "trackable_tuple_wrapper",
    }
)
_REGISTERED_NAMES = frozenset({"", "tf.TrackableConstant"})


def check_saved_model(folder: Path) -> None:
    """Checks that a SavedModel contains only allowed operations and objects.

    Args:
        folder: The folder of the SavedModel.

    Raises:
        ArtifactError: The model is missing or damaged, or contains an operation, an object or a
            file that is not allowed.
    """
    path = folder / "saved_model.pb"
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ArtifactError(f"{folder.name}: the SavedModel has more than {_MAX_BYTES} bytes")
        model = _parse(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ArtifactError(f"{folder.name}: damaged SavedModel: {error}") from error
    if len(model.meta_graphs) != 1:
        raise ArtifactError(f"{folder.name}: the SavedModel has {len(model.meta_graphs)} graphs")
    for reason in _violations(model.meta_graphs[0]):
        raise ArtifactError(f"{folder.name}: the SavedModel {reason}, which is not allowed")


def _parse(content: bytes) -> Any:
    """Parses `saved_model.pb` as a protobuf message, without loading the model.

    Raises:
        ValueError: The content cannot be parsed.
    """
    import_tensorflow()
    from tensorflow.core.protobuf import saved_model_pb2

    try:
        return saved_model_pb2.SavedModel.FromString(content)
    except Exception as error:  # protobuf's own errors
        raise ValueError(str(error)) from error


def _violations(graph: Any) -> Iterator[str]:
    """Yields descriptions of the parts of a graph that are not allowed."""
    if graph.asset_file_def:
        yield "has asset files"
    functions = {f.signature.name: f for f in graph.graph_def.library.function}
    savers = _savers(graph)
    for name, function in functions.items():
        allowed = _SAVER_OPERATIONS if name in savers else ALLOWED_OPERATIONS
        yield from _disallowed_operations(function.node_def, allowed)
    yield from _disallowed_operations(graph.graph_def.node, ALLOWED_OPERATIONS)
    for node in graph.object_graph_def.nodes:
        kind = node.WhichOneof("kind")
        if kind not in _OBJECT_KINDS:
            yield f"has an object of the kind {kind}"
        elif kind == "user_object" and node.user_object.identifier not in _USER_OBJECTS:
            yield f"has an object of the type {node.user_object.identifier!r}"
        elif node.registered_name not in _REGISTERED_NAMES or node.registered_saver:
            yield f"has an object of the registered type {node.registered_name!r}"
        elif node.saveable_objects:
            yield "has an object that restores itself"


def _disallowed_operations(nodes: Iterable[Any], allowed: frozenset[str]) -> Iterator[str]:
    for node in nodes:
        if node.op not in allowed:
            yield f"has the operation {node.op[:100]!r}"


def _savers(graph: Any) -> set[str]:
    """Returns the functions that save or restore variables and are not called from elsewhere."""
    saver_nodes = {
        graph.saver_def.save_tensor_name.partition(":")[0],
        graph.saver_def.restore_op_name,
    }
    called_by_saver: set[str] = set()
    called: set[str] = set(graph.object_graph_def.concrete_functions)
    for node in graph.graph_def.node:
        names = _called_functions(node)
        (called_by_saver if node.name in saver_nodes else called).update(names)
    for function in graph.graph_def.library.function:
        for node in function.node_def:
            called.update(_called_functions(node))
    for signature in graph.signature_def.values():
        for tensor in signature.outputs.values():
            if tensor.name.partition(":")[0] in saver_nodes:
                return set()
    return called_by_saver - called


def _called_functions(node: Any) -> Iterator[str]:
    for value in node.attr.values():
        if value.HasField("func"):
            yield value.func.name
        yield from (function.name for function in value.list.func)
