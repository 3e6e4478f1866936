"""The log of two-view geometries, whole and broken."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pycolmap
import pytest

from r2d2_kapture.errors import OutputError
from r2d2_kapture.io.colmap.geometry_log import (
    PairGeometry,
    log_geometry,
    pair_geometry,
    read_geometries,
)
from r2d2_kapture.io.outputs.json_log import open_log

PAIR = ("a b.jpg", 'é/",b.jpg')


def geometry(seed: int = 0) -> pycolmap.TwoViewGeometry:
    rng = np.random.default_rng(seed)
    made = pycolmap.TwoViewGeometry()
    made.config = 2
    made.E, made.F = rng.normal(size=(3, 3)), rng.normal(size=(3, 3)) * 1e-9
    made.cam2_from_cam1 = pycolmap.Rigid3d(
        pycolmap.Rotation3d(np.array([0.1, 0.2, 0.3, 0.9273618495495704])),
        rng.normal(size=3),
    )
    made.inlier_matches = rng.integers(0, 99, (20, 2)).astype(np.uint32)
    return made


def write(path: Path, *items: PairGeometry) -> None:
    with open_log(path) as log:
        for item in items:
            log_geometry(log, item)


def test_round_trip_is_exact(tmp_path: Path) -> None:
    made = geometry()
    write(tmp_path / "log", pair_geometry(PAIR, "digest", made, matches=30))
    (found,) = read_geometries(tmp_path / "log").values()
    assert (found.pair, found.inputs) == (PAIR, "digest")
    assert (found.matches, found.inliers, found.config) == (30, 20, 2)
    back = found.two_view_geometry(made.inlier_matches.astype(np.int64))
    np.testing.assert_array_equal(back.E, made.E)
    np.testing.assert_array_equal(back.F, made.F)
    assert back.H is None
    np.testing.assert_array_equal(
        back.cam2_from_cam1.matrix(), made.cam2_from_cam1.matrix()
    )
    np.testing.assert_array_equal(back.inlier_matches, made.inlier_matches)


def test_the_last_line_of_a_pair_counts(tmp_path: Path) -> None:
    path = tmp_path / "log"
    write(path, pair_geometry(PAIR, "old", geometry(0), 30))
    write(path, pair_geometry(PAIR, "new", geometry(1), 30))
    assert read_geometries(path)[PAIR].inputs == "new"


@pytest.mark.parametrize("cut", [1, 2, 40, 300])
def test_a_line_that_broke_off_is_dropped_and_the_log_continues(
    tmp_path: Path, cut: int
) -> None:
    path = tmp_path / "log"
    first = pair_geometry(("a", "b"), "1", geometry(0), 30)
    second = pair_geometry(("a", "c"), "2", geometry(1), 30)
    write(path, first, second)
    whole = path.read_bytes()
    path.write_bytes(whole[:-cut])
    assert list(read_geometries(path).values()) == [first]
    write(path, second)
    assert path.read_bytes() == whole


def test_lines_of_something_else_are_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "log"
    path.write_bytes(b'\xff\xfe\n[1, 2]\n{"pair": 3}\n{"pair": ["a", "b"]}\n')
    assert read_geometries(path) == {}
    assert read_geometries(tmp_path / "absent") == {}


def test_log_that_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="absent"):
        write(tmp_path / "absent" / "log")


@pytest.mark.parametrize(
    "changes",
    [
        {"E": [[1, 2], [3]]},
        {"F": [["a"] * 3] * 3},
        {"cam2_from_cam1": [1, 2]},
        {"config": "x"},
        {"matches": None},
        {"pair": "abc"},
    ],
)
def test_a_line_of_other_values_is_left_out(
    tmp_path: Path, changes: dict[str, object]
) -> None:
    good = pair_geometry(PAIR, "digest", geometry(), matches=30)
    with open_log(tmp_path / "log") as log:
        log.append({**dataclasses.asdict(good), **changes})
    assert read_geometries(tmp_path / "log") == {}
