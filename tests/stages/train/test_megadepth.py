"""Pairs of prepared scenes of MegaDepth agree with the geometry of the room."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.megadepth import MegadepthConfig, MegadepthPairs
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.stages.megadepth.scene import prepare
from r2d2_kapture.stages.megadepth.scene_info import (
    SceneInfo,
    read_scene_info,
    write_scene_info,
)
from r2d2_kapture.stages.train.megadepth import (
    open_megadepth,
    read_inverse_depth,
    scene_info_paths,
    select_pairs,
)
from r2d2_kapture.stages.train.photographs import OpenedSources
from r2d2_kapture.synthetic.rendering import PinholeCamera, rectangle_from_pixel
from r2d2_kapture.training.loading import MemoryCache, PictureLoader
from r2d2_kapture.training.pairs import pixel_grid
from r2d2_kapture.training.views import apply_homography
from tests.scenes.megadepth import (
    FOCAL,
    NAMES,
    WrittenScene,
    undistorted_camera,
    write_depth,
    write_scene,
)
from tests.scenes.rendered import ROOM, correlations
from tests.stages.megadepth.test_scene_info import published

CONFIG = PairConfig(crop_size=64, min_side=96, max_side=180, night=0, noise=2)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> WrittenScene:
    scene = write_scene(tmp_path_factory.mktemp("prepared"))
    prepare(scene.model, MegadepthConfig(), force=False, threads=1)
    return scene


@pytest.fixture
def root(prepared: WrittenScene, tmp_path: Path) -> Path:
    """A copy of what was prepared; its depth maps stay elsewhere."""
    return Path(shutil.copytree(prepared.model.output, tmp_path / "megadepth"))


def load() -> PictureLoader:
    return PictureLoader(read_rgb, CONFIG.max_side, MemoryCache(0.1))


def opened(root: Path, *scenes: str, **bounds) -> OpenedSources:
    selection = MegadepthPairs(**bounds)
    return open_megadepth(root, scenes or ("0000",), CONFIG, load(), selection)


def true_depth(
    pose: np.ndarray, camera: PinholeCamera, pixels: np.ndarray
) -> np.ndarray:
    """Where the rays of pixels first meet a rectangle of the room."""
    homogeneous = np.column_stack([pixels, np.ones(len(pixels))])
    nearest = np.zeros(len(pixels))
    for rectangle in ROOM.rectangles:
        homography = rectangle_from_pixel(rectangle, pose, camera)
        assert homography is not None
        s, t, inverse_depth = homography @ homogeneous.T
        inside = (np.minimum(s, t) >= 0) & (np.maximum(s, t) <= inverse_depth)
        nearest = np.where(inside, np.maximum(nearest, inverse_depth), nearest)
    return 1 / nearest


def true_positions(
    scene: WrittenScene, first: str, second: str, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Where the second image shows what is at pixels of the first, and how deep."""
    camera = undistorted_camera()
    depth = true_depth(scene.poses[first], camera, pixels)
    rays = np.column_stack([pixels, np.ones(len(pixels))])
    points = np.linalg.solve(camera.intrinsics, rays.T) * depth
    points = scene.poses[first][:3, :3].T @ (points - scene.poses[first][:3, 3:])
    there = scene.poses[second][:3, :3] @ points + scene.poses[second][:3, 3:]
    x, y, z = camera.intrinsics @ there
    return np.column_stack([x / z, y / z]), there[2]


def short(name: str) -> str:
    return name.removeprefix("Undistorted_SfM/0000/images/")


def test_correspondences_agree_with_the_geometry_of_the_room(
    prepared: WrittenScene,
) -> None:
    (item,) = opened(prepared.model.output).sources
    assert len(item.source) == 6
    for index in range(len(item.source)):
        raw = item.source.pair(index, np.random.default_rng(index), 0.0)
        assert raw is not None
        first, second = map(short, raw.name.split(" - "))
        width, height = raw.view1.size
        seen = pixel_grid(np.arange(0, width, 3), np.arange(0, height, 3))
        found = apply_homography(raw.view2.picture_from_view, raw.flow(seen))
        pixels = apply_homography(raw.view1.picture_from_view, seen)
        expected, depth = true_positions(prepared, first, second, pixels)
        known = np.isfinite(found).all(axis=1)
        assert known.mean() > 0.5
        error = np.linalg.norm(found - expected, axis=1)[known]
        # beside an edge, a pixel centre may lie on the other surface
        assert np.percentile(error, 99) < 0.05 and (error < 1).mean() > 0.998
        hidden = depth > 1.1 * true_depth(
            prepared.poses[second], undistorted_camera(), expected
        )
        assert (known & hidden).mean() < 0.002 and hidden.any()


