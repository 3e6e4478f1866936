"""NumPy object arrays on disk, read without running the pickle that they are.

A pickle is a program, so none is run here: the few instructions that object arrays of
plain values are made of are followed step by step, and anything else is refused. Names
of functions and classes only stand for themselves; nothing is imported or called
(https://docs.python.org/3/library/pickletools.html lists the instructions).
"""

from __future__ import annotations

import pickletools
import re
import struct
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.npz import BROKEN_HEADER

AnyArray = npt.NDArray[Any]

NPY_MAGIC = b"\x93NUMPY"
ALLOWED_NAMES = frozenset(
    {
        "numpy ndarray",
        "numpy dtype",
        "numpy.core.multiarray _reconstruct",
        "numpy.core.multiarray scalar",
        "numpy._core.multiarray _reconstruct",
        "numpy._core.multiarray scalar",
        "_codecs encode",
    }
)
"""What a pickle may name; each is a stand-in of ours, none is imported."""

PLAIN_DTYPE = re.compile(r"[?biufSUO]\d*")
VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "BINBYTES SHORT_BINBYTES BINBYTES8".split()
)
CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
TUPLE_SIZES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
IGNORED = frozenset({"PROTO", "FRAME"})


MALFORMED = (*BROKEN_HEADER, ArithmeticError, AttributeError, struct.error)
"""What following a pickle of something else may end in."""


@dataclass
class ObjectArray:
    """An array inside a pickle: a list of objects, or a NumPy array of plain values."""

    content: Any = None


def read_object_array(path: Path) -> list[Any]:
    """Read a one-dimensional array of plain values, and of arrays of them.

    Returns:
        Its elements: numbers, strings, bytes, tuples, lists, dicts, ObjectArray.

    Raises:
        FeatureFormatError: absent, no object array, or one that names or does more
            than such arrays need.
    """
    try:
        return parse_object_array(path.read_bytes())
    except (OSError, *MALFORMED) as error:
        reason = str(error).partition("\n")[0]
        raise FeatureFormatError(
            f"{path}: not a NumPy array of objects that can be read safely: {reason}"
        ) from error


def parse_object_array(data: bytes) -> list[Any]:
    """The elements of the content of a .npy file, as ``read_object_array`` has them.

    Raises:
        MALFORMED: not such a file, or an unsafe one.
    """
    return list(_of_type(_object_array(data).content, list))


def _object_array(data: bytes) -> ObjectArray:
    if not data.startswith(NPY_MAGIC):
        raise ValueError("found no NumPy array")
    stream = BytesIO(data)
    if np.lib.format.read_magic(stream) != (1, 0):
        raise ValueError("found another version of NumPy's format")
    _, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if not dtype.hasobject:
        raise ValueError(f"found an array of {dtype}, expected objects")
    array = _Machine().run(stream.read())
    return _of_type(array, ObjectArray)  # type: ignore[no-any-return]


@dataclass(frozen=True)
class _Name:
    """What stands for an allowed function or class."""

    name: str


@dataclass
class _DType:
    code: str
    order: str = "="

    @property
    def is_object(self) -> bool:
        return self.code.startswith("O")

    def decode(
        self, data: bytes, shape: tuple[int, ...], fortran_order: bool = False
    ) -> AnyArray:
        if self.is_object:
            raise ValueError("found bytes for objects")
        dtype = np.dtype(self.order.replace("|", "=") + self.code)
        return np.frombuffer(data, dtype).reshape(
            shape, order="F" if fortran_order else "C"
        )


class _Mark:
    """Where the arguments of an instruction begin on the stack."""


