"""Evaluation on sequences: resumable, and the same for any number of workers."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.extract import (
    EngineConfig,
    ExtractConfig,
    PyramidConfig,
    SelectionConfig,
)
from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    FeatureFormatError,
    OutputError,
)
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.evaluation.results import load_results
from r2d2_kapture.evaluation.sequences import read_sequence
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.hdf5 import write_h5
from r2d2_kapture.io.images import read_rgb
from r2d2_kapture.io.npz import write_npz
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import feature_sources, hpatches, hpatches_tables
from r2d2_kapture.stages.extract import Tally
from r2d2_kapture.stages.feature_sources import (
    ExtractedFeatures,
    FeatureSource,
    features_beside_images,
    features_in_h5,
)
from r2d2_kapture.types import Failure, LocalFeatures, Report
from tests.stages.sequences_on_disk import write_crops

QUIET = RunOptions(progress=False)
CONFIG = HomographyConfig(worst_pairs=0)
FEW = SelectionConfig(reliability_thr=0, repeatability_thr=0, top_k=20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("v_à b", "sub/i_lamp", "v_talent", "other")):
        write_crops(tmp_path / "root" / name, seed)
    return tmp_path / "root"


@pytest.fixture
def source(checkpoint_path: Path) -> ExtractedFeatures:
    return ExtractedFeatures(
        label="tiny one",
        config=ExtractConfig(
            pyramid=PyramidConfig(min_size=64),
            selection=SelectionConfig(reliability_thr=0, repeatability_thr=0, top_k=60),
            engine=EngineConfig(gpu=-1, precision="fp32"),
        ),
        checkpoint=load_checkpoint(str(checkpoint_path)),
    )


def run(
    root: Path,
    output: Path,
    *sources: FeatureSource,
    options: RunOptions = QUIET,
    config: HomographyConfig = CONFIG,
) -> Report:
    return hpatches.run(
        config, root=root, output=output, sources=sources, options=options
    )


def extract(source: ExtractedFeatures, image: Path) -> LocalFeatures:
    extractor = build_extractor("r2d2", source.checkpoint.network, source.config)
    return extractor.extract_batch([read_rgb(image)])[0]


def times(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.rglob("results/**/*.npz")}


def test_shifted_crops_match_where_they_should(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    report = run(root, tmp_path / "out", source, config=HomographyConfig(worst_pairs=1))
    assert (report.done, report.skipped, report.failed) == (3, 0, ())
    assert report.outputs == (tmp_path / "out" / "tiny_one.npz",)
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
    assert (tmp_path / "out" / "tiny_one" / "worst_1.png").is_file()
    saved = json.loads((tmp_path / "out" / "hpatches_report.json").read_text())
    assert (saved["done"], saved["sequences"]) == (3, 3)


@pytest.mark.parametrize("workers", [1, 3])
def test_any_number_of_workers_gives_the_same_bytes(
    root: Path, tmp_path: Path, source: ExtractedFeatures, workers: int
) -> None:
    options = dataclasses.replace(QUIET, workers=workers)
    run(root, tmp_path / "a", source)
    run(root, tmp_path / "b", source, options=options)
    first = (tmp_path / "a" / "tiny_one.npz").read_bytes()
    assert (tmp_path / "b" / "tiny_one.npz").read_bytes() == first


def test_all_sequences_on_request(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    config = HomographyConfig(all_sequences=True, worst_pairs=0)
    report = run(root, tmp_path / "out", source, config=config)
    assert (report.done, report.details["left_out"]) == (4, "none")
    report = run(root, tmp_path / "out", source)
    assert (report.skipped, report.details["left_out"]) == (3, "v_talent")


def test_finished_sequences_are_not_done_again(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    output = tmp_path / "out"
    run(root, output, source)
    before = times(output)
    content = (output / "tiny_one.npz").read_bytes()
    lost = output / "tiny_one" / "results" / "other.npz"
    lost.unlink()
    broken = output / "tiny_one" / "results" / "v_à b.npz"
    broken.write_bytes(b"broken off")
    report = run(root, output, source)
    assert (report.done, report.skipped) == (2, 1)
    after = times(output)
    assert [p for p in before if before[p] == after[p]] == [
        output / "tiny_one" / "results" / "sub" / "i_lamp.npz"
    ]
    assert (output / "tiny_one.npz").read_bytes() == content


def test_a_changed_image_is_evaluated_again(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    run(root, tmp_path / "out", source)
    (root / "other" / "2.png").write_bytes((root / "v_à b" / "1.png").read_bytes())
    report = run(root, tmp_path / "out", source)
    assert (report.done, report.skipped) == (1, 2)


def replace(path: Path, content: bytes) -> None:
    """Write other bytes, and a later time however fast the test is."""
    before = path.stat().st_mtime_ns
    path.write_bytes(content)
    os.utime(path, ns=(before, before + 10**9))


def test_a_changed_image_of_equal_length_is_evaluated_again(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    images = [root / "other" / f"{number}.ppm" for number in (1, 2, 3)]
    for path in images:
        png = path.with_suffix(".png")
        Image.open(png).save(path)
        png.unlink()
    run(root, tmp_path / "out", source)
    content = images[2].read_bytes()
    assert len(content) == images[1].stat().st_size
    replace(images[1], content)
    report = run(root, tmp_path / "out", source)
    assert (report.done, report.skipped) == (1, 2)


def test_changed_features_beside_images_are_evaluated_again(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    for image in root.rglob("*.png"):
        write_npz(feature_path(image, "r2d2"), extract(source, image))
    stored = features_beside_images("r2d2")
    run(root, tmp_path / "out", stored)
    one, two = (feature_path(root / "other" / f"{n}.png", "r2d2") for n in (1, 2))
    replace(two, one.read_bytes())
    report = run(root, tmp_path / "out", stored)
    assert (report.done, report.skipped) == (1, 2)


def test_an_image_that_changes_during_the_run_is_evaluated_again(
    root: Path,
    tmp_path: Path,
    source: ExtractedFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    edited = root / "other" / "2.png"

    def evaluate_then_edit(sequence: Any, *args: Any, **kwargs: Any) -> Any:
        pairs = evaluate(sequence, *args, **kwargs)
        if sequence.name == "other":
            replace(edited, (root / "v_à b" / "2.png").read_bytes())
        return pairs

    evaluate = hpatches.evaluate_sequence
    monkeypatch.setattr(hpatches, "evaluate_sequence", evaluate_then_edit)
    run(root, tmp_path / "out", source)
    monkeypatch.undo()
    assert run(root, tmp_path / "out", source).done == 1
    run(root, tmp_path / "clean", source)
    clean = (tmp_path / "clean" / "tiny_one.npz").read_bytes()
    assert (tmp_path / "out" / "tiny_one.npz").read_bytes() == clean


def pictures(output: Path) -> dict[str, bytes]:
    found = sorted((output / "tiny_one").glob("worst_*"))
    return {path.name: path.read_bytes() for path in found if path.suffix == ".png"}


def test_pictures_of_the_worst_pairs_follow_the_pairs(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    output, three = tmp_path / "out", HomographyConfig(worst_pairs=3)
    run(root, output, source, config=three)
    before = pictures(output)
    assert list(before) == ["worst_1.png", "worst_2.png", "worst_3.png"]
    times = [path.stat().st_mtime_ns for path in output.rglob("worst_*.png")]
    run(root, output, source, config=three)
    assert [p.stat().st_mtime_ns for p in output.rglob("worst_*.png")] == times
    # nothing is evaluated again in what follows
    shutil.rmtree(root / "other")
    assert run(root, output, source, config=three).done == 0
    run(root, tmp_path / "clean", source, config=three)
    assert pictures(output) == pictures(tmp_path / "clean") != before
    run(root, output, source, config=HomographyConfig(worst_pairs=1))
    assert pictures(output).keys() == {"worst_1.png"}
    run(root, output, source)
    assert pictures(output) == {}


def test_pictures_of_other_settings_are_drawn_again(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    for name in ("other", "sub"):
        shutil.rmtree(root / name)
    config = HomographyConfig(worst_pairs=2)
    forced = dataclasses.replace(QUIET, force=True)
    other = dataclasses.replace(
        source, config=dataclasses.replace(source.config, selection=FEW)
    )
    run(root, tmp_path / "out", source, config=config)
    run(root, tmp_path / "out", other, config=config, options=forced)
    run(root, tmp_path / "clean", other, config=config)
    assert pictures(tmp_path / "out") == pictures(tmp_path / "clean")


def test_no_results_of_an_earlier_run_stay_when_all_sequences_fail(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    config = HomographyConfig(worst_pairs=1)
    run(root, tmp_path / "out", source, config=config)
    for image in root.rglob("1.png"):
        image.write_bytes(b"no image")
    report = run(root, tmp_path / "out", source, config=config)
    assert (report.done, len(report.failed), report.outputs) == (0, 3, ())
    assert not (tmp_path / "out" / "tiny_one.npz").exists()
    assert not pictures(tmp_path / "out")


def test_the_bar_counts_sequences_that_fail(
    root: Path,
    tmp_path: Path,
    source: ExtractedFeatures,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (root / "other" / "1.png").write_bytes(b"no image")
    feature_path(root / "sub" / "i_lamp" / "1.png", "r2d2").write_bytes(b"no features")
    for one in (source, features_beside_images("r2d2")):
        run(root, tmp_path / "out", one, options=RunOptions(progress=True))
        assert "| 3/3 [" in capsys.readouterr().err


def test_features_of_a_broken_sequence_are_let_go(
    root: Path, source: ExtractedFeatures, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequences = [read_sequence(root / name) for name in ("other", "sub/i_lamp")]
    alive: list[int] = []
    extracted: list[weakref.ref[LocalFeatures]] = []

    def without_the_first(
        engine: object,
        paths: dict[str, Path],
        write: Callable[[str, LocalFeatures], None],
        options: RunOptions,
    ) -> Tally:
        for name in list(paths)[1:]:
            features = extract(source, paths[name])
            extracted.append(weakref.ref(features))
            write(name, features)
            del features
            alive.append(sum(ref() is not None for ref in extracted))
        return Tally(failed=[Failure(name=next(iter(paths)), reason="broken")])

    monkeypatch.setattr(feature_sources, "extract_images", without_the_first)
    fed = []
    failed = source.feed(sequences, lambda s, load: fed.append(s.name), QUIET)
    assert (fed, [item.name for item in failed]) == (["i_lamp"], ["other"])
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


def test_what_a_killed_run_left_is_removed(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    folder = tmp_path / "out" / "tiny_one"
    left = [
        folder / ".manifest.123-0a1b2c3d.json",
        folder / "results" / ".v_à b.123-0a1b2c3d.npz",
    ]
    left[0].parent.mkdir(parents=True)
    left[0].write_text("{")
    assert run(root, tmp_path / "out", source).done == 3
    assert not left[0].exists()
    left[1].touch()
    assert run(root, tmp_path / "out", source).skipped == 3
    assert not left[1].exists()


def test_a_broken_manifest_is_replaced_on_request(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    run(root, tmp_path / "out", source)
    (tmp_path / "out" / "tiny_one" / "manifest.json").write_text("{")
    with pytest.raises(FeatureFormatError, match="manifest.json"):
        run(root, tmp_path / "out", source)
    forced = dataclasses.replace(QUIET, force=True)
    assert run(root, tmp_path / "out", source, options=forced).done == 3
    assert run(root, tmp_path / "out", source).skipped == 3


def test_interruption_keeps_what_is_finished(
    root: Path,
    tmp_path: Path,
    source: ExtractedFeatures,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    measured = []

    def interrupted(sequence: object, *args: object, **kwargs: object) -> object:
        measured.append(sequence)
        if len(measured) == 2:
            raise KeyboardInterrupt
        return evaluate(sequence, *args, **kwargs)  # type: ignore[arg-type]

    evaluate = hpatches.evaluate_sequence
    monkeypatch.setattr(hpatches, "evaluate_sequence", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(root, tmp_path / "out", source)
    monkeypatch.undo()
    report = run(root, tmp_path / "out", source)
    assert report.skipped >= 1
    assert report.done + report.skipped == 3
    run(root, tmp_path / "clean", source)
    clean = (tmp_path / "clean" / "tiny_one.npz").read_bytes()
    assert (tmp_path / "out" / "tiny_one.npz").read_bytes() == clean


def test_other_settings_are_refused_unless_forced(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    output = tmp_path / "out"
    run(root, output, source)
    fewer = dataclasses.replace(
        source,
        config=dataclasses.replace(source.config, selection=FEW),
    )
    with pytest.raises(OutputError, match="top_k: 60, not 20"):
        run(root, output, fewer)
    with pytest.raises(OutputError, match="seed: 0, not 5"):
        run(root, output, source, config=HomographyConfig(seed=5))
    forced = run(root, output, fewer, options=dataclasses.replace(QUIET, force=True))
    assert (forced.done, forced.skipped) == (3, 0)
    assert run(root, output, fewer).skipped == 3


def test_files_of_others_are_not_overwritten(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    (tmp_path / "out" / "tiny_one").mkdir(parents=True)
    (tmp_path / "out" / "tiny_one" / "thesis.txt").touch()
    with pytest.raises(OutputError, match="no results"):
        run(root, tmp_path / "out", source)


def test_broken_sequences_are_reported_and_the_others_go_on(
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


def test_strict_stops_at_the_first_failure(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    (root / "other" / "1.png").write_bytes(b"no image")
    strict = dataclasses.replace(QUIET, strict=True)
    report = run(root, tmp_path / "out", source, options=strict)
    assert (report.done, len(report.failed)) == (0, 1)


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


def test_missing_feature_files_are_reported(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    for image in sorted(root.rglob("*.png"))[1:]:
        write_npz(feature_path(image, "d2-net"), extract(source, image))
    report = run(root, tmp_path / "out", features_beside_images("d2-net"))
    assert (report.done, len(report.failed)) == (2, 1)
    assert "1.png.d2-net" in report.failed[0].reason


def test_features_that_are_nowhere_are_an_error(root: Path, tmp_path: Path) -> None:
    with pytest.raises(FeatureFormatError, match="any for the other 8 images"):
        run(root, tmp_path / "out", features_beside_images("d2-net"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(FeatureFormatError, match="none.h5"):
        features_in_h5(tmp_path / "none.h5", root)


def test_images_are_needed_for_pictures_only(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    for image in root.rglob("*.png"):
        write_npz(feature_path(image, "r2d2"), extract(source, image))
        image.write_bytes(b"no image")
    config = HomographyConfig(worst_pairs=1)
    stored = features_beside_images("r2d2")
    report = run(root, tmp_path / "out", stored, config=config)
    assert (report.done, len(report.outputs)) == (3, 1)
    (failure,) = report.failed
    assert failure.name.endswith("worst_1.png")


def test_two_sources_of_one_label_are_refused(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    with pytest.raises(ConfigError, match="tiny one, tiny one"):
        run(root, tmp_path / "out", source, source)


def test_no_sequences_is_an_error(tmp_path: Path, source: ExtractedFeatures) -> None:
    (tmp_path / "root").mkdir()
    with pytest.raises(DatasetError, match="found no sequence"):
        run(tmp_path / "root", tmp_path / "out", source)


def test_tables_hold_every_run_and_sequence(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    report = run(root, tmp_path / "out", source)
    runs = hpatches_tables.read_results(report.outputs)
    markdown, csv, as_json = hpatches_tables.write_tables(tmp_path / "tables", runs)
    table = hpatches_tables.summary_table(runs)
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
    with pytest.raises(ConfigError, match="no results"):
        hpatches_tables.read_results([])
