"""Folders of photographs in the pipeline: from files alone to a map and poses."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import r2d2_kapture as rk
from r2d2_kapture.cli.pipeline import main
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.poses import rigid3d_from_kapture
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import pipeline
from r2d2_kapture.stages.extract import stage as extract_stage
from r2d2_kapture.stages.photographs import Photographs as Taken
from r2d2_kapture.types import Failure, FloatArray, Report
from tests.scenes.extraction import patch_network
from tests.scenes.pipeline import PHOTOGRAPHED as QUERY
from tests.scenes.pipeline import Photographs, PipelineScene

KNOWN = PipelineConfig(
    photographs=FolderConfig(camera_model="PINHOLE", camera_params="500,500,320,240")
)


@pytest.fixture
def scene(tmp_path: Path) -> Photographs:
    return Photographs(tmp_path)


def run(
    scene: Photographs, config: PipelineConfig = KNOWN, **changes: Any
) -> tuple[Report, dict[str, Report]]:
    """The report of the whole, and the last one of each stage."""
    stages: dict[str, Report] = {}
    settings: dict[str, Any] = {
        "queries": {QUERY: scene.queries},
        "features": [scene.features],
        "output": scene.photos.parent / "work",
        "options": RunOptions(progress=False),
        "announce": lambda item: stages.update({item.stage: item}),
    }
    if "mapping" not in changes:
        settings["images"] = scene.photos
    return pipeline.run(config, **(settings | changes)), stages


def rotations(root: Path) -> dict[str, FloatArray]:
    """(3, 3) cam_from_world of each image with a pose, by the scene's name."""
    poses = read_camera_poses(open_dataset(root)).cam_from_world
    return {
        name.removeprefix(f"{QUERY}/"): pose.rotation.matrix()
        for name, pose in poses.items()
    }


def degrees_between(one: FloatArray, other: FloatArray) -> float:
    cosine = (np.trace(one @ other.T) - 1) / 2
    return float(np.degrees(np.arccos(np.clip(cosine, -1, 1))))


def test_photographs_become_a_map_and_are_localized_in_it(scene: Photographs) -> None:
    before = sorted(scene.photos.rglob("*")) + sorted(scene.queries.rglob("*"))
    report, stages = run(scene)
    assert report.failed == () and report.warnings == ()
    assert stages["map"].details["registered_images"] == 9
    assert stages["localize"].details["localized"] == 3
    work = scene.photos.parent / "work"
    found = rotations(work / "map" / "kapture")
    found |= rotations(work / "localized" / QUERY)
    assert found.keys() == set(scene.scene.names)
    truth = {
        name: rigid3d_from_kapture(pose).rotation.matrix()
        for name, pose in scene.scene.poses.items()
    }
    first = min(truth)
    for name in truth:
        turned, expected = found[name] @ found[first].T, truth[name] @ truth[first].T
        assert degrees_between(turned, expected) < 0.2
    # known parameters are kept, those of queries found
    mapped = open_dataset(work / "map" / "kapture").data
    (sensor,) = mapped.cameras.values()
    assert sensor.sensor_params == ["PINHOLE", *"640 480 500 500 319.5 239.5".split()]
    after = sorted(scene.photos.rglob("*")) + sorted(scene.queries.rglob("*"))
    assert after == before, "photographs are only read"


def test_run_twice_and_with_more_photographs(scene: Photographs) -> None:
    late = sorted(scene.photos.rglob("*.jpg"))[0]
    aside = late.rename(scene.photos.parent / "late.jpg")
    report, stages = run(scene)
    assert stages["map"].details["registered_images"] == 8
    again = rk.run_pipeline(
        images=str(scene.photos),
        queries={QUERY: str(scene.queries)},
        features=[str(scene.features)],
        output=str(scene.photos.parent / "work"),
        photographs={"camera_model": "PINHOLE", "camera_params": "500,500,320,240"},
        progress=False,
    )
    assert (again.done, again.skipped) == (0, report.done + report.skipped)
    aside.rename(late)
    _, stages = run(scene, options=RunOptions(progress=False))
    assert stages["map"].details["registered_images"] == 9
    assert stages["match"].skipped > 0, "finished work is kept"


def test_a_plain_folder_as_mapping_is_taken_with_a_notice(scene: Photographs) -> None:
    report, stages = run(scene, mapping=scene.photos, queries={})
    assert stages["map"].details["registered_images"] == 9
    (notice,) = report.warnings
    assert f"{scene.photos}: taken as a folder of photographs" in notice


def test_queries_that_are_in_the_map_are_reported(scene: Photographs) -> None:
    inside = scene.photos / "seq é"
    taken = Taken(config=FolderConfig(), output=scene.photos.parent / "taken")
    queries = {"seq é": inside, QUERY: scene.queries}
    _, of_inside, of_others = taken.take(
        images=scene.photos, mapping=None, queries=queries
    ).reports
    assert "are in the map too" in of_inside.warnings[-1]
    assert of_others.warnings == ()


def test_photographs_of_another_folder_are_refused(scene: Photographs) -> None:
    run(scene, queries={})
    work = scene.photos.parent / "work"
    state = work / "datasets" / "mapping" / "image_folder.json"
    before = state.read_bytes()
    others = scene.queries / "seq é"
    with pytest.raises(OutputError, match="none of which are in .*--force"):
        run(scene, images=others, queries={})
    assert state.read_bytes() == before
    moved = scene.photos.rename(scene.photos.parent / "moved")
    assert run(scene, images=moved, queries={})[0].done == 0