class _Machine:
    """Follows the instructions of a pickle on a stack of plain values."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(data):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise ValueError("the pickle is truncated")

    def _step(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        if opcode in VALUES:
            stack.append(argument)
        elif opcode in CONSTANTS:
            stack.append(CONSTANTS[opcode])
        elif opcode in TUPLE_SIZES:
            stack.append(tuple(self._pop(TUPLE_SIZES[opcode])))
        elif opcode in ("BINPUT", "LONG_BINPUT"):
            self._memo[argument] = stack[-1]
        elif opcode in ("BINGET", "LONG_BINGET"):
            stack.append(self._memo[argument])
        elif opcode in IGNORED:
            return
        else:
            self._structure(opcode, argument)

    def _structure(self, opcode: str, argument: Any) -> None:
        stack = self._stack
        match opcode:
            case "MEMOIZE":
                self._memo[len(self._memo)] = stack[-1]
            case "MARK":
                stack.append(_Mark())
            case "TUPLE":
                stack.append(tuple(self._pop_to_mark()))
            case "EMPTY_LIST":
                stack.append([])
            case "EMPTY_DICT":
                stack.append({})
            case "APPEND" | "APPENDS":
                items = self._pop(1) if opcode == "APPEND" else self._pop_to_mark()
                _of_type(stack[-1], list).extend(items)
            case "SETITEM" | "SETITEMS":
                items = self._pop(2) if opcode == "SETITEM" else self._pop_to_mark()
                _of_type(stack[-1], dict).update(zip(items[::2], items[1::2]))
            case "GLOBAL":
                stack.append(_allowed(argument))
            case "STACK_GLOBAL":
                stack.append(_allowed(" ".join(self._pop(2))))
            case "REDUCE":
                function, arguments = self._pop(2)
                stack.append(_call(_of_type(function, _Name).name, arguments))
            case "BUILD":
                (state,) = self._pop(1)
                _build(stack[-1], state)
            case _:
                raise ValueError(f"refused the instruction {opcode}")

    def _pop(self, count: int) -> list[Any]:
        if len(self._stack) < count:
            raise ValueError("the stack is too short")
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def _pop_to_mark(self) -> list[Any]:
        for i in range(len(self._stack) - 1, -1, -1):
            if isinstance(self._stack[i], _Mark):
                taken = self._stack[i + 1 :]
                del self._stack[i:]
                return taken
        raise ValueError("found no mark")


def _of_type(value: Any, expected: type) -> Any:
    if not isinstance(value, expected):
        raise ValueError(f"found {type(value).__name__}, expected {expected.__name__}")
    return value


def _allowed(name: str) -> _Name:
    if name not in ALLOWED_NAMES:
        raise ValueError(f"refused the name '{name}'")
    return _Name(name)


def _call(name: str, arguments: Any) -> Any:
    """What calling an allowed name means here."""
    match name.rpartition(" ")[2]:
        case "_reconstruct":
            return ObjectArray()
        case "dtype":
            code = _of_type(arguments[0], str)
            if not PLAIN_DTYPE.fullmatch(code):
                raise ValueError(f"refused the type '{code}'")
            return _DType(code)
        case "scalar":
            dtype, data = arguments
            return _of_type(dtype, _DType).decode(_of_type(data, bytes), ())[()].item()
        case "encode":
            text, encoding = arguments
            if encoding != "latin1":
                raise ValueError(f"refused the encoding {encoding}")
            return _of_type(text, str).encode("latin1")
    raise ValueError(f"refused to call {name}")


def _build(target: Any, state: Any) -> None:
    """Set the byte order of a type, or the content of an array."""
    if isinstance(target, _DType):
        _, order, subarray, names, fields, *_ = state
        if (subarray, names, fields) != (None, None, None) or order not in "|<>=":
            raise ValueError("refused a type with parts")
        target.order = order
        return
    _, shape, dtype, fortran_order, content = state
    dtype = _of_type(dtype, _DType)
    if dtype.is_object and len(shape) != 1:
        raise ValueError(f"refused an array of shape {shape}")
    array = _of_type(target, ObjectArray)
    array.content = (
        _of_type(content, list)
        if dtype.is_object
        else dtype.decode(_of_type(content, bytes), shape, fortran_order)
    )
