"""Floors of Gangnam Station and Hyundai Department Store in miniature."""

from __future__ import annotations

import json
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from pipelines import naver_indoor
from r2d2_kapture.io.kapture.pose_files import read_pose_file
from r2d2_kapture.io.kapture.poses import kapture_from_rigid3d
from tests.commands import one_error_line
from tests.scenes.benchmarks import Miniature, far, pinhole, typed, view

SPLITS = {"mapping": (0, 1, 2, 3, 4), "validation": (0.5,), "test": (2.5,)}
TURNS = {"22970285": 0.08, "22970286": -0.08}
SIZE, FOCAL = (640, 480), 500.0


def write_floor(mini: Miniature, floor: str) -> None:
    """Three kapture datasets of a rig with two cameras and a lidar."""
    camera = pinhole(SIZE, FOCAL)
    for split, numbers in SPLITS.items():
        data = kapture.Kapture(
            sensors=kapture.Sensors(),
            rigs=kapture.Rigs(),
            trajectories=kapture.Trajectories(),
            records_camera=kapture.RecordsCamera(),
            records_lidar=kapture.RecordsLidar(),
        )
        root = f"{floor}/release/{split}"
        data.sensors["lidar0"] = kapture.Sensor("lidar", ["VLP16"])
        data.rigs["robot", "lidar0"] = kapture.PoseTransform()
        for sensor_id, turn in TURNS.items():
            parameters = [*SIZE, FOCAL, FOCAL, 319.5, 239.5]
            data.sensors[sensor_id] = kapture.Camera("PINHOLE", parameters)
            from_robot = pycolmap.Rigid3d(
                pycolmap.Rotation3d(np.array([0, turn, 0])), np.array([turn, 0, 0.1])
            )
            data.rigs["robot", sensor_id] = kapture_from_rigid3d(from_robot)
            for number in numbers:
                time = 1592986538000000 + int(100 * number)
                name = f"{sensor_id}/{time}.jpg"
                data.records_camera[time, sensor_id] = name
                data.records_lidar[time, "lidar0"] = f"lidar/{time}.pcd"
                if split != "test":
                    pose = kapture_from_rigid3d(view(number))
                    data.trajectories[time, "robot"] = pose
                path = f"{root}/sensors/records_data/{name}"
                mini.take(name, path, camera, from_robot * view(number))
        if split == "test":
            data.trajectories = None
        kcsv.kapture_to_dir(str(mini.root / root), data)


def test_floors(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    mini = Miniature(tmp_path / "datasets")
    write_floor(mini, "GangnamStation/B1")
    mini.write_features(tmp_path / "features")
    (mini.root / "HyundaiDepartmentStore" / "B1").mkdir(parents=True)
    line = typed(mini.root, tmp_path / "features", tmp_path / "work")
    assert naver_indoor.main([*line, "--scenes", "Gangnam"]) == 2
    assert "found 'GangnamStation_B1'" in one_error_line(capsys)
    assert naver_indoor.main(line) == 0
    poses = read_pose_file(tmp_path / "work/submission.txt")
    assert len(poses) == 4
    assert max(far(poses, mini.truth)) < 1e-3
    (result,) = json.loads((tmp_path / "work/benchmark_report.json").read_text())[
        "results"
    ]
    assert (result["scene"], result["queries"]) == ("GangnamStation_B1", "validation")
    assert [t["share"] for t in result["recall"]] == [1, 1, 1]
    line[1] = str(mini.root / "HyundaiDepartmentStore")
    assert naver_indoor.main(line) == 2
    assert "sensors.txt, expected Gangnam and Hyundai: floors" in one_error_line(capsys)
