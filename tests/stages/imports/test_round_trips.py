"""COLMAP to kapture to COLMAP, and kapture to COLMAP to kapture: the same numbers."""

from __future__ import annotations

import itertools
from contextlib import closing
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.kapture.match_store import find_matches
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.export import run as export
from r2d2_kapture.stages.imports import run as imports
from tests.scenes.reconstruction import Made, synthesize
from tests.scenes.world import Scene

QUIET = RunOptions(progress=False)
CLOSE = 1e-12
"""Quaternions are made unit on the way."""
ROUNDED = float(np.spacing(np.float32(640)))
"""Half a pixel more may take the last digit of a float32."""


def there_and_back(made: Made, *, text: bool = False) -> Made:
    """The database and the model by way of kapture."""
    dataset, back = made.root / "dataset", made.root / "back"
    imports(database=made.database, model=made.sparse, output=dataset, options=QUIET)
    export(kapture_root=dataset, to="colmap", output=back, text=text, options=QUIET)
    return Made(root=back, model=pycolmap.Reconstruction(str(back / "sparse")))


def close(one: pycolmap.Rigid3d, other: pycolmap.Rigid3d) -> bool:
    return bool(np.abs(one.matrix() - other.matrix()).max() < CLOSE)


def name_tracks(model: pycolmap.Reconstruction) -> list[tuple[object, ...]]:
    """Position, colour and observations of each point."""
    return sorted(
        (
            *point.xyz.tolist(),
            *point.color.tolist(),
            *sorted(
                (model.image(e.image_id).name, e.point2D_idx)
                for e in point.track.elements
            ),
        )
        for point in model.points3D.values()
    )


def assert_same_model(
    one: pycolmap.Reconstruction, other: pycolmap.Reconstruction
) -> None:
    images = {image.name: image for image in other.images.values()}
    assert images.keys() == {image.name for image in one.images.values()}
    for image in one.images.values():
        back = images[image.name]
        assert image.has_pose == back.has_pose
        assert close(image.cam_from_world(), back.cam_from_world())
        assert image.camera.model == back.camera.model
        assert image.camera.params.tolist() == back.camera.params.tolist()
        xy = [point.xy for point in image.points2D]
        xy_back = [point.xy for point in back.points2D]
        assert np.array_equal(np.array(xy, np.float32), np.array(xy_back, np.float32))
        frames = [
            {model.image(data.id).name for data in frame.data_ids}
            for model, frame in ((one, image.frame), (other, back.frame))
        ]
        assert frames[0] == frames[1]
    assert name_tracks(one) == name_tracks(other)


def names_of(database: pycolmap.Database) -> dict[str, int]:
    return {image.name: image.image_id for image in database.read_all_images()}


def assert_same_database(one: Path, other: Path) -> int:
    """How many pairs are the same."""
    with (
        closing(pycolmap.Database.open(str(one))) as first,
        closing(pycolmap.Database.open(str(other))) as second,
    ):
        ids, back = names_of(first), names_of(second)
        assert ids.keys() == back.keys()
        for name in ids:
            keypoints = [
                d.read_keypoints(i[name]) for d, i in ((first, ids), (second, back))
            ]
            assert np.array_equal(*keypoints)
            descriptors = [
                d.read_descriptors(i[name]) for d, i in ((first, ids), (second, back))
            ]
            assert descriptors[0].type == descriptors[1].type
            assert np.array_equal(descriptors[0].data, descriptors[1].data)
        pairs = list(itertools.combinations(sorted(ids), 2))
        for a, b in pairs:
            matches = [
                d.read_matches(i[a], i[b]) for d, i in ((first, ids), (second, back))
            ]
            assert np.array_equal(*matches)
            theirs = first.read_two_view_geometry(ids[a], ids[b])
            ours = second.read_two_view_geometry(back[a], back[b])
            assert theirs.config == ours.config
            assert np.array_equal(theirs.inlier_matches, ours.inlier_matches)
            for matrix in ("E", "F", "H"):
                values = [getattr(g, matrix) for g in (theirs, ours)]
                assert (values[0] is None) == (values[1] is None)
                assert values[0] is None or np.allclose(values[0], values[1], 1e-12)
            pose = theirs.cam2_from_cam1
            assert pose is None or close(pose, ours.cam2_from_cam1)
        priors = [
            {
                names[prior.corr_data_id.id]: prior.position.tolist()
                for prior in database.read_all_pose_priors()
            }
            for database, names in (
                (first, {i: n for n, i in ids.items()}),
                (second, {i: n for n, i in back.items()}),
            )
        ]
        assert priors[0] == priors[1]
        return len(pairs)


def write_descriptors(path: Path, kind: pycolmap.FeatureExtractorType) -> None:
    """Others than SIFT, of float32."""
    rng = np.random.default_rng(0)
    with closing(pycolmap.Database.open(str(path))) as database:
        database.clear_descriptors()
        for image in database.read_all_images():
            count = len(database.read_keypoints(image.image_id))
            rows = rng.normal(0, 1, (count, 64)).astype(np.float32)
            rows /= np.linalg.norm(rows, axis=1, keepdims=True)
            made = pycolmap.FeatureDescriptors(kind, rows.view(np.uint8))
            database.write_descriptors(image.image_id, made)