def test_crops_show_the_same_thing(prepared: WrittenScene) -> None:
    (item,) = opened(prepared.model.output).sources
    draws = [(seed % len(item.source), seed) for seed in range(8)]
    found = correlations(item.source, draws, crop_size=64)
    assert len(found) >= 4 and np.median(found) > 0.9


def test_vanished_images_and_depth_maps_are_reported(
    prepared: WrittenScene, root: Path
) -> None:
    (root / "Undistorted_SfM" / "0000" / "images" / NAMES[0]).unlink()
    path = root / "scene_info" / "0000.0.npz"
    info = read_scene_info(path)
    depths = [
        depth if not depth.endswith("c.h5") else "gone/c.h5"
        for depth in info.depth_paths
    ]
    write_scene_info(path, dataclasses.replace(info, depth_paths=tuple(depths)))
    found = opened(root)
    assert len(found.sources[0].source) == 1
    reasons = {short(failure.name): failure.reason for failure in found.skipped}
    assert set(reasons) == {NAMES[0], "c.jpg"}
    assert "no such file" in reasons[NAMES[0]]
    assert "gone/c.h5: not found, expected its depth map" in reasons["c.jpg"]


def test_depth_that_breaks_later_is_noted(root: Path, prepared: WrittenScene) -> None:
    path = root / "scene_info" / "0000.0.npz"
    info = read_scene_info(path)
    broken = root / "broken.h5"
    write_depth(broken, np.ones((5, 5)))
    depths = (str(broken), *info.depth_paths[1:])
    write_scene_info(path, dataclasses.replace(info, depth_paths=depths))
    (item,) = opened(root).sources
    rng = np.random.default_rng(0)
    pairs = [item.source.pair(i, rng, 0.0) for i in range(len(item.source))]
    assert sum(pair is None for pair in pairs) == 3  # each with the first image
    assert item.source.gone == (info.image_paths[0],)


def test_scenes_share_the_draws_and_missing_ones_are_reported(root: Path) -> None:
    for name in ("0000.2", "0000.10", "0001.0", "00000.0", "0000.x"):
        shutil.copy(root / "scene_info/0000.0.npz", root / f"scene_info/{name}.npz")
    names = [path.stem for path in scene_info_paths(root, "0000")]
    assert names == ["0000.0", "0000.2", "0000.10"]
    (root / "scene_info" / "0000.2.npz").write_bytes(b"broken")
    found = opened(root, "0000", "0001", "0777")
    assert [item.weight for item in found.sources] == [pytest.approx(1 / 3)] * 3
    assert [failure.name for failure in found.skipped] == ["0000.2", "0777"]
    assert "not a scene info" in found.skipped[0].reason


def test_nothing_to_train_on_is_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="scene_info: not found"):
        opened(tmp_path)
    with pytest.raises(
        DatasetError, match="no usable pair in 1 scenes.*0777: no scene info"
    ):
        opened(root, "0777")
    with pytest.raises(DatasetError, match="no usable pair in 1 scenes.*no two of 0"):
        opened(root, min_overlap_ratio=0.999)
    shutil.rmtree(root / "Undistorted_SfM")
    with pytest.raises(DatasetError, match="none of its pairs can be used.*a b é"):
        opened(root)


def test_images_smaller_than_a_crop_are_left_out(root: Path) -> None:
    config = dataclasses.replace(CONFIG, crop_size=160, min_side=160)
    with pytest.raises(DatasetError, match="at least 160 per side"):
        open_megadepth(root, ("0000",), config, load())


def test_most_pairs_of_a_scene_are_the_same_in_every_run(root: Path) -> None:
    everything = opened(root).sources[0].source
    some = [opened(root, pairs_per_scene=3).sources[0].source for _ in range(2)]
    assert (len(everything), [len(source) for source in some]) == (6, [3, 3])
    names = [
        [source.pair(i, np.random.default_rng(0), 0.0).name for i in range(3)]
        for source in some
    ]
    assert names[0] == names[1]


def test_a_published_scene_info_trains_too(root: Path, prepared: WrittenScene) -> None:
    path = root / "scene_info" / "0000.0.npz"
    info = read_scene_info(path)
    three = SceneInfo(
        image_paths=info.image_paths[:3],
        depth_paths=info.depth_paths[:3],
        intrinsics=info.intrinsics[:3],
        poses=info.poses[:3],
        point_counts=info.point_counts[:3],
        overlaps=info.overlaps[:3, :3],
        scale_ratios=info.scale_ratios[:3, :3],
    )
    np.savez(path, **published(three))  # the second image becomes None
    (item,) = opened(root).sources
    assert len(item.source) == 1
    raw = item.source.pair(0, np.random.default_rng(0), 0.0)
    assert raw is not None
    assert set(raw.name.split(" - ")) == {info.image_paths[0], info.image_paths[2]}


PLANE = np.diag([1.0, 1, 1, 0])
SKEWED = np.eye(4) + np.eye(4, k=1)


