"""Large maps in clusters: joined to one, and as good as an incremental one."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig, MapMethod
from r2d2_kapture.errors import ConfigError, ReconstructionError
from r2d2_kapture.stages.map import checks
from r2d2_kapture.stages.map.join import join_models
from tests.scenes.street import FOCAL, Street
from tests.stages.map_runs import load_map, model_of, outputs, run

STREET = Street(images=60, noise=0.1)
IN_CLUSTERS = MapConfig(method="hierarchical", cluster_images=20)


@pytest.fixture(scope="module")
def street(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The street without poses, and its map in clusters in ``map``."""
    root = STREET.write(tmp_path_factory.mktemp("street"), poses=False)
    run(root, IN_CLUSTERS)
    return root


def test_clusters_become_one_map_as_good_as_an_incremental_one(street: Path) -> None:
    report = run(street, MapConfig(), output=street / "incremental")
    assert report.details["method"] == "incremental"
    whole = pycolmap.Reconstruction(str(street / "incremental" / "sparse"))
    joined = model_of(street)
    assert joined.num_reg_images() == whole.num_reg_images() == STREET.images
    assert joined.num_points3D() == whole.num_points3D()
    assert joined.compute_num_observations() == whole.compute_num_observations()
    errors = [model.compute_mean_reprojection_error() for model in (joined, whole)]
    assert errors[0] == pytest.approx(errors[1], rel=0.01)
    assert STREET.distances(joined).max() < 2 * STREET.distances(whole).max() + 0.01


def test_no_keypoint_sees_two_points(street: Path) -> None:
    model = model_of(street)
    seen = [
        (element.image_id, element.point2D_idx)
        for point in model.points3D.values()
        for element in point.track.elements
    ]
    assert len(seen) == len(set(seen)) == model.compute_num_observations()


@pytest.mark.parametrize("threads", [1, 2])
def test_a_second_run_gives_the_same_bytes_with_two_clusters_at_a_time_too(
    street: Path, threads: int
) -> None:
    config = MapConfig(method="hierarchical", cluster_images=20, threads=threads)
    run(street, config, output=street / f"{threads} threads")
    again = outputs(street / f"{threads} threads" / "sparse")
    assert again == outputs(street / "map" / "sparse")


def test_what_no_pair_connects_is_a_further_model(tmp_path: Path) -> None:
    Street(images=60, gap=25).write(tmp_path, poses=False)
    report = run(tmp_path, IN_CLUSTERS)
    assert report.details["registered_images"] == 35
    assert report.details["images_of_further_models"] == [25]
    assert len(report.failed) == 25
    assert "in a further model of 25 images" in report.failed[0].reason


def test_the_report_counts_clusters(street: Path) -> None:
    report = run(street, IN_CLUSTERS)
    assert (report.done, report.skipped) == (0, 1)
    assert report.details["clusters"] == 4
    assert json.loads((street / "map" / "report.json").read_text())["clusters"] == 4


def test_one_cluster_is_what_incremental_mapping_gives(tmp_path: Path) -> None:
    Street(images=20, noise=0.3).write(tmp_path, poses=False)
    report = run(tmp_path, IN_CLUSTERS)
    assert (report.details["method"], report.details["clusters"]) == ("hierarchical", 1)
    incremental = run(tmp_path, MapConfig(), output=tmp_path / "incremental")
    assert "clusters" not in incremental.details
    for folder in ("sparse", "kapture"):
        one, other = (tmp_path / name / folder for name in ("map", "incremental"))
        assert outputs(one) == outputs(other)


