"""The matching stage: results, order, failures, resume, workers."""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from r2d2_kapture.config.match import MatchConfig, MutualNearestConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.settings import make_settings
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    FeatureFormatError,
    OutputError,
)
from r2d2_kapture.io.kapture import followed_features
from r2d2_kapture.io.kapture.match_store import matches_folder, open_matches
from r2d2_kapture.io.kapture.pairs import ImagePair, write_pairs
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.stages.match import stage as match
from r2d2_kapture.types import PairMatches, Report
from tests.scenes.contents import files_below
from tests.scenes.features import unit_rows
from tests.scenes.kapture_files import write_features, write_rows
from tests.scenes.opened import opened_files

IMAGES = {
    name: unit_rows(20 + seed, seed=seed)
    for seed, name in enumerate(
        ["a b.jpg", "sub/é à.jpg", "sub-é à.jpg", "Z.jpg", "q/0.jpg", "q/1.jpg"]
    )
}
EVERY_PAIR = list(itertools.combinations(IMAGES, 2))
CONFIG = MatchConfig(gpu=-1)


@pytest.fixture
def features(tmp_path: Path) -> Path:
    return write_features(tmp_path / "features", IMAGES)


def run(
    features: Path | list[Path],
    output: Path,
    pairs: list[tuple[str, str]] = EVERY_PAIR,
    config: MatchConfig = CONFIG,
    store: Store = "files",
    **options: object,
) -> Report:
    listed = output.parent / f"{output.name}_pairs.txt"
    write_pairs(listed, (ImagePair(image1=a, image2=b) for a, b in pairs))
    return match.run(
        config,
        features=features if isinstance(features, list) else [features],
        pairs=listed,
        output=output,
        store=store,
        options=RunOptions(**options),  # type: ignore[arg-type]
    )


def read(output: Path, image1: str, image2: str) -> PairMatches:
    found = open_matches([output], "r2d2").read(image1, image2)
    assert found is not None
    return found


def matches_in(output: Path) -> dict[str, bytes]:
    return files_below(output, suffixes=(".matches",))


def mutual(first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]) -> object:
    similarity = first @ second.T
    forward, backward = similarity.argmax(1), similarity.argmax(0)
    rows = np.flatnonzero(backward[forward] == np.arange(len(first)))
    return np.stack([rows, forward[rows]], 1).tolist()


def test_every_pair_is_matched(features: Path, tmp_path: Path) -> None:
    report = run(features, tmp_path / "out")
    assert (report.done, report.skipped, report.failed) == (15, 0, ())
    assert report.outputs == (matches_folder(tmp_path / "out", "r2d2"),)
    assert report.details["images_read"] == len(IMAGES)  # each once
    total = 0
    for image1, image2 in EVERY_PAIR:
        matches = read(tmp_path / "out", image1, image2)
        assert matches.indices.tolist() == mutual(IMAGES[image1], IMAGES[image2])
        rows = IMAGES[image1][matches.indices[:, 0]]
        expected = (rows * IMAGES[image2][matches.indices[:, 1]]).sum(1)
        np.testing.assert_allclose(matches.scores, expected, atol=1e-6)
        total += len(matches)
    assert report.details["matches"] == total > 15
    written = json.loads((report.outputs[0] / "match_report.json").read_text("utf-8"))
    assert written["done"] == 15 and written["matches"] == total


def test_the_order_of_names_does_not_matter(features: Path, tmp_path: Path) -> None:
    run(features, tmp_path / "one")
    run(features, tmp_path / "two", [(b, a) for a, b in reversed(EVERY_PAIR)])
    assert matches_in(tmp_path / "one") == matches_in(tmp_path / "two")


