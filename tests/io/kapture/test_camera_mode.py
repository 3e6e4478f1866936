"""Unknown cameras are shared as asked; known ones and those of rigs never are."""

from __future__ import annotations

from typing import Any

import kapture
import pytest

from r2d2_kapture.io.kapture.camera_mode import (
    regrouped,
    single_camera_hint,
    with_camera_mode,
)
from tests.scenes.world import pose

IMAGES = {
    # name: (timestamp, sensor)
    "a/1.jpg": (0, "one"),
    "a/2.jpg": (1, "two"),
    "b/3.jpg": (2, "three"),
    "b/4.jpg": (2, "large"),
    "b/5.jpg": (2, "known"),
    "b/6.jpg": (3, "known too"),
    "b/7.jpg": (4, "in rig"),
}


def dataset() -> kapture.Kapture:
    sensors, records = kapture.Sensors(), kapture.RecordsCamera()
    trajectories, rigs = kapture.Trajectories(), kapture.Rigs()
    for name, (timestamp, sensor_id) in IMAGES.items():
        known = sensor_id.startswith("known")
        size = [200, 100] if sensor_id == "large" else [64, 48]
        sensors[sensor_id] = kapture.Camera(
            "SIMPLE_PINHOLE" if known else "UNKNOWN_CAMERA",
            size + ([60, 32, 24] if known else []),
        )
        records[timestamp, sensor_id] = name
        trajectories[timestamp, sensor_id] = pose(0.1 * timestamp, [len(name), 0, 0])
    rigs["rig", "in rig"] = pose(0, [0, 0, 0])
    return kapture.Kapture(
        sensors=sensors, records_camera=records, trajectories=trajectories, rigs=rigs
    )


def sensor_of(data: kapture.Kapture) -> dict[str, str]:
    return {name: s for _, s, name in kapture.flatten(data.records_camera)}


def groups(data: kapture.Kapture) -> set[tuple[str, ...]]:
    found: dict[str, list[str]] = {}
    for name, sensor_id in sorted(sensor_of(data).items()):
        found.setdefault(sensor_id, []).append(name[2:3])
    return {tuple(names) for names in found.values()}


def poses(data: kapture.Kapture) -> dict[str, Any]:
    return {
        name: data.trajectories[timestamp, sensor_id]
        for timestamp, sensor_id, name in kapture.flatten(data.records_camera)
    }


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("auto", {"1", "2", "3", "4", "5", "6", "7"}),
        ("single", {"123", "4", "5", "6", "7"}),
        ("per-folder", {"12", "3", "4", "5", "6", "7"}),
        ("per-image", {"1", "2", "3", "4", "5", "6", "7"}),
    ],
)
def test_images_share_cameras_as_asked(mode: Any, expected: set[str]) -> None:
    before = dataset()
    after = with_camera_mode(before, mode)
    assert groups(after) == set(map(tuple, expected))
    assert poses(after) == poses(before)
    for name, sensor_id in sensor_of(before).items():
        params = after.sensors[sensor_of(after)[name]].sensor_params
        assert params == before.sensors[sensor_id].sensor_params


def test_one_sensor_may_become_several() -> None:
    joined = with_camera_mode(dataset(), "single")
    apart = with_camera_mode(joined, "per-image")
    assert groups(apart) == set(map(tuple, "1234567"))
    assert sensor_of(apart)["a/2.jpg"] == "one@1"
    assert poses(apart) == poses(joined)


def test_images_of_one_time_that_share_a_camera_get_times_of_their_own() -> None:
    before = dataset()
    del before.records_camera[1]
    before.records_camera[2, "two"] = "a/2.jpg"
    before.trajectories[2, "two"] = before.trajectories[1].pop("two")
    after = with_camera_mode(before, "single")
    assert groups(after) == set(map(tuple, ["123", "4", "5", "6", "7"]))
    assert poses(after) == poses(before)


def test_groups_that_are_the_sensors_change_nothing() -> None:
    before = dataset()
    assert regrouped(before, sensor_of(before)) is before


def test_a_hint_counts_images_with_a_camera_each() -> None:
    (hint,) = single_camera_hint(dataset(), "auto")
    assert hint.startswith("3 images without known intrinsics have separate cameras")
    assert "64 x 48" in hint and "--camera-mode single" in hint
    assert single_camera_hint(dataset(), "per-image") == ()
    joined = with_camera_mode(dataset(), "single")
    assert single_camera_hint(joined, "single") == ()


def test_images_without_a_group_keep_their_sensor() -> None:
    joined = with_camera_mode(dataset(), "single")
    after = regrouped(joined, {"a/1.jpg": 1, "a/2.jpg": 2})
    assert groups(after) == set(map(tuple, "1234567"))
    assert sensor_of(after)["b/3.jpg"] == "one"
    assert poses(after) == poses(joined)
