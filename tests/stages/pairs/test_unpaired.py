"""Images that no pair mentions are counted and named, whatever chose the pairs."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages.unpaired import unpaired_warning
from r2d2_kapture.types import Report
from tests.scenes.extraction import patch_extraction
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import (
    write_dataset,
    write_features,
    write_files,
    write_global_features,
)
from tests.scenes.poses import random_poses
from tests.scenes.world import Scene
from tests.stages import colmap_runs, verify_runs
from tests.stages.match import test_match
from tests.stages.pair_runs import run

SENSORS = "\n".join(f"{s}, , camera, UNKNOWN_CAMERA, 6, 4" for s in "abv")


def report_of(output: Path) -> dict[str, object]:
    text = output.with_name(f"{output.stem}.report.json").read_text(encoding="utf-8")
    return dict(json.loads(text))


def assert_unpaired(report: Report, output: Path, names: list[str], part: str) -> None:
    warning = report.warnings[-1]
    assert f"{len(names)} of " in warning and f"'{names[0]}'" in warning
    assert part in warning
    written = report_of(output)
    assert written["unpaired"] == names
    assert written["warnings"] == list(report.warnings)


def test_a_warning_names_three() -> None:
    (warning,) = unpaired_warning(list("abcde"), 9, "why")
    expected = "5 of 9 images are in no pair: 'a', 'b', 'c' and 2 more; why"
    assert warning == expected
    assert unpaired_warning([], 9, "why") == ()


def test_single_photographs_next_to_a_video(tmp_path: Path) -> None:
    rows = "0, v, v0\n1, v, v1\n2, v, v2\n0, a, single\n0, b, other"
    write_files(tmp_path, sensors=SENSORS, records_camera=rows)
    output = tmp_path / "p.txt"
    report = run(tmp_path, output, method="sequential")
    assert (report.done, report.failed) == (3, ())
    assert_unpaired(report, output, ["other", "single"], "not in a sequence")
    # a list that stays the same, of a dataset that does not
    write_files(tmp_path, records_camera=rows.replace("single", "renamed"))
    report = run(tmp_path, output, method="sequential")
    assert report.done == 0
    assert_unpaired(report, output, ["other", "renamed"], "not in a sequence")


def test_what_every_image_is_paired_with_is_no_warning(tmp_path: Path) -> None:
    mapping = write_dataset(tmp_path / "m", ["a", "b", "c"])
    for part in ("1/1", "1/3", "3/3"):  # others are in other parts
        output = tmp_path / f"{part[0]}.txt"
        report = run(mapping, output, slice=part)
        assert report.warnings == () and report_of(output)["unpaired"] == []
        output.unlink()


def test_queries_without_a_partner(tmp_path: Path) -> None:
    mapping = write_dataset(tmp_path / "m", ["a", "b"])
    query = write_dataset(tmp_path / "q", ["q1", "q2", "q3"])
    rows = {"a": [1, 0], "b": [0.9, 0.1], "q1": [1, 0.1], "q2": [-1, 0], "q3": [0, 0]}
    write_global_features(tmp_path / "g", {n: np.float32([r]) for n, r in rows.items()})
    output = tmp_path / "p.txt"
    report = run(
        mapping,
        output,
        query=query,
        features=[tmp_path / "g"],
        method="global",
        min_score=0.5,
    )
    assert_unpaired(report, output, ["q2", "q3"], "lower --min-score")
    assert report.warnings[0].startswith("1 images have global features of zeros, as")
    assert "'q3'" in report.warnings[0]


def test_failures_are_not_said_twice(tmp_path: Path) -> None:
    poses = random_poses(["a", "b"])
    mapping = write_dataset(tmp_path / "m", ["a", "b", "lost"], poses)
    output = tmp_path / "p.txt"
    report = run(mapping, output, method="poses", max_angle=180.0)
    assert [failure.name for failure in report.failed] == ["lost"]
    assert report.warnings == () and report_of(output)["unpaired"] == ["lost"]
    report = run(mapping, tmp_path / "near.txt", method="poses", max_distance=1e-3)
    assert "2 of 3 images" in report.warnings[0]
    assert report_of(tmp_path / "near.txt")["unpaired"] == ["a", "b", "lost"]


def test_lists_that_leave_images_out(tmp_path: Path) -> None:
    mapping = write_dataset(tmp_path / "m", ["a", "b", "c"])
    write_pairs(tmp_path / "1.txt", [ImagePair(image1="a", image2="b")])
    output = tmp_path / "p.txt"
    report = run(mapping, output, method="merge", merge=[tmp_path / "1.txt"])
    assert_unpaired(report, output, ["c"], "not in any list of --merge")


def test_matching_names_images_without_keypoints(tmp_path: Path) -> None:
    rows = {"a": unit_rows(9), "b": unit_rows(9, seed=1), "c": unit_rows(0)}
    features = write_features(tmp_path / "f", rows)
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    for done in (3, 0):
        report = test_match.run(features, tmp_path / "m", pairs)
        assert (report.done, report.failed) == (done, ())
        (warning,) = report.warnings
        assert "1 of 3 images have no keypoints: 'c'; their 2 pairs" in warning
    assert test_match.run(features, tmp_path / "m", pairs[:1]).warnings == ()


def test_verification_names_images_of_no_pair(tmp_path: Path) -> None:
    scene = Scene(times=1)
    mapping = scene.write_kapture(tmp_path / "mapping")
    left, right, walker = sorted(scene.names)
    listed = verify_runs.write_list(tmp_path / "p.txt", [(left, right)])
    (warning,) = verify_runs.run(mapping, pairs=listed).warnings
    assert (
        f"1 of 3 images are in no pair: '{walker}'; they will not be in a map"
        in warning
    )
    assert verify_runs.run(mapping).warnings == ()


def test_a_database_of_a_folder_names_them_too(
    tmp_path: Path, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene = Scene(times=1)
    patch_extraction(monkeypatch, scene)
    photos = colmap_runs.write_photos(tmp_path / "photos", scene)
    left, right, walker = sorted(scene.names)
    listed = verify_runs.write_list(tmp_path / "p.txt", [(left, right)])
    report = colmap_runs.run(photos, checkpoint, pairs_list=listed)
    (warning,) = (text for text in report.warnings if "in no pair" in text)
    assert f"1 of 3 images are in no pair: '{walker}'" in warning
    assert "--pairs" in warning