@pytest.mark.parametrize("workers", [2, 5])
@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_workers_and_cache_change_nothing(
    features: Path, tmp_path: Path, workers: int, cache_gb: float
) -> None:
    config = MatchConfig(gpu=-1, matcher=MutualNearestConfig(ratio=0.98))
    run(features, tmp_path / "one", config=config, workers=1)
    cached = dataclasses.replace(config, cache_gb=cache_gb)
    run(features, tmp_path / "two", config=cached, workers=workers)
    assert matches_in(tmp_path / "one") == matches_in(tmp_path / "two")


def test_thresholds(features: Path, tmp_path: Path) -> None:
    pair = EVERY_PAIR[:1]
    run(features, tmp_path / "all", pair)
    every = read(tmp_path / "all", *pair[0])
    least = float(np.median(every.scores))
    config = MatchConfig(gpu=-1, matcher=MutualNearestConfig(min_similarity=least))
    run(features, tmp_path / "few", pair, config=config)
    few = read(tmp_path / "few", *pair[0])
    assert few.indices.tolist() == every.indices[every.scores >= least].tolist()
    run(
        features,
        tmp_path / "ratio",
        pair,
        config=MatchConfig(gpu=-1, matcher=MutualNearestConfig(ratio=0.9)),
    )
    assert len(read(tmp_path / "ratio", *pair[0])) < len(every)


def test_nothing_matched_is_reported(features: Path, tmp_path: Path) -> None:
    config = MatchConfig(gpu=-1, matcher=MutualNearestConfig(min_similarity=1.0))
    report = run(features, tmp_path / "none", EVERY_PAIR, config=config)
    (warning,) = report.warnings
    assert warning.startswith(f"none of {len(EVERY_PAIR)} pairs has a match")
    assert run(features, tmp_path / "all", EVERY_PAIR).warnings == ()


def test_images_come_from_several_folders(tmp_path: Path) -> None:
    names = list(IMAGES)
    mapping = write_features(tmp_path / "m", {n: IMAGES[n] for n in names[:4]})
    query = write_features(tmp_path / "q", {n: IMAGES[n] for n in names[4:]}, tar=True)
    report = run([mapping, query], tmp_path / "out", [("q/0.jpg", "Z.jpg")])
    assert report.done == 1
    expected = mutual(IMAGES["q/0.jpg"], IMAGES["Z.jpg"])
    assert read(tmp_path / "out", "q/0.jpg", "Z.jpg").indices.tolist() == expected


def test_a_list_of_no_pairs_is_named(features: Path, tmp_path: Path) -> None:
    report = run(features, tmp_path / "out", pairs=[])
    assert (report.done, report.skipped, report.failed) == (0, 0, ())
    assert report.warnings == (f"{tmp_path / 'out_pairs.txt'}: found no pair to match",)
    assert (report.outputs[0] / "match_report.json").is_file()


def test_an_image_without_keypoints_gives_no_rows(tmp_path: Path) -> None:
    root = write_features(
        tmp_path / "features", {"a": unit_rows(9), "blank": unit_rows(0)}
    )
    report = run(root, tmp_path / "out", [("a", "blank")])
    assert (report.done, report.failed) == (1, ())
    assert report.details["pairs_without_matches"] == 1
    assert len(read(tmp_path / "out", "blank", "a")) == 0


def test_one_bad_image_fails_its_pairs_only(features: Path, tmp_path: Path) -> None:
    (features / "reconstruction/descriptors/r2d2/Z.jpg.desc").write_bytes(bytes(64))
    pairs = [*EVERY_PAIR, ("a b.jpg", "unknown.jpg")]
    report = run(features, tmp_path / "out", pairs)
    assert report.done == 10
    names = {failure.name for failure in report.failed}
    bad = {
        ", ".join(sorted(pair)) for pair in pairs if {"Z.jpg", "unknown.jpg"} & {*pair}
    }
    assert names == bad and len(bad) == 6
    reasons = " ".join(failure.reason for failure in report.failed)
    assert "23 keypoints and 1 descriptors" in reasons
    assert "'unknown.jpg': found no keypoints of type 'r2d2'" in reasons


