"""MATLAB 5 files are read as SciPy reads them, and refused where they are broken."""

from __future__ import annotations

import struct
import zlib
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat
from scipy.sparse import csc_array

from r2d2_kapture.io.features import mat5
from r2d2_kapture.io.features.mat5 import plain_arrays

Order = str


def saved(fields: dict[str, Any], compress: bool = False) -> bytes:
    stream = BytesIO()
    savemat(stream, fields, do_compression=compress, oned_as="column")
    return stream.getvalue()


def header(order: Order, version: int = 0x0100) -> bytes:
    """What MATLAB begins a file with."""
    mark = b"IM" if order == "<" else b"MI"
    text = b"MATLAB 5.0 MAT-file, by hand".ljust(124)
    return text + struct.pack(f"{order}H", version) + mark


def element(order: Order, kind: int, data: bytes) -> bytes:
    return struct.pack(f"{order}II", kind, len(data)) + data + bytes(-len(data) % 8)


def small(order: Order, kind: int, data: bytes) -> bytes:
    return struct.pack(f"{order}I", len(data) << 16 | kind) + data.ljust(4, b"\0")


def matrix(
    order: Order, array_class: int, shape: tuple[int, ...], data: bytes, name: str = "a"
) -> bytes:
    body = element(order, 6, struct.pack(f"{order}II", array_class, 0))
    body += element(order, 5, struct.pack(f"{order}{len(shape)}i", *shape))
    body += small(order, 1, name.encode()) + data
    return element(order, 14, body)


@pytest.mark.parametrize("compress", [False, True])
def test_arrays_and_texts_are_those_of_scipy(compress: bool) -> None:
    rng = np.random.default_rng(0)
    fields: dict[str, Any] = {
        f"numbers_{code}": rng.integers(0, 100, (3, 4)).astype(code)
        for code in "i1 u1 i2 u2 i4 u4 i8 u8 f4 f8".split()
    }
    fields |= {
        "a_longer_name": rng.random((2, 3, 4)),
        "b": np.array([True, False]),
        "none": np.empty((0, 3), np.float32),
        "one": 3.5,
        "vector": np.arange(5),
    }
    data = saved(fields, compress)
    expected = loadmat(BytesIO(data))
    found = plain_arrays(data)
    assert found.keys() == fields.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name])
        assert (array.dtype, array.shape) == (
            expected[name].dtype,
            expected[name].shape,
        )


@pytest.mark.parametrize("text", ["", "a", "abcd", "naïve 日本 😀", "x" * 1000])
@pytest.mark.parametrize("compress", [False, True])
def test_texts(text: str, compress: bool) -> None:
    found = plain_arrays(saved({"s": np.array(text)}, compress))["s"]
    assert found.item() == text


@pytest.mark.parametrize("order", ["<", ">"])
def test_files_as_matlab_writes_them(order: Order) -> None:
    """Whole doubles as bytes, letters as 16 bit numbers, of either byte order."""
    data = header(order)
    data += matrix(order, 6, (3, 1), small(order, 2, bytes([7, 8, 9])))
    letters = element(order, 4, "wörd".encode(f"utf-16-{'lb'[order == '>']}e"))
    data += matrix(order, 4, (1, 4), letters, "s")
    values = struct.pack(f"{order}4f", 1, 2, 3, 4)
    body = matrix(order, 7, (2, 2), element(order, 7, values), "f")
    compressed = zlib.compress(body)
    data += struct.pack(f"{order}II", 15, len(compressed)) + compressed
    arrays = plain_arrays(data)
    np.testing.assert_array_equal(arrays["a"], [[7], [8], [9]])
    assert arrays["s"].item() == "wörd"
    np.testing.assert_array_equal(arrays["f"], [[1, 3], [2, 4]])


def test_other_classes_are_passed_over() -> None:
    fields = {
        "cell": np.array([1, "x"], dtype=object),
        "structure": {"a": 1, "b": {"c": 2}},
        "sparse": csc_array(np.eye(3)),
        "complex": np.array([1 + 2j]),
        "rows": np.array(["ab", "cd"]),
        "kept": np.ones(2),
    }
    assert list(plain_arrays(saved(fields))) == ["kept"]


NUMBERS = element("<", 9, struct.pack("<d", 1.5))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no header"),
        (header("<")[:127], "no header"),
        (header("<", 0x0200), "7.3"),
        (header("<", 0x0300), "version 0x300"),
        (header("<") + b"1234", "truncated element"),
        (header("<") + element("<", 9, bytes(8)), "type 9, expected an array"),
        (header("<") + struct.pack("<II", 14, 1 << 31), "element of 2147483648"),
        (header("<") + struct.pack("<II", 14 | 5 << 16, 0), "4 bytes of an element"),
        (header("<") + element("<", 14, b""), "type 0, expected numbers"),
        (header("<") + matrix("<", 6, (1, 1), b""), "without its data"),
        (header("<") + matrix("<", 6, (1, 2), NUMBERS), r"expected \(1, 2\)"),
        (header("<") + matrix("<", 6, (-1, -1), NUMBERS), r"expected \(-1, -1\)"),
        (header("<") + matrix("<", 6, (), NUMBERS), r"expected \(\)"),
        (header("<") + matrix("<", 6, (1, 1), element("<", 99, bytes(8))), "type 99"),
        (header("<") + matrix("<", 4, (1, 1), NUMBERS), "type 9, expected text"),
        (header("<") + matrix("<", 6, (1, 1), element("<", 9, bytes(5))), "multiple"),
        (header("<") + element("<", 15, zlib.compress(b"")), "type 0"),
        (
            header("<") + element("<", 15, zlib.compress(bytes(99))[:9]),
            "truncated compressed",
        ),
    ],
)
def test_broken_files_are_refused(data: bytes, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plain_arrays(data)


def test_what_expands_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    data = saved({"a": np.zeros(10_000)}, compress=True)
    assert plain_arrays(data)["a"].shape == (10_000, 1)
    monkeypatch.setattr(mat5, "MAX_DECOMPRESSED_BYTES", 50_000)
    with pytest.raises(ValueError, match="compressed"):
        plain_arrays(data)
