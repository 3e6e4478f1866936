"""Scene infos of MegaDepth, ours and published ones, and lists of scenes."""

from __future__ import annotations

import dataclasses
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.stages.megadepth.scene_info import (
    SceneInfo,
    read_scene_info,
    read_scene_list,
    write_scene_info,
)
from tests.scenes.pickles import Call


def scene_info(**changes) -> SceneInfo:
    rng = np.random.default_rng(0)
    intrinsics = np.tile([[500.0, 0, 319.5], [0, 501.0, 239.5], [0, 0, 1]], (3, 1, 1))
    info = SceneInfo(
        image_paths=("Undistorted_SfM/0/images/a b é.jpg", "", "u/images/sub/c.jpg"),
        depth_paths=("phoenix/a b é.h5", "", "/data/c.h5"),
        intrinsics=intrinsics,
        poses=rng.standard_normal((3, 4, 4)),
        point_counts=np.array([10, 0, 7]),
        overlaps=rng.random((3, 3)).astype(np.float32),
        scale_ratios=rng.random((3, 3)).astype(np.float32),
    )
    return dataclasses.replace(info, **changes)


def assert_same(found: SceneInfo, expected: SceneInfo) -> None:
    for field in dataclasses.fields(SceneInfo):
        first, second = getattr(found, field.name), getattr(expected, field.name)
        np.testing.assert_array_equal(first, second, err_msg=field.name)


def objects(*items) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def published(info: SceneInfo) -> dict[str, np.ndarray]:
    """The arrays of D2-Net's preparation: Python objects, and None for the second."""
    corner = info.intrinsics + [[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]]
    points = {7: np.array([1.0, 2.0])}
    return {
        "image_paths": objects(info.image_paths[0], None, info.image_paths[2]),
        "depth_paths": objects(info.depth_paths[0], None, info.depth_paths[2]),
        "intrinsics": objects(corner[0], None, corner[2]),
        "poses": objects(info.poses[0], None, info.poses[2]),
        "n_points3D": info.point_counts,
        "overlap_matrix": info.overlaps.astype(np.float64),
        "scale_ratio_matrix": info.scale_ratios.astype(np.float64),
        "points3D_id_to_2D": objects(points, None, points),
        "points3D_id_to_ndepth": objects({7: 0.5}, None, {7: 0.25}),
        "angles": objects({7: 0.1}, None, {}),
    }


def without_the_second(info: SceneInfo) -> SceneInfo:
    missing = np.arange(3)[:, None, None] == 1
    return dataclasses.replace(
        info,
        intrinsics=np.where(missing, np.nan, info.intrinsics),
        poses=np.where(missing, np.nan, info.poses),
    )


def test_what_is_written_comes_back_needs_no_pickle_and_counts_from_the_corner(
    tmp_path: Path,
) -> None:
    write_scene_info(tmp_path / "sub" / "0022.0.npz", scene_info())
    assert_same(read_scene_info(tmp_path / "sub" / "0022.0.npz"), scene_info())
    empty = SceneInfo(
        image_paths=(),
        depth_paths=(),
        intrinsics=np.zeros((0, 3, 3)),
        poses=np.zeros((0, 4, 4)),
        point_counts=np.zeros(0, np.int64),
        overlaps=np.zeros((0, 0), np.float32),
        scale_ratios=np.zeros((0, 0), np.float32),
    )
    write_scene_info(tmp_path / "a.npz", empty)
    assert_same(read_scene_info(tmp_path / "a.npz"), empty)
    write_scene_info(tmp_path / "a.npz", scene_info())
    with np.load(tmp_path / "a.npz", allow_pickle=False) as arrays:
        assert arrays["image_paths"].tolist()[1] == ""
        assert arrays["intrinsics"][0, :2, 2].tolist() == [320.0, 240.0]
    for name in ("a.npz", "b.npz"):
        write_scene_info(tmp_path / name, scene_info())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_published_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "0022.0.npz"
    np.savez(path, **published(scene_info()))
    assert_same(read_scene_info(path), without_the_second(scene_info()))
    arrays = published(scene_info())
    for name in ("intrinsics", "poses"):
        values = arrays[name]
        kept = [None if value is None else np.asfortranarray(value) for value in values]
        arrays[name] = objects(*kept)
    np.savez(tmp_path / "a.npz", **arrays)
    assert_same(read_scene_info(tmp_path / "a.npz"), without_the_second(scene_info()))


