"""--rotations: images stored on their side give the features of upright ones."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.cli import extract as command
from r2d2_kapture.cli import extract_images as images_command
from r2d2_kapture.config.extract import DEFAULT_MODEL
from r2d2_kapture.coordinates import Turn, stored_from_turned
from r2d2_kapture.core.quarter_turns import turned
from r2d2_kapture.io.features.npz import read_npz
from r2d2_kapture.io.kapture.local_features import open_local_features
from r2d2_kapture.io.outputs.finished import FINISHED_NAME
from r2d2_kapture.matching.turn_graph import quarter
from r2d2_kapture.stages.extract.orientation import agreement
from r2d2_kapture.types import FloatArray, LocalFeatures
from tests.commands import one_error_line
from tests.scenes.images import textured_image
from tests.scenes.kapture_files import table, write_files

WIDTH, HEIGHT = 101, 81
STORED: dict[str, Turn] = {"a": 0, "b c": 90, "d/é": 180, "d/f": 270, "g": 0}
"""Degrees clockwise by which each of five overlapping views is stored turned."""
SETTINGS = "--gpu -1 --precision fp32 --min-size 32 --top-k 300 --workers 1 --quiet"
SETTINGS += " --reliability-thr 0 --repeatability-thr 0"
SIDEWAYS = {0: 1, 90: 8, 180: 3, 270: 6}
"""EXIF's orientation of an image that is stored turned clockwise."""


def view(number: int) -> np.ndarray:
    """One of the views, upright: (HEIGHT, WIDTH, 3) uint8."""
    whole = textured_image(HEIGHT + 40, WIDTH + 40)
    top, left = 5 * number, 40 - 7 * number
    return np.ascontiguousarray(whole[top : top + HEIGHT, left : left + WIDTH])


def save_views(
    folder: Path,
    stored: Mapping[str, Turn],
    *,
    tags: Mapping[str, int] = {},
    first: int = 0,
) -> Path:
    for number, (name, turn) in enumerate(stored.items(), start=first):
        path = folder / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        exif = Image.Exif()
        if name in tags:
            exif[274] = tags[name]
        Image.fromarray(turned(view(number), turn)).save(path, exif=exif)
    return folder


def save_dataset(root: Path, stored: Mapping[str, Turn], first: int = 0) -> Path:
    """A kapture dataset of the views, each with a camera of its own size."""
    sensors, records = [], []
    for number, (name, turn) in enumerate(stored.items()):
        size = (HEIGHT, WIDTH) if turn in (90, 270) else (WIDTH, HEIGHT)
        sensors.append((f"cam{number}", "", "camera", "UNKNOWN_CAMERA", *size))
        records.append((number, f"cam{number}", f"{name}.png"))
    write_files(root, sensors=table(sensors), records_camera=table(records))
    save_views(root / "sensors" / "records_data", stored, first=first)
    return root


def run_images(images: Path, output: Path, *flags: str) -> int:
    arguments = ["--images", str(images), "--output-dir", str(output)]
    return images_command.main([*arguments, *SETTINGS.split(), *flags])


def run_dataset(root: Path, output: Path, *flags: str) -> int:
    arguments = ["--kapture-root", str(root), "--output", str(output)]
    return command.main([*arguments, *SETTINGS.split(), *flags])


@pytest.fixture(scope="module")
def upright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LocalFeatures]:
    """The features of the views, upright."""
    folder = tmp_path_factory.mktemp("upright")
    save_views(folder / "photos", dict.fromkeys(STORED, 0))
    assert run_images(folder / "photos", folder / "features") == 0
    return {name: read_npz(folder / "features" / f"{name}.png.r2d2") for name in STORED}


def assert_turned_back(
    found: LocalFeatures, expected: LocalFeatures, stored: Turn, seen: Turn
) -> None:
    """That a view stored turned and seen turned has the features of the upright one."""
    assert quarter(stored + seen) == 0
    size = (HEIGHT, WIDTH) if stored in (90, 270) else (WIDTH, HEIGHT)
    assert found.image_size == size
    xy = stored_from_turned(expected.keypoints, seen, size)
    np.testing.assert_array_equal(found.keypoints, xy)
    np.testing.assert_array_equal(found.descriptors, expected.descriptors)
    np.testing.assert_array_equal(found.scores, expected.scores)


def recorded(folder: Path) -> dict[str, int]:
    images = json.loads((folder / "orientations.json").read_text())["images"]
    return {name.removesuffix(".png"): item["turn"] for name, item in images.items()}


def tree(folder: Path, left_out: Sequence[str] = ()) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in left_out
    }


