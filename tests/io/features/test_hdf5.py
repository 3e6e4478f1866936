"""HDF5 files in hloc's layout."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.features.hdf5 import h5_names, h5_settings, read_h5, write_h5
from r2d2_kapture.types import PATCH_DIAMETER, LocalFeatures
from tests.scenes.features import assert_same_features, random_features


def test_round_trip_with_any_name(tmp_path: Path) -> None:
    names = ["a.jpg", "seq 1/été b.jpg", "seq 1/deep/er/c,d.jpg", "a-jpg"]
    items = {
        name: random_features(count, seed=count) for count, name in enumerate(names)
    }
    write_h5(tmp_path / "new" / "feats.h5", items.items(), '{"é": 1}')
    path = tmp_path / "new" / "feats.h5"
    assert os.listdir(path.parent) == ["feats.h5"]
    assert h5_names(path) == sorted(names)
    for name, features in items.items():
        assert_same_features(read_h5(path, name), features)
    with h5py.File(path) as file:
        assert file.attrs["settings"].decode() == '{"é": 1}'


def test_hloc_finds_what_it_expects(tmp_path: Path) -> None:
    features = random_features(9)
    write_h5(tmp_path / "a.h5", [("seq/a.jpg", features)])
    with h5py.File(tmp_path / "a.h5") as file:
        group = file["seq/a.jpg"]
        np.testing.assert_array_equal(group["keypoints"][()], features.keypoints)
        np.testing.assert_array_equal(group["descriptors"][()], features.descriptors.T)
        assert group["descriptors"].shape == (128, 9)
        assert group["scores"].shape == (9,)
        assert group["image_size"][()].tolist() == [2048, 1536]
        assert {group[key].dtype for key in ("keypoints", "descriptors", "scores")} == {
            np.dtype("float32")
        }


def test_reads_a_file_of_hloc(tmp_path: Path) -> None:
    features = random_features(5)
    with h5py.File(tmp_path / "a.h5", "w", libver="latest") as file:
        group = file.create_group("db/1.jpg")  # worst first, halves, no scales
        group["keypoints"] = features.keypoints[::-1].astype(np.float16)
        group["scores"] = features.scores[::-1]
        group["descriptors"] = features.descriptors[::-1].T.astype(np.float16)
        group["image_size"] = np.array([2048, 1536])
        group["keypoints"].attrs["uncertainty"] = 1.0
    assert h5_names(tmp_path / "a.h5") == ["db/1.jpg"]
    back = read_h5(tmp_path / "a.h5", "db/1.jpg")
    np.testing.assert_allclose(back.keypoints, features.keypoints, atol=1)
    np.testing.assert_array_equal(back.scores, features.scores)
    np.testing.assert_array_equal(back.scales, np.full(5, PATCH_DIAMETER, np.float32))


def test_descriptors_of_a_row_each_are_refused_by_their_shape(tmp_path: Path) -> None:
    features = random_features(5)
    write_h5(tmp_path / "a.h5", [("1.jpg", features)])
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        del file["1.jpg/descriptors"]
        file["1.jpg/descriptors"] = features.descriptors
    shape = re.escape(f"found {features.descriptors.shape}")
    with pytest.raises(FeatureFormatError, match=shape + r".*\(D, 5\).*transpose"):
        read_h5(tmp_path / "a.h5", "1.jpg")


@pytest.mark.parametrize(
    "names, message",
    [
        (["a", "a/b.jpg"], "'a' is both"),
        (["a/b.jpg", "a"], "'a' is both"),
        (["x/a", "x/a/keypoints"], "'x/a' is both"),
        (["a.jpg", "b.jpg", "a.jpg"], "'a.jpg' occurs twice"),
        (["/a.jpg"], "relative"),
        (["a//b.jpg"], "relative"),
        (["./a.jpg"], "relative"),
    ],
)
def test_names_that_would_mix_are_refused(
    tmp_path: Path, names: list[str], message: str
) -> None:
    items = [(name, random_features(2)) for name in names]
    with pytest.raises(FeatureFormatError, match=message):
        write_h5(tmp_path / "a.h5", items)
    assert os.listdir(tmp_path) == []


def test_names_that_only_look_alike_are_kept(tmp_path: Path) -> None:
    names = ["a/b", "a-b", "ab", "a/bc", "c/b"]
    write_h5(tmp_path / "a.h5", [(name, random_features(1)) for name in names])
    assert h5_names(tmp_path / "a.h5") == sorted(names)


def test_failure_half_way_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, [("before.jpg", random_features(2))])

    def items() -> Iterator[tuple[str, LocalFeatures]]:
        yield "a.jpg", random_features(2)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_h5(path, items())
    assert h5_names(path) == ["before.jpg"]
    assert os.listdir(tmp_path) == ["a.h5"]


@pytest.mark.skipif(sys.platform != "linux", reason="limits files as on Linux")
def test_full_disk_is_an_error_not_a_crash(tmp_path: Path) -> None:
    code = """
