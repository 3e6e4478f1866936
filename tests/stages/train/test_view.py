"""Pictures of what a run sees."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig
from r2d2_kapture.core.pyramid import normalize_rgb, subtract_caffe_mean
from r2d2_kapture.errors import ConfigError, DatasetError
from r2d2_kapture.models.checkpoints import load_checkpoint, serialize_checkpoint
from r2d2_kapture.models.registry import Architecture, build_network
from r2d2_kapture.stages.train import view as train_view
from r2d2_kapture.stages.train.sources import open_sources
from r2d2_kapture.training.d2net_loss import enlarged, soft_detection_scores
from r2d2_kapture.training.data import PairDataset
from r2d2_kapture.training.pairs import TrainingPair
from tests.scenes.networks import random_d2net, save_d2net

CONFIG = PairConfig(
    crop_size=48, min_side=64, max_side=128, hold_steps=0, ramp_steps=10
)


pytestmark = pytest.mark.draws


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in ("a.png", "b c.png", "é.png"):
        coarse = rng.integers(0, 256, (12, 16, 3), dtype=np.uint8)
        Image.fromarray(np.kron(coarse, np.ones((8, 8, 1), np.uint8))).save(
            folder / name
        )
    (folder / "broken.png").write_bytes(b"")
    return folder


def draw(photos: Path, output: Path, **settings):
    options = RunOptions(progress=False, force=settings.pop("force", False))
    inputs = SourceConfig(images=photos)
    return train_view.run(
        CONFIG, inputs=inputs, output=output, options=options, **settings
    )


def test_the_pairs_of_a_step_are_drawn(photos: Path, tmp_path: Path) -> None:
    report = draw(photos, tmp_path / "out", step=3, batch_size=2)
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["pair_000006.png", "pair_000007.png"]
    assert (report.done, report.skipped, report.failed) == (2, 0, ())
    assert [path.name for path in report.outputs] == names
    assert report.details["difficulty"] == 0.3
    assert "broken.png" in report.details["left_out"][0]
    assert 0 < report.details["known_share"] <= 1


def test_pictures_that_are_there_are_kept_unless_forced(photos, tmp_path) -> None:
    output = tmp_path / "out"
    draw(photos, output, batch_size=2)
    path = output / "pair_000001.png"
    whole = path.read_bytes()
    path.write_bytes(b"mine")
    (output / "pair_000000.png").unlink()
    report = draw(photos, output, batch_size=2)
    assert (report.done, report.skipped) == (1, 1)
    assert path.read_bytes() == b"mine"
    draw(photos, output, batch_size=2, force=True)
    assert path.read_bytes() == whole


def test_they_are_the_pairs_of_the_run(photos, tmp_path, monkeypatch) -> None:
    drawn = []

    def record(images, aflow, path, **settings) -> None:
        drawn.append((images[0].tobytes(), settings["title"]))

    monkeypatch.setattr(train_view, "draw_training_pair", record)
    draw(photos, tmp_path / "out", step=2, batch_size=3, seed=5)
    opened = open_sources(SourceConfig(images=photos), CONFIG)
    run = PairDataset(opened.sources, CONFIG, seed=5, steps=9, pairs_per_step=3)
    pairs = [run.training_pair(number) for number in (6, 7, 8)]
    assert [item[0] for item in drawn] == [pair.image1.tobytes() for pair in pairs]
    assert all(pair.name in item[1] for item, pair in zip(drawn, pairs))


def test_maps_of_a_network_are_drawn_below(photos, tmp_path, checkpoint_path) -> None:
    draw(photos, tmp_path / "plain", batch_size=1)
    checkpoint = load_checkpoint(checkpoint_path)
    draw(photos, tmp_path / "maps", batch_size=1, checkpoint=checkpoint)
    plain, maps = (
        Image.open(tmp_path / name / "pair_000000.png") for name in ("plain", "maps")
    )
    assert maps.height > 2.5 * plain.height


def test_maps_have_the_size_of_the_crops(photos, checkpoint_path) -> None:
    opened = open_sources(SourceConfig(images=photos), CONFIG)
    run = PairDataset(opened.sources, CONFIG, seed=0, steps=1, pairs_per_step=1)
    maps = train_view.confidence_maps(
        load_checkpoint(checkpoint_path), run.training_pair(0)
    )
    assert list(maps) == ["reliability", "repeatability"]
    for pair in maps.values():
        assert [values.shape for values in pair] == [(48, 48), (48, 48)]
        assert min(values.min() for values in pair) >= 0
        assert max(values.max() for values in pair) <= 1


@pytest.mark.parametrize(
    ("training", "normalize"),
    [
        ({"preprocessing": "torch"}, normalize_rgb),
        ({"preprocessing": "caffe"}, subtract_caffe_mean),
        ({}, subtract_caffe_mean),
    ],
)
def test_soft_detections_of_d2net_are_drawn(training, normalize, tmp_path) -> None:
    architecture = Architecture(name="d2net", width=2, descriptor_dim=8)
    torch.manual_seed(0)
    network = build_network(architecture)
    for layer in network.ops:
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight)
    path = tmp_path / "d2.safetensors"
    path.write_bytes(
        serialize_checkpoint(
            network, architecture, training=training, license_name="CC0"
        )
    )
    images = np.random.default_rng(0).integers(0, 256, (2, 48, 48, 3), dtype=np.uint8)
    aflow = np.zeros((48, 48, 2), np.float32)
    pair = TrainingPair(image1=images[0], image2=images[1], aflow=aflow, name="")
    (maps,) = train_view.confidence_maps(load_checkpoint(path), pair).values()
    for found, image in zip(maps, images, strict=True):
        with torch.no_grad():
            features = network(normalize(torch.from_numpy(image)[None]))
        scores = soft_detection_scores(features)
        expected = enlarged(scores, (48, 48))[0] / scores.max()
        assert found.shape == (48, 48) and 0.3 < found.max() <= 1
        np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(
    "settings, flag",
    [
        ({"step": -1}, "--step"),
        ({"batch_size": 0}, "--batch-size"),
        ({"seed": -1}, "--seed"),
    ],
)
def test_numbers_out_of_range_are_refused(photos, tmp_path, settings, flag) -> None:
    with pytest.raises(ConfigError, match=flag):
        draw(photos, tmp_path / "out", **settings)


def test_nothing_to_draw_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--images, --data-root"):
        SourceConfig()
    with pytest.raises(DatasetError, match="found no such folder"):
        draw(tmp_path / "missing", tmp_path / "out")


def test_all_kinds_of_sources_open_together(photos: Path, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "web_images").mkdir(parents=True)
    for path in photos.glob("*.png"):
        (root / "web_images" / path.name).symlink_to(path)
    inputs = SourceConfig(images=photos, data_root=root, sources="W")
    opened = open_sources(inputs, CONFIG)
    assert [item.weight for item in opened.sources] == [1, 1]
    assert len(opened.skipped) == 2


def test_the_preprocessing_asked_for_is_that_of_the_maps(tmp_path: Path) -> None:
    path = save_d2net(tmp_path / "vgg.pth", random_d2net())
    checkpoint = load_checkpoint(path)
    crop = np.random.default_rng(0).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    aflow = np.zeros((48, 48, 2), np.float32)
    pair = TrainingPair(image1=crop, image2=crop, aflow=aflow, name="")
    for asked, normalize in (
        (None, subtract_caffe_mean),
        ("caffe", subtract_caffe_mean),
        ("torch", normalize_rgb),
    ):
        (maps,) = train_view.confidence_maps(checkpoint, pair, asked).values()
        with torch.no_grad():
            features = checkpoint.network(normalize(torch.from_numpy(crop)[None]))
        scores = soft_detection_scores(features)
        expected = enlarged(scores, (48, 48))[0] / scores.max()
        np.testing.assert_allclose(maps[0], expected, atol=1e-5)
    checkpoint.network.preprocessing = "torch"
    with pytest.raises(ConfigError, match="--preprocessing caffe: found weights"):
        train_view.confidence_maps(checkpoint, pair, "caffe")