def test_what_is_left_out_is_in_no_stage(scene: Photographs) -> None:
    (scene.photos / "broken.jpg").write_bytes(b"no image")
    report, stages = run(scene, queries={}, exclude=["0 b.jpg"])
    assert stages["map"].details["registered_images"] == 6
    (failure,) = report.failed
    assert failure.name == "photographs: broken.jpg"
    assert "3 left out by --exclude 0 b.jpg" in report.warnings[0]


class Paired(Exception):
    """All that is asked of a run: its pairs."""


def pairing(scene: Photographs, config: PipelineConfig, **changes: Any) -> str:
    """The method by which a pipeline pairs; it is stopped there."""

    def stop(report: Report) -> None:
        if report.stage == "pairs":
            raise Paired(report.details["method"])

    with pytest.raises(Paired) as stopped:
        run(scene, config, queries={}, announce=stop, **changes)
    return str(stopped.value)


def test_above_the_limit_photographs_are_paired_by_likeness(
    scene: Photographs,
) -> None:
    few = dataclasses.replace(KNOWN.photographs, exhaustive_limit=5)
    assert pairing(scene, dataclasses.replace(KNOWN, photographs=few)) == "local"
    whole = PipelineScene(scene.photos.parent / "dataset")
    as_asked = pairing(
        scene,
        PipelineConfig(photographs=FolderConfig(exhaustive_limit=5)),
        mapping=whole.mapping,
        features=[whole.features],
        output=scene.photos.parent / "other",
    )
    assert as_asked == "exhaustive", "datasets are as asked"


def test_a_cut_photograph_fails_once(
    scene: Photographs, checkpoint_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not each of its pairs, nor again in each stage."""
    patch_network(monkeypatch, scene.scene, 16)
    features = scene.photos.rglob("0 b.jpg")
    cut = next(iter(sorted(features)))
    name = cut.relative_to(scene.photos).as_posix()
    found = extract_stage.extract_images

    def but_one(
        extractor: Any, paths: dict[str, Path], *others: Any, **more: Any
    ) -> Any:
        whole = {key: path for key, path in paths.items() if key != name}
        tally = found(extractor, whole, *others, **more)
        tally.failed.append(Failure(name=name, reason="cut"))
        return tally

    monkeypatch.setattr(extract_stage, "extract_images", but_one)
    report, stages = run(
        scene,
        dataclasses.replace(KNOWN, extract=ExtractConfig()),
        queries={},
        features=[],
        weights=load_checkpoint(checkpoint_path),
    )
    assert [item.name for item in report.failed] == [f"extract: {name}"]
    assert stages["pairs"].done == stages["match"].done == 28
    assert stages["match"].failed == ()


@pytest.mark.parametrize(
    "inputs, words",
    [
        ({}, "--images, --mapping: found neither"),
        ({"images": "photos", "mapping": "empty"}, "--images, --mapping: found both"),
        ({"images": "absent"}, "no such folder, expected a folder of photo"),
        ({"images": "photos", "queries": {"q": "absent"}}, "no such folder"),
        ({"images": "empty/notes.txt"}, "found a file, expected a folder of images"),
        ({"images": "empty"}, "found no image"),
        ({"mapping": "empty"}, "found no image.*nor is it a kapture dataset"),
        ({"images": "photos", "queries": {"a, b": "photos"}}, "holds a comma.*NAME=DI"),
        ({"images": "photos"}, "photos: found 1 usable photograph, expected 2 or more"),
    ],
    ids=str,
)
def test_inputs_that_cannot_be(
    tmp_path: Path, inputs: dict[str, Any], words: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("none", encoding="utf-8")
    (tmp_path / "photos").mkdir()
    Image.new("L", (64, 48)).save(tmp_path / "photos" / "a.png")
    queries = {n: tmp_path / path for n, path in inputs.pop("queries", {}).items()}
    given = {name: tmp_path / path for name, path in inputs.items()}
    with pytest.raises((ConfigError, DatasetError), match=words):
        pipeline.run(
            PipelineConfig(), **given, queries=queries, output=tmp_path / "work"
        )
    if words.startswith("no such folder"):
        assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    "typed, words",
    [
        (["--exclude", "a.jpg"], "--exclude a.jpg: found kapture datasets"),
        (["--camera-model", "PINHOLE"], "--camera-model PINHOLE: found a kapture data"),
        (["--camera-params", "1,2"], "--camera-params 1,2: found no --camera-model"),
        (["--camera-model", "PINHOL"], "THIN_PRISM_FISHEYE; did you mean PINHOLE?"),
    ],
)
def test_settings_of_photographs_for_datasets(
    tmp_path: Path, typed: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    scene = PipelineScene(tmp_path)
    try:
        assert main([*scene.command(tmp_path / "work"), *typed]) == 2
    except SystemExit as stopped:
        assert stopped.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ") and words in line
    assert not (tmp_path / "work").exists()


def test_the_command_takes_photographs(
    scene: Photographs, capsys: pytest.CaptureFixture[str]
) -> None:
    work = scene.photos.parent / "work"
    command = ["--images", str(scene.photos), "--query", str(scene.queries), "--quiet"]
    command += ["--features", str(scene.features), "--output", str(work)]
    command += ["--camera-model", "SIMPLE_PINHOLE", "--camera-params=500,320,240"]
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"folder: {scene.photos}" in out and "localized: 3" in out
    kept = str(work / "pipeline_config.yaml")
    assert main([*command[:-3], "--config", kept]) == 0
    assert "pipeline: 10 stages, already done" in capsys.readouterr().out
