"""Guessed cameras: of two ways to map, the better one is kept and reported."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import ReconstructionError
from r2d2_kapture.io.colmap.model import drop_rigs
from r2d2_kapture.stages.map import calibration
from r2d2_kapture.stages.map.calibration import (
    Trial,
    VerifiedPair,
    agreement,
    best_connected,
    better,
    epipolar_errors,
    verified_pairs,
)
from tests.scenes.world import FOCAL, UNKNOWN, WIDTH, Scene
from tests.stages.map_runs import load_map, model_of, prepare, remove_poses, run


@pytest.fixture(scope="module")
def unknown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The scene without poses, taken by cameras that are unknown."""
    scene = Scene(times=2).taken_with(UNKNOWN)
    root = prepare(tmp_path_factory.mktemp("unknown"), scene)
    remove_poses(root)
    return root


@pytest.fixture
def root(tmp_path: Path, unknown: Path) -> Path:
    return Path(shutil.copytree(unknown, tmp_path / "scene"))


def lose_half(path: str, options: Any = None) -> bool:
    """Calibration that goes wrong: half of the images lose their pairs."""
    with closing(pycolmap.Database.open(path)) as database:
        for camera in database.read_all_cameras():
            camera.focal_length = 4 * FOCAL
            database.update_camera(camera)
        ids = sorted(image.image_id for image in database.read_all_images())
        for first in ids:
            for second in ids[3:]:
                if first < second:
                    database.delete_two_view_geometry(first, second)
    return True


def test_a_calibration_that_loses_images_is_not_taken(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pycolmap, "calibrate_view_graph", lose_half)
    details = run(root).details
    assert details["calibration"] == "none"
    assert details["registered_images"] == 6
    tried = details["calibrations"]
    assert tried["none"]["registered_images"] == 6
    assert tried["view_graph"]["registered_images"] < 6
    for sensor in load_map(root).cameras.values():
        assert sensor.camera_params[2] == pytest.approx(FOCAL, rel=0.01)


