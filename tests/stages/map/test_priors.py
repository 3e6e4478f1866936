"""Maps with positions of their images: in metres and on Earth, whatever is wrong."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import kapture.io.csv as kcsv
import numpy as np
import pycolmap
import pytest

from r2d2_kapture.config.map import MapConfig
from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.colmap.pose_priors import write_pose_priors
from r2d2_kapture.io.geodesy import EnuFrame
from r2d2_kapture.io.georeference import GEOREFERENCE_NAME, read_georeference
from r2d2_kapture.io.kapture.gnss import GnssPosition, LocalPosition, Position, add_gnss
from r2d2_kapture.io.map_unit import read_map_unit
from r2d2_kapture.stages.map.priors import Priors, fit_priors
from r2d2_kapture.types import OWN_UNITS, FloatArray, Report
from tests.scenes import gps
from tests.scenes.gps import METRES, SITE, places
from tests.scenes.world import Scene
from tests.stages.map_runs import model_of, remove_poses, run

Change = Callable[[dict[str, FloatArray]], Any]


def on_earth(enu: FloatArray, accuracy: float | None = None) -> GnssPosition:
    latitude, longitude, altitude = SITE.wgs84_from_enu(enu[None])[0].tolist()
    return GnssPosition(
        latitude=latitude, longitude=longitude, altitude=altitude, accuracy=accuracy
    )


def give(root: Path, positions: dict[str, Position], *, poses: bool = False) -> Path:
    """Add GNSS records to the dataset; poses only stay on request."""
    if not poses:
        remove_poses(root)
    data = kcsv.kapture_from_dir(str(root / "mapping"))
    add_gnss(data, positions)
    kcsv.kapture_to_dir(str(root / "mapping"), data)
    return root


def centers(root: Path) -> dict[str, FloatArray]:
    return {
        image.name: image.projection_center()
        for image in model_of(root).images.values()
    }


def errors(root: Path, scene: Scene) -> FloatArray:
    """(N,) metres between the cameras on Earth by the map, and where they were."""
    found = read_georeference(root / "map")
    assert found is not None
    placed = centers(root)
    wgs84 = found.wgs84(np.array(list(placed.values())))
    assert wgs84 is not None
    return gps.errors(dict(zip(placed, wgs84)), scene)


def warned(report: Report, words: str) -> str:
    (text,) = [text for text in report.warnings if words in text]
    return text


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene()


@pytest.fixture(scope="module")
def free(
    ready_to_map: Path, scene: Scene, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The map of the scene without its positions, which it has."""
    root = Path(shutil.copytree(ready_to_map, tmp_path_factory.mktemp("free") / "root"))
    give(root, {name: on_earth(enu) for name, enu in places(scene).items()})
    assert run(root, MapConfig(priors="off")).warnings == ()
    return root / "map" / "sparse"


@pytest.mark.parametrize("priors", ["auto", "align"])
def test_an_exact_scene_is_in_metres_on_earth(
    root: Path, scene: Scene, priors: Any
) -> None:
    give(root, {name: on_earth(enu) for name, enu in places(scene).items()})
    report = run(root, MapConfig(priors=priors))
    assert errors(root, scene).max() < 1e-3
    # the map itself is in metres, east, north, up
    found = read_georeference(root / "map")
    assert found is not None and found.frame is not None
    np.testing.assert_allclose(
        found.metric_from_map.matrix(), np.eye(4)[:3], rtol=0, atol=1e-12
    )
    assert read_map_unit(root / "map") == "m"
    up = found.frame.enu_from_wgs84(
        SITE.wgs84_from_enu(np.array(list(places(scene).values())))
    )
    placed = centers(root)
    np.testing.assert_allclose(
        [placed[name] for name in places(scene)], up, rtol=0, atol=1e-3
    )
    assert "in metres" in report.summary and report.warnings == ()
    said = report.details["priors"]
    assert (said["images"], said["outliers"]) == (12, 0)
    assert said["residual_95"] < 1e-3
    stored = json.loads((root / "map" / GEOREFERENCE_NAME).read_text("utf-8"))
    assert EnuFrame(**stored["origin"]) == found.frame and stored["unit"] == "metre"
    assert said["origin"] == str(found.frame) and said["origin"].endswith(" m")