def test_a_pickle_is_never_run(tmp_path: Path) -> None:
    arrays = published(scene_info())
    arrays["image_paths"] = objects(
        "a.jpg", Call(os.mkdir, str(tmp_path / "run")), "b.jpg"
    )
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(DatasetError, match="refused the name"):
        read_scene_info(tmp_path / "a.npz")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"overlap_matrix": np.zeros((2, 3))}, r"overlap_matrix: found shape \(2, 3\)"),
        ({"poses": np.zeros((3, 3, 4))}, r"poses: found \(3, 4\), expected \(4, 4\)"),
        ({"depth_paths": np.array(["a"])}, "depth_paths: found shape"),
        ({"depth_paths": np.arange(3)}, "depth_paths: found int, expected text"),
        ({"image_paths": np.array(["/etc/a", "b", "c"])}, "leaves the dataset"),
        ({"image_paths": np.array(["../a", "b", "c"])}, "leaves the dataset"),
        ({"image_paths": objects("a", {}, "c")}, "found dict, expected text"),
        ({"intrinsics": None}, "intrinsics"),
    ],
)
def test_other_content_is_named(tmp_path: Path, changes, reason: str) -> None:
    arrays = {**published(scene_info()), **changes}
    path = tmp_path / "a.npz"
    np.savez(path, **{name: a for name, a in arrays.items() if a is not None})
    with pytest.raises(DatasetError, match=rf"a\.npz: not a scene info.*{reason}"):
        read_scene_info(path)


def test_missing_truncated_and_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with pytest.raises(DatasetError, match="not found.*kapture_r2d2_megadepth"):
        read_scene_info(path)
    write_scene_info(path, scene_info())
    data, bare = path.read_bytes(), io.BytesIO()
    np.save(bare, np.zeros(3))
    for content in (b"", data[:10], data[:900], data[:-30], bare.getvalue()):
        path.write_bytes(content)
        with pytest.raises(DatasetError, match=r"a\.npz: not a scene info"):
            read_scene_info(path)


@pytest.mark.parametrize("member", ["image_paths", "overlap_matrix"])
@pytest.mark.parametrize(
    "offset, value, reason",
    [(8, 1, "encrypted"), (10, 99, "compression method")],
    ids=["encrypted", "unknown method"],
)
def test_a_member_that_zip_cannot_open_is_an_error_of_ours(
    tmp_path: Path, member: str, offset: int, value: int, reason: str
) -> None:
    path = tmp_path / "a.npz"
    np.savez(path, **published(scene_info()))
    with zipfile.ZipFile(path) as archive:
        entry = archive.getinfo(f"{member}.npy")
        start, data = archive.start_dir, bytearray(path.read_bytes())
    # the flags and the method of a member, beside it and in the directory at the end
    place = data.index(entry.filename.encode(), start) - 46
    data[entry.header_offset + offset - 2] = data[place + offset] = value
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=rf"a\.npz: not a scene info.*{reason}"):
        read_scene_info(path)


def test_damage_of_any_compression_is_an_error_of_ours(tmp_path: Path) -> None:
    plain, path = tmp_path / "plain.npz", tmp_path / "a.npz"
    write_scene_info(plain, scene_info())
    rng = np.random.default_rng(0)
    for method in (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA):
        with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(path, "w") as packed:
            for name in archive.namelist():
                packed.writestr(name, archive.read(name), method)
        assert_same(read_scene_info(path), scene_info())
        whole, refused = path.read_bytes(), 0
        for start in rng.integers(len(whole) - 8, size=60):
            damaged = bytearray(whole)
            damaged[start : start + 8] = rng.bytes(8)
            path.write_bytes(damaged)
            try:
                read_scene_info(path)
            except DatasetError as error:
                assert "\n" not in str(error)
                refused += 1
        assert refused > 20


def test_lists_of_scenes(tmp_path: Path) -> None:
    path = tmp_path / "train.txt"
    path.write_text("﻿# train\n0022\n\n  0000  # the first\n0022\n", encoding="utf-8")
    assert read_scene_list(path) == ("0022", "0000")
    path.write_text("São Paulo # 1\n\tà [x]*.1\n", encoding="utf-8")
    assert read_scene_list(path) == ("São Paulo", "à [x]*.1")
    (tmp_path / "a.txt").write_bytes(b"\xff\xfe\x00")
    for name in ("a.txt", "gone.txt"):
        with pytest.raises(DatasetError, match=f"{name}: .*expected one scene name"):
            read_scene_list(tmp_path / name)


@pytest.mark.parametrize(
    "text, reason",
    [
        ("0000\n00/22\n", r"line 2: found '00/22', expected a name of a scene"),
        ("../0000\n", r"line 1: found '\.\./0000'"),
        ("..\n", r"line 1"),
        (".0000\n", r"line 1"),
        ("00\\22\n", r"line 1"),
        ("00\t22\n", r"line 1"),
        ("# nothing\n\n", "found no scene"),
    ],
)
def test_bad_lists_are_named(tmp_path: Path, text: str, reason: str) -> None:
    path = tmp_path / "train.txt"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DatasetError, match=rf"train\.txt: {reason}"):
        read_scene_list(path)