def test_a_guess_that_maps_nothing_gives_way(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        for camera in database.read_all_cameras():
            camera.focal_length = 15 * WIDTH  # COLMAP believes up to 10 times
            database.update_camera(camera)

    def find_true(path: str, options: Any = None) -> bool:
        with closing(pycolmap.Database.open(path)) as database:
            for camera in database.read_all_cameras():
                camera.focal_length = FOCAL
                database.update_camera(camera)
        return True

    monkeypatch.setattr(pycolmap, "calibrate_view_graph", find_true)
    details = run(root).details
    assert details["calibration"] == "view_graph"
    assert details["registered_images"] == 6


def test_the_calibration_may_be_chosen(root: Path) -> None:
    for chosen in ("none", "view_graph"):
        output = root / chosen
        details = run(root, MapConfig(calibration=chosen), output=output).details
        assert details["calibration"] == chosen
        assert "calibrations" not in details
        assert details["registered_images"] == 6


def test_of_many_images_some_decide(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibration, "TRIAL_IMAGES", 3)
    drop_rigs(root / "map.db")
    details = run(root).details
    tried = details["calibrations"]
    assert max(one["registered_images"] for one in tried.values()) == 3
    assert details["registered_images"] == model_of(root).num_reg_images() == 6


def test_known_poses_are_triangulated_both_ways(tmp_path: Path) -> None:
    prepare(tmp_path, Scene(times=2).taken_with(UNKNOWN))
    details = run(tmp_path).details
    assert details["method"] == "triangulate"
    assert details["calibration"] in details["calibrations"]
    assert len(details["calibrations"]) == 2


def test_known_cameras_are_mapped_once(tmp_path: Path, ready_to_map: Path) -> None:
    root = shutil.copytree(ready_to_map, tmp_path / "scene")
    details = run(root).details
    assert details["calibration"] == "none"
    assert "calibrations" not in details


def two_cameras() -> pycolmap.Reconstruction:
    """Two images that look ahead, one unit side by side."""
    model = pycolmap.Reconstruction()
    camera = pycolmap.Camera(
        camera_id=1, model="SIMPLE_PINHOLE", width=100, height=80, params=[90, 50, 40]
    )
    model.add_camera_with_trivial_rig(camera)
    for number, place in ((1, 0.0), (2, 1.0)):
        image = pycolmap.Image(image_id=number, camera_id=1, name=f"{number}")
        pose = pycolmap.Rigid3d(pycolmap.Rotation3d(), np.array([-place, 0, 0]))
        model.add_image_with_trivial_frame(image, pose)

    return model


def test_distances_to_epipolar_lines_are_in_pixels() -> None:
    model = two_cameras()
    xy1 = np.array([[20.0, 30], [60, 50], [50, 40]])
    # along the line nothing changes; off it the two images share the distance
    xy2 = xy1 + [[-5, 0], [-8, 0.5], [3, -2]]
    found = epipolar_errors(model.image(1), model.image(2), xy1, xy2)
    np.testing.assert_allclose(found, np.array([0, 0.5, 2]) / np.sqrt(2), atol=1e-9)


def test_agreement_is_an_area_and_counts_images_that_are_absent() -> None:
    model = two_cameras()
    xy = np.array([[20.0, 30], [60, 50]])
    exact = VerifiedPair(image_ids=(1, 2), xy=(xy, xy - [5, 0]))
    off = VerifiedPair(image_ids=(1, 2), xy=(xy, xy - [5, np.sqrt(2)]))
    absent = VerifiedPair(image_ids=(1, 3), xy=(xy, xy))
    assert agreement(model, [exact], 4.0) == pytest.approx(1)
    assert agreement(model, [off], 4.0) == pytest.approx(0.75)
    assert agreement(model, [exact, absent], 4.0) == pytest.approx(0.5)
    assert agreement(model, [], 4.0) == 0


class Model:
    """What is compared of a model."""

    def __init__(self, images: int, error: float, points: int) -> None:
        self.num_reg_images = lambda: images
        self.num_points3D = lambda: points
        self.compute_mean_reprojection_error = lambda: error


def trial(images: int, found: float, error: float, points: int = 100) -> Trial:
    model: Any = Model(images, error, points)
    return Trial(models=[model], agreement=found)


@pytest.mark.parametrize(
    ("none", "view_graph", "expected"),
    [
        (trial(8, 0.5, 1.0), trial(4, 0.9, 0.5), "none"),
        (trial(4, 0.9, 0.5), trial(8, 0.5, 1.0), "view_graph"),
        (trial(8, 0.8, 1.0), trial(8, 0.7, 0.5), "none"),
        (trial(8, 0.8, 1.0), trial(8, 0.795, 0.5), "view_graph"),
        (trial(8, 0.795, 0.5), trial(8, 0.8, 1.0), "none"),
        (trial(8, 0.8, 1.0, 100), trial(8, 0.8, 0.5, 76), "view_graph"),
        (trial(8, 0.8, 1.0, 100), trial(8, 0.8, 0.5, 74), "none"),
        (trial(8, 0.7, 1.0, 100), trial(8, 0.8, 0.5, 30), "view_graph"),
        (trial(8, 0.8, 1.0), trial(8, 0.8, 1.0), "none"),
        (
            Trial(models=[], failure=ReconstructionError("")),
            trial(2, 0, 9),
            "view_graph",
        ),
        (Trial(models=[]), Trial(models=[]), "none"),
    ],
)
def test_the_better_map(none: Trial, view_graph: Trial, expected: str) -> None:
    assert better({"none": none, "view_graph": view_graph}) == expected


def test_images_that_decide_hang_together(ready_to_map: Path) -> None:
    pairs = verified_pairs(ready_to_map / "map.db")
    chosen = best_connected(pairs, 5)
    assert len(chosen) == 5
    linked = [p for p in pairs if chosen.issuperset(p.image_ids)]
    reached = set(linked[0].image_ids)
    for _ in chosen:
        for pair in linked:
            if reached & set(pair.image_ids):
                reached |= set(pair.image_ids)
    assert reached == chosen
    assert best_connected(pairs, 99) == {i for p in pairs for i in p.image_ids}
