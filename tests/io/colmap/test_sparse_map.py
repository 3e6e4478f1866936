"""Maps read from COLMAP models and kapture datasets."""

from __future__ import annotations

import shutil
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import DatasetError, ReconstructionError
from r2d2_kapture.io.colmap.sparse_map import (
    UNNAMED_TYPE,
    MapImage,
    SparseMap,
    check_keypoints_type,
    read_sparse_map,
)
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d

HEADER = "# kapture format: 1.1\n"
UNREGISTERED = "camera000001_frame000002.png"
EMPTY = np.zeros(0, np.int64)


@pytest.fixture(scope="module")
def model() -> pycolmap.Reconstruction:
    """Two rigs of two cameras; one frame has lost its pose, two points are gone."""
    options = pycolmap.SyntheticDatasetOptions(
        num_rigs=2, num_cameras_per_rig=2, num_frames_per_rig=3, num_points3D=40
    )
    pycolmap.set_random_seed(1)
    model = pycolmap.synthesize_dataset(options)
    model.deregister_frame(model.find_image_with_name(UNREGISTERED).frame_id)
    for point_id in sorted(model.points3D)[3:5]:
        model.delete_point3D(point_id)
    return model


@pytest.fixture
def binary(model: pycolmap.Reconstruction, tmp_path: Path) -> Path:
    folder = tmp_path / "binary"
    folder.mkdir()
    model.write_binary(str(folder))
    return folder


def write_kapture(
    model: pycolmap.Reconstruction, root: Path, keypoints_type: str = "r2d2"
) -> Path:
    """A kapture dataset of a model: one sensor, image i at time i."""
    sensors = kapture.Sensors()
    sensors["c"] = kapture.Camera(
        kapture.CameraType.SIMPLE_PINHOLE, [1024, 768, 1280, 512, 384]
    )
    records, trajectories = kapture.RecordsCamera(), kapture.Trajectories()
    for image in model.images.values():
        records[image.image_id, "c"] = image.name
        if image.has_pose:
            pose = kapture_from_rigid3d(image.cam_from_world())
            trajectories[image.image_id, "c"] = pose
    observations = kapture.Observations()
    point_ids = sorted(model.points3D)
    for row, point_id in enumerate(point_ids):
        for element in model.point3D(point_id).track.elements:
            name = model.image(element.image_id).name
            observations.add(row, keypoints_type, name, int(element.point2D_idx))
    points = np.array([model.point3D(i).xyz for i in point_ids])
    dataset = kapture.Kapture(
        sensors=sensors,
        records_camera=records,
        trajectories=trajectories,
        points3d=kapture.Points3d(np.column_stack([points, np.zeros(points.shape)])),
        observations=observations,
    )
    kcsv.kapture_to_dir(str(root), dataset)
    return root


def assert_same_as_model(found: SparseMap, model: pycolmap.Reconstruction) -> None:
    registered = [model.image(i) for i in model.reg_image_ids()]
    assert list(found.images) == sorted(image.name for image in registered)
    point_ids = np.array(sorted(model.points3D))
    np.testing.assert_allclose(
        found.points, [model.point3D(i).xyz for i in point_ids], atol=1e-9
    )
    for image in registered:
        ours = found.images[image.name]
        np.testing.assert_allclose(
            ours.cam_from_world, image.cam_from_world().matrix(), atol=1e-9
        )
        rows = ours.points_seen(np.arange(image.num_points2D()))
        for point, row in zip(image.points2D, rows, strict=True):
            if point.has_point3D():
                assert point_ids[row] == point.point3D_id
            else:
                assert row == -1
    lengths = [model.point3D(i).track.length() for i in point_ids]
    assert found.track_lengths.tolist() == lengths


def test_a_binary_model_is_read_as_pycolmap_has_it(
    binary: Path, model: pycolmap.Reconstruction
) -> None:
    found = read_sparse_map(binary)
    assert_same_as_model(found, model)
    assert UNREGISTERED not in found.images
    assert found.point_ids.tolist() == sorted(model.points3D)
    assert {image.keypoint_count for image in found.images.values()} == {50}
    for image in map(model.image, model.reg_image_ids()):
        camera = found.cameras[image.name]
        expected = model.camera(image.camera_id)
        assert (camera.model, camera.width) == (expected.model, expected.width)
        assert camera.params.tolist() == expected.params.tolist()


