"""Stages as functions, and a localizer, on a scene whose poses are known."""

from __future__ import annotations

import copy
import dataclasses
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import kapture
import numpy as np
import pycolmap
import pytest
from PIL import Image

import r2d2_kapture as rk
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.colmap.cameras import colmap_camera
from r2d2_kapture.io.colmap.sparse_map import read_sparse_map
from r2d2_kapture.io.georeference import Georeference, write_georeference
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.io.kapture.trajectories import read_camera_poses
from r2d2_kapture.stages import refine
from r2d2_kapture.stages.map.patches import write_patches
from r2d2_kapture.types import LocalFeatures
from tests.scenes.contents import files_below
from tests.scenes.gps import SITE, tag
from tests.scenes.localization import position_error
from tests.scenes.patched_map import COLMAP_CAMERA, QUERIES, truth, write_room
from tests.scenes.pipeline import PipelineScene
from tests.scenes.plane import PlaneScene


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> PipelineScene:
    return PipelineScene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def work(scene: PipelineScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a pipeline made, called with strings for paths."""
    output = tmp_path_factory.mktemp("work é")
    report = rk.run_pipeline(
        mapping=str(scene.mapping),
        queries={"queries": str(scene.query)},
        features=[str(scene.features)],
        output=str(output),
        query_pairs={"method": "exhaustive"},
        progress=False,
    )
    assert not report.failed and not report.warnings
    assert report.outputs[-1] == output / "report.html"
    return output


def test_pages_of_a_pipeline_and_of_its_map(work: Path, tmp_path: Path) -> None:
    assert rk.report_pipeline(str(work)).done == 0  # it shows the same already
    page = rk.report_map(
        str(work / "map"), output=str(tmp_path / "map.html"), title="A <b>map</b>"
    )
    assert page.outputs == (tmp_path / "map.html",)
    assert "A &lt;b&gt;map&lt;/b&gt;" in page.outputs[0].read_text("utf-8")


def test_the_stages_one_by_one_make_the_same_map(
    scene: PipelineScene, work: Path, tmp_path: Path
) -> None:
    inputs: dict[str, Any] = {"features": str(scene.features), "progress": False}
    mapping, pairs = str(scene.mapping), str(tmp_path / "pairs.txt")
    rk.choose_pairs(mapping=mapping, output=pairs, method="exhaustive")
    rk.match_pairs(pairs=pairs, output=str(tmp_path / "matches"), **inputs)
    verified = rk.verify_pairs(
        mapping=mapping,
        matches=[str(tmp_path / "matches")],
        pairs=pairs,
        database=str(tmp_path / "map.db"),
        output=str(tmp_path / "verified"),
        **inputs,
    )
    assert verified.details["verified_pairs"] > 0
    rk.build_map(
        mapping=mapping,
        database=str(tmp_path / "map.db"),
        output=str(tmp_path / "map"),
        **inputs,
    )
    points = "map/kapture/reconstruction/points3d.txt"
    assert (tmp_path / points).read_bytes() == (work / points).read_bytes()


def test_keypoints_are_refined_as_by_the_command(tmp_path: Path) -> None:
    scene = PlaneScene(tmp_path, images=2)
    scene.verify()
    inputs: dict[str, Any] = {
        "mapping": scene.mapping,
        "features": [scene.features],
        "database": scene.database,
    }
    quiet = RunOptions(progress=False)
    refine.run(RefineConfig(), **inputs, output=tmp_path / "stage", options=quiet)
    rk.refine_keypoints(**inputs, output=str(tmp_path / "verb"), progress=False)
    made, expected = (
        files_below(tmp_path / name / "reconstruction", suffixes=[".kpt"])
        for name in ("verb", "stage")
    )
    assert made and made == expected


@pytest.mark.parametrize(
    "arguments, hint",
    [
        ({"ratoi": 0.9}, "did you mean ratio"),
        ({"ratio": 7}, "expected above 0"),
        ({"executor": "rya"}, "expected one of process, ray"),
        ({"ray_workers": 2}, "--ray-workers 2: found --executor process"),
    ],
)
def test_settings_that_cannot_be(
    scene: PipelineScene, tmp_path: Path, arguments: dict[str, Any], hint: str
) -> None:
    with pytest.raises(ConfigError, match=hint):
        rk.match_pairs(
            features=[scene.features],
            pairs=tmp_path / "pairs.txt",
            output=tmp_path / "matches",
            **arguments,
        )


def test_sections_that_cannot_be(scene: PipelineScene, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean match"):
        rk.run_pipeline(mapping=scene.mapping, output=tmp_path, mtach={"ratio": 1})
    with pytest.raises(ConfigError, match="--ray-workers 2: found --executor process"):
        rk.run_pipeline(mapping=scene.mapping, output=tmp_path, ray_workers=2)
    with pytest.raises(ConfigError, match="executor"):  # it makes no slices
        rk.build_map(database="map.db", output=tmp_path, executor="ray")


class StoredFeatures:
    """Stands in for an extractor: gives the features of a scene by file name."""

    extractor = SimpleNamespace(
        weights=SimpleNamespace(sha256="none"), name="points", label="points"
    )

    def __init__(self, scene: PipelineScene) -> None:
        self._tables = open_local_features([scene.features])

    def __call__(self, image: Path) -> Any:
        name = image.relative_to(
            next(p for p in image.parents if p.name == "records_data")
        )
        return self._tables.read(name.as_posix(), (640, 480))


class GivenFeatures:
    """Stands in for an extractor: gives the same features of every image."""

    extractor = StoredFeatures.extractor

    def __init__(self, features: LocalFeatures) -> None:
        self._features = features

    def __call__(self, image: Any) -> Any:
        return self._features


@pytest.mark.parametrize("top_k", [20, 4])
def test_queries_are_localized_one_at_a_time(
    scene: PipelineScene, work: Path, top_k: int
) -> None:
    localizer = rk.Localizer(
        str(work / "map"),
        StoredFeatures(scene),  # type: ignore[arg-type]
        features=[str(scene.features)],
        top_k=top_k,
    )
    dataset = open_dataset(scene.query)
    records = image_records(dataset.data)
    truth = read_camera_poses(dataset).cam_from_world
    assert truth
    for name, true in truth.items():
        sensor: kapture.Camera = dataset.data.sensors[records[name].sensor_id]
        camera = colmap_camera(sensor, 1, "center")
        found = localizer(dataset.image_path(name), camera=camera)
        assert found.reason is None and found.cam_from_world is not None
        error = found.cam_from_world.inverse().translation - true.inverse().translation
        assert np.linalg.norm(error) < 0.01
        assert found.inliers > 50 and found.camera is not None


def test_queries_are_refined_as_the_stage_does(tmp_path: Path) -> None:
    """By the image that is given; the file of its name need not be there."""
    room = write_room(tmp_path, described=True)
    write_patches(room.map_path, room.images, workers=1)
    name = min(QUERIES)
    with Image.open(room.query / "sensors/records_data" / name) as picture:
        pixels = np.array(picture)
    features = open_local_features([tmp_path / "features"]).read(name, (320, 240))
    inputs: dict[str, Any] = {
        "map_path": room.map_path,
        "extractor": GivenFeatures(features),
        "features": tmp_path / "features",
    }
    camera = copy.deepcopy(COLMAP_CAMERA)
    found = rk.Localizer(**inputs)(pixels, camera=camera)
    alone = rk.Localizer(**inputs, refine="off", second_pass="off")(
        pixels, camera=camera
    )
    assert found.cam_from_world is not None and alone.cam_from_world is not None
    error, before = (
        position_error(one, truth(name))
        for one in (found.cam_from_world, alone.cam_from_world)
    )
    assert error < 0.6 * before
    assert alone.details.refined is alone.details.added is None
    assert found.details.refined is not None and found.details.added is not None
    again = rk.Localizer(**inputs)(pixels, camera=camera)
    assert again.details == found.details


class TurnedFeatures(StoredFeatures):
    """Gives features only where the network sees images turned by 180 degrees."""

    def __call__(self, image: Path, turn: int = 0) -> Any:
        features = super().__call__(image)
        kept = slice(None if turn == 180 else 3)
        return dataclasses.replace(
            features,
            **{
                name: getattr(features, name)[kept]
                for name in ("keypoints", "scales", "scores", "descriptors")
            },
        )


@pytest.mark.parametrize(
    ("rotations", "localized"), [("off", False), ("auto", True), ("90,270", False)]
)
def test_a_query_is_tried_in_other_rotations(
    scene: PipelineScene, work: Path, tmp_path: Path, rotations: str, localized: bool
) -> None:
    localizer = rk.Localizer(
        str(work / "map"),
        TurnedFeatures(scene),  # type: ignore[arg-type]
        features=[str(scene.features)],
        rotations=rotations,
    )
    path = tmp_path / "records_data" / open_dataset(scene.query).image_names[0]
    path.parent.mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(path)
    assert (localizer(path).cam_from_world is not None) == localized


@pytest.mark.parametrize("tagged", [True, False])
def test_a_query_is_on_earth_and_compared_with_its_own_position(
    scene: PipelineScene, work: Path, tmp_path: Path, tagged: bool
) -> None:
    placed = shutil.copytree(work / "map", tmp_path / "map")
    lies = Georeference(
        frame=SITE,
        metric_from_map=pycolmap.Sim3d(),
        images=9,
        outliers=0,
        residual_median=0.5,
        residual_95=1.5,
    )
    write_georeference(placed, lies)
    dataset = open_dataset(scene.query)
    truth = read_camera_poses(dataset).cam_from_world
    name = min(truth)
    center = truth[name].inverse().translation
    path = tmp_path / "records_data" / name
    path.parent.mkdir(parents=True)
    Image.new("RGB", (640, 480)).save(path)
    if tagged:
        tag(path, center + [3, 4, 12])
    localizer = rk.Localizer(
        placed,
        StoredFeatures(scene),  # type: ignore[arg-type]
        features=[scene.features],
    )
    sensor = dataset.data.sensors[image_records(dataset.data)[name].sensor_id]
    details = localizer(path, colmap_camera(sensor, 1, "center")).details
    assert details.wgs84 is not None
    there = SITE.enu_from_wgs84(np.array([details.wgs84]))[0]
    assert np.linalg.norm(there - center) < 0.02
    expected = pytest.approx(13, abs=0.03) if tagged else None
    assert details.gnss_distance == expected


def test_a_localizer_refuses_settings_that_cannot_be(
    scene: PipelineScene, work: Path
) -> None:
    with pytest.raises(ConfigError, match="did you mean max_error"):
        rk.Localizer(
            work / "map",
            StoredFeatures(scene),  # type: ignore[arg-type]
            features=[scene.features],
            max_eror=3,
        )
    extractor: Any = StoredFeatures(scene)
    with pytest.raises(DatasetError, match="no such map: found no such folder"):
        rk.Localizer("no such map", extractor)
    with pytest.raises(DatasetError, match="sparse: found no features next to it"):
        rk.Localizer(work / "map" / "sparse", extractor)
    localizer = rk.Localizer(work / "map", extractor, features=str(scene.features))
    query = open_dataset(scene.query).image_names[0]
    with pytest.raises(ConfigError, match="camera: found one of 4 x 6 pixels for an"):
        camera = pycolmap.Camera.create_from_model_name(0, "PINHOLE", 5, 4, 6)
        localizer(open_dataset(scene.query).image_path(query), camera)


def test_a_localizer_takes_the_keypoints_that_its_map_was_made_of(
    scene: PipelineScene, work: Path, tmp_path: Path
) -> None:
    features = shutil.copytree(scene.features, tmp_path / "features")
    made_of = open_local_features([features]).keypoints.type_name
    for kind in ("keypoints", "descriptors"):
        (folder,) = features.rglob(f"{kind}/{made_of}")
        other = shutil.copytree(folder, folder.with_name("other"))
        table = other / f"{kind}.txt"
        table.write_text(table.read_text().replace(made_of, "other"))
    shutil.copytree(work / "map", tmp_path / "map")
    extractor: Any = StoredFeatures(scene)
    extractor.extractor = SimpleNamespace(**vars(extractor.extractor) | {"label": "?"})
    localizer = rk.Localizer(tmp_path / "map", extractor)
    expected = read_sparse_map(work / "map", made_of).images
    for name, image in localizer.sparse_map.images.items():
        np.testing.assert_array_equal(image.keypoints, expected[name].keypoints)
    with pytest.raises(DatasetError, match="no such type"):
        rk.Localizer(tmp_path / "map", extractor, keypoints_type="no such type")
    for table in (tmp_path / "map").rglob("observations.txt"):
        table.unlink()
    with pytest.raises(DatasetError, match="types .*other.*expected keypoints_type=,"):
        rk.Localizer(tmp_path / "map", extractor)
    rk.Localizer(tmp_path / "map", extractor, keypoints_type=made_of)
    extractor.extractor.label = made_of
    rk.Localizer(tmp_path / "map", extractor)
