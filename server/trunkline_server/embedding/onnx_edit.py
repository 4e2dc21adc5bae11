"""The beginning of a transformer in an ONNX file, with its matrices multiplied as whole numbers.

The file keeps matrices as bytes and a scale for each column, and makes floats of them before it multiplies. Here each
such multiplication becomes the one that takes them as they are, which reads a quarter of the memory; and what the
last layer that is wanted gives becomes what the model gives. Everything else of the file stays as it is.

Only what is needed of the format is described (onnx.proto, https://onnx.ai, Apache-2.0); the rest is carried along
unread.
"""

from collections.abc import Iterable
from typing import Any, Final

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

FLOAT_BYTES: Final = 4
NORMS_IN_LAYER: Final = (
    2  # One after attention, one at its end; one more stands before the first layer.
)
MICROSOFT: Final = "com.microsoft"

_TEXT: Final = FieldDescriptorProto.TYPE_STRING
_INTEGER: Final = FieldDescriptorProto.TYPE_INT64
_BYTES: Final = FieldDescriptorProto.TYPE_BYTES
# Message: field, number, type, and whether there are many.
_FORMAT: Final[dict[str, tuple[tuple[str, int, Any, bool], ...]]] = {
    "Node": (
        ("input", 1, _TEXT, True),
        ("output", 2, _TEXT, True),
        ("op_type", 4, _TEXT, False),
        ("domain", 7, _TEXT, False),
    ),
    "Tensor": (
        ("dims", 1, _INTEGER, True),
        ("name", 8, _TEXT, False),
        ("raw_data", 9, _BYTES, False),
    ),
    "Value": (("name", 1, _TEXT, False),),
    "Graph": (
        ("node", 1, "Node", True),
        ("initializer", 5, "Tensor", True),
        ("output", 12, "Value", True),
    ),
    "Operators": (("domain", 1, _TEXT, False), ("version", 2, _INTEGER, False)),
    "Model": (("graph", 7, "Graph", False), ("opset_import", 8, "Operators", True)),
}


def beginning(model: bytes, layers: int) -> bytes:
    """A model that ends after so many layers.

    Raises:
        RuntimeError: it is not built as we know it.
    """
    parsed = _model_class()()
    try:
        parsed.ParseFromString(model)
    except DecodeError as error:
        raise RuntimeError("no ONNX model") from error
    graph = parsed.graph
    norms = [node for node in graph.node if node.op_type == "LayerNormalization"]
    if len(graph.output) != 1 or len(norms) <= NORMS_IN_LAYER * layers:
        raise RuntimeError("not the model that is known")
    _multiply_bytes(graph)
    last = norms[NORMS_IN_LAYER * layers].output[0]
    _keep(graph, last)
    graph.output[0].name = last
    parsed.opset_import.add(domain=MICROSOFT, version=1)
    return bytes(parsed.SerializeToString())


def _multiply_bytes(graph: Any) -> None:
    """x · (float(bytes) * scale) becomes one multiplication, wherever it stands."""
    made_by = {name: node for node in graph.node for name in node.output}
    constants = {constant.name: constant for constant in graph.initializer}
    for node in graph.node:
        scaled = made_by.get(node.input[1]) if node.op_type == "MatMul" else None
        cast = made_by.get(scaled.input[0]) if scaled is not None else None
        if scaled is None or cast is None or (scaled.op_type, cast.op_type) != ("Mul", "Cast"):
            continue
        scale = constants[scaled.input[1]]
        scale.dims[:] = [len(scale.raw_data) // FLOAT_BYTES]
        node.op_type, node.domain = "DynamicQuantizeMatMul", MICROSOFT
        node.input[:] = [node.input[0], cast.input[0], scale.name]


def _keep(graph: Any, output: str) -> None:
    """Leave out what this output does not need. Nodes stand in the order in which they are computed."""
    needed = {output}
    kept = []
    for node in reversed(graph.node):
        if not needed.isdisjoint(node.output):
            kept.append(node.SerializeToString())
            needed.update(node.input)
    constants = [c.SerializeToString() for c in graph.initializer if c.name in needed]
    _replace(graph.node, reversed(kept))
    _replace(graph.initializer, constants)


def _replace(messages: Any, encoded: Iterable[bytes]) -> None:
    encoded = list(encoded)
    del messages[:]
    for data in encoded:
        messages.add().ParseFromString(data)


def _model_class() -> Any:
    file = FileDescriptorProto(name="onnx_edit.proto", package="onnx_edit", syntax="proto2")
    for name, fields in _FORMAT.items():
        message = file.message_type.add(name=name)
        for field, number, kind, is_many in fields:
            label = (
                FieldDescriptorProto.LABEL_REPEATED
                if is_many
                else FieldDescriptorProto.LABEL_OPTIONAL
            )
            added = message.field.add(name=field, number=number, label=label)
            if isinstance(kind, str):
                added.type, added.type_name = (
                    FieldDescriptorProto.TYPE_MESSAGE,
                    f".onnx_edit.{kind}",
                )
            else:
                added.type = kind
    # A pool of its own: nobody else's messages are known by these names.
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName("onnx_edit.Model"))
