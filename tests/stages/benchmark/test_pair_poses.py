"""Evaluation on posed pairs: exact scenes, resumption, failures."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.errors import DatasetError
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.evaluation.pair_results import load_run
from r2d2_kapture.evaluation.posed_images import PosedImage, PosedImages
from r2d2_kapture.io.features.npz import write_npz
from r2d2_kapture.stages import benchmark
from r2d2_kapture.stages.benchmark import PAIR_POSES
from r2d2_kapture.stages.benchmark.chosen_pairs import choose_pairs
from r2d2_kapture.stages.benchmark.pair_poses import posed_pairs
from r2d2_kapture.stages.benchmark.stored_features import features_beside_images
from r2d2_kapture.types import Report
from tests.scenes.features import features_at
from tests.scenes.two_views import DISTORTED, posed_image, seen_by, space_points
from tests.stages.benchmark.cases import QUIET, make_case, replace

CONFIG = PairPosesConfig(worst_pairs=0)
SOURCE = features_beside_images("r2d2")


@pytest.fixture
def images(tmp_path: Path) -> list[PosedImage]:
    """Four images of one scene with exact features beside them."""
    points = space_points(60)
    found = []
    for number in range(4):
        name = f"sub/é {number}.png"
        image = posed_image(
            name, (0, 0.05 * number, 0.02), (-0.4 * number, 0.1, 0), DISTORTED
        )
        image = dataclasses.replace(image, path=tmp_path / "images" / name)
        image.path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (640, 480), (90, 90, 90)).save(image.path)
        write_npz(feature_path(image.path, "r2d2"), features_at(seen_by(image, points)))
        found.append(image)
    return found


def run(
    images: list[PosedImage], output: Path, config: PairPosesConfig = CONFIG
) -> Report:
    posed = PosedImages(images=tuple(images), root=images[0].path.parents[1])
    pairs = posed_pairs(config, posed)
    return benchmark.run(pairs, sources=[SOURCE], output=output, options=QUIET)


def test_exact_features_have_no_error(images: list[PosedImage], tmp_path: Path) -> None:
    report = run(images, tmp_path / "out")
    assert (report.done, report.skipped, report.failed) == (6, 0, ())
    results = load_run(tmp_path / "out" / "r2d2.poses.json")
    assert len(results.pairs) == 6
    assert results.values["epipolar@1"] == 1
    assert results.values["AUC@5"] > 0.95
    assert results.values["features"] == 60
    assert results.manifest["settings"]["seed"] == 0


def test_changed_features_or_poses_are_evaluated_again(
    images: list[PosedImage], tmp_path: Path
) -> None:
    run(images, tmp_path / "out")
    path = feature_path(images[3].path, "r2d2")
    write_npz(path, features_at(np.empty((0, 2)), np.empty((0, 60))))
    # the last image is in the pairs of every other
    assert run(images, tmp_path / "out").done == 6
    moved = dataclasses.replace(
        images[0], cam_from_world=posed_image("x", (0, 0, 1)).cam_from_world
    )
    assert run([moved, *images[1:]], tmp_path / "out").done == 3


def test_only_changed_images_are_extracted_again(
    tmp_path: Path, checkpoint_path: Path
) -> None:
    case = make_case("pair_poses", tmp_path, checkpoint_path)
    case.run(tmp_path / "out")
    features = [
        feature_path(
            tmp_path / "out/tiny_one/features" / image.relative_to(case.root), "r2d2"
        )
        for image in case.images
    ]
    times = [path.stat().st_mtime_ns for path in features]
    replace(case.images[0], case.images[1].read_bytes())
    assert case.run(tmp_path / "out").done == 3
    later = [path.stat().st_mtime_ns for path in features]
    assert [one == other for one, other in zip(times, later)] == [False] + 3 * [True]


def test_results_keep_the_order_of_a_list(
    images: list[PosedImage], tmp_path: Path
) -> None:
    a, b, c, _ = (image.name for image in images)
    wanted = [(c, a), (a, b), (c, b), (c, a)]
    posed = PosedImages(images=tuple(images), root=images[0].path.parents[1])
    pairs = posed_pairs(CONFIG, posed, wanted)
    report = benchmark.run(pairs, sources=[SOURCE], output=tmp_path, options=QUIET)
    found = load_run(report.outputs[0]).pairs
    assert [(pair.image1, pair.image2) for pair in found] == wanted[:3]
    assert (report.done, report.details["pairs"]) == (3, 4)


def test_pairs_that_are_left_out_are_counted(
    images: list[PosedImage], tmp_path: Path
) -> None:
    twin = dataclasses.replace(images[0], name="twin.png")
    everything = choose_pairs([*images, twin], PairPosesConfig(max_pairs=4))
    assert (everything.at_one_place, everything.not_drawn) == (1, 5)
    listed = [(twin.name, images[0].name), (images[0].name, images[1].name)]
    chosen = choose_pairs([*images, twin], CONFIG, listed)
    assert (len(chosen.pairs), chosen.at_one_place, chosen.not_drawn) == (1, 1, 0)
    assert everything.warnings == ()
    (warning,) = chosen.warnings
    assert warning.startswith(
        "1 of 2 listed pairs are left out, since their cameras are at the same place"
    )
    assert warning.endswith(f"'twin.png, {images[0].name}'")
    report = run(images, tmp_path / "out", config=PairPosesConfig(max_pairs=2))
    assert report.details == {"pairs": 2, "at_one_place": 0, "not_drawn": 4}


def test_an_image_without_features_fails_and_the_others_continue(
    images: list[PosedImage], tmp_path: Path
) -> None:
    feature_path(images[2].path, "r2d2").unlink()
    report = run(images, tmp_path / "out")
    assert report.done == 3
    assert [failure.name for failure in report.failed] == [images[2].name]
    assert len(load_run(report.outputs[0]).pairs) == 3


def test_pairs_are_chosen_by_name_or_at_random(images: list[PosedImage]) -> None:
    a, b, c, _ = (image.name for image in images)
    wanted = [(c, a), (a, b)]
    # a list is not cut
    for config in (CONFIG, PairPosesConfig(max_pairs=1)):
        chosen = choose_pairs(images, config, wanted)
        assert [(one.name, other.name) for one, other in chosen.pairs] == wanted
        assert chosen.not_drawn == 0
    few = [
        choose_pairs(images, PairPosesConfig(max_pairs=3, seed=seed)).pairs
        for seed in (0, 0, 1, 2, 3)
    ]
    assert all(len(pairs) == 3 for pairs in few)
    assert few[0] == few[1]
    assert any(pairs != few[0] for pairs in few[2:])
    everything = choose_pairs(images, PairPosesConfig(max_pairs=0))
    assert len(everything.pairs) == 6


def test_wanted_pairs_must_have_poses_and_a_baseline(images: list[PosedImage]) -> None:
    with pytest.raises(DatasetError, match="'nowhere.png' is not among"):
        choose_pairs(images, CONFIG, [("nowhere.png", images[0].name)])
    twins = [posed_image("a"), posed_image("b")]
    with pytest.raises(DatasetError, match="no pair of cameras"):
        choose_pairs(twins, CONFIG)


def test_tables(images: list[PosedImage], tmp_path: Path) -> None:
    out = tmp_path / "out"
    runs = PAIR_POSES.read_all(run(images, out).outputs)
    markdown, csv, as_json = (
        out / f"pair_poses.{suffix}" for suffix in ("md", "csv", "json")
    )
    assert PAIR_POSES.table(runs) in markdown.read_text("utf-8")
    assert len(csv.read_text("utf-8").splitlines()) == 1 + 6
    (content,) = json.loads(as_json.read_text("utf-8"))
    assert content["means"]["pairs"] == 6
