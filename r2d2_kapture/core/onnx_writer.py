"""A model of ONNX, node by node: operators that every runtime knows, and no tracing."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

import r2d2_kapture
from r2d2_kapture.config.extras import import_extra

OPSET, IR_VERSION = 17, 8
"""Of the operators, as runtimes have known them for years, and of the file; newer ones
lock old runtimes out."""


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output of a model.

    Attributes:
        name: of the tensor.
        shape: sizes of its axes; a name is a size that is known when it runs.
        kind: type of its values, as NumPy names it.
    """

    name: str
    shape: tuple[int | str, ...]
    kind: str = "float32"


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor of a model; each operation adds a node and gives its result.

    Attributes:
        writer: of the model.
        name: of the tensor.
        kind: type of its values, as NumPy names it; numbers among the operands become
            constants of this type.
    """

    writer: OnnxWriter
    name: str
    kind: str = "float32"

    def __add__(self, other: Value | float) -> Value:
        return self._with("Add", other)

    def __sub__(self, other: Value | float) -> Value:
        return self._with("Sub", other)

    def __rsub__(self, other: float) -> Value:
        return self.writer.constant(other, self.kind) - self

    def __mul__(self, other: Value | float) -> Value:
        return self._with("Mul", other)

    def __truediv__(self, other: Value | float) -> Value:
        """Of integers the part before the point."""
        return self._with("Div", other)

    def __and__(self, other: Value) -> Value:
        return self._with("And", other)

    def __lt__(self, other: Value | float) -> Value:
        return self._with("Less", other, "bool")

    def __gt__(self, other: Value | float) -> Value:
        return self._with("Greater", other, "bool")

    def __ge__(self, other: Value | float) -> Value:
        return self._with("GreaterOrEqual", other, "bool")

    def at_least(self, other: float) -> Value:
        """The greater of each value and a number."""
        return self._with("Max", other)

    def clamp(self, low: float, high: float) -> Value:
        """Values within two limits."""
        limits = (self.writer.constant(limit, self.kind) for limit in (low, high))
        return self.writer.node("Clip", self, *limits)

    def where(self, condition: Value, otherwise: float) -> Value:
        """Values where a condition holds, elsewhere a number."""
        number = self.writer.constant(otherwise, self.kind)
        return self.writer.node("Where", condition, self, number, kind=self.kind)

    def to(self, kind: str) -> Value:
        """The values in another type."""
        number = self.writer.type_number(kind)
        return self.writer.node("Cast", self, kind=kind, to=number)

    def reshape(self, *sides: int) -> Value:
        """The values in another shape; -1 is the rest."""
        return self.writer.node("Reshape", self, self.writer.shape(*sides))

    def transpose(self, *axes: int) -> Value:
        """The values with their axes in another order."""
        return self.writer.node("Transpose", self, perm=list(axes))

    def take(self, index: Value, axis: int = 0) -> Value:
        """The values at the places that an index gives along an axis."""
        return self.writer.node("Gather", self, index, axis=axis)

    def split(self, count: int, axis: int) -> list[Value]:
        """Equal parts along an axis."""
        return self.writer.nodes("Split", count, self, axis=axis)

    def best(self, count: int) -> tuple[Value, Value]:
        """The greatest of (N,) values, greatest first, and their places."""
        found = self.writer.nodes("TopK", 2, self, self.writer.shape(count), axis=0)
        return found[0], Value(self.writer, found[1].name, "int64")

    def _with(self, operator: str, other: Value | float, kind: str = "") -> Value:
        if not isinstance(other, Value):
            other = self.writer.constant(other, self.kind)
        return self.writer.node(operator, self, other, kind=kind or self.kind)


class OnnxWriter:
    """Collects the nodes and constants of a model.

    Args:
        asked_by: flag that needs the package onnx.

    Raises:
        ConfigError: it is not installed.
    """

    def __init__(self, asked_by: str) -> None:
        self._onnx = import_extra("onnx", "onnx", asked_by)
        self._nodes: list[Any] = []
        self._names: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._initializers: dict[str, Any] = {}

    def input(self, port: Port) -> Value:
        """An input of the model."""
        return Value(self, port.name, port.kind)

    def node(
        self,
        operator: str,
        first: Value,
        *others: Value | None,
        kind: str = "",
        **attributes: Any,
    ) -> Value:
        """Add a node of one output, of the type of its first input by default."""
        (output,) = self.nodes(operator, 1, first, *others, **attributes)
        return Value(self, output.name, kind or first.kind)

    def nodes(
        self,
        operator: str,
        count: int,
        first: Value,
        *others: Value | None,
        **attributes: Any,
    ) -> list[Value]:
        """Add a node of several outputs, of the type of its first input.

        Among the others None is an input that is left out.
        """
        name = f"{operator.lower()}_{len(self._nodes)}"
        outputs = [f"{name}.{i}" if i else name for i in range(count)]
        names = ["" if value is None else value.name for value in (first, *others)]
        make = self._onnx.helper.make_node
        self._nodes.append(make(operator, names, outputs, name=name, **attributes))
        return [Value(self, output, first.kind) for output in outputs]

    def constant(self, values: npt.ArrayLike, kind: str = "float32") -> Value:
        """Add an array; equal ones are stored once."""
        array = np.array(values, dtype=kind, order="C")
        key = (kind, array.shape, array.tobytes())
        if key not in self._names:
            name = self._names[key] = f"constant_{len(self._names)}"
            self._initializers[name] = self._onnx.numpy_helper.from_array(array, name)
        return Value(self, self._names[key], kind)

    def shape(self, *sides: int) -> Value:
        """Add the constant that Reshape and its like take."""
        return self.constant(sides, "int64")

    def concatenate(self, values: Sequence[Value], axis: int = 0) -> Value:
        """Join values along an axis."""
        return self.node("Concat", *values, axis=axis)

    def model(
        self,
        image: Port,
        outputs: Mapping[Port, Value],
        metadata: Mapping[str, str] = {},
    ) -> Any:
        """The model, an ``onnx.ModelProto``.

        Args:
            image: its input.
            outputs: the value that each shows.
            metadata: texts by name, for ``metadata_props``.
        """
        helper = self._onnx.helper
        shown = [
            helper.make_node("Identity", [value.name], [port.name], name=port.name)
            for port, value in outputs.items()
        ]
        graph = helper.make_graph(
            [*self._nodes, *shown],
            "r2d2_kapture",
            [self._value_info(image)],
            [self._value_info(port) for port in outputs],
            list(self._initializers.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="r2d2_kapture",
            producer_version=r2d2_kapture.__version__,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        helper.set_model_props(model, dict(metadata))
        self._onnx.checker.check_model(model, full_check=True)
        return model

    def type_number(self, kind: str) -> int:
        """ONNX's number of a type of NumPy."""
        number: int = self._onnx.helper.np_dtype_to_tensor_dtype(np.dtype(kind))
        return number

    def _value_info(self, port: Port) -> Any:
        make = self._onnx.helper.make_tensor_value_info
        return make(port.name, self.type_number(port.kind), port.shape)
