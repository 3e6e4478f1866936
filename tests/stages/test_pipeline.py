"""The pipeline: one folder, every stage once, the same result however often killed."""

from __future__ import annotations

import builtins
import io
import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.cli.pipeline import main, named_queries
from r2d2_kapture.config.extract import DEFAULT_MODEL
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import (
    ConfigError,
    DatasetError,
    OutputError,
)
from r2d2_kapture.io.colmap import check
from r2d2_kapture.io.kapture import dataset
from r2d2_kapture.io.kapture.feature_table import FeatureTable
from r2d2_kapture.io.kapture.match_store import (
    find_matches,
    match_bytes,
    match_name,
    matches_folder,
)
from r2d2_kapture.io.stores.reading import open_items
from r2d2_kapture.stages import pipeline, verify
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.types import Report
from tests.scenes.pipeline import DIM, PipelineScene

CONFIG = PipelineConfig(query_pairs=PairsConfig(method="exhaustive"))
TIMED = ("report.json", "settings.json", ".lock")
"""Ends of the names of files that hold times, or nothing of a result."""


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> PipelineScene:
    """Datasets and features, which runs only read."""
    return PipelineScene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def unbroken(
    scene: PipelineScene, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, bytes]:
    """The results of a run that nothing interrupted."""
    output = tmp_path_factory.mktemp("unbroken")
    run(scene, output)
    return results(output)


def run(scene: PipelineScene, output: Path, **changes: Any) -> Report:
    settings: dict[str, Any] = {
        "mapping": scene.mapping,
        "queries": {"queries": scene.query},
        "output": output,
        "features": [scene.features],
        "options": RunOptions(progress=False),
    }
    return pipeline.run(**({"config": CONFIG} | settings | changes))


