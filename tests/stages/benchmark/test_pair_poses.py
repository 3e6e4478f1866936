"""Evaluation on posed pairs: exact scenes, resumption, failures."""

from __future__ import annotations

import copy
import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, FeatureFormatError, OutputError
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.evaluation.pair_results import load_run
from r2d2_kapture.evaluation.posed_images import PosedImage, PosedImages
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.features.npz import write_npz
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import benchmark
from r2d2_kapture.stages.benchmark import PAIR_POSES, feature_sources
from r2d2_kapture.stages.benchmark.chosen_pairs import choose_pairs
from r2d2_kapture.stages.benchmark.feature_sources import (
    ExtractedFeatures,
    FeatureSource,
)
from r2d2_kapture.stages.benchmark.pair_poses import posed_pairs
from r2d2_kapture.stages.benchmark.stored_features import features_beside_images
from r2d2_kapture.types import Report
from tests.scenes.features import features_at
from tests.scenes.images import textured_image
from tests.scenes.two_views import DISTORTED, posed_image, seen_by, space_points

QUIET = RunOptions(progress=False)
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


@pytest.fixture
def source(checkpoint_path: Path) -> ExtractedFeatures:
    return ExtractedFeatures(
        label="r2d2",
        extractor=build_extractor(
            ExtractConfig(
                extractor=R2D2Config(
                    min_size=64, reliability_thr=0, repeatability_thr=0, top_k=40
                ),
                gpu=-1,
                precision="fp32",
            ),
            load_checkpoint(str(checkpoint_path)),
        ),
    )


@pytest.fixture
def drawn(images: list[PosedImage]) -> list[PosedImage]:
    """The images in the size of ``draw``, with something to find in them."""
    small = []
    for seed, image in enumerate(images, start=1):
        camera = copy.deepcopy(image.camera)
        camera.rescale(96, 72)
        small.append(dataclasses.replace(image, camera=camera))
        draw(image, seed)
    return small


def draw(image: PosedImage, seed: int) -> None:
    """Write an image, with a time of its own however fast the test is."""
    Image.fromarray(textured_image(72, 96, seed)).save(image.path)
    os.utime(image.path, ns=(seed * 10**9, seed * 10**9))


def run(
    images: list[PosedImage],
    output: Path,
    options: RunOptions = QUIET,
    config: PairPosesConfig = CONFIG,
    source: FeatureSource = SOURCE,
) -> Report:
    posed = PosedImages(images=tuple(images), root=images[0].path.parents[1])
    pairs = posed_pairs(config, posed)
    return benchmark.run(pairs, sources=[source], output=output, options=options)


def test_exact_features_have_no_error(images: list[PosedImage], tmp_path: Path) -> None:
    report = run(images, tmp_path / "out", config=PairPosesConfig(worst_pairs=1))
    assert (report.done, report.skipped, report.failed) == (6, 0, ())
    results = load_run(tmp_path / "out" / "r2d2.poses.json")
    assert len(results.pairs) == 6
    assert results.values["epipolar@1"] == 1
    assert results.values["AUC@5"] > 0.95
    assert results.values["features"] == 60
    assert results.manifest["settings"]["seed"] == 0
    assert (tmp_path / "out" / "r2d2" / "worst_1.png").is_file()


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_bytes(
    images: list[PosedImage], tmp_path: Path, workers: int
) -> None:
    run(images, tmp_path / "a")
    run(images, tmp_path / "b", dataclasses.replace(QUIET, workers=workers))
    first = (tmp_path / "a" / "r2d2.poses.json").read_bytes()
    assert (tmp_path / "b" / "r2d2.poses.json").read_bytes() == first


def test_finished_pairs_are_not_done_again(
    images: list[PosedImage], tmp_path: Path
) -> None:
    run(images, tmp_path / "out")
    content = (tmp_path / "out" / "r2d2.poses.json").read_bytes()
    lost = tmp_path / "out" / "r2d2" / "results" / f"{images[1].name}.json"
    lost.unlink()
    report = run(images, tmp_path / "out")
    assert (report.done, report.skipped) == (2, 4)
    assert (tmp_path / "out" / "r2d2.poses.json").read_bytes() == content


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


