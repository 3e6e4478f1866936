"""What the runner does for every benchmark: resumes, redoes, refuses, draws, fails."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, FeatureFormatError, OutputError
from r2d2_kapture.evaluation.feature_files import feature_path
from r2d2_kapture.evaluation.matched_points import MatchedPoints
from r2d2_kapture.evaluation.tables import Row
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.matching.mutual_nn import MutualNearest
from r2d2_kapture.pictures.figures import new_figure
from r2d2_kapture.stages import benchmark
from r2d2_kapture.stages.benchmark import feature_sources
from r2d2_kapture.stages.benchmark.benchmark import Benchmark, Item
from r2d2_kapture.stages.benchmark.presentation import Presentation
from r2d2_kapture.stages.benchmark.stored_features import features_beside_images
from r2d2_kapture.types import Failure
from tests.scenes.images import write_crops
from tests.stages.benchmark.cases import (
    CASES,
    QUIET,
    Case,
    make_case,
    pad,
    replace,
    tiny_source,
)

FORCED = dataclasses.replace(QUIET, force=True)
NO_MATCHES = MatchedPoints(
    points1=np.empty((0, 2), np.float32),
    points2=np.empty((0, 2), np.float32),
    errors=np.empty(0),
)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest, tmp_path: Path, checkpoint_path: Path) -> Case:
    return make_case(request.param, tmp_path, checkpoint_path)


def pictures(output: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(output.glob("*/worst_*.png"))}


def times(paths: Sequence[Path]) -> list[int]:
    return [path.stat().st_mtime_ns for path in paths]


def test_every_item_is_measured(case: Case, tmp_path: Path) -> None:
    report = case.run(tmp_path / "out", worst_pairs=1)
    assert (report.done, report.skipped, report.failed) == (case.units(), 0, ())
    assert report.outputs == (case.results(tmp_path / "out"),)
    assert list(pictures(tmp_path / "out")) == ["worst_1.png"]
    name = case.open().presentation.name
    saved = json.loads((tmp_path / "out" / f"{name}_report.json").read_text())
    assert saved["done"] == case.units()


@pytest.mark.parametrize("workers", [1, 4])
def test_any_number_of_workers_gives_the_same_bytes(
    case: Case, tmp_path: Path, workers: int
) -> None:
    options = dataclasses.replace(QUIET, workers=workers)
    case.run(tmp_path / "a")
    case.run(tmp_path / "b", options=options)
    first = case.results(tmp_path / "a").read_bytes()
    assert case.results(tmp_path / "b").read_bytes() == first


def test_finished_items_are_not_done_again(case: Case, tmp_path: Path) -> None:
    output = tmp_path / "out"
    case.run(output)
    content = case.results(output).read_bytes()
    lost, broken, kept = case.item_files(output)
    lost.unlink()
    broken.write_bytes(b"broken off")
    before = times([kept])
    report = case.run(output)
    *_, last = case.open().items
    assert (report.done, report.skipped) == (case.units() - last.size, last.size)
    assert times([kept]) == before and lost.is_file()
    assert case.results(output).read_bytes() == content
    files = [path for path in output.rglob("*") if path.name != ".lock"]
    before = times(files)
    report = case.run(output)
    assert (report.done, report.skipped) == (0, case.units())
    assert times(files) == before


def test_a_changed_image_is_evaluated_again(case: Case, tmp_path: Path) -> None:
    pad(case.images)  # so that only the time differs
    case.run(tmp_path / "out")
    before = case.results(tmp_path / "out").read_bytes()
    changed, other = case.images[0], case.images[1]
    replace(changed, other.read_bytes())
    report = case.run(tmp_path / "out")
    redone = case.units(changed)
    assert (report.done, report.skipped) == (redone, case.units() - redone)
    assert 0 < redone < case.units()
    case.run(tmp_path / "clean")
    after = case.results(tmp_path / "out").read_bytes()
    assert after == case.results(tmp_path / "clean").read_bytes() != before


def test_an_image_of_another_length_is_evaluated_again(
    case: Case, tmp_path: Path
) -> None:
    case.run(tmp_path / "out")
    changed = case.images[0]
    changed.write_bytes(changed.read_bytes() + b"\0")
    assert case.run(tmp_path / "out").done == case.units(changed)


def test_changed_features_next_to_images_are_evaluated_again(
    case: Case, tmp_path: Path
) -> None:
    stored = case.store_features()
    assert case.run(tmp_path / "out", stored).done == case.units()
    one, two = (feature_path(image, "r2d2") for image in case.images[:2])
    replace(one, two.read_bytes())
    report = case.run(tmp_path / "out", stored)
    redone = case.units(case.images[0])
    assert (report.done, report.skipped) == (redone, case.units() - redone)


def test_an_image_that_changes_during_the_run_is_evaluated_again(
    case: Case, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    changed, other = case.images[0], case.images[1]

    def extract_then_edit(*args: Any, **kwargs: Any) -> Any:
        tally = extract_images(*args, **kwargs)
        replace(changed, other.read_bytes())
        return tally

    extract_images = feature_sources.extract_images
    monkeypatch.setattr(feature_sources, "extract_images", extract_then_edit)
    case.run(tmp_path / "out")
    monkeypatch.undo()
    assert case.run(tmp_path / "out").done == case.units(changed)
    case.run(tmp_path / "clean")
    clean = case.results(tmp_path / "clean").read_bytes()
    assert case.results(tmp_path / "out").read_bytes() == clean


def test_images_may_be_moved(case: Case, tmp_path: Path) -> None:
    units = case.run(tmp_path / "out").done
    moved = CASES[case.name](case.root.rename(tmp_path / "elsewhere"))
    report = case.run(tmp_path / "out", opened=moved())
    assert (report.done, report.skipped) == (0, units)


@pytest.mark.draws
def test_pictures_of_the_worst_pairs_follow_the_pairs(
    case: Case, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    case.run(output, worst_pairs=2)
    before = pictures(output)
    assert list(before) == ["worst_1.png", "worst_2.png"]
    drawn = times(list(output.rglob("worst_*.png")))
    case.run(output, worst_pairs=2)
    assert times(list(output.rglob("worst_*.png"))) == drawn
    # nothing is evaluated again in what follows
    opened = case.open(worst_pairs=2)
    fewer = dataclasses.replace(opened, items=opened.items[1:])
    assert case.run(output, opened=fewer).done == 0
    case.run(tmp_path / "clean", opened=fewer)
    assert pictures(output) == pictures(tmp_path / "clean") != before
    case.run(output, worst_pairs=1)
    assert pictures(output).keys() == {"worst_1.png"}
    case.run(output)
    assert pictures(output) == {}


def test_other_settings_are_refused_unless_forced(case: Case, tmp_path: Path) -> None:
    output, fewer = tmp_path / "out", case.fewer
    case.run(output, worst_pairs=1)
    with pytest.raises(OutputError, match="top_k: 60, not 20"):
        case.run(output, fewer)
    with pytest.raises(OutputError, match="seed: 0, not 5"):
        case.run(output, seed=5)
    with pytest.raises(OutputError, match="ransac_error: .*, not 4"):
        case.run(output, ransac_error=4)
    forced = case.run(output, fewer, options=FORCED, worst_pairs=1)
    assert (forced.done, forced.skipped) == (case.units(), 0)
    assert case.run(output, fewer, worst_pairs=1).skipped == case.units()
    case.run(tmp_path / "clean", fewer, worst_pairs=1)
    assert pictures(output) == pictures(tmp_path / "clean")


def test_a_broken_manifest_is_replaced_on_request(case: Case, tmp_path: Path) -> None:
    case.run(tmp_path / "out")
    (tmp_path / "out" / "tiny_one" / "manifest.json").write_text("{")
    with pytest.raises(FeatureFormatError, match="manifest.json"):
        case.run(tmp_path / "out")
    assert case.run(tmp_path / "out", options=FORCED).done == case.units()
    assert case.run(tmp_path / "out").skipped == case.units()


def test_what_a_killed_run_left_is_removed(case: Case, tmp_path: Path) -> None:
    item, *_ = case.item_files(tmp_path / "out")
    left = [
        tmp_path / "out" / "tiny_one" / ".manifest.123-0a1b2c3d.json",
        item.with_name(f".{item.stem}.123-0a1b2c3d{item.suffix}"),
    ]
    left[0].parent.mkdir(parents=True)
    left[0].write_text("{")
    assert case.run(tmp_path / "out").done == case.units()
    assert not left[0].exists()
    left[1].touch()
    assert case.run(tmp_path / "out").skipped == case.units()
    assert not left[1].exists()


def test_nothing_of_an_earlier_run_stays_when_all_items_fail(
    case: Case, tmp_path: Path
) -> None:
    output, opened = tmp_path / "out", case.open(worst_pairs=1)
    name = opened.presentation.name
    case.run(output, opened=opened)
    assert (output / f"{name}.md").is_file() and pictures(output)
    for image in case.images:
        image.write_bytes(b"no image")
    report = case.run(output, opened=opened)
    assert (report.done, report.outputs) == (0, ())
    assert len(report.failed) >= 3 and not pictures(output)
    left = {path.name for path in output.iterdir()}
    assert left == {"tiny_one", f"{name}_report.json", ".lock"}


def test_the_bar_counts_what_fails(
    case: Case, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stored = case.store_features()
    case.images[0].write_bytes(b"no image")
    feature_path(case.images[1], "r2d2").write_bytes(b"no features")
    total = case.units()
    for source in (case.source, stored):
        options = RunOptions(progress=True)
        assert case.run(
            tmp_path / type(source).__name__, source, options=options
        ).failed
        bar = capsys.readouterr().err
        assert f"| {total}/{total} [" in bar
        assert f"{case.open().presentation.name} {source.label}: " in bar


def test_strict_stops_at_the_first_failure(case: Case, tmp_path: Path) -> None:
    case.images[0].write_bytes(b"no image")
    strict = dataclasses.replace(QUIET, strict=True, workers=1)
    report = case.run(tmp_path / "out", options=strict)
    assert report.failed and report.done < case.units()


def test_strict_measures_nothing_if_items_are_left_out(
    case: Case, tmp_path: Path
) -> None:
    failure = Failure(name="left out", reason="broken")
    opened = dataclasses.replace(case.open(), failed=(failure,))
    assert case.run(tmp_path / "out", opened=opened).done == case.units()
    strict = dataclasses.replace(QUIET, strict=True)
    report = case.run(tmp_path / "strict", opened=opened, options=strict)
    assert (report.done, report.failed) == (0, (failure,))


def test_features_that_are_nowhere_are_an_error(case: Case, tmp_path: Path) -> None:
    others = len(case.images) - 1
    message = f"1.png.d2-net: .* one for the other {others} images"
    with pytest.raises(FeatureFormatError, match=message):
        case.run(tmp_path / "out", features_beside_images("d2-net"))
    assert not (tmp_path / "out").exists()


def test_images_are_needed_for_pictures_only(case: Case, tmp_path: Path) -> None:
    stored, opened = case.store_features(), case.open(worst_pairs=2)
    for image in case.images:
        image.write_bytes(b"no image")
    report = case.run(tmp_path / "out", stored, opened=opened)
    assert (report.done, len(report.outputs)) == (case.units(), 1)
    drawn = [Path(failure.name).name for failure in report.failed]
    assert drawn == ["worst_1.png", "worst_2.png"]


def test_two_sources_of_one_label_are_refused(case: Case, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="tiny one, tiny one"):
        benchmark.run(
            case.open(), sources=[case.source, case.source], output=tmp_path / "out"
        )


def test_tables_show_this_run_and_others(case: Case, tmp_path: Path) -> None:
    presentation = case.open().presentation
    first = case.run(tmp_path / "a").outputs
    plot = tmp_path / "plot.svg"
    source = dataclasses.replace(case.source, label="two")
    benchmark.run(
        case.open(),
        sources=[source],
        output=tmp_path / "b",
        # one that is shown anyway counts once
        results=[*first, tmp_path / "b" / f"two{presentation.suffix}"],
        plot=plot,
        options=QUIET,
    )
    labels = json.loads((tmp_path / "b" / f"{presentation.name}.json").read_text())
    assert [one["label"] for one in labels] == ["two", "tiny one"]
    assert plot.is_file()
    with pytest.raises(ConfigError, match="found no results, expected"):
        presentation.read_all([])


def counted_keypoints(root: Path) -> Benchmark[Path, int]:
    """A benchmark of its own: how many keypoints each image has."""
    presentation = Presentation[Any](
        name="counts",
        suffix=".counts.json",
        expected=".counts.json files",
        read=lambda path: json.loads(path.read_text()),
        titles=("features of",),
        columns=({"keypoints": "keypoints"},),
        legend="Sums.\n",
        means=lambda runs: [
            Row(names=(run["label"],), values={"keypoints": sum(run["counts"])})
            for run in runs
        ],
        csv_titles=("label",),
        csv=lambda runs: [Row(names=(run["label"],), values={}) for run in runs],
        to_json=dict,
        figure=lambda runs: new_figure(1, 1),
    )

    def save_item(path: Path, counts: Sequence[int], fingerprint: str) -> None:
        write_json_atomic(path, {fingerprint: list(counts)})

    def save_run(
        path: Path, label: str, manifest: Manifest, counts: Sequence[int]
    ) -> None:
        write_json_atomic(path, {"label": label, "counts": list(counts)})

    def load_item(path: Path, fingerprint: str) -> list[int] | None:
        return json.loads(path.read_text()).get(fingerprint) if path.exists() else None

    return Benchmark(
        presentation=presentation,
        unit="image",
        items=tuple(
            Item(name=path.stem, images=(path,), truth=b"", subject=path)
            for path in sorted(root.glob("*.png"))
        ),
        root=root,
        matcher=MutualNearest(),
        protocol={},
        details=lambda pairs: {"images": pairs},
        failed=(),
        warnings=(),
        keeps_features=False,
        measure=lambda path, load: ([len(load(path))], []),
        item_suffix=".json",
        load_item=load_item,
        save_item=save_item,
        save_run=save_run,
        worst_pairs=0,
        rank=lambda count: (count, "", ""),
        shown=lambda path, count: (path.name, (path, path)),
        matched=lambda path, count, load: NO_MATCHES,
    )


def test_another_benchmark_is_a_few_functions(
    tmp_path: Path, checkpoint_path: Path
) -> None:
    benchmark_of_counts = counted_keypoints(write_crops(tmp_path / "images"))
    source, out = tiny_source(checkpoint_path), tmp_path / "out"
    for done, skipped in ((3, 0), (0, 3)):
        report = benchmark.run(
            benchmark_of_counts, sources=[source], output=out, options=QUIET
        )
        assert (report.done, report.skipped) == (done, skipped)
        assert report.details == {"images": 3}
    assert json.loads(report.outputs[0].read_text())["counts"] == [60, 60, 60]
    table = (out / "counts.md").read_text()
    assert "tiny one" in table and "180" in table
    assert (out / "counts_report.json").is_file() and (out / "counts.csv").is_file()
