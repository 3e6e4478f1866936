"""A map made again from an earlier one, whose keypoints are better now."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.verify import VerifyConfig
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from tests.scenes.world import Scene
from tests.stages.map_runs import (
    model_of,
    outputs,
    prepare,
    remove_poses,
    run,
    verify_scene,
)

NOISY = Scene(times=2, noise=0.5)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A map of noisy keypoints in ``map``, then a database of exact ones."""
    root = prepare(tmp_path_factory.mktemp("again"), NOISY)
    remove_poses(root)
    run(root)
    Scene(times=2).write_kapture(root / "mapping")
    remove_poses(root)
    verify_scene(root, VerifyConfig())
    return root


def test_better_keypoints_make_a_better_map(made: Path) -> None:
    report = run(made, output=made / "again", initial=made / "map")
    assert report.failed == ()
    assert report.details["registered_images"] == 6
    assert report.details["points"] >= model_of(made).num_points3D()
    before = model_of(made).compute_mean_reprojection_error()
    assert before > 0.2
    assert report.details["mean_reprojection_error"] < 0.01


def test_it_stays_in_the_frame_of_the_earlier_map(made: Path) -> None:
    run(made, output=made / "again", initial=made / "map")
    centers = []
    for name in ("map", "again"):
        model = pycolmap.Reconstruction(str(made / name / "sparse"))
        images = sorted(model.images.values(), key=lambda image: image.name)
        centers.append(np.array([image.projection_center() for image in images]))
    extent = np.linalg.norm(np.ptp(centers[0], axis=0))
    assert np.abs(centers[0] - centers[1]).max() < 0.05 * extent


def test_a_second_run_gives_the_same_bytes(made: Path) -> None:
    run(made, output=made / "again", initial=made / "map")
    first = outputs(made / "again")
    assert run(made, output=made / "again", initial=made / "map").done == 0
    run(made, output=made / "twice", initial=made / "map")
    assert outputs(made / "twice") == first
    with pytest.raises(OutputError, match="initial: .*map, not default"):
        run(made, output=made / "again")


def test_known_poses_stay(ready_to_map: Path, tmp_path: Path) -> None:
    run(ready_to_map, output=tmp_path / "map")
    report = run(ready_to_map, output=tmp_path / "again", initial=tmp_path / "map")
    assert report.details["method"] == "triangulate"
    assert any("map is not used, since known poses" in w for w in report.warnings)


def test_an_initial_map_of_other_images_is_refused(made: Path, tmp_path: Path) -> None:
    other = prepare(tmp_path, Scene(times=3))
    remove_poses(other)
    run(other)
    with pytest.raises(DatasetError, match="image '.*' of the map is not in the data"):
        run(made, MapConfig(), output=made / "other", initial=other / "map")


def test_an_initial_map_of_fewer_images_is_refused(made: Path, tmp_path: Path) -> None:
    """COLMAP knows images by their numbers."""
    model = model_of(made)
    first = min(model.images)
    renamed = {number: image.name for number, image in model.images.items()}
    for number, image in model.images.items():
        image.name = renamed.get(number + 1, renamed[first])
    (tmp_path / "sparse").mkdir()
    model.write(str(tmp_path / "sparse"))
    with pytest.raises(DatasetError, match="image '.*' of the map has another number"):
        run(made, output=made / "other", initial=tmp_path)


def test_a_map_is_not_its_own_initial_map(made: Path) -> None:
    before = outputs(made / "map")
    with pytest.raises(ConfigError, match="--initial .* choose another output"):
        run(made, initial=made / "map")
    assert outputs(made / "map") == before


def test_what_is_no_map_is_refused(made: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found no COLMAP model"):
        run(made, output=made / "other", initial=tmp_path)
