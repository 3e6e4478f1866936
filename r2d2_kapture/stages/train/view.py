"""Pictures of the pairs of a training run, and of the maps of a network."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.extract import Preprocessing
from r2d2_kapture.config.megadepth import MegadepthPairs
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.training_pairs import PairConfig
from r2d2_kapture.config.training_sources import SourceConfig
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.pictures.training import draw_training_pair
from r2d2_kapture.stages.train.methods import method_of_checkpoint
from r2d2_kapture.stages.train.sources import open_sources
from r2d2_kapture.training.data import PairDataset
from r2d2_kapture.training.pairs import TrainingPair
from r2d2_kapture.types import Report

FloatArray = npt.NDArray[np.float32]
Maps = dict[str, tuple[FloatArray, FloatArray]]


def run(
    config: PairConfig,
    *,
    inputs: SourceConfig,
    selection: MegadepthPairs = MegadepthPairs(),
    output: Path,
    step: int = 0,
    batch_size: int = 8,
    seed: int = 0,
    checkpoint: Checkpoint | None = None,
    preprocessing: Preprocessing | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Draw the pairs of crops of a training run with their true correspondences.

    With --model also the maps of the network: reliability and repeatability of R2D2,
    soft detections of D2-Net. The pairs are those of a run with the same seed, settings
    and images at that step if --batch-size is its number of pairs per step. Each is
    drawn into pair_NUMBER.png; existing pictures are kept.

    Args:
        config: of the pairs.
        inputs: folders of images.
        selection: of pairs of MegaDepth.
        output: folder of the pictures.
        step: step of the run; it determines the difficulty.
        batch_size: number of pairs drawn.
        seed: of the run.
        checkpoint: of a network whose maps are drawn.
        preprocessing: of the images, as the weights of a D2-Net expect it: caffe or
            torch; by default what the checkpoint states, else caffe.
        options: force and progress are used.

    Raises:
        ConfigError, DatasetError, ReconstructionError: the images or the weights cannot
            be used.
        OutputError: a picture cannot be written.
    """
    started = time.monotonic()
    require(step >= 0, f"--step: found {step}, expected 0 or more")
    require(batch_size >= 1, f"--batch-size: found {batch_size}, expected 1 or more")
    require(seed >= 0, f"--seed: found {seed}, expected 0 or more")
    opened = open_sources(inputs, config, selection)
    dataset = PairDataset(
        opened.sources, config, seed=seed, steps=step + 1, pairs_per_step=batch_size
    )
    numbers = range(step * batch_size, (step + 1) * batch_size)
    paths = {number: output / f"pair_{number:06d}.png" for number in numbers}
    missing = [n for n, path in paths.items() if options.force or not path.exists()]
    bar = Progress("train_view", "pair", len(missing), shown=options.progress)
    shares = []
    for number in bar.over(missing):
        pair = dataset.training_pair(number)
        shares.append(float(np.isfinite(pair.aflow[..., 0]).mean()))
        draw_training_pair(
            (pair.image1, pair.image2),
            pair.aflow,
            paths[number],
            title=f"pair {number}, step {step}: {pair.name}",
            maps=(
                confidence_maps(checkpoint, pair, preprocessing) if checkpoint else None
            ),
        )
    details = {
        "difficulty": round(config.difficulty(step), 3),
        "sources": {
            item.source.name: f"{len(item.source)}, weight {item.weight:.3g}"
            for item in opened.sources
        },
        "left_out": [failure.to_text() for failure in opened.skipped],
    }
    if shares:
        details["known_share"] = round(float(np.mean(shares)), 3)
    return Report(
        stage="train_view",
        unit="pair",
        done=len(missing),
        skipped=batch_size - len(missing),
        failed=(),
        seconds=time.monotonic() - started,
        outputs=tuple(paths.values()),
        details=details,
        warnings=opened.report_warnings(),
    )


def confidence_maps(
    checkpoint: Checkpoint,
    pair: TrainingPair,
    preprocessing: Preprocessing | None = None,
) -> Maps:
    """The maps of the network for both crops by name: (H, W) each, 0 to 1."""
    crops = torch.from_numpy(np.stack([pair.image1, pair.image2]))
    method = method_of_checkpoint(checkpoint, preprocessing)
    with torch.inference_mode():
        found = method.maps(checkpoint.network.eval(), crops)
    return {name: (maps[0].numpy(), maps[1].numpy()) for name, maps in found.items()}
