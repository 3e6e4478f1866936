"""Sequences whose features a small network extracts, and runs of the evaluation."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from r2d2_kapture.config.extract import ExtractConfig, R2D2Config
from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages import benchmark
from r2d2_kapture.stages.benchmark import hpatches
from r2d2_kapture.stages.benchmark.feature_sources import (
    ExtractedFeatures,
    FeatureSource,
)
from r2d2_kapture.types import LocalFeatures, Report
from tests.scenes.images import write_crops

QUIET = RunOptions(progress=False)
CONFIG = HomographyConfig(worst_pairs=0)
TINY = R2D2Config(min_size=64, reliability_thr=0, repeatability_thr=0, top_k=60)
FEW = dataclasses.replace(TINY, top_k=20)


def run(
    root: Path,
    output: Path,
    *sources: FeatureSource,
    options: RunOptions = QUIET,
    config: HomographyConfig = CONFIG,
) -> Report:
    sequences = hpatches.open_benchmark(config, root=root)
    return benchmark.run(sequences, sources=sources, output=output, options=options)


def extract(source: ExtractedFeatures, image: Path) -> LocalFeatures:
    return source.extractor.extract_batch([read_rgb(image)])[0]


def times(output: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in output.rglob("results/**/*.npz")}


def write_sequences(root: Path) -> Path:
    """Four sequences of shifted crops, one of a name that is left out by default."""
    for seed, name in enumerate(("v_à b", "sub/i_lamp", "v_talent", "other")):
        write_crops(root / name, seed)
    return root


def tiny_source(
    checkpoint_path: Path, settings: R2D2Config = TINY
) -> ExtractedFeatures:
    """Features that the network of a checkpoint extracts in no time."""
    return ExtractedFeatures(
        label="tiny one",
        extractor=build_extractor(
            ExtractConfig(extractor=settings, gpu=-1, precision="fp32"),
            load_checkpoint(str(checkpoint_path)),
        ),
    )