def test_a_text_model_holds_the_same(
    model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    model.write_text(str(tmp_path))
    assert_same_as_model(read_sparse_map(tmp_path), model)


def test_a_kapture_dataset_holds_the_same(
    model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    found = read_sparse_map(write_kapture(model, tmp_path))
    assert_same_as_model(found, model)
    assert found.point_ids.tolist() == list(range(38))
    assert {image.keypoint_count for image in found.images.values()} == {None}
    assert found.image_folder == tmp_path / "sensors/records_data"
    assert found.cameras.keys() == found.images.keys()
    for origin, middle in (("corner", [512, 384]), ("center", [512.5, 384.5])):
        cameras = read_sparse_map(tmp_path, camera_origin=origin).cameras.values()
        assert {tuple(c.params) for c in cameras} == {(1280, *middle)}


def test_the_output_of_mapping_is_read_from_its_model(
    binary: Path, model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    output = tmp_path / "map"
    write_kapture(model, output / "kapture")
    without_model = read_sparse_map(output)
    assert without_model.point_ids.tolist() == list(range(38))
    shutil.copytree(binary, output / "sparse")
    assert read_sparse_map(output).point_ids.tolist() == sorted(model.points3D)


def binary_names(model: pycolmap.Reconstruction) -> list[str]:
    return sorted(model.image(i).name for i in model.reg_image_ids())


def test_names_with_spaces_accents_and_folders_survive(
    model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    changed = pycolmap.Reconstruction(model)
    for image in changed.images.values():
        image.name = f"été à/{image.name} b.jpg"
    names = binary_names(changed)
    (tmp_path / "binary").mkdir()
    changed.write_binary(str(tmp_path / "binary"))
    assert list(read_sparse_map(tmp_path / "binary").images) == names
    kapture_root = write_kapture(changed, tmp_path / "kapture data")
    assert list(read_sparse_map(kapture_root).images) == names
    (tmp_path / "text").mkdir()
    changed.write_text(str(tmp_path / "text"))
    assert list(read_sparse_map(tmp_path / "text").images) == names
    for image in changed.images.values():
        image.name = image.name.replace(" b", "\u202fb").replace(" ", "\u00a0")
    changed.write_text(str(tmp_path / "text"))
    assert list(read_sparse_map(tmp_path / "text").images) == binary_names(changed)


def test_points_are_found_by_keypoint() -> None:
    image = MapImage(
        cam_from_world=np.eye(4)[:3],
        keypoints=np.array([2, 5, 9]),
        point_rows=np.array([7, 0, 7]),
        keypoint_count=None,
    )
    asked = np.array([9, 0, 5, 2, 2, 3, 10**9])
    assert image.points_seen(asked).tolist() == [7, -1, 0, 7, 7, -1, -1]
    assert image.points_seen(EMPTY).tolist() == []


def rewrite_observations(root: Path, rows: list[str]) -> Path:
    text = HEADER + "".join(row + "\n" for row in rows)
    (root / "reconstruction/observations.txt").write_text(text, encoding="utf-8")
    return root


def test_a_keypoint_sees_the_first_of_its_points(
    model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    root = write_kapture(model, tmp_path)
    name = binary_names(model)[0]
    rows = [f"7, r2d2, {name}, 3, {name}, 3", f"2, r2d2, {name}, 3, {name}, 1"]
    rows += [f"5, r2d2, {UNREGISTERED}, 0, nowhere.png, 1", "6, r2d2"]
    found = read_sparse_map(rewrite_observations(root, rows))
    assert found.images[name].keypoints.tolist() == [1, 3]
    assert found.images[name].point_rows.tolist() == [2, 2]
    assert found.track_lengths.sum() == 2


def test_observations_of_one_keypoints_type_are_read(
    model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    root = write_kapture(model, tmp_path)
    name = binary_names(model)[0]
    rewrite_observations(root, [f"7, r2d2, {name}, 3", f"2, d2net, {name}, 4"])
    with pytest.raises(DatasetError, match="types d2net, r2d2; choose one with"):
        read_sparse_map(root)
    assert read_sparse_map(root, "d2net").images[name].point_rows.tolist() == [2]
    assert read_sparse_map(root, "r2d2").images[name].point_rows.tolist() == [7]
    with pytest.raises(ReconstructionError, match="no observation"):
        read_sparse_map(root, "sift")


def test_a_model_is_of_the_keypoints_of_the_dataset_next_to_it(
    binary: Path, model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    check_keypoints_type(binary, "r2d2")  # which does not tell
    output = tmp_path / "map"
    shutil.copytree(binary, output / "sparse")
    check_keypoints_type(output, "r2d2")
    root = write_kapture(model, output / "kapture", "d2net")
    for path in (output, output / "sparse", root):
        check_keypoints_type(path, "d2net")
        with pytest.raises(DatasetError, match="type d2net, expected 'r2d2'"):
            check_keypoints_type(path, "r2d2")
    # kapture_r2d2_map was not told the type
    shutil.rmtree(root)
    write_kapture(model, root, UNNAMED_TYPE)
    check_keypoints_type(output, "r2d2")


@pytest.mark.parametrize(
    "table, rows",
    [
        (
            "observations.txt",
            [
                "38, r2d2, a.png, 0",
                "-1, r2d2, a.png, 0",
                "x, r2d2, a.png, 0",
                "0, r2d2, a.png, -1",
                "0, r2d2, a.png, 1.5",
                "0, r2d2, a.png",
                "0",
            ],
        ),
        ("points3d.txt", ["1, 2", "1, 2, z", "1, nan, 3"]),
    ],
)
def test_a_malformed_row_is_named(
    model: pycolmap.Reconstruction, tmp_path: Path, table: str, rows: list[str]
) -> None:
    root = write_kapture(model, tmp_path)
    for row in rows:
        (root / "reconstruction" / table).write_text(f"{HEADER}{row}\n")
        with pytest.raises(DatasetError, match=f"{table}, line 2: found"):
            read_sparse_map(root)


@pytest.mark.parametrize("name", ["cameras", "images", "points3D", "rigs", "frames"])
def test_a_broken_model_is_one_line_and_no_crash(binary: Path, name: str) -> None:
    path = binary / f"{name}.bin"
    whole = path.read_bytes()
    junk = np.random.default_rng(0).bytes(5000)
    for content in (whole[: len(whole) // 2], b"", junk, None, whole[:-1]):
        path.unlink(missing_ok=True)
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(DatasetError) as caught:
            read_sparse_map(binary)
        assert "\n" not in str(caught.value)
        assert str(binary) in str(caught.value)
    assert f"{name}.bin: truncated" in str(caught.value)  # but its last byte is there


def test_a_map_without_points_is_refused(
    model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    hollow = pycolmap.Reconstruction(model)
    for point_id in list(hollow.points3D):
        hollow.delete_point3D(point_id)
    hollow.write_binary(str(tmp_path))
    with pytest.raises(ReconstructionError, match="found 0 points, 10 images"):
        read_sparse_map(tmp_path)


def test_what_is_no_map_is_reported(kapture_root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="neither a COLMAP model"):
        read_sparse_map(tmp_path / "nowhere")
    with pytest.raises(DatasetError, match="points3d.txt: missing"):
        read_sparse_map(kapture_root)


@pytest.mark.parametrize(
    "name, place",
    [("points3D", 8 + 43), ("images", 0), ("frames", 8 + 64), ("rigs", 12)],
)
def test_a_count_that_the_file_cannot_hold_is_refused_before_it_is_read(
    binary: Path, name: str, place: int
) -> None:
    """One flipped bit is enough for pycolmap to allocate gigabytes, or never to end."""
    path = binary / f"{name}.bin"
    data = bytearray(path.read_bytes())
    if name == "images":
        place = data.index(b"\0", 8 + 64) + 1
    data[place + 3] |= 0x40
    path.write_bytes(data)
    with pytest.raises(DatasetError, match=f"{name}.bin: truncated"):
        read_sparse_map(binary)


def test_a_camera_model_that_colmap_does_not_have_is_refused(binary: Path) -> None:
    path = binary / "cameras.bin"
    data = bytearray(path.read_bytes())
    data[12:16] = (99).to_bytes(4, "little")
    path.write_bytes(data)
    with pytest.raises(
        DatasetError, match="cameras.bin: .*not a file of a COLMAP model"
    ):
        read_sparse_map(binary)


def test_a_text_model_whose_cameras_lack_a_place_in_the_rig_is_refused(
    model: pycolmap.Reconstruction, tmp_path: Path
) -> None:
    model.write_text(str(tmp_path))
    path = tmp_path / "rigs.txt"
    lines = path.read_text().splitlines()
    row = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    fields = lines[row].split()
    at = fields.index("1", 5)  # HAS_POSE of the second sensor
    lines[row] = " ".join([*fields[:at], "0", *fields[at + 8 :]])
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(DatasetError, match="not a readable COLMAP model"):
        read_sparse_map(tmp_path)
