"""The named sources of the published recipe."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.stages.train.photographs import open_named_sources, picture_loader
from r2d2_kapture.training.loading import MemoryCache, PictureLoader
from r2d2_kapture.training.sources import (
    PicturePair,
    PicturePairSource,
    flow_pairs,
    read_flow,
    style_pairs,
)
from tests.scenes.rendered import correlations

CONFIG = PairConfig(
    crop_size=48, min_side=64, max_side=128, night=0, folder_weights="x=1"
)


def blocks(seed: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (size[1] // 8, size[0] // 8, 3))
    return np.kron(coarse, np.ones((8, 8, 1))).astype(np.uint8)


def write_image(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, quality=95)
    return path


def write_flow(path: Path, aflow: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, aflow=aflow.astype(np.float32))
    return path


def shift_flow(shift: int, size: tuple[int, int] = (160, 120)) -> np.ndarray:
    x, y = np.meshgrid(np.arange(size[0]), np.arange(size[1]))
    aflow = np.stack([x - shift, y], axis=-1).astype(np.float32)
    aflow[x < shift] = np.nan
    return aflow


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data root of all four sources, the second image shifted by 24 pixels."""
    write_image(tmp_path / "web_images/0/a b.jpg", blocks(0))
    db = tmp_path / "aachen/images_upright/db"
    first, second = blocks(1), np.roll(blocks(1), -24, axis=1)
    write_image(db / "1.jpg", first)
    write_image(db / "2.jpg", second)
    stylised = tmp_path / "aachen/style_transfer"
    write_image(stylised / "1.jpg.st_night 7.jpg", 255 - first // 2)
    flow = tmp_path / "aachen/optical_flow"
    write_flow(flow / "1_2.npz", shift_flow(24))
    (flow / "pairs.txt").write_text("# pairs\n\ndb/1.jpg\tdb/2.jpg\t1_2.npz\n")
    return tmp_path


def load() -> PictureLoader:
    return PictureLoader(read_rgb, CONFIG.max_side, MemoryCache(0.1))


def test_all_sources_open_and_give_pairs(root: Path) -> None:
    opened = open_named_sources(root, "WASF", CONFIG, picture_loader(CONFIG))
    assert opened.skipped == ()
    assert [item.weight for item in opened.sources] == [1, 1, 1, 1]
    names = [Path(item.source.name).relative_to(root) for item in opened.sources]
    assert [str(name) for name in names] == [
        "web_images",
        "aachen/images_upright/db",
        "aachen/style_transfer",
        "aachen/optical_flow",
    ]
    for item in opened.sources:
        found = correlations(item.source, [(0, seed) for seed in range(4)])
        assert len(found) == 4 and np.median(np.abs(found)) > 0.8


def test_stylised_pictures_are_aligned_with_their_original(root: Path) -> None:
    (item,) = open_named_sources(root, "S", CONFIG, load()).sources
    # the style of this test is a negative
    draws = [(0, seed) for seed in range(6)]
    found = correlations(item.source, draws, difficulty=1.0)
    assert len(found) == 6 and np.median(found) < -0.8


def test_either_style_may_come_first(root: Path) -> None:
    (item,) = open_named_sources(root, "S", CONFIG, load()).sources
    first = {
        item.source.pair(0, np.random.default_rng(seed), 0).view1.picture.pixels[
            0, 0, 0
        ]
        for seed in range(12)
    }
    assert len(first) == 2


def test_a_stylised_picture_of_another_size_is_the_same_view(root: Path) -> None:
    path = root / "aachen/style_transfer/1.jpg.st_night 7.jpg"
    half = Image.fromarray(255 - blocks(1) // 2).resize((80, 60), Image.Resampling.BOX)
    half.save(path, quality=95)
    config = PairConfig(crop_size=32, min_side=48, max_side=128, night=0)
    pair = PicturePair(
        name="p", path1=root / "aachen/images_upright/db/1.jpg", path2=path
    )
    source = PicturePairSource("S", [pair], config, load())
    (found,) = correlations(source, [(0, 0)], crop_size=32)
    assert found < -0.8


def test_flow_is_followed(root: Path) -> None:
    (item,) = open_named_sources(root, "F", CONFIG, load()).sources
    found = correlations(item.source, [(0, seed) for seed in range(6)])
    assert len(found) == 6 and np.median(found) > 0.8


def test_stylised_pictures_without_original_are_left_out(root: Path) -> None:
    folder = root / "aachen/style_transfer"
    odd = write_image(folder / "odd.jpg", blocks(0))
    lost = write_image(folder / "9.jpg.st_night.jpg", blocks(0))
    opened = open_named_sources(root, "S", CONFIG, load())
    assert len(opened.sources[0].source) == 1
    assert sorted(item.name for item in opened.skipped) == sorted([str(odd), str(lost)])
    pairs, skipped = style_pairs(root, [odd])
    assert pairs == [] and "<db image>.jpg.st_<query>.jpg" in skipped[0].reason


def test_pairs_without_files_are_left_out(root: Path) -> None:
    lines = ["db/1.jpg\tdb/2.jpg\t1_2.npz", "db/1.jpg\tdb/2.jpg\tmissing.npz"]
    pairs, skipped = flow_pairs(root, lines)
    assert len(pairs) == 1 and "missing.npz is not there" in skipped[0].reason


@pytest.mark.parametrize(
    "line",
    ["db/1.jpg db/2.jpg 1_2.npz", "../1.jpg\tdb/2.jpg\tf.npz", "/a\tb\tc", "a\tb\t"],
)
def test_lines_that_are_not_pairs_are_errors(root: Path, line: str) -> None:
    with pytest.raises(DatasetError, match="pairs.txt: found .* separated by tabs"):
        flow_pairs(root, [line])


def broken_flow(path: Path, kind: str) -> None:
    if kind == "missing":
        path.unlink()
    elif kind == "text":
        path.write_text("not an archive")
    elif kind == "truncated":
        path.write_bytes(path.read_bytes()[:200])
    elif kind == "corrupted":
        data = bytearray(path.read_bytes())
        data[150:160] = b"0123456789"
        path.write_bytes(data)
    elif kind == "other name":
        np.savez(path, flow=np.zeros((120, 160, 2), np.float32))
    elif kind == "other size":
        np.savez(path, aflow=np.zeros((120, 100, 2), np.float32))
    elif kind == "bare array":
        with path.open("wb") as file:
            np.save(file, np.zeros((120, 160, 2), np.float32))
    elif kind == "broken header":
        with zipfile.ZipFile(path) as archive:
            content = archive.read("aflow.npy")
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("aflow.npy", content.replace(b"(120,", b"((((,"))
    elif kind == "objects":
        np.savez(path, aflow=np.full((120, 160, 2), None))
    else:
        np.savez(path, aflow=np.zeros((120, 160, 2), np.int16))


KINDS = [
    "missing",
    "text",
    "truncated",
    "corrupted",
    "other name",
    "other size",
    "bare array",
    "broken header",
    "objects",
    "int16",
]


@pytest.mark.parametrize("kind", KINDS)
def test_flow_files_that_hold_something_else_are_refused(root: Path, kind: str) -> None:
    path = root / "aachen/optical_flow/1_2.npz"
    (item,) = open_named_sources(root, "F", CONFIG, load()).sources
    broken_flow(path, kind)
    with pytest.raises(DatasetError, match="1_2.npz.*convert flow"):
        read_flow(path, (160, 120))
    assert item.source.pair(0, np.random.default_rng(0), 0) is None
    assert item.source.gone == ("db/1.jpg - db/2.jpg",)


def test_flow_files_round_trip(root: Path) -> None:
    found = read_flow(root / "aachen/optical_flow/1_2.npz", (160, 120))
    np.testing.assert_array_equal(found, shift_flow(24))


@pytest.mark.parametrize("letters", ["", "X", "WW", "w"])
def test_unknown_letters_are_refused(root: Path, letters: str) -> None:
    with pytest.raises(ConfigError, match="letters of WASF"):
        open_named_sources(root, letters, CONFIG, load())


@pytest.mark.parametrize("letter", "WASF")
def test_a_source_that_is_not_there_is_an_error(tmp_path: Path, letter: str) -> None:
    with pytest.raises(DatasetError, match=f"source {letter}; see kapture_r2d2_fetch"):
        open_named_sources(tmp_path, letter, CONFIG, load())


def test_a_source_of_which_nothing_is_usable_is_an_error(root: Path) -> None:
    (root / "aachen/images_upright/db/1.jpg").unlink()
    with pytest.raises(DatasetError, match="none of 1 pairs is usable"):
        open_named_sources(root, "S", CONFIG, load())
    (root / "aachen/optical_flow/pairs.txt").unlink()
    with pytest.raises(DatasetError, match="pairs.txt: cannot be read"):
        open_named_sources(root, "F", CONFIG, load())
