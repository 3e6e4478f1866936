"""Synthetic pairs from a folder of photographs, whatever happens to it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import DatasetError, ImageError
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.stages.train.photographs import usable_photographs
from r2d2_kapture.training.loading import MemoryCache, PictureLoader, ReadImage
from r2d2_kapture.training.pairs import RGBArray, crop_pair
from r2d2_kapture.training.sources import PhotographSource
from tests.scenes.images import write_noise

CONFIG = PairConfig(crop_size=48, min_side=64, max_side=128, night=0)


@pytest.fixture
def photographs(tmp_path: Path) -> list[Path]:
    return [write_noise(tmp_path / f"{i}.png", i, (120, 90)) for i in range(4)]


def source_of(
    paths: list[Path], config: PairConfig = CONFIG, read: ReadImage = read_rgb
) -> PhotographSource:
    load = PictureLoader(read, config.max_side, MemoryCache(config.cache_gib))
    return PhotographSource("W", paths, config, load)


def picture_of(source: PhotographSource, index: int) -> str:
    return source.pair(index, np.random.default_rng(0), 0.0).name


def test_every_photograph_gives_pairs(photographs: list[Path]) -> None:
    source = source_of(photographs)
    assert len(source) == 4
    for index, path in enumerate(photographs):
        rng = np.random.default_rng(index)
        raw = source.pair(index, rng, 0.5)
        assert raw.name == str(path)
        pair = crop_pair(raw, 48, rng)
        assert pair is not None and pair.image1.std() > 5
    assert source.gone == ()
    with pytest.raises(DatasetError, match="W: found no photograph"):
        source_of([])


def test_unreadable_and_tiny_photographs_are_left_out_with_a_reason(
    photographs: list[Path], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    tiny = write_noise(tmp_path / "tiny.png", 0, (200, 40))
    exact = write_noise(tmp_path / "exact.png", 0, (48, 48))
    paths = [photographs[0], broken, tiny, exact, tmp_path / "missing.png"]
    usable, skipped = usable_photographs(paths, 48)
    assert usable == [photographs[0], exact]
    assert [item.name for item in skipped] == [str(paths[i]) for i in (1, 2, 4)]
    assert "200 x 40" in skipped[1].reason and "48" in skipped[1].reason


def test_a_photograph_that_disappears_is_replaced_by_the_next_and_counted(
    photographs: list[Path],
) -> None:
    config = PairConfig(crop_size=48, min_side=64, max_side=128, cache_gib=0)
    source = source_of(photographs, config)
    assert picture_of(source, 3) == str(photographs[3])
    photographs[3].unlink()
    photographs[1].write_bytes(b"truncated")
    assert picture_of(source, 3) == str(photographs[0])
    assert picture_of(source, 1) == str(photographs[2])
    assert picture_of(source, 0) == str(photographs[0])
    assert source.gone == (str(photographs[1]), str(photographs[3]))


def test_photographs_that_shrink_are_replaced_until_none_is_left(
    photographs: list[Path],
) -> None:
    source = source_of(photographs)
    write_noise(photographs[0], 0, (120, 20))
    assert picture_of(source, 0) == str(photographs[1])
    assert source.gone == (str(photographs[0]),)
    source = source_of(photographs)  # that keeps none of them
    for path in photographs:
        path.unlink()
    with pytest.raises(DatasetError, match="all 4 photographs .* resume"):
        picture_of(source, 2)


class CountingReader:
    def __init__(self) -> None:
        self.reads = 0

    def __call__(self, path: Path) -> RGBArray:
        self.reads += 1
        return read_rgb(path)


def test_the_cache_saves_decoding_within_its_limit(photographs: list[Path]) -> None:
    needed = 120 * 90 * 3 * 4 / 3
    for kept, expected in [(4, 4), (2, 4 + 2 + 2), (0, 12)]:
        reader = CountingReader()
        cache = MemoryCache((kept + 0.5) * needed / 2**30)
        load = PictureLoader(reader, 1024, cache)
        for _ in range(3):
            for path in photographs:
                np.testing.assert_array_equal(load(path).pixels, read_rgb(path))
        assert reader.reads == expected


def test_large_photographs_are_shrunk_once(tmp_path: Path) -> None:
    path = write_noise(tmp_path / "large.png", 0, (300, 200))
    picture = PictureLoader(read_rgb, 100, MemoryCache(1.0))(path)
    assert picture.size == (150, 100) and picture.stored_size == (300, 200)
    expected = Image.open(path).resize((150, 100), Image.Resampling.BOX)
    means = picture.pixels.mean(axis=(0, 1)), np.asarray(expected).mean(axis=(0, 1))
    np.testing.assert_allclose(*means, atol=1)


def test_what_is_kept_changes_no_pair(photographs: list[Path]) -> None:
    without = dataclasses.replace(CONFIG, cache_gib=0)
    crops = []
    for config in (CONFIG, without):
        source = source_of(photographs, config)
        picture_of(source, 1)
        rng = np.random.default_rng(0)
        crops.append(source.pair(1, rng, 0.5).view2.crop((3, 4), 48))
    np.testing.assert_array_equal(crops[0], crops[1])


def test_errors_that_are_not_about_the_image_pass() -> None:
    def broken(path: Path) -> RGBArray:
        raise RuntimeError("a defect, not a bad photograph")

    source = source_of([Path("a")], CONFIG, broken)
    with pytest.raises(RuntimeError):
        picture_of(source, 0)
    with pytest.raises(ImageError):
        PictureLoader(read_rgb, 100, MemoryCache(0))(Path("missing.png"))
