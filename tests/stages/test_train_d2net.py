"""D2-Net on the shared trainer: a small scene of our rendering, with exact depth."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from r2d2_kapture.config.d2net_training import D2NetTrainingConfig
from r2d2_kapture.config.extract import D2NetConfig, ExtractConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.train import (
    NetworkConfig,
    OptimizationConfig,
    PaceConfig,
    TrainConfig,
)
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig, ValidationConfig
from r2d2_kapture.core.pyramid import normalize_rgb, subtract_caffe_mean
from r2d2_kapture.errors import ConfigError, DatasetError, OutputError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.matching.matcher import match_features
from r2d2_kapture.matching.mutual_nn import MutualNearest
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.registry import Architecture, build_network
from r2d2_kapture.stages.train import photographs as training_views
from r2d2_kapture.stages.train import stage as train
from r2d2_kapture.stages.train import validation as train_validation
from r2d2_kapture.stages.train.data import open_training_data
from r2d2_kapture.stages.train.methods import method_of, method_of_checkpoint
from r2d2_kapture.stages.train.photographs import picture_loader
from r2d2_kapture.stages.train.posed import open_depth_views
from r2d2_kapture.training.data import PairDataset
from r2d2_kapture.training.loading import MemoryCache
from r2d2_kapture.types import Report
from tests.scenes.images import textured_image
from tests.scenes.training import changed, rows, write_arc

ARCHITECTURE = Architecture(name="d2net", width=8, descriptor_dim=128)
CROPS = PairConfig(
    crop_size=96,
    min_side=120,
    max_side=120,
    max_upscale=1,
    min_overlap=0.1,
    mild_scale=1,
    mild_rotation=0,
    mild_tilt=0,
    jitter=0,
    noise=0,
    night=0,
)
TINY = TrainConfig(
    network=NetworkConfig(architecture="d2net", width=8, descriptor_dim=128),
    optimization=OptimizationConfig(batch_size=1, learning_rate=1e-3, weight_decay=0),
    pairs=CROPS,
    pace=PaceConfig(steps=4, validate_every=0, log_every=1, gpu=-1),
)


@pytest.fixture(autouse=True)
def few_pairs_to_validate_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(train_validation, "POSED_PAIRS", 8)


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_arc(tmp_path_factory.mktemp("scene"))


@pytest.fixture(scope="session")
def other_views(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the same scene, from other places."""
    root = tmp_path_factory.mktemp("other")
    return write_arc(root, images=4, half_width=0.9)


