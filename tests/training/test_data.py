"""Batches are the same whoever computes them, and whenever."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.core.pyramid import normalize_rgb
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.training.data import PairDataset, WeightedSource, make_loader
from r2d2_kapture.training.loading import (
    MemoryCache,
    PairSource,
    PictureLoader,
    ReadImage,
)
from r2d2_kapture.training.pairs import RawPair
from r2d2_kapture.training.sources import PhotographSource
from r2d2_kapture.training.transforms import random_pair, strength_at
from r2d2_kapture.training.views import Picture

CONFIG = PairConfig(
    crop_size=32, min_side=48, max_side=96, hold_steps=2, ramp_steps=4, cache_gib=0.01
)
Batch = list[Tensor]


def noise(path: Path) -> np.ndarray:
    rng = np.random.default_rng(int(path.name))
    return rng.integers(0, 256, (70, 80, 3), dtype=np.uint8)


def photographs(
    name: str, numbers: range, config: PairConfig = CONFIG, read: ReadImage = noise
) -> PhotographSource:
    load = PictureLoader(read, config.max_side, MemoryCache(config.cache_gib))
    return PhotographSource(name, [Path(str(i)) for i in numbers], config, load)


def dataset(seed: int = 0, config: PairConfig = CONFIG, steps: int = 6) -> PairDataset:
    sources = [
        WeightedSource(source=photographs("first", range(3), config), weight=3),
        WeightedSource(source=photographs("second", range(3, 5), config), weight=1),
    ]
    return PairDataset(sources, config, seed=seed, steps=steps, pairs_per_step=4)


def batches(data: PairDataset, **settings: int) -> list[Batch]:
    return list(make_loader(data, **{"batch_size": 4, **settings}))


def assert_equal(first: list[Batch], second: list[Batch]) -> None:
    assert len(first) == len(second)
    for one, other in zip(first, second):
        for a, b in zip(one, other, strict=True):
            assert torch.equal(torch.nan_to_num(a, -7), torch.nan_to_num(b, -7))
            assert torch.equal(a.isnan(), b.isnan())


def test_items_and_batches_are_what_the_network_takes() -> None:
    data = dataset()
    image1, image2, aflow = data[3]
    pair = data.training_pair(3)
    assert image1.shape == image2.shape == (3, 32, 32)
    assert aflow.shape == (2, 32, 32)
    assert {t.dtype for t in (image1, image2, aflow)} == {torch.float32}
    expected = normalize_rgb(torch.from_numpy(pair.image2)[None])[0]
    assert torch.equal(image2, expected)
    np.testing.assert_array_equal(aflow[1].numpy(), pair.aflow[..., 1])
    loader = make_loader(data, 4)
    found = list(loader)
    assert len(loader) == len(found) == 6
    assert found[0][0].shape == (4, 3, 32, 32)
    assert found[0][2].shape == (4, 2, 32, 32)
    assert torch.equal(found[0][0][3], image1)
    crops = [data[number][0].numpy().tobytes() for number in range(24)]
    assert len(set(crops)) == 24  # no pair comes twice


def test_runs_agree_resumed_or_not_and_another_seed_does_not() -> None:
    data = dataset(seed=1)
    first = batches(data)
    assert_equal(first, batches(dataset(seed=1)))
    assert_equal(first[4:], batches(dataset(seed=1), start_step=4))
    assert batches(data, start_step=6) == []
    assert not torch.equal(first[0][0], batches(dataset(seed=2))[0][0])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_does_not_matter(workers: int) -> None:
    assert_equal(batches(dataset()), batches(dataset(), workers=workers))


def test_processes_share_each_step() -> None:
    data = dataset()
    shares = [batches(data, batch_size=2, rank=r, world_size=2) for r in (0, 1)]
    joined = [
        [torch.cat(tensors) for tensors in zip(first, second)]
        for first, second in zip(*shares)
    ]
    assert_equal(batches(data), joined)


@pytest.mark.parametrize("workers", [0, 1])
def test_the_global_random_state_is_left_alone(workers: int) -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    batches(dataset(steps=2), workers=workers)
    assert torch.equal(torch.get_rng_state(), before)


def test_the_trainer_sees_which_photographs_its_workers_missed() -> None:
    def unreadable(path: Path) -> np.ndarray:
        if path.name == "1":
            return noise(path)[:10]
        return noise(path)

    source = photographs("W", range(3), read=unreadable)
    batches(drawn_from(source), workers=2)
    assert source.gone == ("1",)


class RecordingSource:
    """Notes the difficulty it is asked for; every second pair has no overlap."""

    name = "recording"

    def __init__(self, usable: bool = True) -> None:
        self.difficulties: list[float] = []
        self.usable = usable

    def __len__(self) -> int:
        return 2

    def pair(
        self, index: int, rng: np.random.Generator, difficulty: float
    ) -> RawPair | None:
        self.difficulties.append(difficulty)
        if index == 1 or not self.usable:
            return None
        picture = Picture(pixels=noise(Path(str(index))))
        strength = strength_at(CONFIG, 0)
        return random_pair("p", (picture, picture), None, CONFIG, strength, rng)


def drawn_from(source: PairSource) -> PairDataset:
    sources = [WeightedSource(source=source, weight=1)]
    return PairDataset(sources, CONFIG, seed=0, steps=7, pairs_per_step=4)


def test_the_difficulty_follows_the_step() -> None:
    source = RecordingSource()
    data = drawn_from(source)
    expected = []
    for step in range(7):
        for index in range(4 * step, 4 * step + 4):
            before = len(source.difficulties)
            data.training_pair(index)
            expected += [CONFIG.difficulty(step)] * (len(source.difficulties) - before)
    assert source.difficulties == expected
    assert source.difficulties[0] == 0 and source.difficulties[-1] == 1


def test_pairs_without_overlap_are_drawn_again_and_none_at_all_is_an_error() -> None:
    source = RecordingSource()
    assert len(batches(drawn_from(source))) == 7
    assert len(source.difficulties) > 28
    with pytest.raises(DatasetError, match="--min-overlap"):
        drawn_from(RecordingSource(usable=False))[0]


def test_sources_are_mixed_by_their_weights() -> None:
    data = dataset(steps=50)
    names = [data.training_pair(i).name for i in range(200)]
    second = np.mean([name in ("3", "4") for name in names])
    assert second == pytest.approx(0.25, abs=0.08)
    assert set(names) == set("01234")


def test_a_source_without_weight_is_not_drawn() -> None:
    source = RecordingSource()
    used = photographs("W", range(1))
    sources = [
        WeightedSource(source=source, weight=0),
        WeightedSource(source=used, weight=1),
    ]
    data = PairDataset(sources, CONFIG, seed=0, steps=3, pairs_per_step=4)
    batches(data)
    assert source.difficulties == []
    with pytest.raises(ConfigError, match="sources"):
        PairDataset(sources[:1], CONFIG, seed=0, steps=3, pairs_per_step=4)


def test_batches_that_do_not_make_up_a_step_are_refused() -> None:
    with pytest.raises(ConfigError, match="4 pairs per step"):
        make_loader(dataset(), 4, world_size=2)


def test_the_schedule_may_change_only_what_comes_after() -> None:
    longer = dataclasses.replace(CONFIG, ramp_steps=40)
    first, second = batches(dataset()), batches(dataset(config=longer))
    assert_equal(first[:3], second[:3])
    assert not torch.equal(first[5][1], second[5][1])
