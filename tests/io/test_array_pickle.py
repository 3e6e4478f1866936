"""Object arrays are read, and no pickle is run."""

from __future__ import annotations

import os
import pickle
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.array_pickle import ObjectArray, read_object_array


def as_npy(path: Path, payload: bytes) -> Path:
    """The header of an object array before any bytes."""
    stream = BytesIO()
    header = {"descr": "|O", "fortran_order": False, "shape": (3,)}
    np.lib.format.write_array_header_1_0(stream, header)
    path.write_bytes(stream.getvalue() + payload)
    return path


def object_array(*items: Any) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def content(value: Any) -> Any:
    return value.content if isinstance(value, ObjectArray) else value


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_plain_values_and_arrays_come_back(
    tmp_path: Path, protocol: int, order: str
) -> None:
    array = object_array(
        {1: 0.5, 2: np.float64(1.5), np.int64(3): -7},
        [np.arange(5), np.array(["i", "v"]), (True, None, "naïve", 2**40)],
        np.arange(6, dtype=np.float32).reshape(2, 3, order=order),
    )
    path = as_npy(tmp_path / "a.npy", pickle.dumps(array, protocol))
    mapping, listed, matrix = read_object_array(path)
    assert mapping == {1: 0.5, 2: 1.5, 3: -7}
    np.testing.assert_array_equal(content(listed[0]), np.arange(5))
    assert content(listed[1]).tolist() == ["i", "v"]
    assert listed[2] == (True, None, "naïve", 2**40)
    expected = np.arange(6).reshape(2, 3, order=order)
    np.testing.assert_array_equal(content(matrix), expected)


def test_what_numpy_saves_comes_back(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", object_array({1: 2.0}, [3], (4, 5)))
    assert read_object_array(tmp_path / "a.npy") == [{1: 2.0}, [3], (4, 5)]


class Call:
    """Pickles as a call of any function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("function", [os.system, eval, np.load, getattr])
def test_code_is_refused_and_not_run(
    tmp_path: Path, protocol: int, function: Any
) -> None:
    witness = tmp_path / "witness"
    evil = Call(function, f"touch {witness}")
    for array in (object_array(evil, 1, 2), object_array([{1: evil}], 1, 2)):
        path = as_npy(tmp_path / "a.npy", pickle.dumps(array, protocol))
        with pytest.raises(FeatureFormatError, match="refused the name"):
            read_object_array(path)
    assert not witness.exists()


@pytest.mark.parametrize(
    "payload",
    [
        b"cos\nsystem\n(S'true'\ntR.",
        b"(ios\nsystem\n.",
        b"\x80\x02cnumpy\nndarray\n)R.",
        b"\x80\x02cnumpy\ndtype\n(X\x02\x00\x00\x00V8tR.",
        b"\x80\x02cnumpy\nndarray\n}b.",
        b"\x80\x02K\x01.",
        b"\x80\x02",
        b"\x80\x02h\x05.",
        b"\x80\x02R.",
        b"\x80\x02(((.",
        b"\x80\x02]}s.",
        b"\x80\x02c_codecs\nencode\n(N}X\x01\x00\x00\x00aK\x01stb.",
        b"\x80\x02c_codecs\nencode\n)\x81.",
        b"\x80\x02cnumpy\ncore.multiarray\n.",
        b"\x80\x02K\x01Q.",
        b"\x80\x02]r\xff\xff\xff\x7f.",
        b"]p2147483647\n.",
        b"\x80\x05\x96" + b"\xff" * 7 + b"\x7f.",
        b"\x80\x04\x8e" + b"\xff" * 7 + b"\x7f.",
        b"",
        b"garbage",
    ],
)
def test_other_instructions_are_refused(tmp_path: Path, payload: bytes) -> None:
    with pytest.raises(FeatureFormatError, match="read safely"):
        read_object_array(as_npy(tmp_path / "a.npy", payload))


def test_objects_are_not_read_from_bytes(tmp_path: Path) -> None:
    """An object array of raw bytes would be an array of pointers."""
    array = pickle.dumps(np.arange(3), 2).replace(b"i8", b"O8")
    with pytest.raises(FeatureFormatError):
        read_object_array(as_npy(tmp_path / "a.npy", array))


@pytest.mark.filterwarnings("ignore")
def test_damage_is_an_error_of_ours_or_harmless(tmp_path: Path) -> None:
    array = object_array({1: 0.5}, [np.arange(5), "text"], np.float64(2.5))
    payload = pickle.dumps(array, 2)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(500):
        damaged = bytearray(payload)
        for position in rng.integers(len(payload), size=3):
            damaged[position] = rng.integers(256)
        try:
            read_object_array(as_npy(tmp_path / "a.npy", bytes(damaged)))
        except FeatureFormatError:
            refused += 1
    assert refused > 250


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with pytest.raises(FeatureFormatError, match="a.npy"):
        read_object_array(path)
    path.write_text("text")
    with pytest.raises(FeatureFormatError, match="no NumPy array"):
        read_object_array(path)
    np.save(path, np.zeros(3))
    with pytest.raises(FeatureFormatError, match="float64, expected objects"):
        read_object_array(path)


HEADER = "{'descr': '|O', 'fortran_order': False, 'shape': (3,), }".ljust(117) + "\n"


def with_header(path: Path, header: bytes) -> Path:
    """Any header before the pickle of an array of three."""
    payload = pickle.dumps(object_array(1, 2, 3), 2)
    size = len(header).to_bytes(2, "little")
    path.write_bytes(b"\x93NUMPY\x01\x00" + size + header + payload)
    return path


@pytest.mark.parametrize(
    "header",
    [
        "{'descr': '|O', 'shape': (3,,(((, }\n",
        "{'descr': '|O', 'shape': (3,), 'fortran_order': False",
        " {\n  'descr': 1\n }",
        "[" * 9000,
        "{'descr': '|O,(', 'fortran_order': False, 'shape': (3,), }\n",
        " " * 20_000,
    ],
)
def test_broken_headers_are_refused_in_one_line(tmp_path: Path, header: str) -> None:
    with pytest.raises(FeatureFormatError, match="a.npy: not a") as error:
        read_object_array(with_header(tmp_path / "a.npy", header.encode()))
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("ignore")
def test_a_damaged_header_is_an_error_of_ours_or_harmless(tmp_path: Path) -> None:
    path = with_header(tmp_path / "a.npy", HEADER.encode())
    assert read_object_array(path) == [1, 2, 3]
    rng, letters, refused = np.random.default_rng(0), b"()[]{},:'|O3\\\n#\0", 0
    for _ in range(500):
        damaged = bytearray(HEADER.encode())
        for position in rng.integers(60, size=3):
            damaged[position] = rng.choice(list(letters))
        try:
            read_object_array(with_header(path, bytes(damaged)))
        except FeatureFormatError:
            refused += 1
    assert refused > 250
