""".r2d2 files: ours and the published ones."""

from __future__ import annotations

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.npz import read_npz, read_npz_settings, write_npz
from tests.scenes.features import random_features
from tests.scenes.pickles import Call


def test_fields_are_those_of_the_published_extractor(tmp_path: Path) -> None:
    features = random_features(7)
    write_npz(tmp_path / "a.r2d2", features)
    with np.load(tmp_path / "a.r2d2") as archive:  # pickles are refused by default
        arrays = dict(archive)
    np.testing.assert_array_equal(arrays["keypoints"], features.keypoints_with_scale)
    assert arrays["keypoints"].dtype == np.float32
    assert arrays["descriptors"].shape == (7, 128)
    assert arrays["scores"].shape == (7,)
    assert arrays["imsize"].tolist() == [2048, 1536]
    assert arrays["imsize"].dtype == np.int64


def test_published_file_comes_back_best_first(tmp_path: Path) -> None:
    features = random_features(20)
    with (tmp_path / "a.r2d2").open("wb") as file:
        np.savez(
            file,
            imsize=features.image_size,
            keypoints=features.keypoints_with_scale[::-1],
            descriptors=features.descriptors[::-1],
            scores=features.scores[::-1],
        )
    back = read_npz(tmp_path / "a.r2d2")
    np.testing.assert_array_equal(back.scores, features.scores)
    np.testing.assert_array_equal(back.keypoints, features.keypoints)
    np.testing.assert_array_equal(back.scales, features.scales)
    np.testing.assert_array_equal(back.descriptors, features.descriptors)
    assert read_npz_settings(tmp_path / "a.r2d2") == ""


def test_equal_scores_keep_their_order(tmp_path: Path) -> None:
    keypoints = np.arange(12, dtype=np.float32).reshape(4, 3)
    with (tmp_path / "a.r2d2").open("wb") as file:
        np.savez(
            file,
            imsize=(64, 48),
            keypoints=keypoints,
            descriptors=np.ones((4, 8), np.float32),
            scores=np.array([0.5, 0.5, 0.9, 0.5], np.float32),
        )
    back = read_npz(tmp_path / "a.r2d2")
    np.testing.assert_array_equal(back.keypoints, keypoints[[2, 0, 1, 3], :2])


def test_damage_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "a.r2d2"
    write_npz(path, random_features(30))
    data = path.read_bytes()
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 0xFF
    parts = [data[: int(part * len(data))] for part in (0.0, 0.01, 0.5, 0.99)]
    for content in (*parts, flipped):
        path.write_bytes(content)
        for read in (read_npz, read_npz_settings):
            with pytest.raises(FeatureFormatError, match=r"a\.r2d2"):
                read(path)


SIZE = "image size: found"


@pytest.mark.parametrize(
    "field, value, words",
    [
        ("descriptors", None, "no descriptors, expected"),
        ("keypoints", np.ones((3, 1), np.float32), ""),
        ("scores", np.ones(2, np.float32), ""),
        ("scores", np.ones((3, 1), np.float32), ""),
        ("descriptors", np.ones((2, 8), np.float32), ""),
        ("imsize", np.ones(3), ""),
        ("keypoints", np.full((3, 3), "x"), ""),
        ("imsize", (np.nan, 48), SIZE),
        ("imsize", (64, np.inf), SIZE),
        ("imsize", (0, 48), SIZE),
        ("imsize", (-1, -1), SIZE),
        ("imsize", (64, 48, 3), SIZE),
    ],
)
def test_fields_that_do_not_fit_are_named(
    tmp_path: Path, field: str, value: Any, words: str
) -> None:
    arrays = {
        "keypoints": np.ones((3, 3), np.float32),
        "scores": np.ones(3, np.float32),
        "descriptors": np.ones((3, 8), np.float32),
        "imsize": np.array([4, 4]),
        field: value,
    }
    with (tmp_path / "a.r2d2").open("wb") as file:
        np.savez(file, **{n: array for n, array in arrays.items() if array is not None})
    with pytest.raises(FeatureFormatError, match=rf"a\.r2d2: .*{words}"):
        read_npz(tmp_path / "a.r2d2")


def test_pickle_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.r2d2").write_bytes(pickle.dumps(Call(Path.touch, Path("ran"))))
    with Path("b.r2d2").open("wb") as file:
        np.savez(
            file, keypoints=np.array([Call(Path.touch, Path("ran"))], dtype=object)
        )
    for name in ("a.r2d2", "b.r2d2"):
        with pytest.raises(FeatureFormatError):
            read_npz(Path(name))
    assert not Path("ran").exists()


def test_single_arrays_and_foreign_files_are_reported(tmp_path: Path) -> None:
    with (tmp_path / "a.r2d2").open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(FeatureFormatError, match="single array"):
        read_npz(tmp_path / "a.r2d2")
    (tmp_path / "a.r2d2").write_bytes(b"text")
    with pytest.raises(FeatureFormatError, match="the tool that wrote it") as error:
        read_npz(tmp_path / "a.r2d2")
    assert "delete" not in str(error.value) and "extract" not in str(error.value)


def header(text: str) -> bytes:
    """An array of no data whose header says anything."""
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
    "member",
    [
        b"no array",
        b"",
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (3,,(((, }\n"),
        header(
            "{'descr': '<f4', 'fortran_order': False, 'shape': (1" + "0" * 13 + ",)}"
        ),
        header(
            "{'descr': '|V0', 'fortran_order': False, 'shape': (1" + "0" * 13 + ",)}"
        ),
        header("{'descr': '<f4', 'fortran_order': False, 'shape': (-3,)}\n"),
        header(" {\n  'descr': 1\n }"),
        header("[" * 9000),
    ],
)
def test_members_that_are_no_arrays_are_reported(tmp_path: Path, member: bytes) -> None:
    path = tmp_path / "a.r2d2"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("keypoints.npy", member)
    for read in (read_npz, read_npz_settings):
        with pytest.raises(FeatureFormatError, match=r"a\.r2d2: [^\n]*again") as error:
            read(path)
        assert "\n" not in str(error.value)
