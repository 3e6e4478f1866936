"""Refinement of matches between images of known pose.

    python benchmarks/refine_pairs.py --gt lund_door/gt.json imc_reichstag/gt.json

Matches all pairs as kapture_r2d2_pair_poses does, without and with ``--refine``, and
prints the shares of matches within 1, 2 and 3 px of the true epipolar line (means over
pairs), the median distance, how many matches within 3 px are lost, and the areas below
the share of pairs by pose error. ``--kapture-root`` takes kapture datasets with poses.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from refinement import Figures, bar, table

from r2d2_kapture.cli.common import EXIT_OK, run_command, show
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.core.extraction import Extractor
from r2d2_kapture.evaluation.curves import area_under_curve, share_within
from r2d2_kapture.evaluation.pair_poses import (
    EPIPOLAR_THRESHOLDS,
    POSE_THRESHOLDS,
    match_pair,
    relative_pose_errors,
)
from r2d2_kapture.evaluation.posed_images import (
    PosedImage,
    read_ground_truth,
    read_posed_dataset,
)
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.stages.benchmark.chosen_pairs import Pair, choose_pairs
from r2d2_kapture.types import LocalFeatures

Array = npt.NDArray[np.float64]
FARTHEST = EPIPOLAR_THRESHOLDS[-1]


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(refine_pairs, arguments)


def refine_pairs(arguments: list[str]) -> int:
    """Measure every scene, print a table and the bars of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--gt", type=Path, nargs="+", default=[])
    parser.add_argument("--kapture-root", type=Path, nargs="+", default=[])
    parser.add_argument("--model", default="fast_r2d2_v6")
    options = parser.parse_args(arguments)
    extractor = build_extractor(ExtractConfig(), load_checkpoint(options.model))
    scenes = {path: read_ground_truth(path, "auto").images for path in options.gt}
    for root in options.kapture_root:
        scenes[root] = read_posed_dataset(root, "auto").images
    for path, images in scenes.items():
        show(f"{path}, {extractor.label}")
        show("\n".join(compare(images, extractor)))
    return EXIT_OK


def compare(images: Sequence[PosedImage], extractor: Extractor) -> list[str]:
    """The table and the bars of a scene."""
    settings = PairPosesConfig()
    features = {image.name: extractor(read_rgb(image.path)) for image in images}
    pairs = choose_pairs(images, settings).pairs
    off, errors_off = measure(pairs, features, settings, None)
    on, errors_on = measure(pairs, features, settings, RefineConfig())
    within_off, within_on = errors_off <= FARTHEST, errors_on <= FARTHEST
    lost, gained = (within_off & ~within_on).sum(), (within_on & ~within_off).sum()
    first = f"within {EPIPOLAR_THRESHOLDS[0]:g} px"
    return [
        *table(off, on),
        f"matches within {FARTHEST:g} px: {lost} lost, {gained} gained",
        bar("share within 1 px, off - on", off[first] - on[first], at_most=0),
        bar(f"within {FARTHEST:g} px, lost - gained", lost - gained, at_most=0),
        bar("median, on / off", on["median, px"] / off["median, px"], at_most=0.9),
        bar("AUC at 5 degrees, off - on", off["AUC@5"] - on["AUC@5"], at_most=0),
    ]


def measure(
    pairs: Sequence[Pair],
    features: dict[str, LocalFeatures],
    settings: PairPosesConfig,
    refine: RefineConfig | None,
) -> tuple[Figures, Array]:
    """The figures of all pairs, and the errors of all matches."""
    errors, poses = [], []
    for first, second in pairs:
        matched = match_pair(
            first,
            second,
            features[first.name],
            features[second.name],
            refine=refine,
        )
        errors.append(matched.errors)
        angles = relative_pose_errors(
            first,
            second,
            matched.points1,
            matched.points2,
            ransac_error=settings.ransac_error,
            seed=settings.seed,
        )
        poses.append(max(angles))
    every = np.concatenate(errors)
    shares = np.mean([share_within(e, EPIPOLAR_THRESHOLDS) for e in errors], axis=0)
    areas = area_under_curve(np.array(poses), POSE_THRESHOLDS)
    return {
        "pairs": len(pairs),
        "matches": len(every),
        **{f"within {t:g} px": s for t, s in zip(EPIPOLAR_THRESHOLDS, shares.tolist())},
        "median, px": float(np.median(every)),
        **{f"AUC@{t:g}": a for t, a in zip(POSE_THRESHOLDS, areas.tolist())},
    }, every


if __name__ == "__main__":
    raise SystemExit(main())
