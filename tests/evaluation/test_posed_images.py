"""Cameras and poses as files give them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.posed_images import (
    camera_images,
    pairs_with_baseline,
    read_ground_truth,
    read_posed_dataset,
)
from r2d2_kapture.synthetic.dataset import write_room_dataset
from tests.scenes.two_views import posed_image

ENTRY: dict[str, Any] = {
    "name": "images/a.png",
    "K": [[50.0, 0, 31.5], [0, 55.0, 23.5], [0, 0, 1]],
    "dist": [],
    "R": [[0.0, -1, 0], [1, 0, 0], [0, 0, 1]],
    "t": [1.0, 2, 3],
}


def write_gt(folder: Path, *changes: dict[str, Any]) -> Path:
    (folder / "images").mkdir(exist_ok=True)
    Image.new("RGB", (64, 48)).save(folder / "images" / "a.png")
    entries = [{**ENTRY, **change} for change in changes]
    path = folder / "gt.json"
    path.write_text(json.dumps({"images": entries}), encoding="utf-8")
    return path


def test_camera_and_pose(tmp_path: Path) -> None:
    (image,) = read_ground_truth(write_gt(tmp_path, {})).images
    assert (image.name, image.path) == ("images/a.png", tmp_path / "images" / "a.png")
    assert (image.camera.width, image.camera.height) == (64, 48)
    # x_cam = R x_world + t
    np.testing.assert_allclose(image.cam_from_world * np.array([1.0, 0, 0]), [1, 3, 3])
    np.testing.assert_allclose(image.center, [-2, 1, -3])


@pytest.mark.parametrize(
    ("cx", "origin", "expected"),
    [
        (31.5, "auto", 32.0),
        (32.0, "auto", 32.0),
        (30.0, "auto", 30.5),
        (30.0, "corner", 30.0),
        (30.0, "center", 30.5),
    ],
)
def test_principal_points_are_put_in_the_origin_of_colmap(
    tmp_path: Path, cx: float, origin: Any, expected: float
) -> None:
    cy = 24.0 if cx == 32.0 else 23.5
    K = [[50.0, 0, cx], [0, 55.0, cy], [0, 0, 1]]
    found = read_ground_truth(write_gt(tmp_path, {"K": K}), origin)
    (image,) = found.images
    # nothing says where the principal point of an image cropped counts from
    assert len(found.warnings) == (cx == 30.0 and origin == "auto")
    assert image.camera.principal_point_x == expected


@pytest.mark.parametrize(
    ("dist", "model", "params"),
    [
        (None, "PINHOLE", []),
        ([], "PINHOLE", []),
        ([0.1, 0.2, 0.3, 0.4], "OPENCV", [0.1, 0.2, 0.3, 0.4]),
        (
            [0.1, 0.2, 0.3, 0.4, 0.5],
            "FULL_OPENCV",
            [0.1, 0.2, 0.3, 0.4, 0.5, 0, 0, 0],
        ),
    ],
)
def test_distortion(
    tmp_path: Path, dist: list[float] | None, model: str, params: list[float]
) -> None:
    (image,) = read_ground_truth(write_gt(tmp_path, {"dist": dist})).images
    assert image.camera.model_name == model
    assert image.camera.params.tolist() == [50, 55, 32, 24, *params]


@pytest.mark.parametrize("text", ["", "[]", '{"images": [{"K": 1}]}', '{"images": 3}'])
def test_a_broken_file_is_named(tmp_path: Path, text: str) -> None:
    path = tmp_path / "gt.json"
    with pytest.raises(DatasetError, match="gt.json"):
        read_ground_truth(path)
    path.write_text(text)
    expected = ": found no 'name', expected" if "K" in text else ""
    with pytest.raises(DatasetError, match=f"gt.json{expected}"):
        read_ground_truth(path)


@pytest.mark.parametrize("field", ["K", "R", "t", "dist"])
def test_a_missing_field_is_named(tmp_path: Path, field: str) -> None:
    path = write_gt(tmp_path)
    entry = {name: value for name, value in ENTRY.items() if name != field}
    path.write_text(json.dumps({"images": [entry]}))
    if field == "dist":  # which may be absent
        (image,) = read_ground_truth(path).images
        assert image.camera.model_name == "PINHOLE"
        return
    with pytest.raises(DatasetError, match=f"image 'images/a.png': found no {field}$"):
        read_ground_truth(path)


def test_fields_that_are_not_read_are_reported(tmp_path: Path) -> None:
    known = {"size": [64, 48], "dist": None}
    assert read_ground_truth(write_gt(tmp_path, known)).warnings == ()
    path = write_gt(tmp_path, {}, {"name": "b.png", "distortion": [0.1] * 4, **known})
    (warning,) = read_ground_truth(path, "center").warnings
    assert warning == (
        f"{path}: image 'b.png': field 'distortion' is not read; expected K, R, dist, "
        "name, size, t"
    )


def test_names_stay_inside_the_folder_and_come_once(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="leaves"):
        read_ground_truth(write_gt(tmp_path, {"name": "../a.png"}))
    path = write_gt(tmp_path, {}, {"t": [3, 2, 1]})
    with pytest.raises(
        DatasetError, match="gt.json: image 'images/a.png': occurs twice"
    ):
        read_ground_truth(path)


def test_images_of_a_kapture_dataset(tmp_path: Path) -> None:
    dataset = write_room_dataset(
        tmp_path, mapping_images=3, query_images=1, image_size=(64, 48)
    )
    images = read_posed_dataset(dataset.mapping).images
    assert [image.name for image in images] == [
        f"mapping/{number:04d}.jpg" for number in range(3)
    ]
    assert all(image.path.is_file() for image in images)
    # ((W - 1) / 2, (H - 1) / 2) from pixel centres is the middle, in COLMAP's origin
    assert images[0].camera.principal_point_x == 32
    assert len(pairs_with_baseline(images)) == 3


def test_cameras_at_one_place_are_no_pair() -> None:
    first = posed_image("a")
    turned = posed_image("b", rotation_vector=(0, 0.2, 0))
    moved = posed_image("c", translation=(1, 0, 0))
    pairs = pairs_with_baseline([first, turned, moved])
    assert [(a.name, b.name) for a, b in pairs] == [("a", "c"), ("b", "c")]
    assert pairs_with_baseline([first, turned]) == []
    assert pairs_with_baseline([]) == []


@pytest.mark.shared
@pytest.mark.parametrize(
    ("scene", "count"), [("lund_door", 12), ("imc_reichstag", 10), ("tum_fr2_desk", 20)]
)
def test_real_ground_truth_is_read(shared: Path, scene: str, count: int) -> None:
    images = read_ground_truth(shared / "data" / "multiview" / scene / "gt.json").images
    assert len(images) == count
    assert len(pairs_with_baseline(images)) == count * (count - 1) / 2


NAN = float("nan")
K = ENTRY["K"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dist": [NAN, 0, 0, 0]}, "dist: found .*, expected 0 or 4 or 5 finite"),
        ({"dist": [[0, 0, 0, 0, 0]]}, "dist: found"),
        ({"dist": "none"}, "dist: found none"),
        ({"K": [[-50, 0, 31], [0, 55, 23], [0, 0, 1]]}, "fx and fy above 0"),
        ({"K": [[50, 0, 31], [0, 0, 23], [0, 0, 1]]}, "fx and fy above 0"),
        ({"K": [[50, 0, 31], [0, 55, 23], [0, 0, 2]]}, "K: found"),
        ({"K": [[50, 0, NAN], [0, 55, 23], [0, 0, 1]]}, "K: found .* 3x3 finite"),
        ({"K": [[50, 0, 31], [0, 55, 23], [0, 0, 10**400]]}, "K: found"),
        ({"K": None}, "K: found None"),
        ({"K": [[50, 1, 3], [0, 5, 3], [0, 0, 1]]}, "K: found"),
        ({"K": [1, 2]}, "K: found"),
        ({"dist": [1]}, "dist: found"),
        ({"R": [[2, 0, 0], [0, 1, 0], [0, 0, 1]]}, "R: found"),
        ({"t": [1, 2]}, "t: found"),
        ({"t": None}, "t: found"),
        ({"size": [64]}, "size: found"),
        ({"size": "64 x 48"}, "size: found"),
        ({"size": [0, 48]}, "size: found"),
        ({"K": [[50, 0], [0]]}, "K: found"),
        ({"t": [1, 2, NAN]}, "t: found .* 3 finite"),
        ({"R": [[NAN, 0, 0], [0, 1, 0], [0, 0, 1]]}, "R: found"),
        ({"R": [[1, 0, 0], [0, 1, 0], [0, 0, -1]]}, "expected a rotation"),
    ],
)
def test_values_that_no_camera_has_are_refused(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = write_gt(tmp_path, change)
    with pytest.raises(
        DatasetError, match=f"gt.json: image 'images/a.png': .*{message}"
    ) as error:
        read_ground_truth(path)
    assert "\n" not in str(error.value) and len(str(error.value)) < 400


def middle(cx: float, cy: float) -> list[list[float]]:
    return [[100, 0, cx], [0, 100, cy], [0, 0, 1]]


@pytest.mark.parametrize(
    ("changes", "size"),
    [
        ({"K": middle(31.5, 23.5)}, (64, 48)),
        ({"K": middle(35, 20)}, (64, 48)),  # as a calibration may have it
        ({"K": middle(63.5, 47.5)}, (128, 96)),  # the image was resized by a half
        ({"K": middle(15.2, 11.6)}, (32, 24)),
        ({"K": middle(23.5, 31.5)}, (48, 64)),  # it was turned
        ({"K": middle(47, 63)}, (95, 127)),  # it was both
        ({"K": middle(10, 23)}, (64, 48)),  # it was cropped
        ({"K": middle(63.5, 47.5), "size": [64, 48]}, (64, 48)),  # it was said so
        ({"K": middle(31.5, 23.5), "size": [128, 96]}, (128, 96)),
    ],
)
def test_a_principal_point_may_give_another_size_away(
    tmp_path: Path, changes: dict[str, Any], size: tuple[int, int]
) -> None:
    images = read_ground_truth(write_gt(tmp_path, changes)).images
    (found,) = camera_images(images).values()
    np.testing.assert_allclose(found.size, size, atol=1)
