"""--model-in: a COLMAP model is mapped again in its poses, queries are put into it."""

from __future__ import annotations

import dataclasses
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pycolmap
import pytest
from jsonargparse import Namespace
from PIL import Image

from r2d2_kapture.cli import pipeline as command
from r2d2_kapture.cli.pipeline import main
from r2d2_kapture.config.photographs import FolderConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import OutputError
from r2d2_kapture.front.stages import run_pipeline
from r2d2_kapture.io.map_unit import read_map_unit
from r2d2_kapture.stages.map import draw_model
from r2d2_kapture.stages.report.content import content_sections
from r2d2_kapture.stages.report.subject import pipeline_subject
from r2d2_kapture.types import OWN_UNITS
from tests.commands import one_error_line
from tests.scenes.given_model import CONFIG, Given
from tests.stages.test_pipeline import results

LEFT = "seq é/left/0 b.jpg"


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    return Given(tmp_path_factory.mktemp("given"))


@pytest.fixture(scope="module")
def work(given: Given, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The output of a run."""
    output = tmp_path_factory.mktemp("work")
    given.run(output)
    return output


def poses(model: Path) -> dict[str, np.ndarray[Any, Any]]:
    read = pycolmap.Reconstruction(str(model))
    return {i.name: i.cam_from_world().matrix() for i in read.images.values()}


def test_poses_and_cameras_stay_and_points_are_made_again(
    given: Given, work: Path
) -> None:
    theirs = pycolmap.Reconstruction(str(given.model))
    ours = pycolmap.Reconstruction(str(work / "map" / "sparse"))
    before, after = poses(given.model), poses(work / "map" / "sparse")
    assert before.keys() == after.keys() and len(before) == 9
    for name, pose in before.items():
        np.testing.assert_allclose(after[name], pose, rtol=0, atol=1e-12)
    for image in theirs.images.values():
        camera = ours.find_image_with_name(image.name).camera
        assert camera.model == image.camera.model
        np.testing.assert_allclose(
            camera.params, image.camera.params, rtol=0, atol=1e-12
        )
    assert sorted(len(rig.non_ref_sensors) for rig in ours.rigs.values()) == [0, 1]
    assert ours.num_points3D() == 120
    truth = given.scene.scene.points
    for point in ours.points3D.values():
        assert np.linalg.norm(truth - point.xyz, axis=1).min() < 0.05


def test_the_unit_of_a_model_is_unknown(work: Path) -> None:
    localized = json.loads((work / "pipeline_report.json").read_text("utf-8"))
    units = {stage["stage"]: stage.get("map_unit") for stage in localized["stages"]}
    assert units["localize"] == read_map_unit(work / "map") == OWN_UNITS
    html = "".join(one.html for one in content_sections(pipeline_subject(work)))
    assert "position deviation (units of the map)" in html


@pytest.mark.draws
def test_a_picture_of_a_model_has_no_metres(work: Path, tmp_path: Path) -> None:
    drawn = {}
    for metric in (False, True):
        place = tmp_path / str(metric)
        place.mkdir()
        assert draw_model(place, work / "map" / "sparse", metric_poses=metric) == ()
        drawn[metric] = (place / "map.png").read_bytes()
    assert (work / "map" / "map.png").read_bytes() == drawn[False] != drawn[True]


def test_queries_are_registered_in_the_model(given: Given, work: Path) -> None:
    model = pycolmap.Reconstruction(str(work / "model"))
    ours = pycolmap.Reconstruction(str(work / "map" / "sparse"))
    names = [name for name in given.scene.scene.names if "/2 b" in name]
    assert model.num_reg_images() == 12
    assert {i.name for i in model.images.values()} == {*poses(given.model), *names}
    for point_id, point in ours.points3D.items():
        np.testing.assert_array_equal(model.point3D(point_id).xyz, point.xyz)
    for name, pose in poses(work / "map" / "sparse").items():
        np.testing.assert_array_equal(poses(work / "model")[name], pose)
    for name in names:
        image = model.find_image_with_name(name)
        true = given.scene.scene.poses[name]
        centre = image.cam_from_world().inverse().translation
        np.testing.assert_allclose(centre, true.inverse().t_raw, atol=0.02)
        # keypoint i of the scene shows point i
        assert image.num_points3D > 100
        for keypoint in image.get_observation_points2D():
            xyz = model.point3D(keypoint.point3D_id).xyz
            assert np.linalg.norm(image.project_point(xyz) - keypoint.xy) < 12
    model.update_point_3d_errors()
    assert model.compute_mean_reprojection_error() < 0.4
    whole = json.loads((work / "pipeline_report.json").read_text("utf-8"))
    assert whole["inputs"]["model_in"] == str(given.model.resolve())
    assert str(work / "model") in whole["outputs"]


def test_pairs_are_those_that_share_points(given: Given, tmp_path: Path) -> None:
    """Images of the camera that walks and of the rig see the same no more."""

    def cut(model: pycolmap.Reconstruction) -> None:
        walker = {i.image_id for i in model.images.values() if "walker" in i.name}
        for point_id in sorted(model.points3D):
            track = model.point3D(point_id).track.elements
            seen = [(element.image_id, element.point2D_idx) for element in track]
            for image_id, keypoint in seen:
                if (image_id in walker) == (point_id % 2 == 0):
                    model.delete_observation(image_id, keypoint)

    apart = given.changed(tmp_path / "apart", cut)
    reports = given.run(tmp_path / "work", model_in=apart, queries={})
    assert reports[1].details["method"] == "covisibility"
    listed = (tmp_path / "work/pairs/mapping.txt").read_text("utf-8").splitlines()
    pairs = [line.split(", ")[:2] for line in listed if not line.startswith("#")]
    assert pairs
    assert all(("walker" in one) == ("walker" in other) for one, other in pairs)


def test_without_points_all_are_paired(given: Given, tmp_path: Path) -> None:
    def bare(model: pycolmap.Reconstruction) -> None:
        for point_id in sorted(model.points3D):
            model.delete_point3D(point_id)

    path = given.changed(tmp_path / "bare", bare)
    reports = given.run(tmp_path / "work", model_in=path, queries={})
    assert "has no points" in reports[0].warnings[0]
    assert reports[1].done == 36
    np.testing.assert_equal(
        poses(tmp_path / "work/map/sparse"), poses(tmp_path / "bare")
    )


def test_images_that_are_not_there_or_not_registered(
    given: Given, tmp_path: Path
) -> None:
    images = tmp_path / "photos"
    shutil.copytree(given.images, images)
    (images / LEFT).unlink()
    part = given.changed(
        tmp_path / "part",
        lambda model: model.deregister_frame(
            model.find_image_with_name("seq é/walker/1 b.jpg").frame_id
        ),
    )
    *reports, whole = given.run(
        tmp_path / "work", model_in=part, images=images, queries={}
    )
    (failure,) = whole.failed
    assert failure.name == f"import: {LEFT}" and str(images) in failure.reason
    assert failure.reason.endswith(f"--exclude '{LEFT}'")
    # once, by the first stage alone
    assert [len(report.failed) for report in reports] == [1, 0, 0, 0, 0, 0]
    assert not any("not in" in text for text in reports[0].warnings)
    (warning,) = [text for text in reports[0].warnings if "not registered" in text]
    assert "1 image of" in warning and "'seq é/walker/1 b.jpg'" in warning
    assert poses(tmp_path / "work/map/sparse").keys() == poses(part).keys() - {LEFT}


def test_excluded_images_are_left_out_of_the_model(
    given: Given, tmp_path: Path
) -> None:
    """Some are not there; queries, whatever their names, stay."""
    images, features = tmp_path / "photos", with_query_features(given, tmp_path / "f")
    shutil.copytree(given.images, images)
    (images / LEFT).unlink()
    exclude = (Path(LEFT).name, "seq é/walker/1 b.jpg", "2 b.jpg")
    *reports, whole = given.run(
        tmp_path / "work",
        images=images,
        exclude=exclude,
        queries={"q": given.scene.query / "sensors/records_data"},
        features=[features],
    )
    assert whole.failed == ()
    left_out = [text for text in reports[0].warnings if "--exclude" in text]
    assert ["matches nothing" in text for text in left_out] == [False, False, True]
    expected = {n for n in poses(given.model) if Path(n).name != exclude[0]}
    assert poses(tmp_path / "work/map/sparse").keys() == expected - {exclude[1]}
    localized = poses(tmp_path / "work/model").keys() - expected
    assert {name.partition("/")[0] for name in localized} == {"q"}
    assert len(localized) == 3


def test_a_known_camera_is_that_of_the_photographs_to_localize(
    given: Given, tmp_path: Path
) -> None:
    known = FolderConfig(camera_model="PINHOLE", camera_params="500,510,321,239")
    given.run(
        tmp_path / "work",
        config=dataclasses.replace(CONFIG, photographs=known),
        queries={"q": given.scene.query / "sensors/records_data"},
        features=[with_query_features(given, tmp_path / "f")],
    )
    model = pycolmap.Reconstruction(str(tmp_path / "work/model"))
    theirs = pycolmap.Reconstruction(str(given.model))
    names = {image.name for image in theirs.images.values()}
    queries = [i for i in model.images.values() if i.name not in names]
    assert len(queries) == 3
    for image in queries:
        assert image.camera.model == pycolmap.CameraModelId.PINHOLE
        assert image.camera.params.tolist() == [500, 510, 321, 239]
    for name in names:
        kept = model.find_image_with_name(name).camera.params
        before = theirs.find_image_with_name(name).camera.params
        np.testing.assert_allclose(kept, before, rtol=0, atol=1e-12)


def with_query_features(given: Given, root: Path) -> Path:
    """Features with those of the queries as photographs named q."""
    shutil.copytree(given.scene.features, root)
    for kind in ("keypoints", "descriptors"):
        folder = root / "reconstruction" / kind / "points"
        shutil.copytree(folder / "seq é", folder / "q" / "seq é")
    return root


def test_a_second_run_has_nothing_to_do(given: Given, work: Path) -> None:
    before = {
        path: path.stat().st_mtime_ns
        for path in work.rglob("*")
        if path.is_file() and path.name != ".lock"
    }
    *reports, _ = given.run(work)
    assert [report.done for report in reports if report.stage != "evaluate"] == [0] * 10
    after = {path: path.stat().st_mtime_ns for path in before}
    changed = [path.name for path in before if before[path] != after[path]]
    assert changed in ([], ["pipeline_report.json"])


def test_two_runs_are_the_same(given: Given, work: Path, tmp_path: Path) -> None:
    given.run(tmp_path / "work")
    ours, theirs = results(tmp_path / "work"), results(work)
    # it says where the dataset is
    imported = "datasets/mapping/manifest.json"
    assert ours.pop(imported) and theirs.pop(imported)
    assert [
        n for n in ours.keys() | theirs.keys() if ours.get(n) != theirs.get(n)
    ] == []


def test_another_model_is_refused_until_force(given: Given, tmp_path: Path) -> None:
    output = tmp_path / "work"
    moved = given.changed(
        tmp_path / "moved",
        lambda model: model.transform(
            pycolmap.Sim3d(2.0, pycolmap.Rotation3d(), np.array([5.0, 0, 0]))
        ),
    )
    given.run(output, queries={"q": given.scene.query})
    with pytest.raises(OutputError, match="--force"):
        given.run(output, model_in=moved, queries={})
    force = RunOptions(progress=False, force=True)
    *_, whole = given.run(output, model_in=moved, queries={}, options=force)
    assert "poses of 'q' in the earlier map were removed" in whole.warnings[-1]
    for name, pose in poses(moved).items():
        mapped = poses(output / "map" / "sparse")[name]
        np.testing.assert_allclose(mapped, pose, rtol=0, atol=1e-12)
    # those in the map that was before are no poses any more
    assert not (output / "localized" / "q").exists()
    assert not (output / "evaluation" / "q").exists()
    assert not (output / "model").exists() and not (output / "submission.txt").exists()


def settings(output: Path) -> tuple[str, str]:
    """The methods of pairs and of verification that a run had."""
    of = json.loads((output / "pipeline_report.json").read_text("utf-8"))["settings"]
    return of["mapping_pairs"]["method"], of["verify"]["geometry"]


def test_the_command_chooses_what_a_model_allows(
    given: Given, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen: list[PipelineConfig] = []

    def noted(flags: Namespace, **inputs: Any) -> int:
        chosen.append(command.pipeline_config(flags))
        return 0

    monkeypatch.setattr(command, "run_pipeline", noted)
    asked = ("--mapping_pairs.method", "exhaustive", "--verify.geometry", "estimate")
    for more in ((), asked):
        assert main(given.command(tmp_path / "work", *more)) == 0
    methods = [(one.mapping_pairs.method, one.verify.geometry) for one in chosen]
    # those that are asked for are taken
    assert methods == [("covisibility", "known_poses"), ("exhaustive", "estimate")]


def test_in_python_the_settings_are_those_of_the_command(
    given: Given, tmp_path: Path
) -> None:
    output = tmp_path / "work"
    report = run_pipeline(
        model_in=given.model,
        images=str(given.images),
        features=given.scene.features,
        output=output,
        progress=False,
        mapping_pairs={"top_k": 3},
    )
    assert report.failed == () and (output / "report.html").is_file()
    assert settings(output) == ("covisibility", "known_poses")


def unregister(model: pycolmap.Reconstruction) -> None:
    for frame_id in sorted(model.reg_frame_ids()):
        model.deregister_frame(frame_id)


def shrink(images: Path, folder: Path) -> Path:
    for path in images.rglob("*.jpg"):
        small = folder / path.relative_to(images)
        small.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).resize((320, 240)).save(small)
    return folder


def truncated(model: Path, folder: Path) -> Path:
    shutil.copytree(model, folder)
    data = (folder / "images.bin").read_bytes()
    (folder / "images.bin").write_bytes(data[: len(data) // 2])
    return folder


Case = Callable[[Given, Path], dict[str, Any]]
WRONG: dict[str, tuple[Case, str]] = {
    "images resized": (
        lambda given, path: {"images": shrink(given.images, path / "small")},
        "found 320 x 240 pixels, expected 640 x 480 of camera .* resized by 0.5",
    ),
    "no registered image": (
        lambda given, path: {"model": given.changed(path / "none", unregister)},
        "found a model of 0 images, none of them with a pose",
    ),
    "another folder": (
        lambda given, path: {"images": given.images / "seq é"},
        "found none of the 9 images of .* 'seq é/left/0 b.jpg', .* and 6 more; give "
        "the --images .*: '.*left/0 b.jpg' is there",
    ),
    "an empty folder": (
        lambda given, path: {"model": path},
        "found no COLMAP model",
    ),
    "a truncated model": (
        lambda given, path: {"model": truncated(given.model, path / "cut")},
        "images.bin: truncated",
    ),
    "with a dataset": (
        lambda given, path: {"more": ["--mapping", str(given.scene.mapping)]},
        "found --mapping .*, expected --images",
    ),
    "with a camera": (
        lambda given, path: {"more": ["--camera-model", "PINHOLE"]},
        "--camera-model PINHOLE: found --model-in, whose cameras are kept, and no "
        "--camera-params",
    ),
    "with a camera of no photographs": (
        lambda given, path: {
            "more": ["--camera-model", "PINHOLE", "--camera-params", "5,5,320,240"]
        },
        "--camera-model PINHOLE: found a kapture dataset",
    ),
    "all images excluded": (
        lambda given, path: {"more": ["--exclude", "*.jpg"]},
        "9 left out by --exclude .*; no image is left to map",
    ),
    "covisible queries": (
        lambda given, path: {
            "more": [
                *("--query", str(given.scene.query)),
                *("--query_pairs.method", "covisibility"),
            ]
        },
        "--query_pairs.method covisibility",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_line_says_what_is_wrong(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, expected = WRONG[case]
    output, changes = tmp_path / "work", make(given, tmp_path)
    more = changes.pop("more", ())
    assert main(given.command(output, *more, **changes)) == 2
    line = one_error_line(capsys)
    assert re.search(expected, line), line
    assert not (output / "features").exists()
