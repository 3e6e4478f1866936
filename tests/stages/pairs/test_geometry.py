"""Pairs by poses, GNSS positions and points in common, and bad input of each."""

from __future__ import annotations

import itertools
from pathlib import Path

import kapture
import kapture.io.csv as kcsv
import numpy as np
import numpy.typing as npt
import pycolmap
import pytest
from scipy.spatial.transform import Rotation

from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.kapture.gnss import GnssPosition, add_gnss
from r2d2_kapture.io.kapture.pairs import read_pairs
from tests.scenes.kapture_files import table, write_dataset, write_files
from tests.scenes.poses import numbers, rigid3d
from tests.stages.pair_runs import NAMES, QUERIES, names_in, run


@pytest.fixture
def mapping(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "mapping", NAMES)


@pytest.fixture
def query(tmp_path: Path) -> Path:
    return write_dataset(tmp_path / "query", QUERIES)


# poses


def facing(degrees: float, centre: list[float]) -> pycolmap.Rigid3d:
    return rigid3d(Rotation.from_euler("y", degrees, degrees=True), centre)


def test_near_cameras_that_look_the_same_way(tmp_path: Path) -> None:
    poses = {
        "a": facing(0, [0, 0, 0]),
        "b": facing(10, [1, 0, 0]),
        "c": facing(90, [0.1, 0, 0]),
        "d": facing(0, [8, 0, 0]),
    }
    mapping = write_dataset(tmp_path / "m", list("abcd"), poses)
    run(mapping, tmp_path / "p.txt", method="poses", top_k=1)
    found = read_pairs(tmp_path / "p.txt")
    assert [pair.names for pair in found] == [("a", "b"), ("b", "d")]
    assert [pair.score for pair in found] == pytest.approx([1 / 2, 1 / 8], rel=1e-5)
    run(mapping, tmp_path / "near.txt", method="poses", max_distance=2.0)
    assert names_in(tmp_path / "near.txt") == [("a", "b")]
    run(mapping, tmp_path / "wide.txt", method="poses", max_angle=180.0)
    assert len(names_in(tmp_path / "wide.txt")) == 6


def test_pairs_of_nearly_one_place_are_left_out(tmp_path: Path) -> None:
    places = {"a": 0.0, "b": 0.04, "c": 0.05, "d": 1.0}
    poses = {name: facing(0, [x, 0, 0]) for name, x in places.items()}
    mapping = write_dataset(tmp_path / "m", list(places), poses)
    settings = {"method": "poses", "top_k": 1}
    run(mapping, tmp_path / "p.txt", min_distance=0.045, **settings)
    assert names_in(tmp_path / "p.txt") == [("a", "c"), ("b", "d"), ("c", "d")]
    with pytest.raises(ConfigError, match="--min-distance: found 3.0, expected at mo"):
        run(mapping, tmp_path / "p.txt", min_distance=3.0, max_distance=2.0)


def test_queries_near_mapping_cameras(tmp_path: Path) -> None:
    mapping = write_dataset(
        tmp_path / "m",
        ["a", "b"],
        {"a": facing(0, [0, 0, 0]), "b": facing(0, [5, 0, 0])},
    )
    query = write_dataset(
        tmp_path / "q",
        ["p", "q"],
        {"p": facing(5, [4, 0, 0]), "q": facing(5, [4, 0, 0])},
    )
    run(mapping, tmp_path / "p.txt", query=query, method="poses", top_k=1)
    assert names_in(tmp_path / "p.txt") == [("p", "b"), ("q", "b")]


def test_images_without_poses_are_named(tmp_path: Path) -> None:
    poses = {"a": facing(0, [0, 0, 0]), "b": facing(0, [1, 0, 0])}
    mapping = write_dataset(tmp_path / "m", ["a", "b", "c", "d"], poses)
    rows = [[0, "cam", *numbers(poses["a"])], [1, "cam", *numbers(poses["b"])]]
    partial = "2, cam, , , , , 1, 2, 3"
    write_files(mapping, trajectories=f"{table(rows)}\n{partial}")
    report = run(mapping, tmp_path / "p.txt", method="poses")
    assert [failure.name for failure in report.failed] == ["c", "d"]
    assert "has no complete pose of 'c'" in report.failed[0].reason
    assert names_in(tmp_path / "p.txt") == [("a", "b")]


