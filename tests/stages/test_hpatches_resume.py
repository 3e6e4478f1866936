"""Evaluations on sequences that are repeated, changed, interrupted or broken."""

from __future__ import annotations

import dataclasses
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.errors import FeatureFormatError, OutputError
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.io.features.npz import write_npz
from r2d2_kapture.stages.benchmark import hpatches
from r2d2_kapture.stages.benchmark.feature_sources import ExtractedFeatures
from r2d2_kapture.stages.benchmark.stored_features import features_beside_images
from tests.stages.hpatches_runs import (
    FEW,
    QUIET,
    extract,
    run,
    times,
    tiny_source,
    write_sequences,
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_sequences(tmp_path / "root")


@pytest.fixture
def source(checkpoint_path: Path) -> ExtractedFeatures:
    return tiny_source(checkpoint_path)


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


def test_changed_features_next_to_images_are_evaluated_again(
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
    root: Path, tmp_path: Path, source: ExtractedFeatures, checkpoint_path: Path
) -> None:
    for name in ("other", "sub"):
        shutil.rmtree(root / name)
    config = HomographyConfig(worst_pairs=2)
    forced = dataclasses.replace(QUIET, force=True)
    other = tiny_source(checkpoint_path, FEW)
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
    root: Path, tmp_path: Path, source: ExtractedFeatures, checkpoint_path: Path
) -> None:
    output = tmp_path / "out"
    run(root, output, source)
    fewer = tiny_source(checkpoint_path, FEW)
    with pytest.raises(OutputError, match="top_k: 60, not 20"):
        run(root, output, fewer)
    with pytest.raises(OutputError, match="seed: 0, not 5"):
        run(root, output, source, config=HomographyConfig(seed=5))
    forced = run(root, output, fewer, options=dataclasses.replace(QUIET, force=True))
    assert (forced.done, forced.skipped) == (3, 0)
    assert run(root, output, fewer).skipped == 3


def test_foreign_files_are_not_overwritten(
    root: Path, tmp_path: Path, source: ExtractedFeatures
) -> None:
    (tmp_path / "out" / "tiny_one").mkdir(parents=True)
    (tmp_path / "out" / "tiny_one" / "thesis.txt").touch()
    with pytest.raises(
        OutputError, match="'thesis.txt' without a manifest.json of results"
    ):
        run(root, tmp_path / "out", source)