def test_features_of_a_changed_image_are_extracted_again(
    drawn: list[PosedImage], tmp_path: Path, source: ExtractedFeatures
) -> None:
    out, clean = tmp_path / "out", tmp_path / "clean"
    run(drawn, out, source=source)
    before = (out / "r2d2.poses.json").read_bytes()
    features = sorted((out / "r2d2" / "features").rglob("*.r2d2"))
    times = [path.stat().st_mtime_ns for path in features]
    draw(drawn[0], seed=9)
    report = run(drawn, out, source=source)
    assert (report.done, report.skipped) == (3, 3)
    later = [path.stat().st_mtime_ns for path in features]
    assert [one == other for one, other in zip(times, later)] == [False] + 3 * [True]
    run(drawn, clean, source=source)
    after = (out / "r2d2.poses.json").read_bytes()
    assert after == (clean / "r2d2.poses.json").read_bytes() != before


def test_an_image_that_changes_during_the_run_is_evaluated_again(
    drawn: list[PosedImage],
    tmp_path: Path,
    source: ExtractedFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out, clean = tmp_path / "out", tmp_path / "clean"

    def extract_then_edit(*args: Any, **kwargs: Any) -> Any:
        tally = extract_images(*args, **kwargs)
        draw(drawn[0], seed=9)
        return tally

    extract_images = feature_sources.extract_images
    monkeypatch.setattr(feature_sources, "extract_images", extract_then_edit)
    run(drawn, out, source=source)
    monkeypatch.undo()
    assert run(drawn, out, source=source).done == 3
    run(drawn, clean, source=source)
    after = (out / "r2d2.poses.json").read_bytes()
    assert after == (clean / "r2d2.poses.json").read_bytes()


def test_images_may_be_moved(
    drawn: list[PosedImage], tmp_path: Path, source: ExtractedFeatures
) -> None:
    run(drawn, tmp_path / "out", source=source)
    root = drawn[0].path.parents[1].rename(tmp_path / "elsewhere")
    moved = [dataclasses.replace(image, path=root / image.name) for image in drawn]
    report = run(moved, tmp_path / "out", source=source)
    assert (report.done, report.skipped) == (0, 6)


def test_pictures_of_the_worst_pairs_follow_the_pairs(
    images: list[PosedImage], tmp_path: Path
) -> None:
    out, two = tmp_path / "out", PairPosesConfig(worst_pairs=2)
    run(images, out, config=two)
    run(images[1:], out, config=two)
    run(images[1:], tmp_path / "clean", config=two)
    for name in ("worst_1.png", "worst_2.png"):
        ours, clean = (f / "r2d2" / name for f in (out, tmp_path / "clean"))
        assert ours.read_bytes() == clean.read_bytes()
    run(images[1:], out, config=PairPosesConfig(worst_pairs=1))
    assert [path.name for path in out.rglob("worst_*.png")] == ["worst_1.png"]


def test_no_results_of_an_earlier_run_stay_when_all_pairs_fail(
    images: list[PosedImage], tmp_path: Path
) -> None:
    run(images, tmp_path / "out")
    for image in images:
        feature_path(image.path, "r2d2").write_bytes(b"no features")
    report = run(images, tmp_path / "out")
    assert report.failed and not report.outputs
    assert not (tmp_path / "out" / "r2d2.poses.json").exists()


def test_features_that_are_nowhere_are_an_error(
    images: list[PosedImage], tmp_path: Path
) -> None:
    for image in images:
        feature_path(image.path, "r2d2").unlink()
    with pytest.raises(FeatureFormatError, match="one for the other 3 images"):
        run(images, tmp_path / "out")


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


def test_other_settings_are_refused(images: list[PosedImage], tmp_path: Path) -> None:
    run(images, tmp_path / "out")
    other = PairPosesConfig(ransac_error=4, worst_pairs=0)
    with pytest.raises(OutputError, match="ransac_error: 1.0, not 4"):
        run(images, tmp_path / "out", config=other)
    forced = dataclasses.replace(QUIET, force=True)
    assert run(images, tmp_path / "out", forced, other).done == 6


def test_an_image_without_features_fails_and_the_others_continue(
    images: list[PosedImage], tmp_path: Path
) -> None:
    feature_path(images[2].path, "r2d2").unlink()
    report = run(images, tmp_path / "out")
    assert report.done == 3
    assert [failure.name for failure in report.failed] == [images[2].name]
    assert len(load_run(report.outputs[0]).pairs) == 3
    strict = dataclasses.replace(QUIET, strict=True, workers=1)
    assert run(images, tmp_path / "strict", strict).failed


def test_a_picture_that_cannot_be_drawn_is_reported(
    images: list[PosedImage], tmp_path: Path
) -> None:
    for image in images:
        image.path.write_bytes(b"no image")
    report = run(images, tmp_path / "out", config=PairPosesConfig(worst_pairs=2))
    assert (report.done, len(report.outputs)) == (6, 1)
    assert [Path(f.name).name for f in report.failed] == ["worst_1.png", "worst_2.png"]


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
