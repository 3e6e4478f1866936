"""kapture_r2d2_view of what is stored: databases, maps, features, kapture datasets."""

from __future__ import annotations

import json
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import r2d2_kapture as rk
from r2d2_kapture.cli.view import main as view
from r2d2_kapture.io.features.hdf5 import write_h5
from r2d2_kapture.io.kapture.local_features import open_local_features
from tests.scenes.pipeline import PipelineScene

A, B = "seq é/left/0 b.jpg", "seq é/left/1 b.jpg"
POINTS = 120


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> PipelineScene:
    return PipelineScene(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="module")
def work(scene: PipelineScene, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("work")
    rk.run_pipeline(
        mapping=scene.mapping,
        features=[scene.features],
        output=output,
        mapping_pairs={"method": "exhaustive"},
        progress=False,
    )
    return output


def records(scene: PipelineScene) -> list[str]:
    return ["--images", str(scene.mapping / "sensors" / "records_data")]


def viewed(folder: Path, arguments: list[str]) -> dict[str, Any]:
    """The numbers of a run that ends well."""
    assert view([*arguments, "--output-dir", str(folder)]) == 0
    (path,) = folder.glob("*.json")
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    assert values["pictures"]
    for name in values["pictures"]:
        assert (folder / name).read_bytes().startswith(b"\x89PNG")
    return values


def refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert view(arguments) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def test_a_pair_of_a_database_in_either_order(work: Path, tmp_path: Path) -> None:
    database = ["--database", str(work / "database.db"), "--pair"]
    found = viewed(tmp_path / "ab", [*database, A, B])
    turned = viewed(tmp_path / "ba", [*database, B, A])
    assert found["images"][0]["keypoints"] == POINTS
    assert found["inliers"] > 0.8 * POINTS
    assert found["median_error_px"] == pytest.approx(turned["median_error_px"], 0.01)
    F, back = (np.array(values["F"]) for values in (found, turned))
    assert back == pytest.approx(F.T)


def test_an_image_of_a_map(work: Path, tmp_path: Path) -> None:
    found = viewed(tmp_path / "v", ["--map", str(work / "map"), "--image", A])
    assert found["image"] == A and len(found["pictures"]) == 4
    assert found["observed_points"] > 0.8 * POINTS
    shared = list(found["shared_points"].values())
    assert shared == sorted(shared, reverse=True) and shared[0] > 0.8 * POINTS
    best = viewed(tmp_path / "best", ["--map", str(work / "map" / "sparse")])
    assert best["observed_points"] >= found["observed_points"]


def test_a_pair_of_a_kapture_dataset(
    scene: PipelineScene,
    work: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root = ["--kapture-root", str(scene.mapping), "--features", str(scene.features)]
    found = viewed(tmp_path / "now", [*root, "--pair", A, B])
    assert (
        "no stored matches of this pair: it was matched now" in capsys.readouterr().out
    )
    stored = viewed(
        tmp_path / "stored", [*root, "--pair", A, B, "--matches", str(work / "matches")]
    )
    assert stored["matches_from"] == "stored"
    assert stored["matches"] == found["matches"] > 0.8 * POINTS
    assert stored["images"][0]["camera"]["params"] == [500, 500, 320, 240]


def test_a_pair_of_hloc_files(scene: PipelineScene, tmp_path: Path) -> None:
    tables = open_local_features([scene.features])
    features = tmp_path / "features.h5"
    write_h5(features, [(name, tables.read(name, (640, 480))) for name in (A, B)])
    flags = ["--features", str(features), "--pair", A, B, *records(scene)]
    now = viewed(tmp_path / "now", flags)
    assert now["matches"] > 0.8 * POINTS
    with h5py.File(tmp_path / "matches.h5", "w") as file:
        # stored from B to A, each row with itself but for the first ten
        group = file.create_group(f"{B.replace('/', '-')}/{A.replace('/', '-')}")
        group["matches0"] = np.where(np.arange(POINTS) < 10, -1, np.arange(POINTS))
    matches = ["--matches", str(tmp_path / "matches.h5")]
    stored = viewed(tmp_path / "stored", [*flags, *matches])
    assert stored["matches"] == POINTS - 10
    assert stored["inliers"] > 0.8 * POINTS


def test_a_database_without_geometry_is_drawn_with_a_warning(
    work: Path, tmp_path: Path, scene: PipelineScene, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "raw.db"
    database.write_bytes((work / "database.db").read_bytes())
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("DELETE FROM two_view_geometries")
    flags = ["--database", str(database), "--pair", A, B, *records(scene)]
    assert "inliers" not in viewed(tmp_path / "v", flags)
    assert "has no two-view geometry of this pair" in capsys.readouterr().out


def test_the_same_from_python(
    scene: PipelineScene, work: Path, tmp_path: Path, checkpoint_path: Path
) -> None:
    folder = scene.mapping / "sensors" / "records_data"
    stored = rk.view_stored_pair(
        (A, B),
        kapture_root=str(scene.mapping),
        features=[str(scene.features)],
        ratio=0.95,
        min_inliers=20,
        output_dir=str(tmp_path / "stored"),
    )
    assert int(stored.details["inliers"]) > 0.8 * POINTS
    database = rk.view_database(work / "database.db", (A, B), output_dir=tmp_path / "d")
    assert database.details["keypoints"] == f"{POINTS} and {POINTS}"
    assert rk.view_map(work / "map", A, output_dir=tmp_path / "m").done == 1
    pair = rk.view_pair(
        folder / A,
        folder / B,
        model=checkpoint_path,
        gpu=-1,
        top_k=5,
        exif=False,
        output_dir=tmp_path / "p",
    )
    assert pair.details["geometry"] == "none", "grey images have none"
    with pytest.raises(rk.R2D2KaptureError, match="did you mean ratio"):
        rk.view_stored_pair((A, B), output_dir=tmp_path, ratoi=0.9)


def test_a_broken_database_is_one_line(
    work: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    database = tmp_path / "broken.db"
    database.write_bytes((work / "database.db").read_bytes())
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE two_view_geometries SET F = x'00'")
        connection.execute("UPDATE matches SET data = x'0000'")
    for table, message in (
        ("two_view_geometries", "found no 9 numbers in F"),
        ("matches", "is too short: found 2 bytes"),
    ):
        line = refused(["--database", str(database), "--pair", A, B], capsys)
        assert message in line
        with closing(sqlite3.connect(database)) as connection, connection:
            connection.execute(f"DELETE FROM {table}")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--database", "{db}"], "expected --pair A B"),
        (["--database", "{db}", "--pair", "0 b.jpg", B], f"did you mean '{A[:8]}"),
        (["--database", "{db}", "--pair", A, A], "found no matches of"),
        (["--database", "{no}", "--pair", A, B], "found no such file"),
        (
            ["--database", "{db}", "--pair", A, B, "--images", "{no}"],
            "--images {no}: found no such file",
        ),
        (
            ["--database", "{db}", "--pair", A, B, "--images", "{map}"],
            f"give the folder that '{A}' is relative to with --images",
        ),
        (["--map", "{map}", "--image", "seq"], "found no image 'seq'"),
        (["--map", "{no}"], "found no such file or folder, expected map"),
        (["--map", "{ft}"], "neither a COLMAP model"),
        (["--map", "{map}", "--pair", A, B], "--pair: expected only with no --map"),
        (["--map", "{map}", "a.jpg"], "found image files too"),
        (["--map", "{map}", "--database", "{db}"], "found together"),
        (["--features", "{ft}", "--pair", A, B], "--images: found none"),
        (["a.jpg", "--pair", A, B], "--pair: expected only with one of --map"),
        (
            ["--kapture-root", "{root}", "--features", "{ft}", "--pair", A, "x"],
            "found no image 'x'; it holds 'seq é/left/0 b.jpg', ",
        ),
        (
            ["--kapture-root", "{root}", "--features", "{ft}", "--pair", A, B]
            + ["--matches", "{map}"],
            f"'{A}' is matched with no image",
        ),
    ],
)
def test_what_is_not_stored_is_one_line(
    scene: PipelineScene,
    work: Path,
    arguments: list[str],
    message: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {
        "{db}": work / "database.db",
        "{map}": work / "map",
        "{ft}": scene.features,
        "{root}": scene.mapping,
        "{no}": work / "nowhere",
    }
    typed = [str(places.get(argument, argument)) for argument in arguments]
    assert message.replace("{no}", str(places["{no}"])) in refused(typed, capsys)
