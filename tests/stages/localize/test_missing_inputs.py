"""A COLMAP model is a map: what localization lacks is found beside it, or made."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path

import numpy as np
import pycolmap
import pytest
from PIL import Image, ImageFilter

from r2d2_kapture.cli.localize import main
from r2d2_kapture.config.extract import ExtractConfig, SiftConfig
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from tests.commands import one_error_line
from tests.scenes.given_model import Given


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Given:
    """A model with its database; queries have SIFT in ``sift`` beside them."""
    given = Given(tmp_path_factory.mktemp("given"))
    given.write_database()
    given.write_query_features(given.scene.query.parent / "sift")
    return given


def command(given: Given, output: Path, *more: str, features: bool = True) -> list[str]:
    sift = str(given.scene.query.parent / "sift")
    return [
        *("--map", str(given.model), "--query", str(given.scene.query)),
        *(("--features", sift) if features else ()),
        *("--output", str(output), "--quiet", *more),
    ]


def found_poses(output: Path) -> dict[str, pycolmap.Rigid3d]:
    return read_camera_poses(open_dataset(output)).cam_from_world


def test_the_database_of_a_model_is_found(given: Given, tmp_path: Path) -> None:
    output = tmp_path / "localized"
    assert main(command(given, output, "--model-output", str(tmp_path / "model"))) == 0
    poses = found_poses(output)
    assert len(poses) == 3
    for name, pose in poses.items():
        true = given.scene.scene.poses[name].inverse()
        np.testing.assert_allclose(pose.inverse().translation, true.t_raw, atol=0.01)
    model = pycolmap.Reconstruction(str(tmp_path / "model"))
    assert model.num_reg_images() == 12
    observed = [model.find_image_with_name(name).num_points3D for name in poses]
    assert min(observed) > 110
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*.*") if p.is_file()}
    assert main(command(given, output, "--model-output", str(tmp_path / "model"))) == 0
    after = {p: p.stat().st_mtime_ns for p in before}
    assert [p.name for p in before if before[p] != after[p] and p.name != ".lock"] == []


@pytest.mark.parametrize("which", ["map", "map/sparse"])
def test_the_map_of_a_pipeline_has_its_features_beside_it(
    which: str, given: Given, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    shutil.copytree(given.scene.query.parent / "theirs" / "map", work / "map")
    (work / "database.db").write_bytes(b"of a pipeline, which has no descriptors")
    shutil.copytree(given.scene.features, work / "features")
    output = tmp_path / "localized"
    arguments = ["--map", str(work / which), "--query", str(given.scene.query)]
    assert main([*arguments, "--output", str(output), "--quiet"]) == 0
    assert len(found_poses(output)) == 3


def test_photographs_are_extracted_as_the_map_was(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Grey ones have no keypoints, what is no image is named."""
    photos = tmp_path / "photos é"
    photos.mkdir()
    Image.new("RGB", (64, 48), "grey").save(photos / "grey.png")
    Image.effect_noise((200, 150), 80).save(photos / "noise.png")
    whole = (photos / "noise.png").read_bytes()
    (photos / "cut.png").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("no image")
    output = tmp_path / "localized"
    arguments = ["--map", str(given.model), "--query", str(photos)]
    assert main([*arguments, "--output", str(output), "--quiet"]) == 1
    report = json.loads((output / "report.json").read_text("utf-8"))
    failed = {item["name"]: item["reason"] for item in report["failed"]}
    assert failed.keys() == {
        *(f"photos é/{name}.png" for name in ("grey", "noise", "cut")),
        "photos é/text.jpg",
    }
    assert failed["photos é/grey.png"] == "no keypoints"
    assert "truncated" in failed["photos é/cut.png"]
    assert failed["photos é/noise.png"] == "no matches with 9 map images"
    assert any("without keypoints: 1" in text for text in report["warnings"])


def without_database(given: Given, folder: Path) -> Sequence[str]:
    shutil.copytree(given.model, folder / "a" / "b" / "c")
    return ["--map", str(folder / "a" / "b" / "c")]


