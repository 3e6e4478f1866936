"""The benchmark on pairs of images with known cameras and poses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.refine import RefineConfig
from r2d2_kapture.coordinates import CameraOrigin
from r2d2_kapture.errors import ConfigError, FeatureFormatError, ImageError
from r2d2_kapture.evaluation.curves import share_within
from r2d2_kapture.evaluation.matched_points import MatchedPoints
from r2d2_kapture.evaluation.pair_poses import (
    PairPoseResult,
    evaluate_pair_pose,
    match_pair,
)
from r2d2_kapture.evaluation.pair_results import (
    PairPoseRun,
    load_block,
    load_run,
    save_block,
    save_run,
)
from r2d2_kapture.evaluation.posed_images import (
    PosedImages,
    read_ground_truth,
    read_posed_dataset,
)
from r2d2_kapture.evaluation.tables import Row
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.matching.matcher import build_matcher
from r2d2_kapture.pictures.homography import (
    MAX_THRESHOLD,
    AccuracyCurves,
    accuracy_figure,
)
from r2d2_kapture.stages.benchmark.benchmark import Benchmark, Item, LoadFeatures
from r2d2_kapture.stages.benchmark.chosen_pairs import Pair, choose_pairs
from r2d2_kapture.stages.benchmark.presentation import Presentation
from r2d2_kapture.types import Failure

Block = Mapping[str, Pair]
"""All pairs of a first image, by the name of the second."""


def _means(runs: Sequence[PairPoseRun]) -> list[Row]:
    return [Row(names=(run.label,), values=run.values) for run in runs]


def _pairs(runs: Sequence[PairPoseRun]) -> list[Row]:
    return [
        Row(names=(run.label, pair.image1, pair.image2), values=pair.values)
        for run in runs
        for pair in run.pairs
    ]


def _to_json(run: PairPoseRun) -> dict[str, Any]:
    return {"label": run.label, "manifest": dict(run.manifest), "means": run.values}


def _figure(runs: Sequence[PairPoseRun]) -> Figure:
    """The share of pairs whose relative pose is within 1 to 10 degrees."""
    thresholds = [float(t) for t in range(1, MAX_THRESHOLD + 1)]
    panel = "relative pose"
    methods = []
    for run in runs:
        errors = np.array([pair.pose_error for pair in run.pairs])
        shares = share_within(errors, thresholds).tolist()
        methods.append(
            AccuracyCurves(
                label=f"{run.label} ({len(run.pairs)} pairs)",
                published=False,
                curves={panel: dict(zip(thresholds, shares))},
            )
        )
    return accuracy_figure(
        methods, [panel], unit="degrees", accuracy="share of the pairs"
    )


PRESENTATION = Presentation(
    name="pair_poses",
    suffix=".poses.json",  # tables end in .json alone
    expected=".poses.json files of this command",
    read=load_run,
    titles=("features of",),
    columns=(
        {
            "pairs": "pairs",
            "features": "features",
            "matches": "matches",
            **{f"epipolar@{t}": f"epi@{t}px" for t in (1, 2, 3)},
            **{f"AUC@{t}": f"AUC@{t}°" for t in (5, 10, 20)},
        },
    ),
    legend="Means over pairs: epi@t matches within t px of the true epipolar line; "
    "AUC@t area below the share of pairs with a relative-pose error within t degrees. "
    "docs/evaluation.md defines them.\n",
    means=_means,
    csv_titles=("label", "image1", "image2"),
    csv=_pairs,
    to_json=_to_json,
    figure=_figure,
)


def open_benchmark(
    config: PairPosesConfig,
    *,
    gt: Path | None = None,
    kapture_root: Path | None = None,
    camera_origin: CameraOrigin = "auto",
    pairs_file: Path | None = None,
) -> Benchmark[Block, PairPoseResult]:
    """Evaluate local features on pairs of images with known cameras and poses.

    Measured are the distance of matches to the true epipolar line, and relative poses
    estimated from the matches. Run it again to resume.

    Args:
        config: what is measured.
        gt: JSON file of images with name, K, dist, R, t; names are relative to it.
        kapture_root: kapture dataset with poses, instead.
        camera_origin: pixel origin of principal points: the ``center`` of the first
            pixel (kapture) or its ``corner`` (COLMAP); ``auto`` takes the origin stated
            in files, else infers it from principal points at (W / 2, H / 2) and from
            names of COLMAP's import.
        pairs_file: file of pairs to evaluate, 'name, name, score' (kapture) or 'name
            name' (hloc, COLMAP); by default every pair of cameras at different places.

    Raises:
        ConfigError: both kinds of images are given, or none.
        DatasetError: a file or the dataset cannot be read, or as choose_pairs.
        ImageError: the size of an image cannot be read.
    """
    if gt is not None and kapture_root is None:
        images = read_ground_truth(gt, camera_origin)
    elif kapture_root is not None and gt is None:
        images = read_posed_dataset(kapture_root, camera_origin)
    else:
        raise ConfigError("--gt and --kapture-root: expected one of them")
    wanted = None
    if pairs_file is not None:
        known = {image.name for image in images.images}
        wanted = [pair.names for pair in read_pairs(pairs_file, known)]
    return posed_pairs(config, images, wanted)


def posed_pairs(
    config: PairPosesConfig,
    images: PosedImages,
    wanted: Sequence[tuple[str, str]] | None = None,
) -> Benchmark[Block, PairPoseResult]:
    """The benchmark on images that have been read, see choose_pairs."""
    chosen = choose_pairs(images.images, config, wanted)
    blocks: dict[str, dict[str, Pair]] = {}
    for first, second in chosen.pairs:
        blocks.setdefault(first.name, {})[second.name] = first, second
    matcher = build_matcher(config.matcher)
    refine = RefineConfig() if config.refine else None

    def measure(
        block: Block, load: LoadFeatures
    ) -> tuple[list[PairPoseResult], list[Failure]]:
        results, failed = [], []
        first = next(iter(block.values()))[0]
        features1 = load(first.path)
        for _, second in block.values():
            culprit = second.name
            try:
                features2 = load(second.path)
                culprit = f"{first.name}, {second.name}"
                result = evaluate_pair_pose(
                    first,
                    second,
                    features1,
                    features2,
                    matcher=matcher,
                    refine=refine,
                    ransac_error=config.ransac_error,
                    seed=config.seed,
                )
            except (FeatureFormatError, ImageError) as error:
                failed.append(Failure(name=culprit, reason=str(error)))
                continue
            results.append(result)
        return results, failed

    def save_all(
        path: Path, label: str, manifest: Manifest, pairs: Sequence[PairPoseResult]
    ) -> None:
        # a list of pairs may alternate between first images
        by_names = {(pair.image1, pair.image2): pair for pair in pairs}
        names = dict.fromkeys((one.name, two.name) for one, two in chosen.pairs)
        ordered = tuple(by_names[pair] for pair in names if pair in by_names)
        run = PairPoseRun(label=label, manifest=manifest.to_json(), pairs=ordered)
        save_run(path, run)

    def matched(
        block: Block, result: PairPoseResult, load: LoadFeatures
    ) -> MatchedPoints:
        first, second = block[result.image2]
        features = load(first.path), load(second.path)
        return match_pair(first, second, *features, matcher, refine)

    return Benchmark(
        presentation=PRESENTATION,
        unit="pair",
        items=tuple(map(_item, blocks.values())),
        root=images.root,
        matcher=matcher,
        protocol={
            "essential_matrix_ransac_error": config.ransac_error,
            "seed": config.seed,
            **({"refine": dataclasses.asdict(refine)} if refine else {}),
        },
        details=lambda pairs: {
            "pairs": len(chosen.pairs),
            "at_one_place": chosen.at_one_place,
            "not_drawn": chosen.not_drawn,
        },
        failed=chosen.failed,
        warnings=(*images.warnings, *chosen.warnings),
        keeps_features=True,
        measure=measure,
        item_suffix=".json",
        load_item=load_block,
        save_item=save_block,
        save_run=save_all,
        worst_pairs=config.worst_pairs,
        rank=lambda pair: (pair.epipolar[-1], pair.image1, pair.image2),
        shown=_shown,
        matched=matched,
    )


def _shown(block: Block, result: PairPoseResult) -> tuple[str, tuple[Path, Path]]:
    first, second = block[result.image2]
    return f"{first.name} and {second.name}", (first.path, second.path)


def _item(block: Block) -> Item[Block]:
    (first, *_), *_ = block.values()
    images = [first, *(second for _, second in block.values())]
    truth = [
        f"{i.name} {i.camera.model_name} {i.camera.params.tolist()} "
        f"{i.cam_from_world.matrix().tolist()}"
        for i in images
    ]
    return Item(
        name=images[0].name,
        images=tuple(image.path for image in images),
        truth="".join(truth).encode("utf-8", "surrogateescape"),
        size=len(block),
        subject=block,
    )
