"""MegaDepth as a source of training, by lists of scenes: for D2-Net and for R2D2."""

from __future__ import annotations

from pathlib import Path

import pytest

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.megadepth import MegadepthConfig, MegadepthPairs
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.train import (
    NetworkConfig,
    OptimizationConfig,
    PaceConfig,
    TrainConfig,
)
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig, ValidationConfig
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.stages.megadepth import stage as megadepth
from r2d2_kapture.stages.train import stage as train
from r2d2_kapture.stages.train import validation as train_validation
from tests.scenes.megadepth import write_scene
from tests.scenes.training import rows

PAIRS = PairConfig(crop_size=64, min_side=100, max_side=150, min_overlap=0.1)
NETWORKS = {
    "d2net": NetworkConfig(architecture="d2net", width=2, descriptor_dim=16),
    "fast_r2d2": NetworkConfig(architecture="fast_r2d2", width=1, descriptor_dim=16),
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two prepared scenes, and a list of each."""
    folder = tmp_path_factory.mktemp("megadepth")
    for scene in ("0001", "0002"):
        write_scene(folder, scene)
    megadepth.run(
        MegadepthConfig(),
        depth_root=folder,
        sfm_root=folder,
        output=folder / "out",
        options=RunOptions(workers=1, progress=False),
    )
    (folder / "out" / "train scenes.txt").write_text("# one\n0001\n")
    (folder / "out" / "validation scenes.txt").write_text("0002\n")
    return folder / "out"


@pytest.fixture(autouse=True)
def few_pairs_to_validate_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_validation, "POSED_PAIRS", 4)


def config_of(architecture: str, **pace: int) -> TrainConfig:
    return TrainConfig(
        network=NETWORKS[architecture],
        optimization=OptimizationConfig(batch_size=1),
        pairs=PAIRS,
        megadepth=MegadepthPairs(min_overlap_ratio=0.2),
        d2net=(
            D2NetTrainingConfig(trained_layers=0, least_correspondences=16)
            if architecture == "d2net"
            else D2NetTrainingConfig()
        ),
        pace=PaceConfig(**{"gpu": -1, "log_every": 1, **pace}),
    )


@pytest.mark.parametrize("architecture", list(NETWORKS))
def test_scenes_of_the_lists_are_trained_and_validated_on(
    root: Path, tmp_path: Path, architecture: str
) -> None:
    lines: list[str] = []
    report = train.run(
        config_of(architecture, epochs=2, pairs_per_source=1, validate_every=1),
        inputs=SourceConfig(megadepth=root, train_scenes=root / "train scenes.txt"),
        validation=ValidationConfig(validation_scenes=root / "validation scenes.txt"),
        output=tmp_path / "run",
        announce=lines.append,
        options=RunOptions(workers=0),
    )
    # an epoch is one pair of the only scene
    assert report.done == 2
    (name,) = report.details["data"]["sources"]
    assert "0001" in name
    log = rows(tmp_path / "run" / "validation.csv")
    assert [row["step"] for row in log] == list("012")
    for row in log:
        assert float(row["score"]) == pytest.approx(-float(row["posed_loss"]), abs=1e-5)


def test_a_list_without_megadepth_is_one_line(root: Path, tmp_path: Path) -> None:
    scenes = root / "train scenes.txt"
    with pytest.raises(ConfigError, match="--megadepth and --train-scenes"):
        SourceConfig(images=root, train_scenes=scenes)
    with pytest.raises(ConfigError, match="--megadepth and --train-scenes"):
        SourceConfig(megadepth=root)
    inputs = SourceConfig(megadepth=root, train_scenes=tmp_path / "none.txt")
    with pytest.raises(DatasetError, match="none.txt"):
        train.run(config_of("d2net", steps=1), inputs=inputs, output=tmp_path / "run")
    with pytest.raises(ConfigError, match="found no --megadepth"):
        train.run(
            config_of("d2net", steps=1),
            inputs=SourceConfig(images=root / "Undistorted_SfM"),
            validation=ValidationConfig(validation_scenes=scenes),
            output=tmp_path / "run",
        )
    assert not (tmp_path / "run").exists()


def test_scenes_that_are_missing_or_in_both_lists_are_reported(
    root: Path, tmp_path: Path
) -> None:
    train_list, validation_list = tmp_path / "train.txt", tmp_path / "validation.txt"
    train_list.write_text("0001\n0007\n")
    validation_list.write_text("0002\n0001\n0008\n")
    lines: list[str] = []
    report = train.run(
        config_of("d2net", steps=1, validate_every=0),
        inputs=SourceConfig(megadepth=root, train_scenes=train_list),
        validation=ValidationConfig(validation_scenes=validation_list),
        output=tmp_path / "run",
        announce=lines.append,
        options=RunOptions(workers=0),
    )
    (missing,) = [line for line in lines if line.startswith("left out: ")]
    assert "0007" in missing
    (missing,) = [line for line in lines if line.startswith("left out of validation: ")]
    assert "0008" in missing
    (both,) = [
        line for line in lines if line.startswith("note: used for both training and")
    ]
    assert "0001.0.npz" in both and "0002" not in both
    (left_out,) = report.details["left_out_of_validation"]
    assert "0008" in left_out
    trained, validated, both = report.warnings
    assert "left out: '0007'" in trained
    assert "left out of validation: '0008'" in validated
    assert both.startswith("1 sources are used for both training and validation")