def test_noise_and_a_gross_outlier_do_no_harm(root: Path, scene: Scene) -> None:
    rng = np.random.default_rng(1)
    noisy = {
        name: enu + rng.normal(0, [0.2, 0.2, 0.4])
        for name, enu in places(scene).items()
    }
    wrong = sorted(noisy)[4]
    noisy[wrong] = noisy[wrong] + [800, -300, 100]
    give(root, {name: on_earth(enu, 0.2) for name, enu in noisy.items()})
    report = run(root)
    assert errors(root, scene).max() < 0.5  # of noise, not of 860 m
    assert report.details["priors"]["outliers"] == 1
    assert 0.1 < report.details["priors"]["residual_95"] < 2
    assert report.details["priors"]["used"] == "bundle adjustment"
    assert wrong in warned(report, "disagree with the map")


def test_positions_less_accurate_than_they_say_still_align(
    root: Path, scene: Scene
) -> None:
    rng = np.random.default_rng(2)
    give(
        root,
        {
            name: on_earth(enu + rng.normal(0, 0.3, 3), accuracy=0.05)
            for name, enu in places(scene).items()
        },
    )
    report = run(root)
    assert errors(root, scene).max() < 0.8
    assert report.details["priors"]["used"] == "alignment"


def test_known_poses_stay_and_the_way_to_earth_is_known(
    root: Path, scene: Scene
) -> None:
    run(root)
    before = {name: center.tobytes() for name, center in centers(root).items()}
    positions: dict[str, Position] = {
        name: on_earth(enu) for name, enu in places(scene).items()
    }
    give(root, positions, poses=True)
    report = run(root, output=root / "placed")
    (root / "placed").rename(root / "new")
    (root / "map").rename(root / "old")
    (root / "new").rename(root / "map")
    after = {name: center.tobytes() for name, center in centers(root).items()}
    assert after == before
    assert errors(root, scene).max() < 1e-3
    found = read_georeference(root / "map" / "sparse")
    assert found is not None
    assert found.metric_from_map.scale == pytest.approx(METRES, rel=1e-6)
    assert read_map_unit(root / "map") == OWN_UNITS
    assert "metres" not in report.summary  # their unit is another one


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: dict(list(t.items())[:1]),
            "1 of 12 images have a position, expected 3",
        ),
        (lambda t: {name: t[min(t)] for name in t}, "all at one place, expected 3"),
        (
            lambda t: {name: [4.0 * i, 3 * i, 0] for i, name in enumerate(t)},
            "the map is not in metres",
        ),
        (
            lambda t: dict(zip(t, np.random.default_rng(0).normal(0, 80, (12, 3)))),
            "uncertain (66 m): the map is not in metres",
        ),
        (
            lambda t: {
                name: place + [0, 400.0 * (i % 2), 0]
                for i, (name, place) in enumerate(t.items())
            },
            "6 of 12 images disagree with the map: the map is not in metres",
        ),
    ],
    ids=["one", "one place", "wrong line", "random", "half elsewhere"],
)
def test_positions_that_do_not_fit_leave_the_map_free(
    root: Path, scene: Scene, free: Path, change: Change, words: str
) -> None:
    positions = change(places(scene))
    give(root, {name: on_earth(np.array(enu)) for name, enu in positions.items()})
    report = run(root)
    warned(report, words)
    assert "priors" not in report.details and "metres" not in report.summary
    assert not (root / "map" / GEOREFERENCE_NAME).exists()
    for name in ("cameras", "images", "points3D"):
        used = root / "map" / "sparse" / f"{name}.bin"
        assert used.read_bytes() == (free / used.name).read_bytes()


def test_a_line_is_found_whatever_the_images_show(root: Path, scene: Scene) -> None:
    """The walker's images are on a line, and only these have positions."""
    walker = np.array([p for n, p in places(scene).items() if "walker" in n])
    middle = walker.mean(axis=0)
    axis = np.linalg.svd(walker - middle)[2][0]
    positions: dict[str, Position] = {
        name: on_earth(middle + axis * (axis @ (place - middle)), accuracy=0.5)
        for name, place in places(scene).items()
        if "walker" in name
    }
    give(root, positions)
    warned(run(root), "on a line, about which the map may turn: the map is not in")


