"""Import of COLMAP: what is in the dataset is what COLMAP had, to the digit."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin, place_keypoints
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.imports import run
from r2d2_kapture.types import Report
from tests.scenes.reconstruction import Made, synthesize


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return synthesize(tmp_path_factory.mktemp("made"))


def imported(made: Made, output: Path, *sources: str) -> Report:
    return run(
        database=made.database if "database" in sources else None,
        model=made.sparse if "model" in sources else None,
        images=made.images,
        output=output,
        options=RunOptions(progress=False),
    )


@pytest.fixture(scope="module")
def both(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("both") / "dataset é"
    imported(made, output, "database", "model")
    return output


def test_cameras_poses_and_rigs_are_colmaps(made: Made, both: Path) -> None:
    dataset = open_dataset(both)
    assert set(dataset.image_names) == {i.name for i in made.model.images.values()}
    poses = read_camera_poses(dataset).cam_from_world
    origin = find_camera_origin(dataset, "auto")
    assert (origin.origin, origin.basis) == ("center", "file")
    images = {image.name: image for image in made.model.images.values()}
    for timestamp, sensor, name in kcsv.kapture.flatten(dataset.data.records_camera):
        image = images[name]
        expected = image.cam_from_world().matrix()
        np.testing.assert_allclose(poses[name].matrix(), expected, rtol=0, atol=1e-12)
        camera = colmap_camera(dataset.data.sensors[sensor], 0, "center")
        assert camera.params.tolist() == image.camera.params.tolist()
        assert camera.model == image.camera.model
        together = [made.model.image(d.id).name for d in image.frame.data_ids]
        assert set(together) == set(dataset.data.records_camera[timestamp].values())
    assert len(dataset.data.rigs) == 2
    assert {len(devices) for devices in dataset.data.trajectories.values()} == {1}


def test_features_and_matches_are_those_of_the_database(made: Made, both: Path) -> None:
    dataset = open_dataset(both)
    found, warnings = place_keypoints(
        open_feature_table([both], "keypoints"),
        "auto",
        dataset,
        find_camera_origin(dataset, "auto"),
    )
    assert (found.type_name, found.dsize, warnings) == ("sift", 6, ())
    descriptors = open_feature_table([both], "descriptors", keypoints_type="sift")
    matches = find_matches([both], "sift")
    verified = find_matches([both / "verified"], "sift")
    with closing(pycolmap.Database.open(str(made.database))) as database:
        images = database.read_all_images()
        for image in images:
            keypoints = database.read_keypoints(image.image_id)
            stored = found.read(image.name)
            assert (stored[:, :2] + 0.5).tolist() == keypoints[:, :2].tolist()
            assert stored[:, 2:].tolist() == keypoints[:, 2:].tolist()
            values = descriptors.read_stored(image.name)
            expected = database.read_descriptors(image.image_id).data
            assert values.dtype == np.uint8 and np.array_equal(values, expected)
        pairs = 0
        for one in images:
            for other in images:
                rows = database.read_matches(one.image_id, other.image_id)
                stored_rows = matches.read(one.name, other.name)
                if one.name >= other.name or not len(rows):
                    continue
                pairs += 1
                assert stored_rows is not None
                assert stored_rows.indices.tolist() == rows.tolist()
                geometry = database.read_two_view_geometry(one.image_id, other.image_id)
                inliers = verified.read(one.name, other.name)
                assert inliers is not None
                assert inliers.indices.tolist() == geometry.inlier_matches.tolist()
        assert pairs == len(matches.pairs) == len(verified.pairs) > 0


def test_points_and_observations_are_those_of_the_model(made: Made, both: Path) -> None:
    data = kcsv.kapture_from_dir(str(both))
    ids = sorted(made.model.points3D)
    points = [made.model.point3D(i) for i in ids]
    expected = [[*point.xyz, *point.color] for point in points]
    assert data.points3d.as_array().tolist() == np.array(expected).tolist()
    for row, point in enumerate(points):
        seen = [
            (made.model.image(e.image_id).name, e.point2D_idx)
            for e in point.track.elements
        ]
        assert sorted(data.observations[row, "sift"]) == sorted(seen)
