"""Refinement in a pipeline: on by default, off as before it was there, never mixed."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import Any

import h5py
import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

import r2d2_kapture as rk
from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.config.pipeline import PipelineConfig, RefineStepConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, OutputError
from r2d2_kapture.io.colmap.sparse_map import read_colmap_model
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.stages import export
from r2d2_kapture.stages import map as map_stage
from r2d2_kapture.stages import refine as refine_stage
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.stages.report.content import content_sections
from r2d2_kapture.stages.report.subject import pipeline_subject
from r2d2_kapture.types import Report
from tests.scenes.contents import files_below
from tests.scenes.plane import TYPE
from tests.scenes.refinable import DIM, ON, RefinableScene
from tests.stages.report.test_content import cells
from tests.stages.test_pipeline import results

OFF = dataclasses.replace(ON, refine=RefineStepConfig(use=False))


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> RefinableScene:
    return RefinableScene(tmp_path_factory.mktemp("scène"))


@pytest.fixture(scope="module")
def refined(scene: RefinableScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a pipeline by its defaults."""
    output = tmp_path_factory.mktemp("refined") / "work é"
    report = scene.run(output)
    assert not report.failed
    return output


@pytest.fixture(scope="module")
def plain(scene: RefinableScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a pipeline without refinement."""
    output = tmp_path_factory.mktemp("plain") / "work"
    assert not scene.run(output, OFF).failed
    return output


def stages_of(output: Path) -> dict[str, dict[str, Any]]:
    subject = pipeline_subject(output)
    return {one["stage"]: one for one in subject.pipeline["stages"]}


def test_the_map_and_its_queries_are_more_accurate(refined: Path, plain: Path) -> None:
    after, before = stages_of(refined), stages_of(plain)
    assert list(after) == [
        *("pairs", "match", "verify", "refine", "map", "localize", "evaluate"),
    ]
    assert after["refine"]["moved"] > 0.5 * (
        after["refine"]["observations"] - after["refine"]["tracks"]
    )
    error = "mean_reprojection_error"
    assert after["map"][error] < 0.8 * before["map"][error]
    assert after["map"]["points"] >= before["map"]["points"]
    [found], [expected] = (
        one["evaluate"]["estimates"].values() for one in (after, before)
    )
    assert found["median_position"] < 0.9 * expected["median_position"]


def test_what_is_left_out_is_as_it_was(
    scene: RefinableScene, plain: Path, refined: Path, tmp_path: Path
) -> None:
    layout = Layout(output=plain)
    assert list(stages_of(plain)) == [
        *("pairs", "match", "verify", "map", "localize", "evaluate"),
    ]
    files = files_below(plain)
    assert not [name for name in files if "refine" in name or "patches" in name]
    assert layout.database.read_bytes() == Layout(output=refined).database.read_bytes()
    for name, rows in keypoints_of(layout.map / "sparse").items():
        extracted = open_feature_table([scene.features], "keypoints").read(name)
        np.testing.assert_allclose(rows - 0.5, extracted[:, :2], rtol=0, atol=1e-4)


def keypoints_of(model: Path) -> dict[str, Any]:
    return {
        image.name: np.array([point.xy for point in image.points2D])
        for image in read_colmap_model(model).images.values()
    }


def test_the_report_shows_what_it_did(refined: Path, plain: Path) -> None:
    sections = page_sections(refined)
    assert list(sections) == [
        *("summary", "map", "refinement", "localization", "matches"),
    ]
    stage = stages_of(refined)["refine"]
    html = sections["refinement"]
    assert f"<dd>{stage['observations']:,}</dd>" in html
    assert f"<dd>{stage['step_median']:.2f} px</dd>" in html
    assert "Histogram of the steps" in html
    reasons = {row[0]: row[1] for row in cells(html) if len(row) == 3}
    assert sorted(reasons.values()) == sorted(map(str, stage["kept"].values()))
    [query] = [row for row in cells(html) if row[0:1] == ["query"]]
    assert query[1:3] == ["1", "1"]
    assert "refinement" not in page_sections(plain)


def page_sections(output: Path) -> dict[str, str]:
    subject = pipeline_subject(output)
    return {one.identifier: one.html for one in content_sections(subject)}


@pytest.mark.parametrize("first, then", [(ON, OFF), (OFF, ON)], ids=["off", "on"])
def test_a_folder_made_otherwise_is_refused_or_redone(
    scene: RefinableScene,
    refined: Path,
    plain: Path,
    tmp_path: Path,
    first: PipelineConfig,
    then: PipelineConfig,
) -> None:
    output = tmp_path / "work"
    scene.run(output, first, queries={})
    before = files_below(output)
    flag = "on" if first is ON else "off"
    with pytest.raises(OutputError, match=f"give --refine {flag} to continue.*--force"):
        scene.run(output, then, queries={})
    assert files_below(output) == before
    force = RunOptions(progress=False, force=True)
    scene.run(output, then, queries={}, options=force)
    assert maps_in(output) == maps_in(plain if then is OFF else refined)
    assert scene.run(output, then, queries={}).done == 0


def maps_in(output: Path) -> list[dict[str, bytes]]:
    """The map and the refined keypoints, without notes of what was there before."""
    notes = ("database.json", "manifest.json", "pixel_origin.json")
    found = [results(output / name) for name in ("map", "refined")]
    return [
        {name: data for name, data in files.items() if not name.endswith(notes)}
        for files in found
    ]


AGAIN = dataclasses.replace(ON, refine=RefineStepConfig(again=True))


def test_a_second_refinement_with_the_map(
    scene: RefinableScene,
    refined: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "work é"
    with pytest.raises(OutputError, match="found refined.*give --refine.no-again to"):
        scene.run(refined, AGAIN)
    real = refine_stage.run

    def stop_at_the_second(*arguments: Any, **others: Any) -> Report:
        if others["map_path"] is not None:
            raise KeyboardInterrupt
        return real(*arguments, **others)

    with monkeypatch.context() as patch:
        patch.setattr(refine_stage, "run", stop_at_the_second)
        with pytest.raises(KeyboardInterrupt):
            scene.run(output, AGAIN)
    with pytest.raises(OutputError, match="refined twice, expected refined keypoints"):
        scene.run(output, ON)
    report = scene.run(output, AGAIN)
    assert not report.failed
    assert [stage.stage for stage in report.stages] == [
        *("pairs", "match", "verify", "refine", "map", "refine", "map"),
        *("pairs", "match", "localize", "evaluate"),
    ]
    once, twice = stages_of(refined), stages_of(output)
    error = "mean_reprojection_error"
    assert twice["map"][error] < once["map"][error]
    exported = export.run(pipeline=output, to="colmap", output=tmp_path / "colmap")
    assert not exported.failed
    table = open_feature_table([output / "refined_again"], "keypoints")
    for name, rows in keypoints_of(tmp_path / "colmap" / "sparse").items():
        expected = table.read(name)[:, :2] + 0.5
        np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-4)
    html = page_sections(output)["refinement"]
    assert html.count("Histogram of the steps") == 2
    assert "The second time, with the map" in html
    assert scene.run(output, AGAIN).done == 0
    for other, flag in ((ON, "again"), (OFF, "again")):
        with pytest.raises(OutputError, match=f"refined twice.*give --refine.{flag}"):
            scene.run(output, other)
    scene.run(output, ON, options=RunOptions(progress=False, force=True))
    assert maps_in(output) == maps_in(refined)
    assert not {"first_map", "refined_again"} & set(os.listdir(output))


def test_depth_maps_are_refined_with_once() -> None:
    depth = dataclasses.replace(AGAIN, map=MapConfig(points_from="depth"))
    assert AGAIN.refines_again and not depth.refines_again


def test_other_settings_of_refinement_are_refused(
    scene: RefinableScene, tmp_path: Path, refined: Path
) -> None:
    config = dataclasses.replace(ON, refine=RefineStepConfig(max_step=1.0))
    before = files_below(refined)
    with pytest.raises(OutputError, match="max_step: .*, not 1.0; .*--force"):
        scene.run(refined, config)
    assert files_below(refined) == before


def test_a_run_stopped_before_the_map_goes_on(
    scene: RefinableScene,
    refined: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "work é"

    def stop(*arguments: object, **others: object) -> Report:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(map_stage, "run", stop)
        with pytest.raises(KeyboardInterrupt):
            scene.run(output, queries={})
    with pytest.raises(
        OutputError, match="found refined keypoints, expected keypoints as"
    ):
        scene.run(output, OFF, queries={})
    scene.run(output, queries={})
    assert maps_in(output) == maps_in(refined)


def test_without_photographs_nothing_is_refined(
    scene: RefinableScene, tmp_path: Path
) -> None:
    mapping = tmp_path / "mapping"
    data = kcsv.kapture_from_dir(str(scene.mapping))
    kcsv.kapture_to_dir(str(mapping), data)
    report = scene.run(tmp_path / "work", mapping=mapping, queries={})
    assert not report.failed
    [warning] = report.warnings
    assert warning == (
        f"keypoints are not refined, since none of the 4 images of {mapping} is there"
    )
    assert not (tmp_path / "work" / "refined").exists()


def test_refined_keypoints_stay_when_the_photographs_go(tmp_path: Path) -> None:
    scene = RefinableScene(tmp_path)
    scene.run(tmp_path / "work")
    before = maps_in(tmp_path / "work")
    for name in scene.names[:-1]:
        (scene.photographs / name).unlink()
    report = scene.run(tmp_path / "work")
    assert not (report.failed or report.warnings)
    assert maps_in(tmp_path / "work") == before


@pytest.mark.parametrize("given", [None, "wave_refined"])
def test_keypoints_that_were_refined_before_are_taken_as_they_are(
    tmp_path: Path, given: str | None
) -> None:
    scene = RefinableScene(tmp_path)
    for kind in ("keypoints", "descriptors"):
        folder = scene.features / "reconstruction" / kind
        described = folder / TYPE / f"{kind}.txt"
        text = described.read_text("utf-8")
        described.write_text(text.replace(TYPE, "wave_refined"), "utf-8")
        (folder / TYPE).rename(folder / "wave_refined")
    for _ in range(2):
        report = scene.run(tmp_path / "work", keypoints_type=given)
        assert report.stages[-1].stage == "evaluate"
        [warning] = report.warnings
        assert "name of their type, wave_refined, they are already" in warning
    assert not (tmp_path / "work" / "refined").exists()


@pytest.mark.parametrize(
    "given, hint",
    [
        ({"patch_radios": 5}, "did you mean patch_radius"),
        ({"patch_radius": 1}, "--patch-radius: found 1, expected 2 to"),
        ({"use": "maybe"}, "use='maybe': expected true or false"),
        ("of", "refine='of': expected true, false or settings by name"),
    ],
)
def test_refinement_in_python_refuses(
    scene: RefinableScene, tmp_path: Path, given: Any, hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        rk.run_pipeline(
            mapping=scene.mapping,
            features=[scene.features],
            output=tmp_path / "work",
            refine=given,
        )


def test_refinement_is_left_out_in_python(
    scene: RefinableScene, plain: Path, tmp_path: Path
) -> None:
    report = rk.run_pipeline(
        mapping=scene.mapping,
        features=[scene.features],
        output=tmp_path / "work",
        refine=False,
        progress=False,
    )
    assert [stage.stage for stage in report.stages] == [
        *("pairs", "match", "verify", "map"),
    ]
    points = "map/sparse/points3D.bin"
    assert (tmp_path / "work" / points).read_bytes() == (plain / points).read_bytes()


def test_exports_carry_refined_keypoints_with_descriptors(
    scene: RefinableScene, refined: Path, tmp_path: Path
) -> None:
    report = export.run(pipeline=refined, to="colmap", output=tmp_path / "colmap")
    assert not report.failed and not report.warnings
    assert report.details["keypoints_type"] == f"{TYPE}_refined"
    of_model = keypoints_of(tmp_path / "colmap" / "sparse")
    table = open_feature_table([refined / "refined"], "keypoints")
    moved = 0
    with pycolmap.Database.open(str(tmp_path / "colmap" / "database.db")) as database:
        for image in database.read_all_images():
            rows = database.read_keypoints(image.image_id)[:, :2]
            np.testing.assert_array_equal(rows, of_model[image.name])
            expected = table.read(image.name)[:, :2] + 0.5
            np.testing.assert_allclose(rows, expected, rtol=0, atol=1e-4)
            steps = np.linalg.norm(rows - 0.5 - extracted(scene, image.name), axis=1)
            moved += int((steps > 0.1).sum())
            assert database.num_descriptors_for_image(image.image_id) == len(rows)
    assert moved > 50


def extracted(scene: RefinableScene, name: str) -> Any:
    return open_feature_table([scene.features], "keypoints").read(name)[:, :2]


def test_hloc_has_refined_map_images_and_queries_as_extracted(
    scene: RefinableScene, refined: Path, tmp_path: Path
) -> None:
    report = export.run(pipeline=refined, to="hloc", output=tmp_path / "hloc")
    assert not report.failed
    assert not [text for text in report.warnings if "spaces" not in text]
    assert report.details["images"] == 5 and report.details["matches"] > 0
    table = open_feature_table([refined / "refined"], "keypoints")
    with h5py.File(tmp_path / "hloc" / "features.h5") as file:
        for name in scene.names:
            found = file[name]["keypoints"][()]
            is_query = name == scene.names[-1]
            expected = extracted(scene, name) if is_query else table.read(name)[:, :2]
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
            assert file[name]["descriptors"].shape == (DIM, len(found))
