"""A small map with queries, and names that try to break out of a page."""

from __future__ import annotations

from pathlib import Path

import kapture
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.stages.localize import QueryResult
from r2d2_kapture.stages.report.subject import QuerySet, Subject
from r2d2_kapture.types import Failure, Report

HOSTILE = (
    "</script><script>alert('a')</script> \"quoted\" é <img src=x onerror=alert(1)>"
)
SIZE = (64, 48)
MAP_REPORT = Report(
    stage="map",
    done=1,
    skipped=0,
    failed=(Failure(name=HOSTILE, reason=HOSTILE),),
    seconds=1.0,
    outputs=(Path("map"),),
    details={"method": "triangulate"},
)


def write_model(folder: Path, names: list[str], points: int = 300) -> None:
    """A binary COLMAP model of images of these names, in colour."""
    options = pycolmap.SyntheticDatasetOptions()
    options.num_rigs, options.num_cameras_per_rig = 1, 1
    options.num_frames_per_rig, options.num_points3D = len(names), points
    pycolmap.set_random_seed(0)
    model = pycolmap.synthesize_dataset(options)
    for number, name in zip(sorted(model.images), names, strict=True):
        model.image(number).name = name
    for number, point in model.points3D.items():
        point.color = np.array([200, 60 + number % 100, 60], np.uint8)
    folder.mkdir(parents=True)
    model.write(str(folder))


def subject_with_queries(root: Path, subject: Subject) -> Subject:
    """The subject, with two conditions of queries near its first cameras."""
    images = sorted(subject.model.images.values(), key=lambda image: image.name)
    names = [f"{folder}/{HOSTILE}" for folder in ("day", "night <b>")]
    truth, results = {}, {}
    for name, image in zip(names, images):
        truth[name] = image.cam_from_world()
        shifted = truth[name].translation + [0.2, 0.1, 0]
        x, y, z, w = truth[name].rotation.quat
        results[name] = QueryResult(
            image=name,
            cam_from_world=(w, x, y, z, *shifted.tolist()),
            inliers=12,
            correspondences=34,
            verdict="good",
        )
    camera = kapture.Camera("SIMPLE_PINHOLE", [*map(str, SIZE), "60", "32", "24"])
    queries = QuerySet(
        name="queries é",
        localized=root / "localized",
        evaluated=root / "evaluation",
        images={name: root / "missing.png" for name in names},
        results=results,
        cameras={name: camera for name in names},
        truth=truth,
    )
    return Subject(
        map=subject.map,
        model=subject.model,
        images=subject.images,
        queries=(queries,),
        pipeline={"stages": [MAP_REPORT.to_json()]},
    )


def skip_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make an evaluation write small files instead of pictures, which take a second."""

    def draw(*arguments: object, **_: object) -> None:
        path = next(item for item in arguments if isinstance(item, Path))
        path.write_bytes(b"picture")

    for name in ("draw_plan", "draw_cumulative_errors"):
        monkeypatch.setattr(f"r2d2_kapture.stages.evaluate.{name}", draw)