@pytest.mark.parametrize(
    "changes",
    [
        {"intrinsics": np.zeros((3, 3))},
        {"intrinsics": np.full((3, 3), np.nan)},
        {"intrinsics": np.diag([FOCAL, -FOCAL, 1])},
        {"intrinsics": np.diag([FOCAL, FOCAL, 2])},
        {"intrinsics": np.diag([FOCAL, FOCAL, 1]) + np.eye(3, k=-1)},
        {"poses": np.zeros((4, 4))},
        {"poses": np.full((4, 4), np.nan)},
        {"poses": np.diag([2.0, 2, 2, 1])},
        {"poses": np.diag([1.0, 1, -1, 1])},
        {"poses": PLANE},
        {"poses": SKEWED},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_images_without_a_camera_or_pose_are_left_out(root: Path, changes) -> None:
    path = root / "scene_info" / "0000.0.npz"
    info = read_scene_info(path)
    for name, value in changes.items():
        getattr(info, name)[1] = value
    write_scene_info(path, info)
    found = opened(root)
    (failure,) = found.skipped
    expected = "intrinsics" if "intrinsics" in changes else "the pose"
    assert failure.name == info.image_paths[1]
    assert f"found {expected} [[" in failure.reason and "\n" not in failure.reason
    source = found.sources[0].source
    pairs = [source.pair(i, np.random.default_rng(i), 0.0) for i in range(len(source))]
    assert len(pairs) == 3 and None not in pairs


def info_of(overlaps: np.ndarray, ratios: np.ndarray, missing: int) -> SceneInfo:
    count = len(overlaps)
    paths = tuple("" if i == missing else f"{i}" for i in range(count))
    return SceneInfo(
        image_paths=tuple("" if i == missing else f"{i}.jpg" for i in range(count)),
        depth_paths=paths,
        intrinsics=np.tile(np.eye(3), (count, 1, 1)),
        poses=np.tile(np.eye(4), (count, 1, 1)),
        point_counts=np.ones(count, np.int64),
        overlaps=overlaps.astype(np.float32),
        scale_ratios=ratios.astype(np.float32),
    )


@pytest.mark.parametrize(
    "bounds, expected",
    [
        ({}, [(0, 1), (0, 2), (1, 2)]),
        ({"max_overlap_ratio": 0.8}, [(0, 1), (0, 2)]),
        ({"min_overlap_ratio": 0.7}, [(0, 2), (1, 2)]),
        ({"max_scale_ratio": 2.5}, [(0, 1), (1, 2)]),
        ({"max_scale_ratio": 0.0}, [(0, 1), (0, 2), (1, 2)]),
        ({"min_overlap_ratio": 0.95}, []),
    ],
)
def test_pairs_within_bounds(bounds, expected) -> None:
    # of 0 and 2 one shows a detail of the other, four times as large
    overlaps = np.array([[1, 0.5, 0.1, 1], [0.6, 1, 0.9, 1], [0.8, 0.9, 1, 1], [1] * 4])
    ratios = np.array([[1, 2, 4, 1], [0.5, 1, 1, 1], [0.25, 1, 1, 1], [1] * 4])
    found = select_pairs(info_of(overlaps, ratios, 3), MegadepthPairs(**bounds))
    assert found.tolist() == [list(pair) for pair in expected]


def test_a_depth_map_has_nan_where_nothing_is_known(tmp_path: Path) -> None:
    write_depth(tmp_path / "a.h5", np.array([[2.0, 0.0, -1.0], [np.nan, 4.0, 8.0]]))
    found = read_inverse_depth(tmp_path / "a.h5", (3, 2))
    expected = [[0.5, np.nan, np.nan], [np.nan, 0.25, 0.125]]
    np.testing.assert_array_equal(found, expected)
    with pytest.raises(
        DatasetError, match=r"\(2, 3\), expected \(2, 4\) like its image"
    ):
        read_inverse_depth(tmp_path / "a.h5", (4, 2))
    with pytest.raises(DatasetError, match="gone.h5: not a readable depth map"):
        read_inverse_depth(tmp_path / "gone.h5", (4, 2))


@pytest.mark.parametrize(
    "changes, flag",
    [
        ({"min_overlap_ratio": 0.0}, "--min-overlap-ratio"),
        ({"min_overlap_ratio": 0.9, "max_overlap_ratio": 0.8}, "--max-overlap-ratio"),
        ({"max_scale_ratio": 0.5}, "--max-scale-ratio"),
        ({"max_scale_ratio": -1.0}, "--max-scale-ratio"),
        ({"max_scale_ratio": np.inf}, "--max-scale-ratio: found inf.* 0 for any"),
        ({"pairs_per_scene": 0}, "--pairs-per-scene"),
    ],
)
def test_settings_out_of_range(changes, flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        MegadepthPairs(**changes)