def test_strict_stops_at_the_first_failure(features: Path, tmp_path: Path) -> None:
    pairs = [("0.jpg", "1.jpg"), *EVERY_PAIR]
    report = run(features, tmp_path / "out", pairs, strict=True, workers=1)
    assert len(report.failed) == 1
    assert report.done < 15


def test_a_failed_pair_is_matched_once_it_can_be(tmp_path: Path) -> None:
    root = write_features(tmp_path / "features", {"a": unit_rows(9)})
    with pytest.raises(FeatureFormatError, match="none of 1 pairs .* 'b': found no"):
        run(root, tmp_path / "out", [("a", "b")])
    write_features(root, {"b": unit_rows(8, seed=1)})
    assert run(root, tmp_path / "out", [("a", "b")]).done == 1


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "uint8"])
def test_third_party_descriptors_are_matched_at_unit_norm(
    tmp_path: Path, dtype: str
) -> None:
    rng = np.random.default_rng(0)
    rows = {n: rng.integers(0, 200, (9 + i, 16)) for i, n in enumerate("ab")}
    rows["a"][4] = 0  # a descriptor of nothing matches nothing
    unit = {n: r / np.linalg.norm(r, axis=1).clip(1)[:, None] for n, r in rows.items()}
    root = write_features(tmp_path / "features", unit)
    write_rows(
        root / "reconstruction/descriptors/r2d2",
        "descriptors",
        {name: array.astype(dtype) for name, array in rows.items()},
        fields=f"r2d2, {dtype}, 16, r2d2, cosine",
    )
    assert run(root, tmp_path / "out", [("a", "b")]).done == 1
    matches = open_matches([tmp_path / "out"], "r2d2").read("a", "b")
    assert matches is not None
    similarity = unit["a"] @ unit["b"].T
    best = [
        (i, j)
        for i, j in enumerate(similarity.argmax(1))
        if i != 4 and similarity[:, j].argmax() == i
    ]
    np.testing.assert_array_equal(matches.indices, best)
    np.testing.assert_allclose(
        matches.scores, [similarity[pair] for pair in best], atol=1e-6
    )