def test_images_that_are_stored_turned_give_the_features_of_upright_ones(
    tmp_path: Path, upright: dict[str, LocalFeatures], capsys: pytest.CaptureFixture
) -> None:
    photos, features = save_views(tmp_path / "photos", STORED), tmp_path / "features"
    assert run_images(photos, features, "--rotations", "auto") == 0
    for name, turn in STORED.items():
        found = read_npz(features / f"{name}.png.r2d2")
        assert_turned_back(found, upright[name], turn, quarter(-turn))
    said = capsys.readouterr().out
    assert "90 degrees: 1" in said and "warning" not in said


def test_a_dataset_records_turns_and_resumes_with_them(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root, output = save_dataset(tmp_path / "set", STORED), tmp_path / "out"
    assert run_dataset(root, output, "--rotations", "auto") == 0
    keypoints = output / "reconstruction" / "keypoints" / DEFAULT_MODEL
    assert recorded(keypoints) == {n: quarter(-t) for n, t in STORED.items()}
    times = ("images.jsonl", "extract_report.json", FINISHED_NAME)
    first = tree(output, times)
    # what a run that was killed leaves: turns, but not all features
    (keypoints / "d" / "é.png.kpt").unlink()
    (keypoints / "b c.png.kpt").unlink()
    assert run_dataset(root, output, "--rotations", "auto") == 0
    assert tree(output, times) == first
    assert run_dataset(root, output, "--rotations", "auto", "--force") == 0
    assert tree(output, times) == first
    capsys.readouterr()
    assert run_dataset(root, output) == 2
    assert "rotations: auto, not default" in one_error_line(capsys)


def test_a_replaced_image_gets_a_turn_anew(tmp_path: Path) -> None:
    photos, features = save_views(tmp_path / "photos", STORED), tmp_path / "features"
    assert run_images(photos, features, "--rotations", "auto") == 0
    path = photos / "g.png"
    Image.fromarray(turned(view(4), 90)).save(path)
    assert run_images(photos, features, "--rotations", "auto") == 0
    assert recorded(features) == {
        **{n: quarter(-t) for n, t in STORED.items()},
        "g": 270,
    }


def test_queries_are_turned_to_match_the_map(
    tmp_path: Path, upright: dict[str, LocalFeatures]
) -> None:
    """Even where the map's photographs are most of them on their side."""
    on_side: dict[str, Turn] = {name: 90 for name in list(STORED)[:4]}
    mapping = save_dataset(tmp_path / "map", on_side)
    query = save_dataset(tmp_path / "query", {"g": 0}, first=4)
    assert run_dataset(mapping, tmp_path / "one", "--rotations", "auto") == 0
    alone = tmp_path / "alone"
    flags = ("--rotations", "auto", "--rotations-like", str(tmp_path / "one"))
    assert run_dataset(query, alone, *flags) == 0
    assert run_dataset(query, tmp_path / "one", "--rotations", "auto") == 0
    for output in (alone, tmp_path / "one"):
        keypoints = output / "reconstruction" / "keypoints" / DEFAULT_MODEL
        # the map stays as it is stored, on its side: so is the query to be seen
        assert recorded(keypoints)["g"] == 90
        tables = open_local_features([output])
        found = tables.read("g.png", (WIDTH, HEIGHT))
        assert len(found) == len(upright["g"])
        assert (found.keypoints < (WIDTH, HEIGHT)).all()


def test_a_folder_without_features_cannot_be_matched(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    root = save_dataset(tmp_path / "set", STORED)
    (tmp_path / "nothing").mkdir()
    flags = ("--rotations", "auto", "--rotations-like", str(tmp_path / "nothing"))
    assert run_dataset(root, tmp_path / "out", *flags) == 2
    assert "found no images.jsonl" in one_error_line(capsys)
    assert run_dataset(root, tmp_path / "out", *flags[2:]) == 2
    assert "--rotations-like: found --rotations off" in one_error_line(capsys)


def test_exif_turns_without_matching(
    tmp_path: Path, upright: dict[str, LocalFeatures], capsys: pytest.CaptureFixture
) -> None:
    tags = {name: SIDEWAYS[turn] for name, turn in STORED.items()}
    photos = save_views(tmp_path / "photos", STORED, tags=tags)
    shutil.copy(photos / "a.png", tmp_path / "mirrored.png")
    with Image.open(photos / "a.png") as image:
        exif = Image.Exif()
        exif[274] = 2
        image.save(photos / "mirrored.png", exif=exif)
    features = tmp_path / "features"
    assert run_images(photos, features, "--rotations", "exif") == 0
    for name, turn in STORED.items():
        found = read_npz(features / f"{name}.png.r2d2")
        assert_turned_back(found, upright[name], turn, quarter(-turn))
    said = capsys.readouterr().out
    assert "stored mirrored (EXIF orientation 2, 4, 5 or 7): 1 ('mirrored.png')" in said


def test_matches_correct_what_exif_says(tmp_path: Path) -> None:
    tags = {name: SIDEWAYS[turn] for name, turn in STORED.items()} | {"d/f": 1}
    photos = save_views(tmp_path / "photos", STORED, tags=tags)
    features = tmp_path / "features"
    assert run_images(photos, features, "--rotations", "auto") == 0
    assert recorded(features) == {n: quarter(-t) for n, t in STORED.items()}


def test_one_turn_of_all_images_turns_masks_too(tmp_path: Path) -> None:
    photos = save_views(tmp_path / "photos", dict.fromkeys(STORED, 90))
    masks = tmp_path / "masks"
    for name in STORED:
        mask = np.zeros((WIDTH, HEIGHT), np.uint8)
        mask[: WIDTH // 2] = 255
        path = masks / f"{name}.png.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    features = tmp_path / "features"
    flags = ("--rotations", "270", "--masks", str(masks))
    assert run_images(photos, features, *flags) == 0
    for name in STORED:
        found = read_npz(features / f"{name}.png.r2d2")
        assert found.image_size == (HEIGHT, WIDTH)
        assert len(found) > 20
        assert found.keypoints[:, 1].max() < WIDTH // 2


def test_an_image_of_something_else_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    photos = save_views(tmp_path / "photos", {"a": 0, "b": 90})
    Image.fromarray(textured_image(HEIGHT, WIDTH, seed=7)).save(photos / "z.png")
    Image.new("RGB", (40, 30)).save(photos / "uniform.png")
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:200])
    features = tmp_path / "features"
    assert run_images(photos, features, "--rotations", "auto") == 1
    assert recorded(features)["b"] == 270
    said = capsys.readouterr().out
    assert "in the largest group, in any rotation: 2 ('uniform.png', 'z.png')" in said
    assert "failed: " in said and "broken.png" in said


def test_upright_images_keep_their_bytes(tmp_path: Path) -> None:
    """Without the flag nothing is recorded; with it, features are the same."""
    root = save_dataset(tmp_path / "set", dict.fromkeys(STORED, 0))
    assert run_dataset(root, tmp_path / "off") == 0
    assert run_dataset(root, tmp_path / "auto", "--rotations", "auto") == 0
    off, auto = tree(tmp_path / "off"), tree(tmp_path / "auto")
    (extra,) = auto.keys() - off.keys()
    assert extra.endswith("orientations.json")
    features = [name for name in off if name.endswith((".kpt", ".desc"))]
    assert len(features) == 2 * len(STORED)
    assert all(off[name] == auto[name] for name in features)
    assert not any(b"rotations" in off[n] for n in off if n.endswith("manifest.json"))


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--rotations", "45"], "--rotations 45: expected off, exif, auto"),
        (["--rotations", "auto"], "--rotations auto: found no --output-dir"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(
    tmp_path: Path, flags: list[str], said: str, capsys: pytest.CaptureFixture
) -> None:
    photos = save_views(tmp_path / "photos", {"a": 0})
    arguments = ["--images", str(photos), *SETTINGS.split(), *flags]
    assert images_command.main(arguments) == 2
    assert said in one_error_line(capsys)


@pytest.mark.parametrize(
    ("seen", "matches"),
    [
        (lambda x, y: (x, y), 60),
        (lambda x, y: (-0.2 * y + 0.9 * x, 0.9 * y + 0.2 * x), 60),
        (lambda x, y: (-y, x), 0),
        (lambda x, y: (-x, y), 0),
        (lambda x, y: (x, -y), 0),
    ],
    ids=["same", "rolled", "turned", "mirrored", "mirrored and turned"],
)
def test_images_that_match_upright_agree(
    seen: Callable[[FloatArray, FloatArray], Sequence[FloatArray]], matches: int
) -> None:
    """A mirrored image, of which an epipolar geometry exists too, is of no turn."""
    rng = np.random.default_rng(0)
    xy = rng.uniform((-200, -100), (200, 100), (60, 2)).astype(np.float32)
    other = np.column_stack(seen(*xy.T)).astype(np.float32)
    ones = np.ones(60, np.float32)
    first, second = (
        LocalFeatures(
            keypoints=points + 240,
            scales=ones,
            scores=ones,
            descriptors=np.eye(60, dtype=np.float32),
            image_size=(480, 480),
        )
        for points in (xy, other)
    )
    assert agreement(first, second) == matches