def test_a_dataset_without_poses(mapping: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="trajectories.txt: found no image with a pose"
    ):
        run(mapping, tmp_path / "p.txt", method="poses")
    assert not (tmp_path / "p.txt").exists()


# gnss


def write_positions(root: Path, wgs84: npt.NDArray[np.float64], prefix: str) -> Path:
    """A dataset of images at (N, 3) latitudes, longitudes and altitudes."""
    names = [f"{prefix}{i:02d}" for i in range(len(wgs84))]
    write_dataset(root, names)
    data = kcsv.kapture_from_dir(str(root))
    positions = {
        name: GnssPosition(latitude=lat, longitude=lon, altitude=altitude)
        for name, (lat, lon, altitude) in zip(names, wgs84.tolist())
        if np.isfinite(lat)
    }
    add_gnss(data, positions)
    kcsv.kapture_to_dir(str(root), data)
    return root


def drive(count: int, seed: int) -> npt.NDArray[np.float64]:
    """Positions within some hundred metres of the antimeridian, far in the north."""
    rng = np.random.default_rng(seed)
    latitudes, offsets = 68 + rng.normal(0, 2e-3, (2, count)) * [[1], [3]] - [[0], [68]]
    longitudes = (offsets + 360) % 360 - 180
    return np.column_stack([latitudes, longitudes, rng.normal(50, 400, count)])


