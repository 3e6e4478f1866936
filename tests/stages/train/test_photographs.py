"""Opening folders of photographs; the named sources are in training/test_sources.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.stages.train.photographs import find_photographs, photograph_sources
from r2d2_kapture.training.data import WeightedSource
from tests.scenes.images import write_noise

CONFIG = PairConfig(crop_size=48, min_side=64, max_side=128)


def sources_of(folder: Path, config: PairConfig) -> tuple[WeightedSource, ...]:
    paths, _ = find_photographs(folder, config)
    return photograph_sources(folder, paths, config)


def test_folders_are_weighted(tmp_path: Path) -> None:
    names = [
        "a.png",
        "drone/b.png",
        "drone/deep/c d.png",
        "drone/deep/e.png",
        "é/f.png",
    ]
    for seed, name in enumerate(names):
        write_noise(tmp_path / name, seed, (120, 90))
    config = PairConfig(
        crop_size=48, min_side=64, folder_weights="drone=0.5, drone/deep=0.25"
    )
    found = {item.source.name: item for item in sources_of(tmp_path, config)}
    weights = {name: (len(i.source), i.weight) for name, i in found.items()}
    assert weights == {
        str(tmp_path): (2, 2 / 3),
        str(tmp_path / "drone"): (1, 0.5 / 3),
        str(tmp_path / "drone/deep"): (2, 0.5 / 3),
    }


def test_a_weight_of_zero_leaves_a_folder_out(tmp_path: Path) -> None:
    write_noise(tmp_path / "a.png", 0, (120, 90))
    write_noise(tmp_path / "b/c.png", 0, (120, 90))
    config = PairConfig(crop_size=48, min_side=64, folder_weights="b=0")
    (item,) = sources_of(tmp_path, config)
    assert len(item.source) == 1 and item.source.name == str(tmp_path)


@pytest.mark.parametrize("weights", ["b=0.5", "a=0"])
def test_weights_that_select_nothing_are_refused(tmp_path: Path, weights: str) -> None:
    write_noise(tmp_path / "a/a.png", 0, (120, 90))
    config = PairConfig(crop_size=48, min_side=64, folder_weights=weights)
    with pytest.raises(ConfigError, match="--folder-weights"):
        sources_of(tmp_path, config)


def test_folders_without_use_are_errors(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="missing: found no such folder"):
        find_photographs(tmp_path / "missing", CONFIG)
    with pytest.raises(DatasetError, match="found no image"):
        find_photographs(tmp_path, CONFIG)
    write_noise(tmp_path / "tiny.png", 0, (30, 30))
    with pytest.raises(DatasetError, match="30 x 30"):
        find_photographs(tmp_path, CONFIG)


def test_what_is_left_out_of_a_folder_is_reported(tmp_path: Path) -> None:
    write_noise(tmp_path / "good.png", 0, (120, 90))
    (tmp_path / "bad.jpg").write_bytes(b"")
    paths, skipped = find_photographs(tmp_path, CONFIG)
    assert [item.name for item in skipped] == [str(tmp_path / "bad.jpg")]
    assert paths == (tmp_path / "good.png",)
    write_noise(tmp_path / "masks" / "good.png", 0, (120, 90))
    (tmp_path / "raw.nef").touch()
    (tmp_path / "bad.jpg").unlink()
    paths, skipped = find_photographs(tmp_path, CONFIG, ["masks"])
    assert paths == (tmp_path / "good.png",)
    assert [item.to_text() for item in skipped] == [
        f"{tmp_path}: 1 left out by --exclude masks: 'masks/good.png'",
        f"{tmp_path}: 1 left out, raw camera files, which are not supported: 'raw.nef'",
    ]
