"""Matching accuracy of extraction settings on homography sequences, as Markdown.

    python benchmarks/extract_accuracy.py --root hpatches --model r2d2_WASF_N16.pt

Mutual nearest neighbours; mean matching accuracy at 1, 2, 3, 5 and 10 pixels (Dusmanu
et al., CVPR 2019), mean over image pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from measure import machine
from tqdm import tqdm

from r2d2_kapture.config.extract import (
    EngineConfig,
    ExtractConfig,
    PyramidConfig,
    SelectionConfig,
)
from r2d2_kapture.core.allocator import keep_heap
from r2d2_kapture.evaluation.homography import (
    evaluate_sequence,
    mean_matching_accuracy,
)
from r2d2_kapture.evaluation.sequences import read_sequences
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.images import read_rgb
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.types import LocalFeatures

THRESHOLDS = (1.0, 2.0, 3.0, 5.0, 10.0)


def main() -> None:
    """Print one row for each model, dataset and setting."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", type=Path, nargs="+", required=True)
    parser.add_argument("--model", nargs="+", required=True)
    parser.add_argument("--settings", nargs="+", default=list(settings()))
    parser.add_argument("--top-k", type=int, default=5000)
    options = parser.parse_args()
    keep_heap()
    print(machine(), end="\n\n")
    thresholds = " | ".join(f"{t:.0f} px" for t in THRESHOLDS)
    print(f"| data | model | settings | {thresholds} | matches |")
    print("|---|---|---|" + "---|" * (len(THRESHOLDS) + 1))
    for root in options.root:
        for model in options.model:
            for name in options.settings:
                config = settings(options.top_k)[name]
                print(row(root, model, name, config), flush=True)


def settings(top_k: int = 5000) -> dict[str, ExtractConfig]:
    """The settings compared, from the published ones to ours."""

    def config(coordinates: str, subpixel: bool, precision: str) -> ExtractConfig:
        return ExtractConfig(
            pyramid=PyramidConfig(coordinates=coordinates),  # type: ignore[arg-type]
            selection=SelectionConfig(subpixel=subpixel, top_k=top_k),
            engine=EngineConfig(precision=precision),  # type: ignore[arg-type]
        )

    return {
        "published, fp32": config("published", False, "fp32"),
        "published, bf16": config("published", False, "bf16"),
        "published + sub-pixel, bf16": config("published", True, "bf16"),
        "corrected, bf16": config("corrected", False, "bf16"),
        "default, bf16": config("corrected", True, "bf16"),
        "default, fp32": config("corrected", True, "fp32"),
    }


def row(root: Path, model: str, name: str, config: ExtractConfig) -> str:
    """Evaluate one setting and format its row."""
    checkpoint = load_checkpoint(model)
    extractor = build_extractor("r2d2", checkpoint.network, config)

    def features(path: Path) -> LocalFeatures:
        return extractor.extract_batch([read_rgb(path)])[0]

    results = [
        result
        for sequence in tqdm(read_sequences(root), desc=name, leave=False, disable=None)
        for result in evaluate_sequence(sequence, features, THRESHOLDS)
    ]
    accuracy = mean_matching_accuracy([result.mma for result in results])
    matches = np.mean([result.matches for result in results])
    cells = " | ".join(f"{value:.3f}" for value in accuracy)
    return f"| {root.name} | {checkpoint.name} | {name} | {cells} | {matches:.0f} |"


if __name__ == "__main__":
    main()