@pytest.mark.parametrize("kind", ["SIFT", "ALIKED_N16ROT", "UNDEFINED"])
def test_colmap_by_way_of_kapture(kind: str, tmp_path: Path) -> None:
    made = synthesize(
        tmp_path,
        two_view_geometry_has_relative_pose=True,
        inlier_match_ratio=0.8,
        prior_position=True,
    )
    if kind != "SIFT":
        write_descriptors(made.database, getattr(pycolmap.FeatureExtractorType, kind))
    back = there_and_back(made)
    assert_same_model(made.model, back.model)
    assert assert_same_database(made.database, back.database) == 66
    placed = [
        {
            sensor.id: pose
            for rig in model.rigs.values()
            for sensor, pose in rig.non_ref_sensors.items()
        }
        for model in (made.model, back.model)
    ]
    assert placed[0].keys() == placed[1].keys() == {2, 4}
    assert all(close(pose, placed[1][camera]) for camera, pose in placed[0].items())


def test_partial_poses_and_single_cameras_by_way_of_kapture(tmp_path: Path) -> None:
    made = synthesize(tmp_path, num_cameras_per_rig=1, num_rigs=3)
    for frame_id in (2, 5):
        made.model.deregister_frame(frame_id)
    made.model.write(str(made.sparse))
    made = Made(root=made.root, model=pycolmap.Reconstruction(str(made.sparse)))
    assert made.model.num_reg_images() == 7
    back = there_and_back(made, text=True)
    registered = [back.model.image(i).name for i in back.model.reg_image_ids()]
    posed = [made.model.image(i).name for i in made.model.reg_image_ids()]
    assert sorted(registered) == sorted(posed)
    assert name_tracks(made.model) == name_tracks(back.model)
    assert assert_same_database(made.database, back.database) == 36


def test_kapture_by_way_of_colmap(tmp_path: Path) -> None:
    scene = Scene(times=3)
    del scene.dataset.trajectories[2]["walker"]
    root = scene.write_kapture(tmp_path / "scene")
    export(kapture_root=root, to="colmap", output=tmp_path / "colmap", options=QUIET)
    again = tmp_path / "again"
    imports(
        database=tmp_path / "colmap" / "database.db",
        model=tmp_path / "colmap" / "sparse",
        output=again,
        keypoints_type="r2d2",
        options=QUIET,
    )
    datasets = open_dataset(root), open_dataset(again)
    assert sorted(datasets[0].image_names) == sorted(datasets[1].image_names)
    poses = [read_camera_poses(dataset) for dataset in datasets]
    assert poses[0].without_pose == poses[1].without_pose == (scene.names[-1],)
    for name, pose in poses[0].cam_from_world.items():
        assert close(pose, poses[1].cam_from_world[name])
    sensors = [
        {
            name: dataset.data.sensors[sensor].camera_params
            for _, sensor, name in kapture.flatten(dataset.data.records_camera)
        }
        for dataset in datasets
    ]
    assert sensors[0] == sensors[1]
    together = [
        sorted(sorted(names.values()) for names in dataset.data.records_camera.values())
        for dataset in datasets
    ]
    # the walker is in no rig: COLMAP does not know that it took images at these times
    assert together[1] == sorted(
        group for names in together[0] for group in (names[:2], names[2:])
    )
    table = open_feature_table([again], "keypoints", "r2d2")
    matches = find_matches([again], "r2d2")
    for name in scene.names:
        expected = scene.keypoints(name)[:, :2]
        np.testing.assert_allclose(table.read(name), expected, rtol=0, atol=ROUNDED)
    assert len(matches.pairs) == 36
    for pair in matches.pairs:
        found = matches.read(*pair)
        assert found is not None
        assert np.array_equal(found.indices, scene.matches(*pair).indices)


@pytest.fixture(scope="module")
def ground_truth(shared: Path) -> Path:
    return shared / "data" / "multiview" / "lund_door" / "colmap_ground_truth"


def test_a_published_reconstruction_by_way_of_kapture(
    ground_truth: Path, tmp_path: Path
) -> None:
    images = ground_truth.parent / "images"
    imports(model=ground_truth, images=images, output=tmp_path / "a", options=QUIET)
    export(
        kapture_root=tmp_path / "a", to="colmap", output=tmp_path / "b", options=QUIET
    )
    model = pycolmap.Reconstruction(str(ground_truth))
    for frame in model.frames.values():  # of six digits, which are not quite unit
        pose = frame.rig_from_world
        pose.rotation.normalize()
        frame.rig_from_world = pose
    assert_same_model(model, pycolmap.Reconstruction(str(tmp_path / "b" / "sparse")))
    data = kcsv.kapture_from_dir(str(tmp_path / "a"))
    assert (len(data.points3d), data.observations.observations_number()) == (
        model.num_points3D(),
        model.compute_num_observations(),
    )
