"""Cameras of kapture in a COLMAP database, and back."""

from __future__ import annotations

from pathlib import Path

import kapture
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.coordinates import PixelOrigin
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.io.colmap.cameras import colmap_camera, kapture_camera
from tests.scenes.colmap import cameras_by_name
from tests.scenes.world import CENTER_PP, CORNER_PP, HEIGHT, WIDTH, Scene, pinhole


@pytest.mark.parametrize(
    "principal_points, asked, resolved, stored_x",
    [
        ([CENTER_PP, CENTER_PP], "auto", "center", 320.0),
        ([CORNER_PP, CORNER_PP], "auto", "corner", 320.0),
        ([[300.0, 200.0], CORNER_PP], "auto", "corner", 300.0),
        ([[300.0, 200.0], CENTER_PP], "auto", "center", 300.5),
        ([[300.0, 200.0], [310.0, 210.0]], "auto", "center", 300.5),
        ([CORNER_PP, CORNER_PP], "center", "center", 320.5),
        ([CENTER_PP, CENTER_PP], "corner", "corner", 319.5),
    ],
)
def test_origin_of_the_principal_points(
    tmp_path: Path,
    scene: Scene,
    principal_points: list[list[float]],
    asked: str,
    resolved: str,
    stored_x: float,
) -> None:
    first, last = principal_points
    scene.dataset.sensors["left"] = pinhole(first)
    scene.dataset.sensors["right"] = pinhole(first)
    scene.dataset.sensors["walker"] = pinhole(last)
    summary = scene.write(tmp_path / "a.db", camera_origin=asked)
    assert summary.camera_origin == resolved
    camera = cameras_by_name(tmp_path / "a.db", scene)["left"]
    assert camera.principal_point_x == stored_x


@pytest.mark.parametrize(
    "model, params, shifted",
    [
        ("SIMPLE_PINHOLE", [500, 310, 230], {1, 2}),
        ("OPENCV", [500, 501, 310, 230, 0.1, 0.01, 0.001, 0.002], {2, 3}),
        ("FOV", [500, 501, 310, 230, 0.1], {2, 3}),
        ("RADIAL_FISHEYE", [500, 310, 230, 0.1, 0.01], {1, 2}),
    ],
)
def test_camera_parameters_are_kept_but_for_the_principal_point(
    tmp_path: Path, scene: Scene, model: str, params: list[float], shifted: set[int]
) -> None:
    scene.dataset.sensors["left"] = kapture.Camera(model, [WIDTH, HEIGHT, *params])
    scene.write(tmp_path / "a.db")
    camera = cameras_by_name(tmp_path / "a.db", scene)["left"]
    assert camera.model_name == model
    assert (camera.width, camera.height) == (WIDTH, HEIGHT)
    expected = [value + 0.5 * (i in shifted) for i, value in enumerate(params)]
    np.testing.assert_allclose(camera.params, expected)


def test_unknown_camera_is_a_guess_about_the_middle(
    tmp_path: Path, scene: Scene
) -> None:
    scene.dataset.sensors["walker"] = kapture.Camera("UNKNOWN_CAMERA", [WIDTH, 481])
    assert scene.write(tmp_path / "a.db").camera_origin == "center"
    camera = cameras_by_name(tmp_path / "a.db", scene)["walker"]
    assert camera.model_name == "SIMPLE_RADIAL"
    assert camera.params.tolist() == [1.2 * WIDTH, 320, 240.5, 0]
    assert not camera.has_prior_focal_length


@pytest.mark.parametrize("origin", ["center", "corner"])
@pytest.mark.parametrize(
    "model, params",
    [
        ("SIMPLE_PINHOLE", [500.5, 310.25, 230]),
        ("OPENCV", [500, 501, 310, 230, 0.1, 0.01, 0.001, 0.002]),
        ("RADIAL_FISHEYE", [500, 310, 230, 0.1, 0.01]),
    ],
)
def test_cameras_come_back_as_they_went(
    model: str, params: list[float], origin: PixelOrigin
) -> None:
    sensor = kapture.Camera(model, [WIDTH, HEIGHT, *params])
    back = kapture_camera(colmap_camera(sensor, 1, origin), origin, "front")
    assert back.camera_params == sensor.camera_params
    assert back.camera_type == sensor.camera_type
    assert back.name == "front"


def test_principal_points_come_back_in_the_origin_asked_for() -> None:
    camera = colmap_camera(pinhole(CENTER_PP), 1, "center")
    assert camera.params.tolist()[2:] == CORNER_PP
    assert kapture_camera(camera, "corner").camera_params[-2:] == CORNER_PP
    assert kapture_camera(camera, "center").camera_params[-2:] == CENTER_PP


def test_models_that_kapture_lacks_are_refused() -> None:
    camera = pycolmap.Camera(
        model="SIMPLE_DIVISION", width=WIDTH, height=HEIGHT, params=[500, 320, 240, 0]
    )
    with pytest.raises(DatasetError, match="SIMPLE_DIVISION"):
        kapture_camera(camera, "center")


@pytest.mark.parametrize(
    "params",
    [
        [0, HEIGHT, 500, 500, 320, 240],
        [WIDTH, HEIGHT, 0, 500, 320, 240],
        [WIDTH, HEIGHT, 500, -500, 320, 240],
        [WIDTH, HEIGHT, 500, np.nan, 320, 240],
    ],
)
def test_cameras_that_cannot_be_are_refused(params: list[float]) -> None:
    line = f"PINHOLE, {', '.join(map(str, params))}"
    with pytest.raises(DatasetError, match="correct it") as caught:
        colmap_camera(kapture.Camera("PINHOLE", params), 1, "center")
    assert f"sensors.txt: found the camera '{line}'" in str(caught.value)
