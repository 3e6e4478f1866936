"""Queries that are searched a second time for points of the map."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages.localize.results import read_localized
from r2d2_kapture.stages.map.patches import write_patches
from tests.scenes.localization import position_error
from tests.scenes.patched_map import QUERIES, PatchedRoom, truth, write_room

OFF = LocalizeConfig(second_pass="off")
ON = LocalizeConfig(second_pass="on")


@pytest.fixture
def room(tmp_path: Path) -> PatchedRoom:
    """Without patches; a sixth of the matches is there."""
    return write_room(tmp_path, every=6, described=True)


def errors(room: PatchedRoom, output: str) -> list[float]:
    found = read_camera_poses(open_dataset(room.root / output)).cam_from_world
    return [position_error(found[name], truth(name)) for name in QUERIES]


def descriptors_of(room: PatchedRoom, name: str) -> Path:
    return room.root / f"features/reconstruction/descriptors/r2d2/{name}.desc"


def test_points_that_matches_missed_are_found_near_the_first_pose(
    room: PatchedRoom,
) -> None:
    before = room.localize(OFF, "off")
    report = room.localize(ON)
    assert "second_pass" not in before.details
    assert report.details["second_pass"] == len(QUERIES)
    assert np.mean(errors(room, "localized")) < 0.8 * np.mean(errors(room, "off"))
    for name in QUERIES:
        found = read_localized(room.root / "localized", name)
        alone = read_localized(room.root / "off", name)
        assert found is not None and alone is not None and found.added is not None
        assert found.added > 0.5 * found.correspondences
        # what was searched for near the pose does not speak for it
        assert (found.inliers, found.correspondences, found.coverage) == (
            alone.inliers,
            alone.correspondences,
            alone.coverage,
        )
        assert (found.verdict, found.doubts) == (alone.verdict, alone.doubts)
        assert found.position_std is not None and alone.position_std is not None
        assert found.position_std < alone.position_std


def test_other_descriptors_are_noticed(room: PatchedRoom) -> None:
    room.localize(ON)
    assert room.localize(ON).skipped == len(QUERIES)
    rows = np.fromfile(descriptors_of(room, min(QUERIES)), np.float32).reshape(-1, 16)
    rows[::2].tofile(descriptors_of(room, min(QUERIES)))
    report = room.localize(ON)
    assert (report.done, report.skipped) == (1, len(QUERIES) - 1)


def test_poses_of_versions_without_refinement_are_kept_where_there_is_none(
    room: PatchedRoom,
) -> None:
    room.localize(LocalizeConfig(second_pass="off", refine="off"))
    assert room.localize().skipped == len(QUERIES)
    write_patches(room.map_path, room.images, workers=1)
    assert room.localize(LocalizeConfig(refine="off")).skipped == len(QUERIES)
    with pytest.raises(OutputError, match="refine: default, not auto"):
        room.localize()


@pytest.mark.parametrize("cut", ["half", "all", "map"])
def test_descriptors_that_cannot_be_read_leave_the_first_pose(
    room: PatchedRoom, cut: str
) -> None:
    room.localize(OFF, "off")
    for path in descriptors_of(room, "").parent.rglob("*.desc"):
        if cut == "all" or (cut == "map") == ("map" in path.parts):
            path.write_bytes(path.read_bytes()[:1000] if cut != "all" else b"")
    report = room.localize(ON)
    assert report.done == len(QUERIES)
    assert errors(room, "localized") == errors(room, "off")


def test_a_second_pass_without_descriptors_is_a_warning(room: PatchedRoom) -> None:
    shutil.rmtree(descriptors_of(room, "").parents[1])
    (warning,) = room.localize(ON).warnings
    assert warning.startswith("--second-pass on: found no descriptors of the map")
    assert room.localize(OFF, "off").warnings == ()


@pytest.mark.parametrize("patches", [False, True])
def test_it_is_made_where_what_it_finds_is_refined(
    room: PatchedRoom, patches: bool
) -> None:
    if patches:
        write_patches(room.map_path, room.images, workers=1)
    report = room.localize()
    assert report.details.get("second_pass") == (len(QUERIES) if patches else None)
    assert report.details.get("refined") == (len(QUERIES) if patches else None)
