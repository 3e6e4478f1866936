"""Reading features by image name: folders, archives, several roots, broken files."""

from __future__ import annotations

import io
import shutil
import tarfile
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import kapture.io.features as kf
import numpy as np
import numpy.typing as npt
import pytest
from kapture.io.tar import TarCollection, TarHandler

from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.io.kapture.feature_provenance import UNKNOWN, feature_provenance
from r2d2_kapture.io.kapture.feature_table import (
    FeatureTable,
    open_feature_table,
)
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.stores.reading import ArchiveItems, index_archive
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features, write_global_features, write_rows

IMAGES = {
    "a b.jpg": unit_rows(3, seed=1),
    "sub/é à.jpg": unit_rows(5, seed=2),
    "sub-é à.jpg": unit_rows(0),
}
KEYPOINTS = Path("reconstruction/keypoints/r2d2")
DESCRIPTORS = Path("reconstruction/descriptors/r2d2")


@pytest.mark.parametrize("tar", [False, True])
@pytest.mark.parametrize("alone", [False, True])
def test_rows_of_each_image(tmp_path: Path, tar: bool, alone: bool) -> None:
    root = write_features(tmp_path / "r2d2", IMAGES, tar=tar, alone=alone)
    tables = open_local_features([root])
    assert tables.keypoints.type_name == tables.descriptors.type_name == "r2d2"
    assert tables.keypoints.image_names == sorted(IMAGES)
    for image, rows in IMAGES.items():
        assert image in tables.descriptors
        assert tables.keypoints.count(image) == len(rows)
        found = tables.read_descriptors(image)
        assert found.dtype == np.float32 and found.shape == rows.shape
        np.testing.assert_array_equal(found, rows)
        features = tables.read(image, (640, 480))
        np.testing.assert_array_equal(features.scales, np.arange(2, 3 * len(rows), 3))
        assert features.keypoints.shape == (len(rows), 2)


@pytest.mark.parametrize("tar", [False, True])
def test_we_read_what_kapture_writes(tmp_path: Path, tar: bool) -> None:
    kind, root = kapture.GlobalFeatures, str(tmp_path)
    description = kapture.GlobalFeatures("netvlad", np.float64, 4, "L2")
    path = Path(kcsv.get_feature_csv_fullpath(kind, "netvlad", root))
    path.parent.mkdir(parents=True)
    kcsv.global_features_to_file(str(path), description)
    row = np.array([1, 2, 3, 4.5])
    with TarCollection() as handlers:
        if tar:
            archive = str(path.with_suffix(".tar"))
            handlers.global_features["netvlad"] = TarHandler(archive, "a")
        place = kf.get_global_features_fullpath("netvlad", root, "x/y.jpg", handlers)
        kf.image_global_features_to_file(place, row)
    table = open_feature_table([tmp_path], "global_features")
    assert table.image_names == ["x/y.jpg"]
    assert isinstance(table.folders[0].items, ArchiveItems) == tar
    np.testing.assert_array_equal(table.read("x/y.jpg"), row[None].astype(np.float32))


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
def test_every_type_becomes_float32(tmp_path: Path, dtype: str) -> None:
    rows = np.arange(8).reshape(4, 2).astype(np.dtype(dtype).newbyteorder("<"))
    folder = tmp_path / KEYPOINTS
    write_rows(folder, "keypoints", {"a": rows}, fields=f"r2d2, {dtype}, 2")
    found = open_feature_table([tmp_path], "keypoints").read("a")
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, rows)


def test_keypoints_of_two_values_have_the_usual_patch(tmp_path: Path) -> None:
    write_features(tmp_path, {"a": unit_rows(2)})
    rows = np.zeros((2, 2), np.float32)
    write_rows(
        tmp_path / KEYPOINTS, "keypoints", {"a": rows}, fields="r2d2, float32, 2"
    )
    features = open_local_features([tmp_path]).read("a", (10, 10))
    assert features.scales.tolist() == [32, 32]


def test_two_roots_are_one_table_and_the_first_counts(tmp_path: Path) -> None:
    mapping = write_features(tmp_path / "mapping", {"a": unit_rows(2, seed=1)})
    query = write_features(
        tmp_path / "query",
        {"a": unit_rows(9, seed=2), "q": unit_rows(4, seed=3)},
        tar=True,
    )
    (tmp_path / "empty").mkdir()
    roots = [tmp_path / "empty", mapping, query, mapping]
    tables = open_local_features(roots)
    assert tables.keypoints.image_names == ["a", "q"]
    assert tables.keypoints.count("a") == 2
    assert len(tables.read_descriptors("q")) == 4
    assert open_local_features([query, mapping]).keypoints.count("a") == 9


