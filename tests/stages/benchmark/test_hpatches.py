"""Evaluation on sequences: resumable, and the same for any number of workers."""

from __future__ import annotations

import dataclasses
import json
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, FeatureFormatError
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.evaluation.results import load_results
from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.io.features.npz import write_npz
from r2d2_kapture.io.outputs.image_records import ImageRecord, record_image, stamp_image
from r2d2_kapture.stages.benchmark import (
    HPATCHES,
    feature_sources,
    hpatches,
)
from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures
from r2d2_kapture.stages.benchmark.stored_features import (
    features_beside_images,
    features_in_h5,
)
from r2d2_kapture.stages.extract.stage import Tally
from r2d2_kapture.types import Failure, LocalFeatures
from tests.scenes.images import write_crops
from tests.stages.benchmark.cases import (
    QUIET,
    extract,
    run,
    tiny_source,
    write_sequences,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "root")


@pytest.fixture
def source(checkpoint_path: Path) -> ExtractedFeatures:
    return tiny_source(checkpoint_path)


def test_shifted_crops_match_where_they_should(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    source.extractor.warnings = ("made for this run only",)
    report = run(root, tmp_path / "out", source)
    assert report.warnings == ("made for this run only",)
    results = load_results(report.outputs[0])
    names = [(pair.sequence, pair.kind, pair.image) for pair in results.pairs]
    assert names == [
        ("other", "other", 2),
        ("other", "other", 3),
        ("sub/i_lamp", "illumination", 2),
        ("sub/i_lamp", "illumination", 3),
        ("v_à b", "viewpoint", 2),
        ("v_à b", "viewpoint", 3),
    ]
    # a shift by whole pixels is no change to the network, but for the borders
    assert min(pair.mma[0] for pair in results.pairs) > 0.5
    manifest = json.loads(results.manifest)
    assert manifest["settings"]["seed"] == 0
    assert manifest["settings"]["top_k"] == 60
    assert len(manifest["model"]["sha256"]) == 64
    assert "pycolmap" in manifest["versions"]
    assert report.details == {"sequences": 3, "left_out": ["v_talent"], "pairs": 6}


def test_all_sequences_on_request(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    config = HomographyConfig(all_sequences=True, worst_pairs=0)
    report = run(root, tmp_path / "out", source, config=config)
    assert (report.done, report.details["left_out"]) == (4, [])
    report = run(root, tmp_path / "out", source)
    assert (report.skipped, report.details["left_out"]) == (3, ["v_talent"])


def test_features_of_a_broken_sequence_are_let_go(
    root: Path, source: ExtractedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(root / "v_à b")
    sequences = hpatches.open_benchmark(HomographyConfig(), root=root).items
    alive: list[int] = []
    extracted: list[weakref.ref[LocalFeatures]] = []

    def without_the_first(
        engine: object,
        paths: dict[str, Path],
        write: Callable[[str, LocalFeatures, ImageRecord], None],
        options: RunOptions,
        turns: object,
    ) -> Tally:
        for name in list(paths)[1:]:
            features = extract(source, paths[name])
            extracted.append(weakref.ref(features))
            stamp = stamp_image(paths[name])
            record = record_image(paths[name], stamp, features.image_size)
            write(name, features, record)
            del features
            alive.append(sum(ref() is not None for ref in extracted))
        return Tally(failed=[Failure(name=next(iter(paths)), reason="broken")])

    monkeypatch.setattr(feature_sources, "extract_images", without_the_first)
    fed = []
    failed = source.feed(sequences, lambda s, load: fed.append(s.name), QUIET)
    assert (fed, [item.name for item in failed]) == (["sub/i_lamp"], ["other"])
    # two of the first sequence, then those of the second until it is complete
    assert alive == [1, 2, 1, 2, 0]


def test_strict_stops_the_extraction_at_a_failed_evaluation(
    root: Path,
    tmp_path: Path,
    source: ExtractedFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []

    def fail(sequence: Any, *args: object, **kwargs: object) -> None:
        measured.append(sequence.name)
        raise FeatureFormatError("no features")

    monkeypatch.setattr(hpatches, "evaluate_sequence", fail)
    for number in range(5):
        write_crops(root / f"v_{number}")
    strict = dataclasses.replace(QUIET, strict=True, workers=1)
    report = run(root, tmp_path / "out", source, options=strict)
    assert report.failed and len(measured) < 8


def test_broken_sequences_are_reported_and_the_others_continue(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    (root / "other" / "H_1_3").unlink()
    (root / "sub" / "i_lamp" / "2.png").write_bytes(b"no image")
    report = run(root, tmp_path / "out", source)
    assert report.done == 1
    assert [failure.name for failure in report.failed] == ["other", "sub/i_lamp"]
    assert "missing H_1_3" in report.failed[0].reason
    assert "2.png" in report.failed[1].reason
    results = load_results(report.outputs[0])
    assert {pair.sequence for pair in results.pairs} == {"v_à b"}


def test_sequences_that_lack_the_last_images_of_others_are_reported(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    for name in ("3.png", "H_1_3"):
        (root / "sub" / "i_lamp" / name).unlink()
    report = run(root, tmp_path / "out", source)
    assert report.failed == ()
    assert report.warnings == (
        "1 of 3 sequences have fewer than 3 images: 'sub/i_lamp'; "
        "they contribute fewer pairs to the means",
    )


def test_stored_features_give_the_numbers_of_extracted_ones(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    images = [path for path in sorted(root.rglob("*.png"))]
    features = {image: extract(source, image) for image in images}
    for image, item in features.items():
        write_npz(feature_path(image, "r2d2"), item)
    h5 = tmp_path / "f.h5"
    write_h5(h5, [(i.relative_to(root).as_posix(), f) for i, f in features.items()])
    report = run(
        root,
        tmp_path / "out",
        source,
        features_beside_images(".r2d2", "beside"),
        features_in_h5(h5, root),
    )
    assert (report.done, report.failed) == (9, ())
    extracted, beside, in_h5 = (load_results(path) for path in report.outputs)
    assert (beside.label, in_h5.label) == ("beside", "f")
    for results in (beside, in_h5):
        for ours, theirs in zip(extracted.pairs, results.pairs, strict=True):
            np.testing.assert_array_equal(ours.mma, theirs.mma)
            assert ours.corner_error == theirs.corner_error


def test_sizes_given_as_height_and_width_are_reported_and_taken(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    images = sorted(root.rglob("*.png"))
    features = {i.relative_to(root).as_posix(): extract(source, i) for i in images}
    width, height = next(iter(features.values())).image_size
    reports = {}
    for name, size in {
        "right": (width, height),
        "turned": (height, width),
        "other": (2 * width, 2 * height),
    }.items():
        changed = {
            n: dataclasses.replace(f, image_size=size) for n, f in features.items()
        }
        write_h5(tmp_path / f"{name}.h5", changed.items())
        stored = features_in_h5(tmp_path / f"{name}.h5", root)
        reports[name] = run(root, tmp_path / "out", stored)
    assert reports["right"].warnings == ()
    (warning,) = reports["turned"].warnings
    assert "'turned' state image sizes as height, width" in warning
    right, turned = (
        load_results(reports[name].outputs[0]).pairs for name in ("right", "turned")
    )
    for first, second in zip(right, turned, strict=True):
        np.testing.assert_array_equal(first.repeatability, second.repeatability)
    assert (reports["other"].done, len(reports["other"].failed)) == (0, 3)
    assert (
        f"an image of {2 * width} x {2 * height}" in reports["other"].failed[0].reason
    )


def test_keypoints_from_pixel_corners(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    image = min(root.rglob("*.png"))
    item = extract(source, image)
    moved = dataclasses.replace(item, keypoints=item.keypoints + np.float32(0.5))
    write_npz(feature_path(image, "colmap"), moved)
    read = features_beside_images("colmap", origin="corner").read(image)
    np.testing.assert_allclose(read.keypoints, item.keypoints, atol=1e-5)
    plain = features_beside_images("colmap")
    np.testing.assert_array_equal(plain.read(image).keypoints, moved.keypoints)
    placed = features_beside_images("colmap", origin="corner")
    assert plain.manifest.differences(placed.manifest)


def test_missing_feature_files_are_reported(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    for image in sorted(root.rglob("*.png"))[1:]:
        write_npz(feature_path(image, "d2-net"), extract(source, image))
    report = run(root, tmp_path / "out", features_beside_images("d2-net"))
    assert (report.done, len(report.failed)) == (2, 1)
    assert "1.png.d2-net" in report.failed[0].reason


def test_a_file_of_features_that_is_nowhere_is_an_error(
    root: Path, tmp_path: Path
) -> None:
    with pytest.raises(FeatureFormatError, match="none.h5"):
        features_in_h5(tmp_path / "none.h5", root)


def test_no_sequences_is_an_error(tmp_path: Path, source: ExtractedFeatures) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(DatasetError, match="found no sequence"):
        run(tmp_path / "root", tmp_path / "out", source)


def test_tables_hold_every_run_and_sequence(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    report = run(root, tmp_path / "out", source)
    runs = HPATCHES.read_all(report.outputs)
    markdown, csv, as_json = (
        tmp_path / "out" / f"hpatches.{suffix}" for suffix in ("md", "csv", "json")
    )
    table = HPATCHES.table(runs)
    assert table in markdown.read_text(encoding="utf-8")
    accuracy, geometry = (part.splitlines() for part in table.split("\n\n"))
    for lines, title in ((accuracy, "MMA@3"), (geometry, "rep@3")):
        assert title in lines[0]
        assert [line.split()[1] for line in lines[2:]] == [
            "overall",
            "illumination",
            "viewpoint",
            "other",
        ]
    assert "v_à b" in markdown.read_text(encoding="utf-8")
    assert len(csv.read_text(encoding="utf-8").splitlines()) == 1 + 4 + 3
    (content,) = json.loads(as_json.read_text(encoding="utf-8"))
    assert content["manifest"]["settings"]["seed"] == 0
    mean = np.mean([pair.mma[2] for pair in load_results(report.outputs[0]).pairs])
    assert content["groups"]["overall"]["MMA@3"] == pytest.approx(mean)
