"""Images that a map leaves out are failures of the run, each with its reason."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path

import pycolmap
import pytest

from r2d2_kapture.cli.map import main
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.io.colmap.model import read_database
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.stages.map import left_out
from tests.stages.map_runs import load_map, model_of, remove_poses, run

CONFIG = MapConfig(refine_intrinsics=False)


@pytest.fixture
def root(tmp_path: Path, ready_to_map: Path) -> Path:
    """No poses, and each camera a rig of its own."""
    root = Path(shutil.copytree(ready_to_map, tmp_path / "scene"))
    remove_poses(root)
    with closing(sqlite3.connect(root / "map.db")) as connection:
        for table in ("frames", "frame_data", "rigs", "rig_sensors"):
            connection.execute(f"DELETE FROM {table}")
        connection.commit()
    return root


def pairs_of(database: pycolmap.Database, image_id: int) -> list[tuple[int, int]]:
    ids = [image.image_id for image in database.read_all_images()]
    return [(image_id, other) for other in ids if other != image_id]


def separate(
    root: Path, apart: Iterable[str], keep: int = 0, matches: bool = True
) -> None:
    """Leave the first ``keep`` inliers of the pairs of images with others, or none."""
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        names = {i.image_id: i.name for i in database.read_all_images()}
        alone = {image_id for image_id, name in names.items() if name in set(apart)}
        for image_id in alone:
            for pair in pairs_of(database, image_id):
                if alone.issuperset(pair) and len(alone) > 1:
                    continue
                geometry = database.read_two_view_geometry(*pair)
                if len(geometry.inlier_matches):
                    database.delete_two_view_geometry(*pair)
                if keep:
                    geometry.inlier_matches = geometry.inlier_matches[:keep]
                    database.write_two_view_geometry(*pair, geometry)
                if not matches and database.exists_matches(*pair):
                    database.delete_matches(*pair)


def test_every_image_left_out_is_named_with_its_reason(root: Path) -> None:
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        names = sorted(image.name for image in database.read_all_images())
    unpaired, unverified, few, *group = names[:7]
    separate(root, group)
    separate(root, [unpaired], matches=False)
    separate(root, [unverified])
    separate(root, [few], keep=14)
    report = run(root, CONFIG)
    assert report.done == 1
    reasons = {failure.name: failure.reason for failure in report.failed}
    assert list(reasons) == names[:7]
    assert reasons[unpaired].startswith("no matches with any image")
    assert reasons[unverified].startswith("none of its pairs is verified")
    assert reasons[few].startswith("at most 14 verified matches with an image")
    for name in group:
        assert reasons[name].startswith("in a further model of 4 images")
    saved = json.loads((root / "map" / "report.json").read_text(encoding="utf-8"))
    assert saved["not_registered"] == names[:7]
    again = run(root, CONFIG)
    assert (again.done, again.skipped) == (0, 1)
    assert again.failed == report.failed


def test_images_that_match_each_other_alone_name_each_other(root: Path) -> None:
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        first, second = sorted(i.name for i in database.read_all_images())[:2]
    separate(root, [first, second])
    reasons = {failure.name: failure.reason for failure in run(root, CONFIG).failed}
    for name, other in ((first, second), (second, first)):
        expected = rf"not registered, with \d+ verified matches with '{other}', which "
        assert re.match(expected + "is not in the map either; ", reasons[name])


@pytest.mark.parametrize("single", [False, True])
def test_one_camera_for_all_is_advised_where_there_are_several(
    root: Path, single: bool
) -> None:
    content = read_database(root / "map.db")
    if single:
        first, *_ = content.cameras.values()
        for image in content.images:
            image.camera_id = first.camera_id
        content = dataclasses.replace(content, cameras={first.camera_id: first})
    failed = left_out([pycolmap.Reconstruction()], content, CONFIG)
    assert len(failed) == len(content.images)
    end = "known cameras" if single else "--camera-mode single if one camera took all"
    assert all(failure.reason.endswith(f", or {end}") for failure in failed)


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"extractor": "r2d2"}, True),
        ({"extractor": "r2d2", "rotations": "exif"}, True),
        ({"extractor": "r2d2", "rotations": "auto"}, False),
        ({"extractor": "sift"}, False),
        (None, False),
    ],
)
def test_images_apart_may_be_turned(
    root: Path, settings: dict[str, str] | None, named: bool
) -> None:
    """Only where the record of the features says that nothing was turned."""
    if settings is not None:
        for table in (root / "mapping").rglob("keypoints.txt"):
            record = Manifest(model={}, settings=settings, versions={})
            write_json_atomic(table.parent / "manifest.json", record.to_json())
    names = sorted(image_records(open_dataset(root / "mapping").data))
    few, *group = names[:5]
    separate(root, group)
    separate(root, [few], keep=20)
    report = run(root, CONFIG)
    said = [text for text in report.warnings if "--rotations auto" in text]
    assert bool(said) == named
    assert all(text.startswith("5 images had no more matches") for text in said)
    assert run(root, CONFIG).warnings == report.warnings


def test_images_that_others_surely_match_are_not_turned(root: Path) -> None:
    for table in (root / "mapping").rglob("keypoints.txt"):
        record = Manifest(model={}, settings={"extractor": "r2d2"}, versions={})
        write_json_atomic(table.parent / "manifest.json", record.to_json())
    report = run(root, MapConfig(refine_intrinsics=False))
    assert not [text for text in report.warnings if "--rotations" in text]


def test_progress_says_which_model_is_made(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = sorted(image_records(open_dataset(root / "mapping").data))
    separate(root, names[:4])
    run(root, CONFIG, options=RunOptions(progress=True))
    shown = capsys.readouterr().err
    assert "map, incremental:" in shown
    assert "map, incremental, model 2 of the rest:" in shown


def test_a_partial_map_is_exit_code_1_as_often_as_it_is_found(
    root: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    separate(root, ["seq é/walker/1 b.jpg"])
    command = [
        *("--mapping", str(root / "mapping")),
        *("--database", str(root / "map.db")),
        *("--output", str(root / "map")),
        *("--refine-intrinsics", "false"),
        "--quiet",
    ]
    for _ in range(2):
        assert main(command) == 1
        assert "failed: seq é/walker/1 b.jpg: none of its" in capsys.readouterr().out


def test_an_image_left_out_for_its_own_wrong_pose_is_reported(
    tmp_path: Path, ready_to_map: Path
) -> None:
    root = Path(shutil.copytree(ready_to_map, tmp_path / "scene"))
    dataset = open_dataset(root / "mapping")
    timestamp, camera, name = next(iter(image_records(dataset.data).values()))
    with open(root / "mapping/sensors/trajectories.txt", "a", encoding="utf-8") as file:
        file.write(f"{timestamp}, {camera}, 1, 0, 0, 0, 900, 900, 900\n")
    report = run(root, CONFIG)
    (failure,) = report.failed
    assert failure.name == name
    assert report.details["registered_images"] == len(dataset.image_names) - 1
    saved = json.loads((root / "map" / "report.json").read_text(encoding="utf-8"))
    assert saved["not_registered"] == [name]
    posed = {i.name for i in model_of(root).images.values() if i.has_pose}
    assert posed == {*dataset.image_names} - {name}
    assert camera not in load_map(root).trajectories.get(timestamp, {})
    assert "its pose may be wrong: correct trajectories.txt" in failure.reason
    assert re.search(r"with up to \d+ verified matches with 'seq", failure.reason)