@pytest.mark.parametrize("alone", [False, True])
def test_both_kinds_of_an_image_come_from_one_root(tmp_path: Path, alone: bool) -> None:
    one, two = (
        write_features(
            tmp_path / root / "r2d2",
            {name: unit_rows(5, seed=seed + i) for i, name in enumerate("ab")},
            alone=alone,
        )
        for root, seed in (("one", 1), ("two", 7))
    )
    for path in one.rglob("a.desc"):
        path.unlink()
    tables = open_local_features([one, two])
    np.testing.assert_array_equal(tables.read_descriptors("b"), unit_rows(5, seed=2))
    for call in (tables.read_descriptors, lambda name: tables.read(name, (9, 9))):
        with pytest.raises(FeatureFormatError, match=f"no descriptors .* below {one}"):
            call("a")
    tables = open_local_features([two, one])
    np.testing.assert_array_equal(tables.read_descriptors("a"), unit_rows(5, seed=7))


def test_a_root_of_keypoints_alone(tmp_path: Path) -> None:
    one = write_features(tmp_path / "one", {"a": unit_rows(5)})
    shutil.rmtree(one / "reconstruction/descriptors")
    two = write_features(tmp_path / "two", {"a": unit_rows(5, seed=1)})
    with pytest.raises(FeatureFormatError, match=f"no descriptors .* below {one}"):
        open_local_features([one, two]).read_descriptors("a")


def test_descriptors_of_another_name_than_their_keypoints(tmp_path: Path) -> None:
    data = {"a": unit_rows(5)}
    write_features(tmp_path / "r2d2", data, alone=True)
    root = (tmp_path / "r2d2").rename(tmp_path / "mine")
    with pytest.raises(
        DatasetError, match="belong to keypoints 'r2d2', expected 'mine'; .*renamed"
    ):
        open_local_features([root])


def test_two_roots_of_one_name_but_other_rows(tmp_path: Path) -> None:
    one = write_features(tmp_path / "one", {"a": unit_rows(2, dim=16)})
    two = write_features(tmp_path / "two", {"b": unit_rows(2, dim=32)})
    with pytest.raises(DatasetError, match="32 float32, but 16 float32 .*cannot be mi"):
        open_local_features([one, two])


def test_of_several_types_one_must_be_chosen(tmp_path: Path) -> None:
    write_features(tmp_path, {"a": unit_rows(2)})
    write_features(tmp_path, {"a": unit_rows(3)}, name="d2")
    with pytest.raises(DatasetError, match="types d2, r2d2; choose .*--keypoints-type"):
        open_local_features([tmp_path])
    assert open_local_features([tmp_path], "d2").keypoints.count("a") == 3
    with pytest.raises(DatasetError, match="found keypoints types d2, r2d2, expected"):
        open_local_features([tmp_path], "sift")


def test_descriptors_of_the_keypoints_only(tmp_path: Path) -> None:
    write_features(tmp_path, {"a": unit_rows(2)})
    fields = "other, float32, 16, someone, L2"
    folder = tmp_path / "reconstruction/descriptors/other"
    write_rows(folder, "descriptors", {"a": unit_rows(2)}, fields=fields)
    assert open_local_features([tmp_path]).descriptors.type_name == "r2d2"
    with pytest.raises(DatasetError, match="descriptors types r2d2, expected 'other'"):
        open_local_features([tmp_path], "r2d2", "other")


def test_no_features_at_all(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="no global features, .*--features"):
        open_feature_table([tmp_path], "global_features")
    with pytest.raises(DatasetError, match="keypoints, .* kapture_r2d2_extract"):
        open_feature_table([tmp_path], "keypoints")
    with pytest.raises(DatasetError, match="found no such folder"):
        open_feature_table([tmp_path / "nowhere"], "keypoints")


def test_images_without_features_or_with_other_counts(tmp_path: Path) -> None:
    write_features(tmp_path, IMAGES)
    table = open_feature_table([tmp_path], "keypoints")
    assert "none.jpg" not in table and 3 not in table
    for call in (table.read, table.count):
        with pytest.raises(FeatureFormatError, match="'none.jpg': found no keypoints"):
            call("none.jpg")
    (tmp_path / KEYPOINTS / "a b.jpg.kpt").write_bytes(bytes(12 * 2))
    tables = open_local_features([tmp_path])
    with pytest.raises(FeatureFormatError, match="2 keypoints and 3 descriptors"):
        tables.read_descriptors("a b.jpg")


@pytest.mark.parametrize("tar", [False, True])
def test_broken_sizes(tmp_path: Path, tar: bool) -> None:
    write_features(tmp_path, IMAGES)
    broken = {"a": np.zeros(13, np.uint8)}
    fields = "r2d2, float32, 3"
    write_rows(tmp_path / KEYPOINTS, "keypoints", broken, fields=fields, tar=tar)
    table = open_feature_table([tmp_path], "keypoints")
    for call in (table.read, table.count):
        with pytest.raises(
            FeatureFormatError, match="found 13 bytes for 'a', expected"
        ):
            call("a")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_numbers_that_are_none(tmp_path: Path, value: float) -> None:
    rows = unit_rows(2)
    rows[1, 3] = value
    write_features(tmp_path, {"a": rows})
    with pytest.raises(FeatureFormatError, match="NaN or infinity"):
        open_local_features([tmp_path]).read_descriptors("a")