def test_other_metrics_are_refused_by_name_before_the_first_pair(
    features: Path, tmp_path: Path
) -> None:
    described = features / "reconstruction/descriptors/r2d2/descriptors.txt"
    text = described.read_text("utf-8")
    for metric in ("Hamming", "chi2"):
        described.write_text(text.replace("L2", metric), encoding="utf-8")
        with pytest.raises(FeatureFormatError, match=f"by '{metric}', expected L2 or"):
            run(features, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_features_of_which_no_pair_can_be_matched_are_one_error(
    features: Path, tmp_path: Path
) -> None:
    folder = features / "reconstruction/descriptors/r2d2"
    for path in folder.rglob("*.desc"):
        path.write_bytes(path.read_bytes()[16 * 4 :])  # one row fewer than keypoints
    with pytest.raises(
        FeatureFormatError, match="none of 15 pairs .* 23 keypoints and 22"
    ):
        run(features, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    for path in folder.rglob("*.desc"):  # sizes agree, values do not
        rows = path.stat().st_size // 64 + 1
        np.full((rows, 16), np.nan, "<f4").tofile(path)
    with pytest.raises(FeatureFormatError, match="none of 15 pairs .* NaN"):
        run(features, tmp_path / "out")


def test_a_second_run_skips_and_a_wider_list_adds(
    features: Path, tmp_path: Path
) -> None:
    run(features, tmp_path / "out", EVERY_PAIR[:6])
    before = matches_in(tmp_path / "out")
    report = run(features, tmp_path / "out")
    assert (report.done, report.skipped) == (9, 6)
    report = run(features, tmp_path / "out")
    assert (report.done, report.skipped) == (0, 15)
    written = report.outputs[0] / "match_report.json"
    assert json.loads(written.read_text("utf-8"))["done"] == 9
    assert before.items() <= matches_in(tmp_path / "out").items()


def test_a_finished_run_reads_no_features_and_no_matches(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(features, tmp_path / "out")
    opened = opened_files(monkeypatch)
    again = run(features, tmp_path / "out")
    assert (again.done, again.skipped) == (0, first.done)
    assert not [p for p in opened if p.endswith((".kpt", ".desc", ".matches"))]


def test_a_resume_reports_as_one_that_compares_contents(
    features: Path, tmp_path: Path
) -> None:
    run(features, tmp_path / "out")
    noted = run(features, tmp_path / "out")
    (matches_folder(tmp_path / "out", "r2d2") / FINISHED_NAME).unlink()
    compared = run(features, tmp_path / "out")
    details = {**compared.details, "images_read": 0}
    assert dataclasses.replace(noted, seconds=0) == dataclasses.replace(
        compared, seconds=0, details=details
    )


@pytest.mark.parametrize("name", ["features.json", "manifest.json"])
def test_lost_notes_of_how_matches_were_made_are_not_passed_over(
    features: Path, tmp_path: Path, name: str
) -> None:
    run(features, tmp_path / "out")
    (matches_folder(tmp_path / "out", "r2d2") / name).unlink()
    if name == "manifest.json":
        with pytest.raises(OutputError, match="without manifest.json"):
            run(features, tmp_path / "out")
    else:
        assert run(features, tmp_path / "out").done == len(EVERY_PAIR)


def test_a_pair_cut_short_is_matched_again(features: Path, tmp_path: Path) -> None:
    run(features, tmp_path / "out")
    before = matches_in(tmp_path / "out")
    path = next((tmp_path / "out").rglob("*.matches"))
    path.write_bytes(path.read_bytes()[:-5])
    assert run(features, tmp_path / "out").done == 1
    assert matches_in(tmp_path / "out") == before


def test_an_archive_that_breaks_off_after_a_finished_run_is_completed(
    features: Path, tmp_path: Path
) -> None:
    output = tmp_path / "out"
    run(features, output, store="tar")
    (archive,) = output.rglob("matches.tar")
    before = archive.read_bytes()
    os.truncate(archive, len(before) // 2)
    assert 0 < run(features, output, store="tar").done < len(EVERY_PAIR)
    assert archive.read_bytes() == before
    assert run(features, output, store="tar").skipped == len(EVERY_PAIR)


def test_force_matches_again(features: Path, tmp_path: Path) -> None:
    run(features, tmp_path / "out")
    report = run(features, tmp_path / "out", EVERY_PAIR[:4], force=True)
    assert (report.done, report.skipped) == (4, 0)
    assert len(matches_in(tmp_path / "out")) == 15


def test_threads_of_torch_are_as_before(features: Path, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        run(features, tmp_path / "out")
        assert torch.get_num_threads() == 3
    finally:
        torch.set_num_threads(before)


def test_how_it_runs_is_no_setting(features: Path, tmp_path: Path) -> None:
    run(features, tmp_path / "out")
    other = MatchConfig(gpu=-1, cache_gb=0.5)
    assert run(features, tmp_path / "out", config=other, workers=3).skipped == 15


def write_manifests(root: Path, top_k: int) -> None:
    for kind in ("keypoints", "descriptors"):
        path = root / "reconstruction" / kind / "r2d2" / "manifest.json"
        content = {"model": {"sha256": "x"}, "settings": {"top_k": top_k}}
        path.write_text(json.dumps({**content, "versions": {}}), "utf-8")


@pytest.mark.parametrize("tar", [False, True])
def test_images_changed_in_place_are_matched_again(tmp_path: Path, tar: bool) -> None:
    root = write_features(tmp_path / "features", IMAGES, tar=tar)
    run(root, tmp_path / "out")
    changed = {**IMAGES, "Z.jpg": IMAGES["Z.jpg"][::-1]}
    if tar:
        write_features(root, changed, tar=True)
    else:
        write_features(root, {"Z.jpg": changed["Z.jpg"]})
    few = [pair for pair in EVERY_PAIR if "Z.jpg" in pair][:2]
    assert run(root, tmp_path / "out", few).done == 2
    # those of other lists do not stay either
    report = run(root, tmp_path / "out")
    assert (report.done, report.skipped) == ((13, 2) if tar else (3, 12))
    whole = write_features(tmp_path / "whole", changed)
    run(whole, tmp_path / "expected")
    assert matches_in(tmp_path / "out") == matches_in(tmp_path / "expected")
    assert run(root, tmp_path / "out").skipped == 15


def test_killed_while_changed_images_are_noticed(
    features: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(features, tmp_path / "out")
    write_features(features, {"Z.jpg": IMAGES["Z.jpg"][::-1]})

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(followed_features, "write_json_atomic", killed)
        with pytest.raises(KeyboardInterrupt):
            run(features, tmp_path / "out")
    assert run(features, tmp_path / "out").done == 5
    run(features, tmp_path / "expected")
    assert matches_in(tmp_path / "out") == matches_in(tmp_path / "expected")


def test_features_made_again_are_noticed_and_copies_are_not(
    features: Path, tmp_path: Path
) -> None:
    write_manifests(features, 100)
    run(features, tmp_path / "out")
    write_features(features, IMAGES)
    assert run(features, tmp_path / "out").skipped == 15
    write_manifests(features, 200)
    with pytest.raises(OutputError, match="descriptors SHA-256"):
        run(features, tmp_path / "out")


def test_features_made_in_two_ways_are_not_mixed(tmp_path: Path) -> None:
    one = write_features(tmp_path / "m", {"a": unit_rows(9)})
    two = write_features(tmp_path / "q", {"b": unit_rows(9)})
    write_manifests(one, 100)
    write_manifests(two, 200)
    with pytest.raises(DatasetError, match="top_k: 200, not 100.*cannot be mixed"):
        run([one, two], tmp_path / "out", [("a", "b")])
    assert not (tmp_path / "out").exists()


def test_two_types_need_a_choice(features: Path, tmp_path: Path) -> None:
    write_features(features, {"a b.jpg": unit_rows(3)}, name="other")
    with pytest.raises(DatasetError, match="other, r2d2; choose one"):
        run(features, tmp_path / "out")


def test_a_list_that_is_not_there(features: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="found no such file"):
        match.run(
            CONFIG,
            features=[features],
            pairs=tmp_path / "none.txt",
            output=tmp_path / "out",
        )


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(features: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--gpu 0: found 0 CUDA devices"):
        run(features, tmp_path / "out", config=MatchConfig(gpu=0))


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"ratio": 0.0}, "--ratio"),
        ({"ratio": 1.5}, "--ratio"),
        ({"min_similarity": 1.1}, "--min-similarity"),
        ({"matcher": "dual_softmax", "ratio": 0.9}, "ratio: found for dual_softmax"),
        ({"matcher": "dual", "ratio": 0.9}, "--matcher dual: no such name"),
        ({"cache_gb": -1.0}, "--cache-gb"),
    ],
)
def test_settings_out_of_range(settings: dict[str, Any], flag: str) -> None:
    with pytest.raises(ConfigError, match=flag):
        make_settings(MatchConfig, settings)


def test_the_authors_features(shared: Path, tmp_path: Path) -> None:
    """66 pairs, 9506 matches: design/pycolmap_kapture_facts.md, section 3."""
    root = shared / "data/virtual_gallery/local_features/r2d2_500"
    names = sorted(
        path.relative_to(root / "keypoints").as_posix().removesuffix(".kpt")
        for path in (root / "keypoints/training").rglob("*.kpt")
    )
    report = run(root, tmp_path / "out", list(itertools.combinations(names, 2)))
    assert (report.done, report.details["matches"]) == (66, 9506)