@pytest.mark.parametrize("config", [MapConfig(), IN_CLUSTERS])
def test_an_image_that_points_do_not_confirm_is_not_registered(
    config: MapConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As COLMAP registers it by matches alone, with fewer points than a pose needs."""
    scene = Street(images=12)
    scene.write(tmp_path, poses=False)
    lost = scene.names[0]
    colmap = pycolmap.incremental_mapping

    def without_points(*places: str, **options: Any) -> dict[int, Any]:
        models: dict[int, pycolmap.Reconstruction] = colmap(*places, **options)
        seen = models[0].image(1).get_observation_point2D_idxs()
        for row in seen[3:]:
            models[0].delete_observation(1, row)
        assert models[0].image(1).has_pose and models[0].image(1).num_points3D == 3
        return models

    monkeypatch.setattr(pycolmap, "incremental_mapping", without_points)
    report = run(tmp_path, config)
    assert report.details["registered_images"] == 11
    assert report.summary.startswith("11 of 12 photographs in the map")
    (failure,) = report.failed
    assert failure.name == lost and failure.reason.startswith("not registered")
    saved = json.loads((tmp_path / "map" / "report.json").read_text())
    assert saved["not_registered"] == [lost]
    assert {i.name for i in model_of(tmp_path).images.values()} == {*scene.names[1:]}
    model = model_of(tmp_path)
    assert model.num_frames() == model.num_reg_frames() == 11
    data = load_map(tmp_path)
    assert len(data.trajectories) == len(data.records_camera) == 11


def test_sizes_that_a_method_does_not_use_are_named(tmp_path: Path) -> None:
    Street(images=6).write(tmp_path, poses=False)
    report = run(tmp_path, MapConfig(block_images=3, cluster_images=20))
    blocks, clusters = report.warnings
    assert blocks.startswith("--block-images 3 is not used, since only the triang")
    assert clusters.startswith("--cluster-images 20 is not used, since only --method")
    assert run(tmp_path, MapConfig(), output=tmp_path / "default").warnings == ()


def test_auto_is_hierarchical_for_many_images(
    street: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checks, "INCREMENTAL_UP_TO", 59)
    report = run(street, MapConfig(cluster_images=20), output=street / "auto")
    assert report.details["method"] == "hierarchical"
    assert outputs(street / "auto" / "sparse") == outputs(street / "map" / "sparse")


def test_a_guessed_camera_is_refined_in_all_clusters(tmp_path: Path) -> None:
    Street(images=60).write(tmp_path, poses=False, known=False)
    report = run(tmp_path, dataclasses.replace(IN_CLUSTERS, calibration="none"))
    assert report.details["registered_images"] == 60
    (camera,) = model_of(tmp_path).cameras.values()
    assert camera.mean_focal_length() == pytest.approx(FOCAL, rel=0.01)


def test_depth_maps_give_no_poses_to_map_in_clusters() -> None:
    with pytest.raises(ConfigError, match="--points-from depth: found --method hier"):
        MapConfig(method="hierarchical", points_from="depth")


def test_clusters_that_are_too_small_are_refused() -> None:
    with pytest.raises(ConfigError, match="cluster-images|cluster_images"):
        MapConfig(method="hierarchical", cluster_images=19)


@pytest.mark.parametrize("name", ["cluster_images", "seed", "threads", "min_matches"])
def test_numbers_that_colmap_cannot_take_are_refused(name: str) -> None:
    flag = name.replace("_", "-")
    with pytest.raises(ConfigError, match=f"^--{flag}: found 2147483648, expected"):
        MapConfig(**{"method": "hierarchical", name: 2**31})


@pytest.mark.parametrize("method", ["incremental", "hierarchical", "global"])
def test_pairs_of_too_few_matches_are_no_map(method: MapMethod, tmp_path: Path) -> None:
    Street(images=3).write(tmp_path, poses=False)
    with pytest.raises(ReconstructionError, match="^no image could be registered from"):
        run(tmp_path, MapConfig(method=method, min_matches=1000))


def test_an_initial_map_is_mapped_again_as_one(street: Path) -> None:
    report = run(street, IN_CLUSTERS, output=street / "again", initial=street / "map")
    assert report.details["registered_images"] == STREET.images
    assert report.details["points"] == model_of(street).num_points3D()


def _part(street: Path, images: range) -> pycolmap.Reconstruction:
    """The map of some images, in a frame of its own."""
    part = model_of(street)
    for image_id in set(part.images) - set(images):
        part.deregister_frame(part.image(image_id).frame_id)
    part.tear_down()
    turn = pycolmap.Rotation3d(np.array([0.1, 0.2, 0.3]))
    part.transform(pycolmap.Sim3d(2.5, turn, np.array([1.0, 2.0, 3.0])))
    return part


def test_parts_on_a_line_are_joined_by_the_points_they_share(street: Path) -> None:
    first, second = model_of(street), _part(street, range(28, 61))
    for image_id in range(33, 61):
        first.deregister_frame(first.image(image_id).frame_id)
    first.tear_down()
    (joined,) = join_models([first, second], 4.0)
    assert joined.num_reg_images() == STREET.images
    assert STREET.distances(joined).max() < 2 * STREET.distances(model_of(street)).max()
    assert joined.compute_mean_reprojection_error() < 0.2


def test_parts_that_contradict_each_other_stay_apart(street: Path) -> None:
    first, second = model_of(street), _part(street, range(28, 61))
    rng = np.random.default_rng(0)
    for point in second.points3D.values():
        point.xyz = point.xyz + rng.uniform(-5, 5, 3)
    assert len(join_models([first, second], 4.0)) == 2


def test_parts_without_common_images_stay_apart(street: Path) -> None:
    first, second = model_of(street), _part(street, range(41, 61))
    for image_id in range(41, 61):
        first.deregister_frame(first.image(image_id).frame_id)
    first.tear_down()
    sizes = [model.num_reg_images() for model in join_models([second, first], 4.0)]
    assert sizes == [40, 20]
