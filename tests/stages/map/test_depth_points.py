"""Maps whose points come from depth maps: exact, without a second view, refused."""

from __future__ import annotations

from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest
from kapture.io.records import depth_map_to_file, get_depth_map_fullpath

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import ConfigError, DatasetError, ReconstructionError
from r2d2_kapture.types import FloatArray
from tests.scenes.world import HEIGHT, WIDTH, Scene
from tests.stages.map_runs import model_of, outputs, prepare, remove_poses, run

DEPTH = MapConfig(points_from="depth")
MATCHED = MapConfig(points_from="matched_depth")
POINT_ERROR = 1e-3
"""Metres: of depths that are exact, in float32, at keypoints in float32."""


def give_depth(root: Path, scene: Scene, wrong: str = "") -> None:
    """Depth maps, known around the keypoints only; one is twice too deep."""
    data = kcsv.kapture_from_dir(str(root))
    data.records_depth = kapture.RecordsDepth()
    for timestamp, sensor_id, name in kapture.flatten(scene.dataset.records_camera):
        depth_id = f"{sensor_id} depth"
        camera = data.sensors[sensor_id]
        data.sensors[depth_id] = kapture.Camera(
            camera.camera_type, camera.camera_params, sensor_type="depth"
        )
        data.trajectories[timestamp, depth_id] = scene.poses[name]
        data.records_depth[timestamp, depth_id] = f"{name}.depth"
        path = Path(get_depth_map_fullpath(str(root), f"{name}.depth"))
        path.parent.mkdir(parents=True, exist_ok=True)
        depth = depth_of(scene, name) * (2 if name == wrong else 1)
        depth_map_to_file(str(path), depth)
    kcsv.kapture_to_dir(str(root), data)


def depth_of(scene: Scene, name: str) -> FloatArray:
    """Known at the four pixels around each keypoint, unless others share them."""
    z = scene.poses[name].transform_points(scene.points)[:, 2]
    depth, taken = np.zeros((2, HEIGHT, WIDTH), np.float32)
    for (column, row), value in zip(scene.keypoints(name)[:, :2].astype(int), z):
        if 0 <= column < WIDTH - 1 and 0 <= row < HEIGHT - 1:
            around = np.s_[row : row + 2, column : column + 2]
            depth[around] = value
            taken[around] += 1
    return np.where(taken == 1, depth, 0)


@pytest.fixture
def scene() -> Scene:
    return Scene(times=2)


@pytest.fixture
def root(tmp_path: Path, scene: Scene) -> Path:
    prepare(tmp_path, scene)
    give_depth(tmp_path / "mapping", scene)
    return tmp_path


def far_from_truth(root: Path, scene: Scene) -> np.ndarray:
    """Of each point of the map, how far the keypoint's point of the scene is."""
    found = []
    for point in model_of(root).points3D.values():
        rows = {element.point2D_idx for element in point.track.elements}
        found += [np.linalg.norm(point.xyz - scene.points[row]) for row in rows]
    return np.array(found)


def test_points_lie_where_depth_puts_them(root: Path, scene: Scene) -> None:
    report = run(root, DEPTH)
    assert report.details["method"] == "triangulate" and not report.failed
    model = model_of(root)
    assert model.num_points3D() >= len(scene.points) * 0.9
    assert far_from_truth(root, scene).max() < POINT_ERROR
    assert model.compute_mean_track_length() > 3
    assert model.compute_mean_reprojection_error() < 0.1
    first = outputs(root / "map")
    assert run(root, DEPTH).skipped == 1
    run(root, DEPTH, output=root / "again")
    assert outputs(root / "again") == first


def test_an_image_without_points_is_told_of_its_depth_map(
    root: Path, scene: Scene
) -> None:
    wrong = scene.names[0]
    path = Path(get_depth_map_fullpath(str(root / "mapping"), f"{wrong}.depth"))
    depth_map_to_file(str(path), 2 * np.full((HEIGHT, WIDTH), 50, np.float32))
    report = run(root, MATCHED)
    (failure,) = report.failed
    assert failure.name == wrong
    assert "points come from depth (matched_depth)" in failure.reason
    assert "--map.points-from triangulation" in failure.reason
    assert run(root, MATCHED).details == report.details


def test_depth_needs_no_second_view(root: Path, scene: Scene) -> None:
    """One place gives no triangulation; all its keypoints have depth."""
    run(root, DEPTH)
    everything = model_of(root).compute_num_observations()
    run(root, MATCHED, output=root / "matched")
    matched = pycolmap.Reconstruction(str(root / "matched" / "sparse"))
    assert all(p.track.length() > 1 for p in matched.points3D.values())
    assert matched.compute_num_observations() <= everything


def test_a_wrong_depth_does_not_move_the_others(tmp_path: Path, scene: Scene) -> None:
    prepare(tmp_path, scene)
    wrong = scene.names[0]
    give_depth(tmp_path / "mapping", scene, wrong)
    report = run(tmp_path, MATCHED)
    assert far_from_truth(tmp_path, scene).max() < POINT_ERROR
    model = model_of(tmp_path)
    assert report.details["points_from"] == "matched_depth"
    few = model.find_image_with_name(wrong).num_points3D
    assert report.details["depth_rejected"] >= len(scene.points) // 2 - few
    # those without depth of their own
    assert model.find_image_with_name(wrong).num_points3D < 5


def test_what_gives_no_points_is_refused(root: Path, scene: Scene) -> None:
    with pytest.raises(ConfigError, match="--points-from depth: found --method global"):
        MapConfig(points_from="depth", method="global")
    depth_file = next((root / "mapping").rglob("*.depth"))
    content = depth_file.read_bytes()
    depth_file.write_bytes(content[:-4])
    with pytest.raises(DatasetError, match=f"expected {WIDTH} x {HEIGHT}"):
        run(root, DEPTH)
    depth_file.unlink()
    with pytest.raises(DatasetError, match="No such file"):
        run(root, DEPTH)
    depth_file.write_bytes(content)
    (root / "mapping" / "sensors" / "records_depth.txt").unlink()
    with pytest.raises(ReconstructionError, match="found no depth map of 6 images"):
        run(root, DEPTH)
    remove_poses(root)
    with pytest.raises(ReconstructionError, match="0 of 6 images have a pose"):
        run(root, DEPTH)
    assert not (root / "map").exists()


def test_changed_depth_is_mapped_again(root: Path, scene: Scene) -> None:
    run(root, DEPTH)
    for path in (root / "mapping").rglob("*.depth"):
        (np.fromfile(path, np.float32) * 1.0001).astype(np.float32).tofile(path)
    assert run(root, DEPTH).done == 1
    assert far_from_truth(root, scene).max() > 1e-4
