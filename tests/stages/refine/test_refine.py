"""Keypoints refined along tracks, against true places; what is kept, and resumed."""

from __future__ import annotations

import json
import os
import shutil
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image

from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError, ImageError, OutputError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_provenance import refuse_other_images
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.outputs.manifest import read_manifest
from tests.stages.refine.moving import NOISE, QUIET, Moving

GOOD = 0.03
"""Pixels of spread that refined keypoints have at most."""


@pytest.fixture
def moving(tmp_path: Path) -> Moving:
    return Moving(root=tmp_path).write()


def rows_of(moving: Moving) -> dict[str, np.ndarray]:
    return {name: moving.refined(name) for name in moving.shifts}


def stored_in(database: Path) -> dict[str, np.ndarray]:
    with closing(pycolmap.Database.open(str(database))) as opened:
        return {
            image.name: opened.read_keypoints(image.image_id)
            for image in opened.read_all_images()
        }


def files_of(folder: Path) -> dict[str, bytes]:
    """All results, without what holds times."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
        and path.name not in ("refine_report.json", ".finished.json", ".lock")
    }


def test_places_of_a_track_agree_to_a_fraction_of_a_pixel(moving: Moving) -> None:
    before = {name: moving.detected(name) for name in moving.shifts}
    assert moving.spread(before) > 0.8 * NOISE
    report = moving.refine()
    assert (report.done, report.failed) == (4, ())
    after = rows_of(moving)
    assert moving.spread(after) < GOOD
    assert report.details["observations"] == 4 * 35
    assert report.details["tracks"] == 35
    assert report.details["moved"] == 3 * 35 - sum(report.details["kept"].values())
    moved = [(after[n] != before[n])[:, :2].any(axis=1).sum() for n in before]
    assert sum(moved) == report.details["moved"]
    for name in before:
        np.testing.assert_array_equal(after[name][:, 2:], before[name][:, 2:])


def test_the_database_and_the_features_hold_the_same_places(moving: Moving) -> None:
    original = moving.database.read_bytes()
    moving.refine()
    for name, stored in stored_in(moving.output / "database.db").items():
        np.testing.assert_allclose(
            stored[:, :2] - 0.5, moving.refined(name)[:, :2], atol=1e-5
        )
    assert moving.database.read_bytes() == original
    manifest = read_manifest(moving.folder / "manifest.json")
    assert manifest is not None and manifest.settings["refined_from"] == "waves"
    table = open_feature_table([moving.output], "keypoints")
    assert table.type_name == "waves_refined"
    dataset = open_dataset(moving.mapping)
    refuse_other_images(table, dataset)
    moving.photograph("d.png").write_bytes(moving.photograph("e.png").read_bytes())
    with pytest.raises(DatasetError, match="d.png has changed since"):
        refuse_other_images(table, dataset)


def test_only_neighbours_in_a_row_are_matched(moving: Moving) -> None:
    names = list(moving.shifts)
    moving.write_database(list(zip(names, names[1:])))
    moving.refine()
    assert moving.spread(rows_of(moving)) < 2 * GOOD


def test_the_points_of_a_map_are_where_keypoints_go(moving: Moving) -> None:
    report = moving.refine(map_path=moving.write_map())
    assert (report.done, report.details["tracks"]) == (4, 35)
    away = [moving.refined(n)[:, :2] - moving.true(n) for n in moving.shifts]
    assert np.abs(away).max() < 2 * GOOD
    assert moving.refine(map_path=moving.root / "map").done == 0
    with pytest.raises(OutputError, match="map: .*map, not default"):
        moving.refine()


def test_a_map_of_other_keypoints_is_refused(moving: Moving) -> None:
    moving.write_map()
    moving.shifts["d.png"] = (-4.0, 2.0)  # type: ignore[index]
    moving.write_keypoints()
    moving.write_database()
    with pytest.raises(DatasetError, match="of 'd.png' are not those of the database"):
        moving.refine(map_path=moving.root / "map")


def test_what_is_no_map_leaves_nothing_behind(moving: Moving) -> None:
    with pytest.raises(DatasetError, match="mop: found neither a COLMAP model"):
        moving.refine(map_path=moving.root / "mop")
    assert moving.refine(map_path=moving.write_map()).done == 4


def test_a_photograph_that_breaks_off_keeps_its_keypoints(moving: Moving) -> None:
    moving.write_map()
    for name in moving.shifts:
        path = moving.mapping / "sensors" / "records_data" / name
        data = path.read_bytes()
        path.write_bytes(data[: len(data) // 2])
        report = moving.refine(map_path=moving.root / "map")
        assert [failure.name for failure in report.failed] == [name]
        np.testing.assert_array_equal(moving.refined(name), moving.detected(name))
        path.write_bytes(data)


@pytest.mark.parametrize("turn", [90, 180, 270])
def test_photographs_that_are_stored_turned(tmp_path: Path, turn: int) -> None:
    turns = {"d.png": turn, "e.png": 90}
    moving = Moving(root=tmp_path, turns=turns).write()  # type: ignore[arg-type]
    report = moving.refine()
    assert report.details["moved"] > 0.9 * 3 * 35
    assert moving.spread(rows_of(moving)) < GOOD
    record = json.loads((moving.folder / "orientations.json").read_text("utf-8"))
    assert record["images"]["d.png"]["turn"] == turn


@pytest.mark.parametrize("columns", [2, 4, 6])
def test_third_party_keypoints(tmp_path: Path, columns: int) -> None:
    moving = Moving(root=tmp_path, columns=columns).write("center")
    moving.refine()
    assert moving.refined("d.png").shape == (35, columns)
    assert columns > 2 or moving.spread(rows_of(moving)) < GOOD


def test_keypoints_that_count_from_the_corner(tmp_path: Path) -> None:
    moving = Moving(root=tmp_path).write("corner")
    moving.refine()
    rows = {name: values - [0.5, 0.5, 0] for name, values in rows_of(moving).items()}
    assert moving.spread(rows) < GOOD
    origin = json.loads((moving.folder / "pixel_origin.json").read_text("utf-8"))
    assert origin == {"pixel_origin": "corner"}
    for name, stored in stored_in(moving.output / "database.db").items():
        np.testing.assert_allclose(
            stored[:, :2], moving.refined(name)[:, :2], atol=1e-5
        )


def test_without_features_the_database_is_enough(moving: Moving) -> None:
    shutil.rmtree(moving.mapping / "reconstruction")
    moving.refine(keypoints_type="mine")
    folder = moving.folder.with_name("mine_refined")
    rows = {
        name: np.fromfile(folder / f"{name}.kpt", np.float32).reshape(-1, 2)
        for name in moving.shifts
    }
    assert moving.spread(rows) < GOOD


def test_any_number_of_workers_gives_the_same_bytes(moving: Moving) -> None:
    moving.refine()
    first = files_of(moving.output)
    shutil.rmtree(moving.output)
    moving.refine(options=RunOptions(progress=False, workers=3))
    assert files_of(moving.output) == first


def test_a_photograph_that_cannot_be_read_keeps_its_keypoints(moving: Moving) -> None:
    moving.refine()
    whole = files_of(moving.output)
    shutil.rmtree(moving.output)
    name = "été/c.png"
    moving.photograph(name).write_bytes(b"no picture")
    report = moving.refine()
    assert [failure.name for failure in report.failed] == [name]
    assert "c.png: found" in report.failed[0].reason
    np.testing.assert_array_equal(moving.refined(name), moving.detected(name))
    again = moving.refine()
    assert (again.done, len(again.failed)) == (0, 1)
    # the patches of the whole photograph decide places in others
    moving.take(name)
    report = moving.refine()
    assert (report.done, report.failed) == (4, ())
    # which also notes when photographs were written
    times = "reconstruction/keypoints/waves_refined/images.jsonl"
    assert files_of(moving.output) | {times: whole[times]} == whole


def test_nothing_to_read_is_one_error(moving: Moving) -> None:
    shutil.rmtree(moving.mapping / "sensors" / "records_data")
    with pytest.raises(ImageError, match="none of 4 photographs can be read; first"):
        moving.refine()


def test_a_photograph_of_another_size_is_not_refined(moving: Moving) -> None:
    path = moving.photograph("d.png")
    with_border = np.zeros((200, 300), np.uint8)
    Image.fromarray(with_border).save(path)
    report = moving.refine()
    assert [failure.name for failure in report.failed] == ["d.png"]
    assert "found 300 x 200 pixels, expected 150 x 110" in report.failed[0].reason


def test_what_changed_is_refined_again(moving: Moving) -> None:
    moving.refine()
    assert moving.refine().done == 0
    moving.take("d.png")  # the same content
    assert moving.refine().done == 0
    (moving.folder / "d.png.kpt").unlink()
    assert moving.refine().done == 4
    first = files_of(moving.output)
    (moving.output / "database.db").unlink()
    assert moving.refine().done == 0
    assert files_of(moving.output) == first
    moving.write_database(list(zip(list(moving.shifts), list(moving.shifts)[1:])))
    assert moving.refine().done == 4
    moving.shifts["d.png"] = (0.5, 0.5)  # type: ignore[index]
    moving.take("d.png")
    assert moving.refine().done == 4


def test_what_is_in_the_way_is_refused(moving: Moving) -> None:
    shutil.copyfile(moving.database, moving.root / "database.db")
    with pytest.raises(ConfigError, match="found the database to refine there"):
        moving.refine(database=moving.root / "database.db", output=moving.root)
    moving.refine()
    before = files_of(moving.output)
    with pytest.raises(ConfigError, match="found the keypoints to refine there"):
        again = moving.root / "again.db"
        shutil.copyfile(moving.output / "database.db", again)
        options = RunOptions(progress=False, force=True)
        moving.refine(database=again, features=[moving.output], options=options)
    assert files_of(moving.output) == before
    with pytest.raises(OutputError, match="max_step: 1.5, not 1.0"):
        moving.refine(config=RefineConfig(max_step=1.0))
    with closing(pycolmap.Database.open(str(moving.output / "database.db"))) as opened:
        opened.clear_two_view_geometries()
    with pytest.raises(OutputError, match="changed since"):
        moving.refine()


def test_inputs_that_do_not_belong_together(moving: Moving, tmp_path: Path) -> None:
    other = Moving(root=tmp_path / "other")
    other.shifts["d.png"] = (1.0, 1.0)  # type: ignore[index]
    other.write()
    with pytest.raises(DatasetError, match=r"keypoints of .* are not the 35 of"):
        moving.refine(features=[other.mapping])
    records = moving.mapping / "sensors" / "records_camera.txt"
    lines = records.read_text("utf-8").splitlines()
    records.write_text("\n".join(lines[:-1]) + "\n", "utf-8")
    with pytest.raises(DatasetError, match="is not in .*; give the dataset that"):
        moving.refine()


def test_a_database_without_verified_matches_moves_nothing(moving: Moving) -> None:
    with closing(pycolmap.Database.open(str(moving.database))) as opened:
        opened.clear_two_view_geometries()
    report = moving.refine(options=QUIET)
    assert report.details["observations"] == 0
    assert any("no verified match" in text for text in report.warnings)
    np.testing.assert_array_equal(moving.refined("d.png"), moving.detected("d.png"))


@pytest.mark.parametrize("broken", [False, True], ids=["whole", "broken"])
def test_slices_are_what_one_run_makes(moving: Moving, broken: bool) -> None:
    """Also of a photograph that breaks off, on which others depend."""
    if broken:
        path = moving.photograph("été/c.png")
        path.write_bytes(path.read_bytes()[:900])
    one = moving.refine()
    made = files_of(moving.output)
    shutil.rmtree(moving.output)
    for part in ("4/4", "2/4", "1/4"):
        moving.refine(slice=part)
    with pytest.raises(OutputError, match="found 3 of 4 slices; 3/4 is missing"):
        moving.refine(slice="all")
    moving.refine(slice="3/4")
    report = moving.refine(slice="all")
    assert files_of(moving.output) == made
    assert (report.done, report.skipped, report.failed) == (4, 0, one.failed)
    assert bool(one.failed) == broken
    assert report.details["moved"] == one.details["moved"] > 0
    # patches are cut once, and gone in the end
    assert list(moving.output.rglob(".*slices*")) == []


def test_an_archive_that_a_killed_run_left_is_completed(moving: Moving) -> None:
    moving.refine(store="tar")
    before = rows_in(moving.output)
    archive = moving.folder / "keypoints.tar"
    os.truncate(archive, archive.stat().st_size // 2)
    assert moving.refine(store="tar").done
    assert rows_in(moving.output) == before
    assert moving.refine(store="tar").done == 0


def rows_in(output: Path) -> dict[str, bytes]:
    table = open_feature_table([output], "keypoints")
    return {name: table.read(name).tobytes() for name in table.image_names}
