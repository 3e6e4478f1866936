"""One scene of MegaDepth is undistorted, and its images compared."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import h5py
import numpy as np
import pycolmap
import pytest
from PIL import Image
from scipy.ndimage import shift

from r2d2_kapture.config.megadepth import MegadepthConfig
from r2d2_kapture.errors import DatasetError, OutputError, ReconstructionError
from r2d2_kapture.io.images.decoding import image_size, read_rgb
from r2d2_kapture.stages.megadepth import scene as megadepth_scene
from r2d2_kapture.stages.megadepth.layout import DEPTH_FOLDER
from r2d2_kapture.stages.megadepth.scene import (
    SceneSummary,
    make_scene_info,
    prepare,
    summary_of,
)
from r2d2_kapture.stages.megadepth.scene_info import SceneInfo, read_scene_info
from r2d2_kapture.synthetic.rendering import render
from tests.scenes.megadepth import (
    FOCAL,
    NAMES,
    WrittenScene,
    undistorted_camera,
    write_depth,
    write_scene,
)
from tests.scenes.rendered import ROOM, sees
from tests.stages.megadepth_copies import content, left_out, prepared, row_of

CONFIG = MegadepthConfig()


def test_images_are_undistorted(published: WrittenScene) -> None:
    camera = undistorted_camera()
    for name, pose in published.poses.items():
        path = published.model.undistorted / "images" / name
        assert image_size(path) == camera.image_size
        found = read_rgb(path).mean(axis=-1)[8:-8, 8:-8]
        exact = render(ROOM, pose, camera).mean(axis=-1)

        def difference(by: tuple[float, float]) -> float:
            moved = shift(exact, by, order=1)[8:-8, 8:-8]
            return float(np.abs(found - moved).mean())

        moves = [(0.5, 0), (-0.5, 0), (0, 0.5), (0, -0.5)]
        assert difference((0, 0)) < min(map(difference, moves))
        assert difference((0, 0)) < 5


def test_intrinsics_and_poses_are_those_of_the_scene(published: WrittenScene) -> None:
    info = read_scene_info(published.model.scene_info)
    assert len(info) == len(NAMES)
    for name, pose in published.poses.items():
        row = row_of(info, name)
        np.testing.assert_allclose(info.poses[row], pose, atol=1e-9)
        expected = undistorted_camera().intrinsics
        np.testing.assert_allclose(info.intrinsics[row], expected, atol=1e-9)
        depth = published.model.output / info.depth_paths[row]
        assert depth == published.model.depth_path(name)


def test_colmap_reads_the_undistorted_model(published: WrittenScene) -> None:
    model = pycolmap.Reconstruction(str(published.model.undistorted / "sparse"))
    assert {image.name for image in model.images.values()} == set(NAMES)
    (camera,) = model.cameras.values()
    assert camera.model == pycolmap.CameraModelId.PINHOLE


def test_large_images_shrink(scene: WrittenScene) -> None:
    camera = undistorted_camera()
    for name in NAMES:  # the exact depth of the smaller view, by its parts of 2
        half = scene.depth(name).reshape(76, 2, 104, 2).mean(axis=(1, 3))
        write_depth(scene.model.depth_path(name), half)
    info = prepared(scene.model, MegadepthConfig(max_image_size=104))
    assert image_size(scene.model.output / info.image_paths[0]) == (104, 76)
    ratio = info.intrinsics[0][[0, 1], [0, 1]] / FOCAL
    np.testing.assert_allclose(ratio, 0.5, rtol=1e-6)
    # the middle of the image stays its middle: ((W - 1) / 2, (H - 1) / 2)
    assert info.intrinsics[0, :2, 2].tolist() == [51.5, 37.5]
    assert camera.image_size == (208, 152)


def test_overlap_is_the_share_of_common_points(tmp_path: Path) -> None:
    rows = np.arange(100)
    tracks = {NAMES[0]: rows[:40], NAMES[1]: rows[10:70], NAMES[2]: rows[70:]}
    everything = write_scene(tmp_path / "all", names=NAMES[:3])
    seen = {
        name: np.intersect1d(track, visible_to_all(everything))
        for name, track in tracks.items()
    }
    scene = write_scene(tmp_path / "some", names=NAMES[:3], tracks=seen)
    info = prepared(scene.model)
    for i, first in enumerate(sorted(seen)):
        assert info.point_counts[i] == len(seen[first])
        for j, second in enumerate(sorted(seen)):
            common = len(np.intersect1d(seen[first], seen[second]))
            assert info.overlaps[i, j] == pytest.approx(common / len(seen[first]))
    gone = row_of(info, NAMES[0]), row_of(info, NAMES[2])
    assert info.overlaps[gone] == 0 and info.scale_ratios[gone] == 0


def visible_to_all(scene: WrittenScene) -> np.ndarray:
    return np.flatnonzero(
        np.all(
            [
                sees(pose, scene.points, undistorted_camera())
                for pose in scene.poses.values()
            ],
            axis=0,
        )
    )


def test_points_that_the_depth_map_contradicts_do_not_count(
    scene: WrittenScene,
) -> None:
    name = NAMES[0]
    depth = scene.depth(name)
    depth[:, :100] *= 1.2  # wrong
    depth[:60, 100:] = 0  # unknown
    depth[60:, 190:] = -1  # ordinal
    write_depth(scene.model.depth_path(name), depth)
    info = prepared(scene.model)
    exact = read_scene_info_of_truth(scene)
    row = row_of(info, name)
    pose = scene.poses[name]
    there = scene.points @ pose[:3, :3].T + pose[:3, 3]
    x, y, z = (there @ undistorted_camera().intrinsics.T).T
    x, y = np.rint(x / z), np.rint(y / z)
    kept = (x >= 100) & (x < 190) & (y >= 60)
    assert (
        info.point_counts[row]
        == (sees(pose, scene.points, undistorted_camera()) & kept).sum()
    )
    others = [i for i in range(len(info)) if i != row]
    np.testing.assert_array_equal(info.point_counts[others], exact.point_counts[others])


def read_scene_info_of_truth(scene: WrittenScene) -> SceneInfo:
    """With exact depth maps again."""
    for name in NAMES:
        write_depth(scene.model.depth_path(name), scene.depth(name))
    info, _ = make_scene_info(scene.model, CONFIG)
    return info


def test_images_that_cannot_be_used_are_left_out_with_reasons(
    scene: WrittenScene,
) -> None:
    model = scene.model
    model.depth_path(NAMES[1]).unlink()
    path = model.depth_path(NAMES[2])
    path.write_bytes(path.read_bytes()[:4000])
    (model.images / NAMES[3]).unlink()
    info = prepared(model)
    assert len(info) == 1 and info.image_paths[0].endswith(NAMES[0])
    reasons = left_out(model)
    assert set(reasons) == set(NAMES[1:])
    assert "no depth map" in reasons[NAMES[1]]
    assert "not a readable depth map" in reasons[NAMES[2]]
    assert "no such file" in reasons[NAMES[3]]
    assert not (model.undistorted / "images" / NAMES[1]).exists()


def test_sizes_that_do_not_fit_are_left_out(scene: WrittenScene) -> None:
    model = scene.model
    write_depth(model.depth_path(NAMES[1]), scene.depth(NAMES[1])[:-1])
    with h5py.File(model.depth_path(NAMES[2]), "w") as file:
        file["depth"] = np.zeros((3, 4, 5))
    Image.new("RGB", (30, 20)).save(model.images / NAMES[3])
    info = prepared(model)
    reasons = left_out(model)
    assert len(info) == 1
    assert "(H, W) (151, 208), expected (152, 208)" in reasons[NAMES[1]]
    assert "(H, W) (3, 4, 5), expected (152, 208)" in reasons[NAMES[2]]
    assert "found 30 x 20 pixels, expected 200 x 150" in reasons[NAMES[3]]


def test_other_damage_is_named(scene: WrittenScene) -> None:
    model = scene.model
    photo = model.images / NAMES[1]
    photo.write_bytes(photo.read_bytes()[:3000])
    model.depth_path(NAMES[2]).write_bytes(b"")
    write_depth(model.depth_path(NAMES[3]), np.zeros((152, 208)))
    prepared(model)
    reasons = left_out(model)
    assert "truncated" in reasons[NAMES[1]]
    assert "not a readable depth map" in reasons[NAMES[2]]
    assert "agrees with none of the" in reasons[NAMES[3]]


def test_a_header_that_promises_too_much_takes_no_memory(scene: WrittenScene) -> None:
    with h5py.File(scene.model.depth_path(NAMES[1]), "w") as file:
        file.create_dataset("depth", (10**7, 10**7), np.float32, chunks=(64, 64))
    with h5py.File(scene.model.depth_path(NAMES[2]), "w") as file:
        file.create_dataset("depth", (152, 208), "S100000000")
    prepared(scene.model)
    reasons = left_out(scene.model)
    assert set(reasons) == set(NAMES[1:3])
    assert "(10000000, 10000000), expected (152, 208)" in reasons[NAMES[1]]
    assert "not a readable depth map" in reasons[NAMES[2]]


def test_other_hdf5_is_no_depth_map(scene: WrittenScene) -> None:
    for name, held in zip(NAMES[1:], (None, "text", h5py.Empty("f"))):
        with h5py.File(scene.model.depth_path(name), "w") as file:
            if held is None:
                file.create_group("depth")
            else:
                file["depth"] = held
    prepared(scene.model)
    reasons = left_out(scene.model)
    assert list(reasons) == sorted(NAMES[1:])
    for name, reason in reasons.items():
        assert str(scene.model.depth_path(name)) in reason


def test_a_scene_without_a_usable_image_fails(scene: WrittenScene) -> None:
    for name in NAMES:
        write_depth(scene.model.depth_path(name), np.zeros((5, 5)))
    with pytest.raises(DatasetError, match="none of 4 images can be used; the first"):
        prepared(scene.model)
    assert not scene.model.scene_info.exists()


def test_names_that_leave_the_folder_are_refused(scene: WrittenScene) -> None:
    model = pycolmap.Reconstruction(str(scene.model.reconstruction))
    model.images[1].name = "../../evil.jpg"
    model.write(str(scene.model.reconstruction))
    with pytest.raises(DatasetError, match="evil.jpg.*leaves the dataset"):
        prepared(scene.model)


def test_a_folder_of_somebody_else_is_not_replaced(scene: WrittenScene) -> None:
    other = scene.model.undistorted / "images" / "mine.jpg"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"mine")
    for force in (False, True):
        with pytest.raises(OutputError, match="found 'images/mine.jpg' without a mani"):
            prepare(scene.model, CONFIG, force=force, threads=1)
    assert other.read_bytes() == b"mine"


def test_further_models_of_a_scene_do_not_mix_with_the_first(
    scene: WrittenScene,
) -> None:
    root = scene.model.output.parent
    second = write_scene(root, number=3, names=NAMES[:2])
    info = prepared(second.model)
    assert second.model.scene_info == root / "out" / "scene_info" / "0000.3.npz"
    assert info.image_paths[0] == f"Undistorted_SfM/0000.3/images/{NAMES[0]}"
    assert (
        prepared(scene.model).image_paths[0]
        == f"Undistorted_SfM/0000/images/{NAMES[0]}"
    )


def test_depth_paths_outside_are_absolute_and_inside_relative(
    scene: WrittenScene,
) -> None:
    root = scene.model.output.parent
    info = prepared(dataclasses.replace(scene.model, output=root))
    inside = DEPTH_FOLDER / "0000/dense0/depths" / Path(NAMES[0]).with_suffix(".h5")
    assert info.depth_paths[0] == inside.as_posix()
    info = prepared(scene.model)
    assert info.depth_paths[0] == str(scene.model.depth_path(NAMES[0]))


def test_a_killed_run_leaves_nothing_half_done(
    scene: WrittenScene, published: WrittenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(output: Path, *others, **settings) -> None:
        (output / "images").mkdir()
        (output / "images" / NAMES[0]).write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pycolmap, "undistort_images", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepared(scene.model)
    assert not scene.model.undistorted.exists()
    # what a kill that cannot be caught leaves
    left = scene.model.undistorted.with_name(".0000.partial") / "new" / "images"
    left.mkdir(parents=True)
    (left / "half.jpg").write_bytes(b"half")
    prepared(scene.model)
    found, whole = content(scene.model.undistorted), content(
        published.model.undistorted
    )
    assert found == whole
    assert not left.parents[1].exists()


@pytest.mark.parametrize("step", ["undistort", "make_scene_info", "write_scene_info"])
def test_a_forced_run_that_stops_does_not_pass_for_finished(
    scene: WrittenScene, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """It goes on where it stopped; what was there before is not mixed in."""
    model, smaller = scene.model, MegadepthConfig(max_image_size=104)
    prepared(model)
    for name in NAMES:
        half = scene.depth(name).reshape(76, 2, 104, 2).mean(axis=(1, 3))
        write_depth(model.depth_path(name), half)

    def interrupted(*arguments, **settings) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(megadepth_scene, step, interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(model, smaller, force=True, threads=1)
    assert not model.scene_info.exists()
    if step == "undistort":  # the images are still as before
        assert summary_of(model, CONFIG) is None
        return
    assert summary_of(model, smaller) is None
    info = prepared(model, smaller)
    assert summary_of(model, smaller) == SceneSummary(usable=4, left_out=0)
    np.testing.assert_allclose(info.intrinsics[0, 0, 0], FOCAL / 2, rtol=1e-6)


def test_a_scene_info_of_unknown_settings_is_not_vouched_for(
    scene: WrittenScene, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, wider = scene.model, MegadepthConfig(depth_tolerance=0.2)
    prepared(model)
    model.scene_info.with_suffix(".json").unlink()

    def interrupted(*arguments) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(megadepth_scene, "write_scene_info", interrupted)
    with pytest.raises(KeyboardInterrupt):
        prepare(model, wider, force=False, threads=1)
    assert summary_of(model, wider) is None


def test_a_model_as_text_gives_the_same(tmp_path: Path) -> None:
    names = ("a.jpg", "b.jpg")
    binary = write_scene(tmp_path / "binary", names=names)
    text = write_scene(tmp_path / "text", names=names)
    folder = text.model.reconstruction
    pycolmap.Reconstruction(str(folder)).write_text(str(folder))
    for path in folder.glob("*.bin"):
        path.unlink()
    found, expected = prepared(text.model), prepared(binary.model)
    assert found.image_paths == expected.image_paths
    np.testing.assert_array_equal(found.overlaps, expected.overlaps)
    np.testing.assert_allclose(found.intrinsics, expected.intrinsics)


def test_a_model_without_points_fails(tmp_path: Path) -> None:
    nothing = np.zeros(0, np.int64)
    scene = write_scene(tmp_path, tracks={name: nothing for name in NAMES})
    with pytest.raises(ReconstructionError, match="manhattan/0: found 0 points"):
        prepared(scene.model)
    assert not scene.model.undistorted.exists()
