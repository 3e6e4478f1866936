"""Statistics of maps of exact truth."""

from __future__ import annotations

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.evaluation.map_statistics import map_statistics

FRAMES, POINTS, TRACK = 5, 40, 3


@pytest.fixture()
def model() -> pycolmap.Reconstruction:
    """Every point is seen by three images, exactly."""
    pycolmap.set_random_seed(3)
    options = pycolmap.SyntheticDatasetOptions(
        num_frames_per_rig=FRAMES,
        num_rigs=1,
        num_points3D=POINTS,
        track_length=TRACK,
        num_points2D_without_point3D=2,
    )
    return pycolmap.synthesize_dataset(options)


def test_counts_and_common_points_of_an_exact_map(
    model: pycolmap.Reconstruction,
) -> None:
    found = map_statistics(model)
    assert [image.name for image in found.images] == sorted(
        image.name for image in model.images.values()
    )
    assert found.track_lengths.tolist() == [TRACK] * POINTS
    assert len(found.errors) == POINTS * TRACK
    assert found.errors.max() < 1e-6
    keypoints = {image.name: len(image.points2D) for image in model.images.values()}
    assert {one.name: one.keypoints for one in found.images} == keypoints
    assert sum(one.observations for one in found.images) == POINTS * TRACK
    [camera] = found.cameras
    true = model.camera(camera.camera_id)
    assert camera.images == FRAMES and camera.size == (true.width, true.height)
    assert camera.params == tuple(true.params)
    expected = np.zeros((FRAMES, FRAMES), int)
    row_of = {one.name: row for row, one in enumerate(found.images)}
    for point in model.points3D.values():
        seen = {row_of[model.image(e.image_id).name] for e in point.track.elements}
        for a in seen:
            for b in seen:
                expected[a, b] += 1
    assert np.array_equal(found.covisible.toarray(), expected)


def test_a_moved_keypoint_is_an_error_of_its_image(
    model: pycolmap.Reconstruction,
) -> None:
    image = model.image(model.reg_image_ids()[0])
    observed = image.get_observation_point2D_idxs()
    image.points2D[observed[0]].xy += np.array([3.0, 4.0])

    found = map_statistics(model)

    assert found.errors.max() == pytest.approx(5.0, abs=1e-6)
    worst = max(found.images, key=lambda one: one.mean_error or 0.0)
    assert worst.name == image.name
    assert worst.mean_error == pytest.approx(5.0 / worst.observations, abs=1e-6)


def test_a_model_of_cameras_alone() -> None:
    found = map_statistics(pycolmap.Reconstruction())
    assert (found.images, len(found.errors), found.covisible.shape) == ((), 0, (0, 0))