def with_database(
    given: Given, folder: Path, change: Callable[[pycolmap.Database], None]
) -> Sequence[str]:
    shutil.copytree(given.model, folder / "model")
    given_database = given.model.parent.parent / "database.db"
    shutil.copy(given_database, folder / "model" / "database.db")
    path = str(folder / "model" / "database.db")
    with closing(pycolmap.Database.open(path)) as database:
        change(database)
    return ["--map", str(folder / "model")]


WRONG: dict[str, tuple[Callable[[Given, Path], Sequence[str]], str]] = {
    "no database": (
        without_database,
        "found no descriptors of its 9 images: no --features of them, and no "
        "database.db .* kapture_r2d2_pipeline --model-in .*/a/b/c --images DIR",
    ),
    "no descriptors": (
        lambda given, path: with_database(
            given, path, lambda database: database.clear_descriptors()
        ),
        "database.db: found keypoints, no descriptors, expected the descriptors of "
        "the 9 images of the map",
    ),
    "another database": (
        lambda given, path: with_database(
            given, path, lambda database: database.clear_images()
        ),
        "database.db: ",
    ),
    "matches without pairs": (
        lambda given, path: ["--matches", str(given.scene.features)],
        "--matches: found no --pairs",
    ),
    "no such query": (
        lambda given, path: ["--query", str(path / "nope")],
        "--query .*nope: found no such file or folder",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_one_line_says_what_is_missing(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, expected = WRONG[case]
    arguments = command(given, tmp_path / "localized")
    more = list(make(given, tmp_path))
    if more[0] in arguments:
        place = arguments.index(more[0])
        del arguments[place : place + 2]
    assert main([*arguments, *more]) == 2
    line = one_error_line(capsys)
    assert re.search(expected, line), line
    assert not (tmp_path / "localized").exists()


@pytest.mark.parametrize("case", ["no database", "no descriptors"])
def test_nothing_is_made_of_photographs_before_a_refusal(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str], case: str
) -> None:
    make, expected = WRONG[case]
    (tmp_path / "photos é").mkdir()
    Image.new("RGB", (64, 48), "grey").save(tmp_path / "photos é" / "grey.png")
    (tmp_path / "out").mkdir()
    query = ["--query", str(tmp_path / "photos é")]
    output = ["--output", str(tmp_path / "out" / "localized")]
    assert main([*make(given, tmp_path), *query, *output]) == 2
    line = one_error_line(capsys)
    assert re.search(expected, line), line
    assert list((tmp_path / "out").iterdir()) == []


def test_queries_of_other_features_are_named(
    given: Given, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not SIFT: what extracted the map's features is not known here."""
    features = tmp_path / "features"
    shutil.copytree(given.scene.features, features)
    for path in features.rglob("*.*"):
        if "/2 b" in str(path):
            path.unlink()
    arguments = command(given, tmp_path / "localized", features=False)
    assert main([*arguments, "--features", str(features)]) == 2
    line = one_error_line(capsys)
    assert "found no features of type 'points'" in line
    assert "kapture_r2d2_extract --kapture-root" in line


def test_sift_of_ours_is_that_of_databases(tmp_path: Path) -> None:
    """By COLMAP's own extraction, as it fills a database with its defaults."""
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 255, (120, 160), dtype=np.uint8))
    image = noise.filter(ImageFilter.GaussianBlur(2)).convert("RGB")
    (tmp_path / "images").mkdir()
    image.save(tmp_path / "images" / "a.png")
    path = str(tmp_path / "database.db")
    options = pycolmap.FeatureExtractionOptions(use_gpu=False, num_threads=1)
    pycolmap.extract_features(
        path,
        str(tmp_path / "images"),
        extraction_options=options,
        device=pycolmap.Device.cpu,
    )
    ours = build_extractor(ExtractConfig(extractor=SiftConfig()), None)(
        np.asarray(image)
    )
    with closing(pycolmap.Database.open(path)) as database:
        theirs = database.read_descriptors(1).data
        xy = database.read_keypoints(1)[:, :2] - 0.5
    assert len(theirs) == len(ours) > 50
    order, other = np.lexsort(xy.T), np.lexsort(ours.keypoints.T)
    np.testing.assert_allclose(ours.keypoints[other], xy[order], atol=1e-3)
    distances = np.abs(
        ours.descriptors[:, None].astype(int) - theirs[None].astype(int)
    ).max(axis=2)
    assert distances.min(axis=1).max() == 0