def on_the_ground(wgs84: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(N, 3) positions from the centre of the Earth, on the WGS84 ellipsoid."""
    latitude, longitude = np.radians(wgs84[:, :2]).T
    semi_major, flattening = 6378137.0, 1 / 298.257223563
    squared = flattening * (2 - flattening)
    normal = semi_major / np.sqrt(1 - squared * np.sin(latitude) ** 2)
    return np.column_stack(
        [
            normal * np.cos(latitude) * np.cos(longitude),
            normal * np.cos(latitude) * np.sin(longitude),
            normal * (1 - squared) * np.sin(latitude),
        ]
    )


def test_gnss_neighbours_by_brute_force(tmp_path: Path) -> None:
    at, queries_at = drive(30, 1), drive(6, 2)
    mapping = write_positions(tmp_path / "m", at, "m")
    query = write_positions(tmp_path / "q", queries_at, "q")
    settings = {"method": "gnss", "min_distance": 60.0, "max_distance": 300.0}
    run(mapping, tmp_path / "p.txt", query=query, top_k=4, **settings)
    found = {pair.names: pair.score for pair in read_pairs(tmp_path / "p.txt")}
    expected = {}
    for i, place in enumerate(on_the_ground(queries_at)):
        metres = np.linalg.norm(on_the_ground(at) - place, axis=1)
        near = [j for j in np.argsort(metres) if 60 <= metres[j] <= 300][:4]
        expected |= {(f"q{i:02d}", f"m{j:02d}"): 1 / (1 + metres[j]) for j in near}
    assert len(expected) > 10
    assert found == pytest.approx(expected, rel=1e-5)
    run(mapping, tmp_path / "all.txt", top_k=0, **settings)
    apart = np.linalg.norm(on_the_ground(at)[:, None] - on_the_ground(at), axis=2)
    within = np.argwhere(np.triu((apart >= 60) & (apart <= 300), 1))
    assert names_in(tmp_path / "all.txt") and set(names_in(tmp_path / "all.txt")) == {
        (f"m{i:02d}", f"m{j:02d}") for i, j in within.tolist()
    }


def test_images_without_gnss_positions(mapping: Path, tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match="records_gnss.txt: found no image with a GNSS position"
    ):
        run(mapping, tmp_path / "p.txt", method="gnss")
    at = drive(4, 0)
    at[2] = np.nan
    partial = write_positions(tmp_path / "partial", at, "m")
    report = run(partial, tmp_path / "p.txt", method="gnss")
    assert [failure.name for failure in report.failed] == ["m02"]
    assert len(names_in(tmp_path / "p.txt")) == 3


def test_gnss_of_two_frames(tmp_path: Path) -> None:
    mapping = write_positions(tmp_path / "m", drive(3, 0), "m")
    query = write_positions(tmp_path / "q", drive(3, 1), "q")
    sensors = query / "sensors/sensors.txt"
    sensors.write_text(
        sensors.read_text("utf-8").replace("EPSG:4326", "LOCAL"), "utf-8"
    )
    with pytest.raises(DatasetError, match="on Earth in one and in a local frame"):
        run(mapping, tmp_path / "p.txt", query=query, method="gnss")


# covisibility


def write_map(root: Path, tracks: list[list[str]]) -> Path:
    """A kapture map of points that images see, each by a keypoint of its own."""
    names = sorted({name for track in tracks for name in track})
    write_dataset(root, names, {name: facing(0, [0, 0, 0]) for name in names})
    points = kapture.Points3d(np.random.default_rng(0).random((len(tracks), 6)))
    observations = kapture.Observations()
    for point, track in enumerate(tracks):
        for name in track:
            observations.add(point, "r2d2", name, point)
    (root / "reconstruction").mkdir()
    kcsv.points3d_to_file(str(root / "reconstruction/points3d.txt"), points)
    kcsv.observations_to_file(
        str(root / "reconstruction/observations.txt"), observations
    )
    return root


def test_images_that_see_points_in_common(mapping: Path, tmp_path: Path) -> None:
    a, b, c, d, e = sorted(NAMES)
    tracks = [[a, b], [a, b, c], [a, b, c], [c, d], ["not in mapping.jpg", a]]
    map_path = write_map(tmp_path / "map", tracks)
    settings = {"method": "covisibility", "map_path": map_path}
    report = run(mapping, tmp_path / "p.txt", **settings)
    found = {pair.names: pair.score for pair in read_pairs(tmp_path / "p.txt")}
    assert found == {(a, b): 3, (a, c): 2, (b, c): 2, (c, d): 1}
    assert [failure.name for failure in report.failed] == [e]
    run(mapping, tmp_path / "best.txt", min_score=2.0, top_k=1, **settings)
    assert names_in(tmp_path / "best.txt") == [(a, b), (a, c)]


def test_covisibility_over_the_union_by_brute_force(tmp_path: Path) -> None:
    names = [f"{i}.jpg" for i in range(8)]
    rng = np.random.default_rng(3)
    tracks = [
        rng.choice(names, rng.integers(2, 5), replace=False).tolist() for _ in range(60)
    ]
    map_path = write_map(tmp_path / "map", tracks)
    settings = {"method": "covisibility", "map_path": map_path, "top_k": 0}
    run(map_path, tmp_path / "p.txt", covisibility_score="iou", **settings)
    found = {pair.names: pair.score for pair in read_pairs(tmp_path / "p.txt")}
    seen = {n: {i for i, t in enumerate(tracks) if n in t} for n in names}
    overlaps = {
        (a, b): len(seen[a] & seen[b]) / len(seen[a] | seen[b])
        for a, b in itertools.combinations(names, 2)
    }
    assert found == pytest.approx({p: s for p, s in overlaps.items() if s}, rel=1e-5)
    least = float(np.median(list(overlaps.values())))
    report = run(
        map_path,
        tmp_path / "few.txt",
        covisibility_score="iou",
        min_score=least,
        **settings,
    )
    assert 0 < report.done == sum(score >= least for score in overlaps.values())


def test_covisibility_needs_a_map_of_these_images(
    mapping: Path, query: Path, tmp_path: Path
) -> None:
    output = tmp_path / "p.txt"
    with pytest.raises(ConfigError, match="found no --map"):
        run(mapping, output, method="covisibility")
    with pytest.raises(DatasetError, match="found neither a COLMAP model"):
        run(mapping, output, method="covisibility", map_path=tmp_path)
    other = write_map(tmp_path / "map", [["x.jpg", "y.jpg"]])
    with pytest.raises(DatasetError, match="found none of the 5 images"):
        run(mapping, output, method="covisibility", map_path=other)
    with pytest.raises(ConfigError, match="found --query"):
        run(mapping, output, method="covisibility", map_path=other, query=query)
    with pytest.raises(ConfigError, match="found --map, which only covisibility"):
        run(mapping, output, map_path=other)