@pytest.fixture(scope="session")
def weights(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """In place of VGG16: random layers whose outputs have mean 0 and deviation 1."""
    sources = open_depth_views(scene, CROPS, picture_loader(CROPS)).sources
    pairs = PairDataset(
        sources,
        CROPS,
        seed=1,
        steps=6,
        pairs_per_step=1,
        normalize=subtract_caffe_mean,
    )
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(1)
        network = build_network(ARCHITECTURE)
        maps = torch.cat([torch.stack(pairs[number][:2]) for number in range(6)])
        for layer in network.ops:
            maps = layer(maps)
            if isinstance(layer, nn.Conv2d):
                deviation, mean = torch.std_mean(maps, dim=(0, 2, 3))
                layer.weight /= deviation[:, None, None, None]
                layer.bias.copy_((layer.bias - mean) / deviation)
                maps = (maps - mean[:, None, None]) / deviation[:, None, None]
    path = tmp_path_factory.mktemp("weights") / "first.safetensors"
    path.write_bytes(
        serialize_checkpoint(network, ARCHITECTURE, training={}, license_name="CC0")
    )
    return path


def run(
    config: TrainConfig,
    inputs: SourceConfig,
    output: Path,
    start_from: Path | None,
    validation: ValidationConfig = ValidationConfig(),
) -> Report:
    return train.run(
        config,
        inputs=inputs,
        output=output,
        start_from=() if start_from is None else (str(start_from),),
        validation=validation,
        options=RunOptions(workers=0),
    )


def tensors(path: Path) -> dict[str, torch.Tensor]:
    return dict(load_checkpoint(path).network.state_dict())


def convolutions(path: Path) -> list[nn.Conv2d]:
    ops = load_checkpoint(path).network.ops
    return [layer for layer in ops if isinstance(layer, nn.Conv2d)]


def correct_matches(model: Path, dataset: Path) -> float:
    """Share of the extractor's matches within a cell of the truth."""
    settings = ExtractConfig(extractor=D2NetConfig(), gpu=-1)
    extract = build_extractor(settings, load_checkpoint(model))
    sources = open_depth_views(dataset, CROPS, picture_loader(CROPS)).sources
    pairs = PairDataset(sources, CROPS, seed=2, steps=12, pairs_per_step=1)
    errors = []
    for pair in map(pairs.training_pair, range(12)):
        first, second = extract(pair.image1), extract(pair.image2)
        matches = match_features(MutualNearest(), first, second).indices
        x, y = np.rint(first.keypoints[matches[:, 0]]).astype(int).T
        truth = pair.aflow[y, x]
        found = second.keypoints[matches[:, 1]]
        distances = np.linalg.norm(found - truth, axis=1)
        errors.extend(distances[np.isfinite(distances)])
    assert len(errors) > 50
    return float((np.array(errors) <= 4).mean())


def test_training_learns(
    scene: Path, other_views: Path, weights: Path, tmp_path: Path
) -> None:
    """In 60 steps the loss falls, on other views too, by the last three layers alone;
    the extractor takes the weights as they are."""
    output = tmp_path / "run"
    config = changed(TINY, steps=60, validate_every=60)
    report = run(
        config,
        SourceConfig(depth_dataset=scene),
        output,
        weights,
        ValidationConfig(validation_dataset=other_views),
    )
    assert report.done == 60 and report.details["preprocessing"] == "caffe"

    log = rows(output / "log.csv")
    first, last = (
        np.mean([float(row["loss"]) for row in part]) for part in (log[:10], log[-10:])
    )
    assert last < first - 0.3
    assert all(float(row["skipped_pairs"]) == 0 for row in log)
    before, after = rows(output / "validation.csv")
    assert float(after["posed_loss"]) < float(before["posed_loss"]) - 0.1
    assert float(after["score"]) == pytest.approx(-float(after["posed_loss"]), abs=1e-5)

    path = output / "best.safetensors"
    kept = [
        torch.equal(one.weight, other.weight) and torch.equal(one.bias, other.bias)
        for one, other in zip(convolutions(weights), convolutions(path), strict=True)
    ]
    assert kept == [True] * 7 + [False] * 3

    checkpoint = load_checkpoint(path)
    assert checkpoint.architecture == ARCHITECTURE
    assert json.loads(checkpoint.metadata["training"])["preprocessing"] == "caffe"
    untrained, trained = (
        correct_matches(model, other_views) for model in (weights, path)
    )
    assert trained > untrained + 0.1


def test_a_resumed_run_has_the_weights_of_the_unbroken_one(
    scene: Path, weights: Path, tmp_path: Path
) -> None:
    inputs = SourceConfig(depth_dataset=scene)
    run(TINY, inputs, tmp_path / "unbroken", weights)
    run(changed(TINY, steps=2), inputs, tmp_path / "broken", weights)
    report = run(TINY, inputs, tmp_path / "broken", weights)
    assert (report.done, report.skipped) == (2, 2)
    runs = [tmp_path / name for name in ("unbroken", "broken")]
    first, second = (tensors(folder / "model.safetensors") for folder in runs)
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name
    losses = [[row["loss"] for row in rows(run / "log.csv")] for run in runs]
    assert losses[0] == losses[1] and len(losses[0]) == 4
    # frozen layers are no business of the optimiser
    state = torch.load(tmp_path / "broken" / "state.pt", weights_only=True)
    assert len(state["optimizer"]["param_groups"][0]["params"]) == 6
    with pytest.raises(OutputError, match="safe_radius: 4, not 3"):
        run(changed(TINY, "d2net", safe_radius=3), inputs, runs[1], weights)


def test_layers_that_stay_random_are_refused(scene: Path, tmp_path: Path) -> None:
    inputs = SourceConfig(depth_dataset=scene)
    with pytest.raises(ConfigError, match="--start-from: missing.* 7 convolutions"):
        run(TINY, inputs, tmp_path / "run", None)
    every = changed(changed(TINY, "d2net", trained_layers=0), steps=1)
    assert run(every, inputs, tmp_path / "run", None).done == 1
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert len(state["optimizer"]["param_groups"][0]["params"]) == 20


def test_weights_of_another_preprocessing_are_refused(
    scene: Path, weights: Path, tmp_path: Path
) -> None:
    inputs = SourceConfig(depth_dataset=scene)
    as_torch = changed(changed(TINY, "d2net", preprocessing="torch"), steps=1)
    run(as_torch, inputs, tmp_path / "torch", weights)
    path = tmp_path / "torch" / "model.safetensors"
    with pytest.raises(ConfigError, match="--preprocessing caffe: .*with torch; give"):
        run(TINY, inputs, tmp_path / "run", path)
    assert run(as_torch, inputs, tmp_path / "again", path).done == 1
    method = method_of_checkpoint(load_checkpoint(path))
    assert method.normalize is normalize_rgb
    assert method_of(TINY).normalize is subtract_caffe_mean


@pytest.mark.parametrize("training", ["[1]", '"caffe"', "no json", "{}"])
def test_weights_that_say_nothing_of_preprocessing_are_taken(
    weights: Path, training: str
) -> None:
    checkpoint = load_checkpoint(weights)
    checkpoint = dataclasses.replace(checkpoint, metadata={"training": training})
    method_of(TINY).prepare(checkpoint.network, checkpoint)


def test_pairs_that_tell_nothing_change_nothing(
    scene: Path, other_views: Path, weights: Path, tmp_path: Path
) -> None:
    # all cells of a crop, which no pair of views has
    config = changed(TINY, "d2net", least_correspondences=23**2)
    config = changed(config, "optimization", weight_decay=0.1)
    report = run(
        changed(config, validate_every=4),
        SourceConfig(depth_dataset=scene),
        tmp_path / "run",
        weights,
        ValidationConfig(validation_dataset=other_views),
    )
    assert report.done == 4 and report.details["skipped_steps"] == 0
    for row in rows(tmp_path / "run" / "log.csv"):
        assert (float(row["loss"]), float(row["skipped_pairs"])) == (0, 1)
    found = tensors(tmp_path / "run" / "model.safetensors")
    for name, tensor in tensors(weights).items():
        assert torch.equal(tensor, found[name]), name
    # nor are they the best
    validations = rows(tmp_path / "run" / "validation.csv")
    assert [float(row["score"]) for row in validations] == [-math.inf, -math.inf]
    # the columns are there for validations that tell something
    assert [row["posed_positive_distance"] for row in validations] == ["nan", "nan"]
    assert not (tmp_path / "run" / "best.safetensors").exists()


def test_photographs_are_validated_on_by_the_extractor(
    weights: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(textured_image(120, 160, number)).save(folder / f"{number}.png")
    run(
        changed(TINY, steps=1, validate_every=1),
        SourceConfig(images=folder),
        tmp_path / "run",
        weights,
    )
    for row in rows(tmp_path / "run" / "validation.csv"):
        mean = (float(row["mma_1px"]) + float(row["mma_3px"])) / 2
        assert float(row["score"]) == pytest.approx(mean, abs=1e-5)
        assert mean > 0 and "confident" not in row


def test_r2d2_is_validated_by_the_loss_of_posed_pairs_too(
    scene: Path, other_views: Path, tmp_path: Path
) -> None:
    config = TrainConfig(
        network=NetworkConfig(architecture="fast_r2d2", width=1, descriptor_dim=16),
        optimization=OptimizationConfig(batch_size=1, plain_ap_weight=1.0),
        pairs=CROPS,
        pace=PaceConfig(steps=1, validate_every=1, gpu=-1),
    )
    run(
        config,
        SourceConfig(depth_dataset=scene),
        tmp_path / "run",
        None,
        ValidationConfig(validation_dataset=other_views),
    )
    for row in rows(tmp_path / "run" / "validation.csv"):
        assert float(row["score"]) == pytest.approx(-float(row["posed_loss"]), abs=1e-5)
        # the loss that a run ends with, whatever helps at its beginning
        assert float(row["posed_plain_ap_weight"]) == 0


def test_settings_of_the_other_network_are_not_kept(scene: Path) -> None:
    assert "margin" in TINY.deciding(method_of(TINY).unused)
    assert "patch_size" not in TINY.deciding(method_of(TINY).unused)
    r2d2 = TrainConfig()
    assert "margin" not in r2d2.deciding(method_of(r2d2).unused)
    assert "patch_size" in r2d2.deciding(method_of(r2d2).unused)
    assert D2NetTrainingConfig() == TINY.d2net
    for config, names in (
        (changed(TINY, "loss", border=9), "--border"),
        (changed(TINY, "optimization", plain_ap_until=0.5), "--plain-ap-until"),
        (changed(r2d2, "d2net", preprocessing="torch"), "--preprocessing"),
    ):
        with pytest.raises(ConfigError, match=f"^{names}: found for --architecture"):
            method_of(config)


def test_what_vanishes_is_reported_at_the_end_and_loses_no_step(
    scene: Path, other_views: Path, weights: Path, tmp_path: Path
) -> None:
    roots = [tmp_path / "scene", tmp_path / "other"]
    for source, root in zip((scene, other_views), roots, strict=True):
        shutil.copytree(source, root)
    lines: list[str] = []

    def announce(line: str) -> None:
        lines.append(line)
        if line.startswith("training"):
            next(roots[0].rglob("0.png.depth*")).unlink()
        if line.startswith("step 0: validation"):
            # the pairs to validate on are made anew each time
            for path in roots[1].rglob("*.depth*"):
                path.unlink()

    with pytest.raises(DatasetError, match="found no pair that overlaps"):
        train.run(
            changed(changed(TINY, validate_every=3, steps=9), "pairs", cache_gib=0),
            inputs=SourceConfig(depth_dataset=roots[0]),
            validation=ValidationConfig(validation_dataset=roots[1]),
            output=tmp_path / "run",
            start_from=(str(weights),),
            options=RunOptions(workers=0),
            announce=announce,
        )
    at = next(
        i for i, line in enumerate(lines) if "became unusable and were replaced" in line
    )
    assert "5 images or pairs" in lines[at]
    assert lines[at + 1 :].count("  arc à/0.png") == 2
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert state["step"] == 3


def test_the_best_is_chosen_again_where_a_resume_validates_on_something_else(
    scene: Path, other_views: Path, weights: Path, tmp_path: Path
) -> None:
    Image.fromarray(textured_image(120, 160)).save(tmp_path / "photo.png")
    config = changed(TINY, steps=1, validate_every=1)
    inputs = SourceConfig(images=tmp_path, depth_dataset=scene)
    output = tmp_path / "run"
    first = run(config, inputs, output, weights).details
    assert first["best_score"] >= 0 and first["scored_by"] == "mma"
    second = run(
        changed(config, steps=3),
        inputs,
        output,
        weights,
        ValidationConfig(validation_dataset=other_views),
    ).details
    assert second["best_score"] < 0 and second["scored_by"] == "posed_loss"
    history = json.loads(
        load_checkpoint(output / "best.safetensors").metadata["training"]
    )
    assert history["best_step"] == history["steps"] == second["best_step"] > 1


def test_all_pictures_share_the_memory_for_them(
    scene: Path, other_views: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[float] = []

    class Recorded(MemoryCache):
        def __init__(self, limit_gib: float) -> None:
            limits.append(limit_gib)
            super().__init__(limit_gib)

    monkeypatch.setattr(training_views, "MemoryCache", Recorded)
    Image.fromarray(textured_image(120, 160)).save(tmp_path / "photo.png")
    for images in (None, tmp_path):
        limits.clear()
        open_training_data(
            SourceConfig(images=images, depth_dataset=scene),
            ValidationConfig(validation_dataset=other_views),
            dataclasses.replace(CROPS, cache_gib=3.0),
        )
        assert limits == [1.5, 1.5]
