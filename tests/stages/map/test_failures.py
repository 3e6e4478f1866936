"""What cannot be mapped is refused, and says why."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import kapture
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import ConfigError, DatasetError, ReconstructionError
from tests.scenes.world import Scene, write_array
from tests.stages.map_runs import TYPE, load_map, prepare, remove_poses, run


def test_what_there_is_too_little_of_makes_no_map(root: Path) -> None:
    remove_poses(root)
    with pytest.raises(ReconstructionError, match="0 of 12 images have a pose"):
        run(root, MapConfig(method="triangulate"))
    assert not (root / "map").exists()
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        database.clear_two_view_geometries()
    found = f"{re.escape(str(root / 'map.db'))}: found 12 images and no verified pair"
    with pytest.raises(ReconstructionError, match=found):
        run(root)
    assert not (root / "map").exists()


def test_images_that_the_database_lacks_are_reported(root: Path) -> None:
    records = root / "mapping" / "sensors" / "records_camera.txt"
    sensor_id = records.read_text(encoding="utf-8").splitlines()[-1].split(",")[1]
    with open(records, "a", encoding="utf-8") as file:
        file.write(f"99, {sensor_id}, late.jpg\n")
    report = run(root)
    assert report.warnings == (
        f"1 of 13 images of {root / 'mapping'} are not in {root / 'map.db'}, and thus "
        "not in the map: 'late.jpg'",
    )
    assert run(root).warnings == report.warnings


def test_poses_that_make_no_points(tmp_path: Path) -> None:
    scene = Scene(times=2)
    scene.dataset.rigs = kapture.Rigs()  # its cameras would be apart
    root = prepare(tmp_path, scene)
    path = root / "mapping" / "sensors" / "trajectories.txt"
    lines = ["# kapture format: 1.1"]
    lines += [
        f"{timestamp}, {sensor_id}, 1, 0, 0, 0, 0, 0, 0"
        for timestamp, sensor_id, _ in kapture.flatten(scene.dataset.records_camera)
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    before = sorted(os.listdir(root))
    with pytest.raises(ReconstructionError, match="no 3D points were found"):
        run(root)
    assert sorted(os.listdir(root)) == before


def test_unknown_poses_that_cannot_be_found(tmp_path: Path) -> None:
    scene = Scene(times=1)  # one place: no baseline but that of the rig
    scene.points = scene.points[:16]
    prepare(tmp_path, scene)
    remove_poses(tmp_path)
    with pytest.raises(ReconstructionError, match="no image could be registered"):
        run(tmp_path, MapConfig(min_matches=17))


Damage = Callable[[Path], object]


@pytest.mark.parametrize(
    "damage, words",
    [
        (lambda path: path.unlink(), "no such file"),
        (lambda path: path.write_bytes(b""), "empty file"),
        (lambda path: path.write_bytes(b"text" * 100), "no SQLite"),
        (lambda path: os.truncate(path, path.stat().st_size // 2), "half-written"),
    ],
)
def test_unusable_databases(root: Path, damage: Damage, words: str) -> None:
    damage(root / "map.db")
    with pytest.raises(DatasetError, match=words):
        run(root)
    assert not (root / "map").exists()


@pytest.mark.parametrize(
    "table, old, new, words",
    [
        ("records_camera", "walker/3 b", "walker/4 b", "walker/3 b.jpg' is not in"),
        ("sensors", "640", "1280", "640 x 480 pixels.*1280 x 480"),
    ],
)
def test_database_of_another_dataset(
    root: Path, table: str, old: str, new: str, words: str
) -> None:
    path = root / "mapping" / "sensors" / f"{table}.txt"
    path.write_text(path.read_text("utf-8").replace(old, new), encoding="utf-8")
    with pytest.raises(DatasetError, match=words):
        run(root)


def test_features_that_the_database_was_not_made_of(root: Path) -> None:
    scene = Scene()
    name = scene.names[0]
    file = root / "mapping" / "reconstruction" / "keypoints" / TYPE / f"{name}.kpt"
    write_array(file, scene.keypoints(name)[:-1])
    with pytest.raises(DatasetError, match="119 keypoints of .* are not the 120"):
        run(root)


@pytest.mark.parametrize("name", ["../../escaped", "a/b", "", ".", ".."])
def test_type_of_keypoints_is_the_name_of_a_folder(root: Path, name: str) -> None:
    shutil.rmtree(root / "mapping" / "reconstruction")
    before = sorted(os.listdir(root))
    with pytest.raises((ConfigError, DatasetError), match="folder"):
        run(root, keypoints_type=name)
    assert sorted(os.listdir(root)) == before
    run(root, keypoints_type="my type")
    assert list(load_map(root).keypoints) == ["my type"]


@pytest.mark.parametrize(
    "changes",
    [
        {"method": "magic"},
        {"threads": 0},
        {"seed": -1},
        {"min_model_size": 1},
        {"max_reprojection_error": 0.0},
        {"refine_intrinsics": "perhaps"},
    ],
)
def test_settings_out_of_range(changes: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="expected|found"):
        dataclasses.replace(MapConfig(), **changes)