def test_each_dataset_is_opened_once(
    scene: PipelineScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, opened = dataset.check_dataset, []

    def counted(root: Path) -> Any:
        opened.append(root)
        return real(root)

    monkeypatch.setattr(dataset, "check_dataset", counted)
    layout = Layout(output=tmp_path / "out")
    for _ in ("first", "resumed"):
        opened.clear()
        run(scene, layout.output)
        assert sorted(opened) == sorted(
            [scene.mapping, scene.query, layout.localized("queries")]
        )


def test_verification_reads_keypoints_once(
    scene: PipelineScene, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    real, real_verify = FeatureTable.read_stored, verify.run

    def noted(table: FeatureTable, image: str) -> Any:
        read.append(image)
        return real(table, image)

    def verified(*arguments: Any, **settings: Any) -> Report:
        with monkeypatch.context() as patched:
            patched.setattr(FeatureTable, "read_stored", noted)
            return real_verify(*arguments, **settings)

    monkeypatch.setattr(verify, "run", verified)
    run(scene, tmp_path / "out")
    assert len(read) == len(set(read)) == 9


LOCAL = PairsConfig(method="local", vlad_clusters=4)
CONTENTS = (".kpt", ".desc", ".matches", ".gfeat", ".db", ".bin", ".jpg")


@pytest.mark.parametrize("pairing", [PairsConfig(method="exhaustive"), LOCAL])
def test_a_resume_with_nothing_to_do_reads_no_contents(
    scene: PipelineScene,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    pairing: PairsConfig,
) -> None:
    """It takes sizes and times for granted, and says what the first run said."""
    config = PipelineConfig(mapping_pairs=pairing, query_pairs=pairing)
    first: list[Report] = []
    again: list[Report] = []
    run(scene, tmp_path / "out", config=config, announce=first.append)
    opened: list[str] = []
    real = io.open

    def noted(file: Any, *arguments: Any, **settings: Any) -> Any:
        opened.append(str(file))
        return real(file, *arguments, **settings)

    # images are looked at once, in advance, for their sizes
    monkeypatch.setattr(pipeline, "unlike_sensors", lambda dataset: {})
    for module in (io, builtins):
        monkeypatch.setattr(module, "open", noted)
    monkeypatch.setattr(check, "check_database", None)
    monkeypatch.setattr(sqlite3, "connect", None)
    run(scene, tmp_path / "out", config=config, announce=again.append)
    assert len(opened) > 20
    assert [name for name in opened if name.endswith(CONTENTS)] == []
    for one, other in zip(first, again, strict=True):
        assert (other.stage, other.done, other.skipped) == (
            one.stage,
            0,
            one.done + one.skipped,
        )
        if one.stage != "match":  # counts the matches of the run
            assert (other.details, other.warnings, other.summary) == (
                one.details,
                one.warnings,
                one.summary,
            )


def test_what_changed_is_found_by_a_resume(
    scene: PipelineScene, tmp_path: Path
) -> None:
    """Inputs and outputs that changed, though in neither size nor time of change."""
    output = tmp_path / "out"
    run(scene, output)
    before = results(output)
    layout = Layout(output=output)
    path = next(layout.verified.rglob("*.matches"))
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    path.write_bytes(b"0" * path.stat().st_size)
    os.utime(path, ns=times)
    stages: dict[str, Report] = {}
    run(scene, output, announce=lambda item: stages.update({item.stage: item}))
    assert stages["verify"].done == 1
    assert results(output) == before


def results(output: Path) -> dict[str, bytes]:
    """What must not depend on how often a run was interrupted."""
    return {
        path.relative_to(output)
        .as_posix(): path.read_bytes()
        .replace(str(output).encode(), b"OUTPUT")
        for path in sorted(output.rglob("*"))
        if path.is_file() and not path.name.endswith(TIMED)
        # what a kill left of a file that was not yet whole
        and not path.name.startswith(".")
        # COLMAP's database keeps its rows in the order in which they came
        and path.suffix not in (".db", ".yaml", ".png")
    }


def test_results_do_not_depend_on_how_matches_are_stored(
    scene: PipelineScene, unbroken: dict[str, bytes], tmp_path: Path
) -> None:
    run(scene, tmp_path / "work", store="shards")
    # the readers of matches below are those of every command
    layout = Layout(output=tmp_path / "work")
    assert not [*layout.matches.rglob("*.matches"), *layout.verified.rglob("*.matches")]
    tables = [find_matches([r], "points") for r in (layout.matches, layout.verified)]
    found = {
        name: data
        for name, data in results(tmp_path / "work").items()
        if "/shards/" not in name
    }
    for root, table in zip((layout.matches, layout.verified), tables):
        for pair in table.pairs:
            rows = table.read(*pair)
            assert rows is not None
            path = matches_folder(root, "points") / match_name(pair)
            name = path.relative_to(tmp_path / "work").as_posix()
            found[name] = match_bytes(rows)
    refined = layout.refined / "reconstruction/keypoints/points_refined"
    keypoints = open_items(refined, "keypoints.tar", ".kpt")
    for name in keypoints.names():
        item = keypoints.find(name)
        assert item is not None
        path = (refined / name).relative_to(tmp_path / "work")
        found[path.as_posix()] = bytes(item.read())
    assert sorted(found) == sorted(unbroken)
    assert [name for name in found if found[name] != unbroken[name]] == []
    before = results(tmp_path / "work")
    run(scene, tmp_path / "work", store="shards")
    assert results(tmp_path / "work") == before


def test_queries_come_out_where_they_are(scene: PipelineScene, tmp_path: Path) -> None:
    stages: list[str] = []
    output = tmp_path / "work"
    before = sorted(scene.mapping.rglob("*")) + sorted(scene.query.rglob("*"))
    report = run(scene, output, announce=lambda item: stages.append(item.stage))
    assert stages == [
        *("pairs", "match", "verify", "refine", "map"),
        *("pairs", "match", "localize", "evaluate"),
    ]
    assert report.failed == ()
    whole = json.loads((output / "pipeline_report.json").read_text("utf-8"))
    by_stage = {item["stage"]: item for item in whole["stages"]}
    assert by_stage["map"]["registered_images"] == 9
    assert by_stage["map"]["points"] == 120
    assert by_stage["map"]["mean_reprojection_error"] < 0.4
    [figures] = by_stage["evaluate"]["estimates"].values()
    assert figures["localized"] == figures["images"] == 3
    # 120 points seen with 0.2 pixels of noise at 6 units: a few thousandths of one
    assert figures["mean_position"] < 0.01
    assert figures["mean_rotation"] < 0.1
    after = sorted(scene.mapping.rglob("*")) + sorted(scene.query.rglob("*"))
    assert after == before, "the datasets are only read"


def test_poses_are_found_where_none_are_known(tmp_path: Path) -> None:
    scene = PipelineScene(tmp_path, mapping_poses=False)
    stages: dict[str, Report] = {}
    run(
        scene,
        tmp_path / "work",
        queries={},
        announce=lambda item: stages.update({item.stage: item}),
    )
    assert list(stages) == ["pairs", "match", "verify", "refine", "map"]
    assert stages["map"].details["method"] == "incremental"
    assert stages["map"].details["registered_images"] == 9


def test_an_image_left_out_of_the_map_fails_and_queries_continue(
    tmp_path: Path,
) -> None:
    scene = PipelineScene(tmp_path)
    name = "seq é/walker/0 b.jpg"
    path = scene.features / f"reconstruction/descriptors/points/{name}.desc"
    count = np.fromfile(path, np.float32).size // DIM
    rng = np.random.default_rng(5)
    strange = rng.normal(size=(count, DIM))
    strange /= np.linalg.norm(strange, axis=1, keepdims=True)
    strange.astype(np.float32).tofile(path)
    (scene.query / "sensors" / "trajectories.txt").unlink()  # nothing to evaluate
    report = run(scene, tmp_path / "work")
    (failure,) = report.failed
    assert failure.name == f"map: {name}"
    assert "verified" in failure.reason
    localized = json.loads(
        (tmp_path / "work/localized/queries/report.json").read_text(encoding="utf-8")
    )
    assert localized["localized"] == 3


def test_several_query_datasets_share_one_submission(
    scene: PipelineScene, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    PipelineScene(other)
    queries = {"day": scene.query, "night": other / "query é"}
    # the names of the images are the same, so the second finds the first's matches
    run(scene, tmp_path / "work", queries=queries)
    parts = [
        (tmp_path / f"work/localized/{name}/poses.txt").read_text("utf-8")
        for name in queries
    ]
    assert (tmp_path / "work/submission.txt").read_text("utf-8") == "".join(parts)
    assert len(parts[0].splitlines()) == 3


def test_the_submission_of_a_single_query_dataset(unbroken: dict[str, bytes]) -> None:
    submission = unbroken["submission.txt"]
    assert submission == unbroken["localized/queries/poses.txt"] != b""


def test_two_images_of_one_name_are_refused(
    scene: PipelineScene, tmp_path: Path
) -> None:
    other = PipelineScene(tmp_path / "other")
    [name, *_] = [path for path in other.query.rglob("*.jpg")]
    Image.new("RGB", (640, 480), "red").save(name)
    queries = {"day": scene.query, "night": other.query}
    with pytest.raises(DatasetError, match="two images of one name"):
        run(scene, tmp_path / "work", queries=queries)
    assert not (tmp_path / "work").exists()


def test_an_older_evaluation_gives_way(scene: PipelineScene, tmp_path: Path) -> None:
    output = tmp_path / "work"
    run(scene, output)
    before = results(output)
    path = output / "evaluation/queries/results.json"
    path.write_text(path.read_text("utf-8").replace("0.", "1."), "utf-8")
    run(scene, output.parent / "." / "work")
    assert results(output) == before


def test_a_map_of_other_images_is_not_replaced(
    scene: PipelineScene, tmp_path: Path, unbroken: dict[str, bytes]
) -> None:
    output = tmp_path / "work"
    run(scene, output)
    swapped = {"mapping": scene.query, "queries": {"queries": scene.mapping}}
    with pytest.raises(OutputError, match="map of other images"):
        run(scene, output, **swapped)
    assert results(output) == unbroken


@pytest.mark.parametrize("name", ["mapping", "query", "features"])
def test_inputs_are_no_outputs(scene: PipelineScene, name: str) -> None:
    folder: Path = getattr(scene, name)
    before = sorted(folder.rglob("*"))
    for output in (folder, folder / "sub"):
        with pytest.raises(OutputError, match="is inside of the input"):
            run(scene, output)
    assert sorted(folder.rglob("*")) == before


@pytest.mark.parametrize(
    "method", ["global", "covisibility", "fuse", "merge", "sequential", "gnss"]
)
def test_pairs_that_cannot_be_made_are_reported_first(
    scene: PipelineScene,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    method: str,
) -> None:
    command = [*scene.command(tmp_path / "work"), "--query_pairs.method", method]
    assert main(command) == 2
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and f"--query_pairs.method {method}" in error[0]
    assert not (tmp_path / "work").exists()


def test_sequential_pairs_close_loops(scene: PipelineScene, tmp_path: Path) -> None:
    loops = PairsConfig(
        method="sequential", overlap=1, loop_top_k=2, loop_every=1, vlad_clusters=4
    )
    run(scene, tmp_path, config=PipelineConfig(mapping_pairs=loops), queries={})
    described = json.loads((tmp_path / "pairs/mapping.report.json").read_text("utf-8"))
    assert described["loop_pairs"] > 0 and described["failed"] == []
    assert (tmp_path / "retrieval/reconstruction/global_features").is_dir()


def test_the_command_keeps_its_settings(tmp_path: Path) -> None:
    scene, output = PipelineScene(tmp_path / "scene", times=3), tmp_path / "work"
    assert main([*scene.command(output), "--localize.max-error", "8"]) == 0
    kept = output / "pipeline_config.yaml"
    assert "max_error: 8.0" in kept.read_text("utf-8")
    again = scene.command(tmp_path / "again")
    assert main(["--config", str(kept), *again]) == 0
    assert (tmp_path / "again/pipeline_config.yaml").read_text() == kept.read_text()


@pytest.mark.parametrize(
    "queries", [["mapping=a"], ["a=x", "a=y"], ["a/b=x"], ["="]], ids=str
)
def test_names_of_queries_are_folders_of_their_own(
    queries: list[str], tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="--query"):
        named_queries(queries)


def test_unknown_settings_are_errors(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "settings.yaml"
    path.write_text("match:\n  ration: 0.9\n")
    with pytest.raises(SystemExit) as stopped:
        main(["--config", str(path), "--mapping", "a", "--output", "b"])
    assert stopped.value.code == 2
    assert "ration" in capsys.readouterr().err


def test_without_any_features_the_bundled_model_extracts(
    scene: PipelineScene, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = scene.command(tmp_path / "work")
    at = command.index("--features")
    small = ["--extract.max-size", "256"]
    assert main(command[:at] + command[at + 2 :] + small) == 2
    # the images of the scene are too plain to make a map of
    error = capsys.readouterr().err.strip().splitlines()
    assert len(error) == 1 and "no verified pair" in error[0]
    layout = Layout(output=tmp_path / "work")
    assert list(layout.features.rglob(f"{DEFAULT_MODEL}/**/*.kpt"))