import resource, sys
from pathlib import Path
import numpy as np
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.types import LocalFeatures
ones = np.ones(2000, np.float32)
features = LocalFeatures(keypoints=np.ones((2000, 2), np.float32), scales=ones,
    scores=ones, descriptors=np.ones((2000, 128), np.float32), image_size=(4, 4))
resource.setrlimit(resource.RLIMIT_FSIZE, (3_000_000, 3_000_000))
try:
    write_h5(Path(sys.argv[1]), [(f"{i}.jpg", features) for i in range(20)])
except OutputError:
    sys.exit(7)
"""
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "a.h5")], cwd=root
    )
    assert done.returncode == 7
    assert os.listdir(tmp_path) == []


def test_file_is_as_large_as_its_content(tmp_path: Path) -> None:
    features = random_features(0)
    write_h5(tmp_path / "a.h5", [(f"{i}.jpg", features) for i in range(50)])
    assert (tmp_path / "a.h5").stat().st_size < 50 * 8192


@pytest.mark.parametrize("part", [0.0, 0.3, 0.99])
def test_truncated_file_is_reported(tmp_path: Path, part: float) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, [("a.jpg", random_features(20))])
    data = path.read_bytes()
    path.write_bytes(data[: int(part * len(data))])
    with pytest.raises(FeatureFormatError, match=r"a\.h5"):
        h5_names(path)
    with pytest.raises(FeatureFormatError, match=r"a\.h5"):
        read_h5(path, "a.jpg")


def test_damage_anywhere_is_reported_in_our_words(tmp_path: Path) -> None:
    path = tmp_path / "a.h5"
    write_h5(path, [("s/a.jpg", random_features(5)), ("s/b.jpg", random_features(5))])
    whole = np.frombuffer(path.read_bytes(), np.uint8)
    rng = np.random.default_rng(0)
    told = 0
    for _ in range(100):
        data = whole.copy()
        data[rng.integers(0, 6000, 8)] = rng.integers(0, 256, 8)
        path.write_bytes(data.tobytes())
        for read in (
            lambda: read_h5(path, "s/a.jpg"),
            lambda: read_h5(path, "none.jpg"),
            lambda: h5_names(path),
        ):
            try:
                read()
            except FeatureFormatError as error:
                told += str(path) in str(error)
    assert told > 100


def test_absent_image_and_absent_field_are_named(tmp_path: Path) -> None:
    write_h5(tmp_path / "a.h5", [("seq/a.jpg", random_features(2))])
    with pytest.raises(FeatureFormatError, match="'b.jpg'.*such as 'seq/a.jpg'"):
        read_h5(tmp_path / "a.h5", "b.jpg")
    write_h5(tmp_path / "empty.h5", [])
    with pytest.raises(FeatureFormatError, match="'b.jpg'.*contains no images"):
        read_h5(tmp_path / "empty.h5", "b.jpg")
    with pytest.raises(FeatureFormatError, match="image 'seq'"):
        read_h5(tmp_path / "a.h5", "seq")
    with h5py.File(tmp_path / "a.h5", "a") as file:
        del file["seq/a.jpg/image_size"]
    with pytest.raises(FeatureFormatError, match="image_size"):
        read_h5(tmp_path / "a.h5", "seq/a.jpg")


def test_settings_of_files_that_we_made_before_are_read(tmp_path: Path) -> None:
    """They were of variable length once."""
    path = tmp_path / "f.h5"
    write_h5(path, [("a", random_features(2))], '{"é": 1}')
    assert h5_settings(path) == '{"é": 1}'
    with h5py.File(path, "r+") as file:
        file.attrs["settings"] = '{"é": 2}'
    assert h5_settings(path) == '{"é": 2}'
    write_h5(path, [("a", random_features(2))])
    assert h5_settings(path) == ""
