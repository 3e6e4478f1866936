"""A map of photographs that are stored turned is that of the upright ones."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from kapture.io.records import get_image_fullpath
from PIL import Image

import r2d2_kapture as rk
from r2d2_kapture.coordinates import Turn
from r2d2_kapture.core.quarter_turns import turned
from r2d2_kapture.io.kapture.pixel_origins import write_origin
from r2d2_kapture.synthetic.rendering import PinholeCamera
from tests.scenes.rendered import look_into_the_room, write_photographs

CAMERA = PinholeCamera(image_size=(161, 121), focal_length=130)
PLACES = {"map": (-0.6, -0.3, 0.0, 0.3, 0.6), "query": (-0.15, 0.2)}
TURNS: tuple[Turn, ...] = (0, 90, 0, 180, 270)
AROUND_THE_AXIS = {
    0: [1, 0, 0, 0],
    90: [np.sqrt(0.5), 0, 0, np.sqrt(0.5)],
    180: [0, 0, 0, 1],
    270: [np.sqrt(0.5), 0, 0, -np.sqrt(0.5)],
}
"""w, x, y, z of the rotation that takes a camera to that of its turned images."""


Points = npt.NDArray[np.float64]


def photograph(root: Path, which: str) -> Path:
    poses = {
        f"{which} {number}.png": look_into_the_room(x, -1.0)
        for number, x in enumerate(PLACES[which])
    }
    return write_photographs(root, poses, CAMERA)


def store_turned(source: Path, root: Path, turns: Sequence[Turn]) -> Path:
    """A copy of a dataset of one camera whose images are turned clockwise."""
    data = kcsv.kapture_from_dir(str(source))
    sensors, records = kapture.Sensors(), kapture.RecordsCamera()
    trajectories = kapture.Trajectories()
    flat = sorted(kapture.flatten(data.records_camera))
    for (timestamp, sensor, name), turn in zip(flat, turns):
        path = Path(get_image_fullpath(str(root), name))
        path.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(get_image_fullpath(str(source), name)) as image:
            pixels = turned(np.array(image), turn)
        Image.fromarray(pixels).save(path)
        height, width = pixels.shape[:2]
        # the principal point is in the middle, counted from the first pixel's centre
        middle = [(width - 1) / 2, (height - 1) / 2]
        params = [width, height, CAMERA.focal_length, *middle]
        sensors[f"camera_{name}"] = kapture.Camera(
            kapture.CameraType.SIMPLE_PINHOLE, params
        )
        records[timestamp, f"camera_{name}"] = name
        turn_of_camera = kapture.PoseTransform(AROUND_THE_AXIS[turn], [0, 0, 0])
        trajectories[timestamp, f"camera_{name}"] = kapture.PoseTransform.compose(
            [turn_of_camera, data.trajectories[timestamp, sensor]]
        )
    made = kapture.Kapture(
        sensors=sensors, records_camera=records, trajectories=trajectories
    )
    kcsv.kapture_to_dir(str(root), made)
    write_origin(root / "sensors", "center")
    return root


def build(
    mapping: Path, query: Path, output: Path, **inputs: Any
) -> tuple[dict[str, Any], Points]:
    """The errors of the queries, and the points of the map."""
    loose = {"reliability_thr": 0.3, "repeatability_thr": 0.3, "min_size": 64}
    report = rk.run_pipeline(
        mapping=mapping,
        queries={"queries": query},
        output=output,
        model="fast_r2d2_v4",
        extract={"top_k": 400, "gpu": -1, "precision": "fp32", **loose},
        verify={"geometry": "known_poses"},
        progress=False,
        **inputs,
    )
    assert not report.failed
    (evaluated,) = [one for one in report.stages if one.stage == "evaluate"]
    points = pycolmap.Reconstruction(output / "map" / "sparse").points3D.values()
    errors = evaluated.details["estimates"]["queries"]
    return errors, np.array([point.xyz for point in points])


@pytest.fixture(scope="module")
def datasets(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("room")
    return photograph(root / "map", "map"), photograph(root / "query", "query")


def test_the_map_and_the_poses_of_queries_are_those_of_upright_photographs(
    datasets: tuple[Path, Path], tmp_path: Path
) -> None:
    mapping, query = datasets
    upright, expected = build(mapping, query, tmp_path / "upright")
    turned_mapping = store_turned(mapping, tmp_path / "map", TURNS)
    turned_query = store_turned(query, tmp_path / "query", (180, 90))
    details, found = build(
        turned_mapping, turned_query, tmp_path / "turned", rotations="auto"
    )
    assert len(expected) > 100
    assert abs(len(found) - len(expected)) <= 0.02 * len(expected)
    nearest = np.linalg.norm(found[:, None] - expected, axis=2).min(axis=1)
    assert np.mean(nearest < 1e-3) > 0.95  # metres
    for one in (upright, details):
        assert one["localized"] == 2
        assert one["median_position"] < 0.02 and one["median_rotation"] < 0.2
