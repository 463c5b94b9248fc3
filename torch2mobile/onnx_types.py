"""The types of ONNX values, as ONNX writes them in its operators' schemas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import onnx

Dims = tuple[int | str | None, ...]


@dataclass(frozen=True)
class ValueType:
    """The type of a value as ONNX writes it (``tensor(float)``), and its dims where known.

    A dim is a size, a symbol, or None for one that is not known.
    """

    text: str = ""
    dims: Dims | None = None

    @property
    def rank(self) -> int | None:
        """How many dimensions, or None where that is not known."""
        return None if self.dims is None else len(self.dims)

    @property
    def static(self) -> bool:
        """Whether every dimension is known."""
        return self.dims is not None and all(isinstance(dim, int) for dim in self.dims)

    @property
    def code(self) -> int:
        """ONNX's number for a tensor's elements, 0 for what is no tensor or not known."""
        import onnx

        outer, _, inner = self.text.removesuffix(")").partition("(")
        return onnx.TensorProto.DataType.Value(inner.upper()) if outer == "tensor" else 0


UNKNOWN = ValueType()


def type_of(proto: onnx.TypeProto) -> ValueType:
    """A TypeProto as ONNX writes it in its operators' schemas."""
    kind = proto.WhichOneof("value")
    if kind in ("tensor_type", "sparse_tensor_type"):
        tensor = getattr(proto, kind)
        if not tensor.elem_type:
            return UNKNOWN
        text = f"{kind.removesuffix('_type')}({element(tensor.elem_type)})"
        dims = None
        if tensor.HasField("shape"):
            dims = tuple(
                dim.dim_value if dim.HasField("dim_value") else dim.dim_param or None
                for dim in tensor.shape.dim
            )
        return ValueType(text, dims)
    if kind == "sequence_type":
        return ValueType(f"seq({type_of(proto.sequence_type.elem_type).text})")
    if kind == "optional_type":
        return ValueType(f"optional({type_of(proto.optional_type.elem_type).text})")
    if kind == "map_type":
        value = type_of(proto.map_type.value_type).text
        return ValueType(f"map({element(proto.map_type.key_type)}, {value})")
    return UNKNOWN


def type_proto(kind: ValueType) -> onnx.TypeProto:
    """The TypeProto that :func:`type_of` reads so; an empty one for what is not known."""
    import onnx

    outer, _, inner = kind.text.removesuffix(")").partition("(")
    if outer in ("tensor", "sparse_tensor"):
        code = onnx.TensorProto.DataType.Value(inner.upper())
        if outer == "tensor":
            return onnx.helper.make_tensor_type_proto(code, kind.dims)
        return onnx.helper.make_sparse_tensor_type_proto(code, kind.dims)
    if outer == "seq":
        return onnx.helper.make_sequence_type_proto(type_proto(ValueType(inner)))
    if outer == "optional":
        return onnx.helper.make_optional_type_proto(type_proto(ValueType(inner)))
    return onnx.TypeProto()


def tensor_type(tensor: onnx.TensorProto) -> ValueType:
    """The type of an initializer."""
    return ValueType(f"tensor({element(tensor.data_type)})", tuple(tensor.dims))


def element(code: int) -> str:
    """An element type by its name: ``float`` for TensorProto.FLOAT."""
    import onnx

    return str(onnx.TensorProto.DataType.Name(code)).lower()