@pytest.mark.parametrize(("noise", "warned_of"), [(0.0, False), (0.9, True)])
def test_a_rotation_that_is_uncertain_is_warned_of(
    root: Path, scene: Scene, noise: float, warned_of: bool
) -> None:
    run(root)  # known poses
    true = places(scene)
    rng = np.random.default_rng(0)
    priors = Priors(
        names=list(true),
        positions=np.array(list(true.values())) + rng.normal(0, noise, (12, 3)),
        deviations=np.full((12, 3), noise or 1.0),
        frame=None,
    )
    fit = fit_priors(model_of(root), priors)
    assert fit is not None and fit.problem is None
    assert (fit.turn > 6) == warned_of
    said = [text for text in fit.warnings() if "nearly on a line" in text]
    assert len(said) == warned_of
    if warned_of:
        assert fit.noise == pytest.approx(noise, rel=0.5)


def test_a_local_frame_is_kept(root: Path, scene: Scene) -> None:
    true = places(scene)
    give(root, {n: LocalPosition(x=p[0], y=p[1], z=p[2]) for n, p in true.items()})
    run(root)
    for name, center in centers(root).items():
        np.testing.assert_allclose(center, true[name], rtol=0, atol=1e-3)
    found = read_georeference(root / "map")
    assert found is not None and found.frame is None
    assert found.wgs84(np.zeros((1, 3))) is None


def test_the_databases_priors_serve_a_dataset_without(root: Path, scene: Scene) -> None:
    remove_poses(root)
    positions: dict[str, Position] = {
        name: on_earth(enu) for name, enu in places(scene).items()
    }
    with closing(pycolmap.Database.open(str(root / "map.db"))) as database:
        write_pose_priors(database, positions)
    run(root)
    assert errors(root, scene).max() < 1e-3


def test_a_site_without_any_altitude_is_taken_for_level(
    root: Path, scene: Scene
) -> None:
    true = places(scene)
    give(
        root,
        {
            name: dataclasses.replace(on_earth(enu), altitude=None)
            for name, enu in true.items()
        },
    )
    report = run(root)
    heights = np.array([center[2] for center in centers(root).values()])
    assert "priors" in report.details and np.abs(heights).max() < 3
    warned(report, "none of the positions has an altitude")


@pytest.mark.parametrize(("known", "exact"), [(6, True), (2, False)])
def test_images_without_altitude_follow_those_with_one(
    root: Path, scene: Scene, known: int, exact: bool
) -> None:
    """Where these are too few for a similarity, all serve, and the site is level."""
    true = places(scene)
    positions: dict[str, Position] = {name: on_earth(enu) for name, enu in true.items()}
    for name in sorted(positions, key=lambda name: name[::-1])[known:]:
        positions[name] = dataclasses.replace(on_earth(true[name]), altitude=None)
    give(root, positions)
    report = run(root)
    assert report.details["priors"]["images"] == (known if exact else len(true))
    assert errors(root, scene).max() < (1e-3 if exact else 5)


def test_coordinates_of_others_are_warned_of(root: Path, scene: Scene) -> None:
    give(root, {name: on_earth(enu) for name, enu in places(scene).items()})
    sensors = root / "mapping" / "sensors" / "sensors.txt"
    text = sensors.read_text("utf-8").replace("EPSG:4326", "EPSG:2154")
    sensors.write_text(text, "utf-8")
    warned(run(root), "found coordinates 'EPSG:2154'")


def test_a_second_run_finds_the_map_and_other_settings_are_refused(
    root: Path, scene: Scene
) -> None:
    give(root, {name: on_earth(enu) for name, enu in places(scene).items()})
    first = run(root)
    bytes_of = {p: p.read_bytes() for p in (root / "map").rglob("*") if p.is_file()}
    again = run(root)
    assert (again.done, again.skipped, again.summary) == (0, 1, first.summary)
    assert again.details["priors"] == first.details["priors"]
    with pytest.raises(OutputError, match="prior_accuracy: default, not 9.0"):
        run(root, MapConfig(prior_accuracy=9.0))
    assert bytes_of == {
        p: p.read_bytes() for p in (root / "map").rglob("*") if p.is_file()
    }
    run(root, output=root / "twice")
    for name in ("sparse/images.bin", "sparse/points3D.bin", GEOREFERENCE_NAME):
        twice = (root / "twice" / name).read_bytes()
        assert twice == (root / "map" / name).read_bytes()


def test_a_map_from_before_priors_is_as_if_made_now(root: Path) -> None:
    run(root)
    settings = json.loads((root / "map" / "manifest.json").read_text("utf-8"))
    assert not {"priors", "prior_accuracy"} & settings["settings"].keys()