@pytest.mark.parametrize(
    "fields, message",
    [
        ("r2d2, __import__('os').system('true'), 3", "dtype '__import__"),
        ("r2d2, float16, 3", "dtype 'float16'"),
        ("r2d2, float32, 0", "dsize '0'"),
        ("r2d2, float32, -3", "dsize '-3'"),
        ("r2d2, float32", "dtype 'float32'"),
        ("", "no description"),
    ],
)
def test_unsafe_descriptions(tmp_path: Path, fields: str, message: str) -> None:
    write_rows(tmp_path / KEYPOINTS, "keypoints", {}, fields=fields)
    with pytest.raises(DatasetError, match="keypoints.txt") as caught:
        open_feature_table([tmp_path], "keypoints")
    assert message in str(caught.value)


@pytest.mark.parametrize("name", ["../a.kpt", "/a.kpt", "x/../../a.kpt"])
def test_unsafe_members(tmp_path: Path, name: str) -> None:
    folder = write_rows(
        tmp_path / KEYPOINTS, "keypoints", {}, fields="r2d2, float32, 3"
    )
    with tarfile.open(folder / "keypoints.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo(name), io.BytesIO())
    with pytest.raises(DatasetError, match="leaves the dataset's folder"):
        open_feature_table([tmp_path], "keypoints")


@pytest.mark.parametrize("kept", [0.4, 0.9])
def test_archives_that_break_off(tmp_path: Path, kept: float) -> None:
    write_features(tmp_path, {"a": unit_rows(60), "b": unit_rows(60)}, tar=True)
    path = tmp_path / DESCRIPTORS / "descriptors.tar"
    data = path.read_bytes()[: 2 * (512 + 60 * 64)]
    path.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(DatasetError, match="descriptors.tar: .*extract again"):
        open_local_features([tmp_path])


def test_a_file_that_is_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "keypoints.tar"
    path.write_bytes(b"something else" * 100)
    with pytest.raises(DatasetError, match="cannot be read as an archive"):
        index_archive(path)


def test_the_last_of_equal_members_counts(tmp_path: Path) -> None:
    folder = write_rows(
        tmp_path / KEYPOINTS,
        "keypoints",
        {"a": np.zeros((1, 3), np.float32)},
        fields="r2d2, float32, 3",
        tar=True,
    )
    member = tarfile.TarInfo("a.kpt")
    member.size = 24
    with tarfile.open(folder / "keypoints.tar", "a") as archive:
        archive.addfile(member, io.BytesIO(np.ones(6, "<f4").tobytes()))
    table = open_feature_table([tmp_path], "keypoints")
    assert table.read("a").tolist() == [[1, 1, 1], [1, 1, 1]]


@pytest.mark.parametrize("tar", [False, True])
def test_several_threads_read_at_a_time(tmp_path: Path, tar: bool) -> None:
    images = {f"{i}.jpg": unit_rows(50 + i, seed=i) for i in range(20)}
    write_features(tmp_path, images, tar=tar)
    tables = open_local_features([tmp_path])
    start = threading.Barrier(4)

    def read_all(_: int) -> bool:
        start.wait()
        return all(
            np.array_equal(tables.read_descriptors(image), rows)
            for _ in range(5)
            for image, rows in images.items()
        )

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read_all, range(4)))


def manifest(table: FeatureTable, top_k: int, place: int = 0) -> None:
    made = Manifest(model={"sha256": "a"}, settings={"top_k": top_k}, versions={})
    write_json_atomic(table.folders[place].path / "manifest.json", made.to_json())


def test_the_origin_of_features(tmp_path: Path) -> None:
    one = write_features(tmp_path / "one", {"a": unit_rows(2)})
    two = write_features(tmp_path / "two", {"b": unit_rows(2)})
    table = open_feature_table([one, two], "keypoints")
    assert feature_provenance(table) == UNKNOWN
    manifest(table, 10)
    known = feature_provenance(table)
    assert len(known) == 64
    manifest(table, 10, place=1)
    assert feature_provenance(table) == known
    manifest(table, 20, place=1)
    with pytest.raises(DatasetError, match="top_k: 20, not 10.*cannot be mixed"):
        feature_provenance(table)
    manifest(table, 20)
    assert feature_provenance(table) not in (known, UNKNOWN)


def test_global_features(tmp_path: Path) -> None:
    rows: dict[str, npt.NDArray[np.float32]] = {
        "a b": unit_rows(1),
        "é/c": unit_rows(1),
    }
    write_global_features(tmp_path, rows)
    table = open_feature_table([tmp_path], "global_features")
    assert table.type_name == "apgem" and table.count("é/c") == 1


def test_the_authors_features(shared: Path) -> None:
    root = shared / "data/virtual_gallery/local_features/r2d2_500"
    tables = open_local_features([root])
    names = tables.keypoints.image_names
    assert len(names) == 16
    assert {len(tables.read_descriptors(name)) for name in names} == {500}
