"""The benchmark on pairs of images with known cameras and poses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from r2d2_kapture.config.pair_poses import PairPosesConfig
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
from r2d2_kapture.stages.benchmark.chosen_pairs import ChosenPairs, Pair, choose_pairs
from r2d2_kapture.stages.benchmark.presentation import Presentation
from r2d2_kapture.types import Failure


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


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedPairs(Benchmark[Sequence[Pair], PairPoseResult]):
    """Pairs of posed images; an item is all pairs of a first image.

    Attributes:
        config: what is measured.
        chosen: the pairs.
    """

    presentation = PRESENTATION
    unit = "pair"
    item_suffix = ".json"
    shares_images = True
    config: PairPosesConfig
    chosen: ChosenPairs

    load_item = staticmethod(load_block)
    save_item = staticmethod(save_block)

    @property
    def protocol(self) -> dict[str, Any]:
        return {
            "essential_matrix_ransac_error": self.config.ransac_error,
            "seed": self.config.seed,
        }

    def details(self, found: int) -> dict[str, Any]:
        return {
            "pairs": len(self.chosen.pairs),
            "at_one_place": self.chosen.at_one_place,
            "not_drawn": self.chosen.not_drawn,
        }

    def measure(
        self, subject: Sequence[Pair], load: LoadFeatures
    ) -> tuple[list[PairPoseResult], list[Failure]]:
        first = subject[0][0]
        try:
            features1 = load(first.path)
        except (FeatureFormatError, ImageError) as error:
            return [], [Failure(name=first.name, reason=str(error))]
        results, failed = [], []
        for _, second in subject:
            culprit = second.name
            try:
                features2 = load(second.path)
                culprit = f"{first.name}, {second.name}"
                result = evaluate_pair_pose(
                    first,
                    second,
                    features1,
                    features2,
                    matcher=self.matcher,
                    ransac_error=self.config.ransac_error,
                    seed=self.config.seed,
                )
            except (FeatureFormatError, ImageError) as error:
                failed.append(Failure(name=culprit, reason=str(error)))
                continue
            results.append(result)
        return results, failed

    def save_run(
        self,
        path: Path,
        label: str,
        manifest: Manifest,
        found: Sequence[PairPoseResult],
    ) -> None:
        # a list of pairs may alternate between first images
        by_names = {(pair.image1, pair.image2): pair for pair in found}
        names = dict.fromkeys((one.name, two.name) for one, two in self.chosen.pairs)
        pairs = [by_names[pair] for pair in names if pair in by_names]
        run = PairPoseRun(label=label, manifest=manifest.to_json(), pairs=tuple(pairs))
        save_run(path, run)

    def rank(self, result: PairPoseResult) -> tuple[float, str, str]:
        return result.epipolar[-1], result.image1, result.image2

    def shown(
        self, subject: Sequence[Pair], result: PairPoseResult
    ) -> tuple[str, tuple[Path, Path]]:
        first, second = _pair_of(subject, result)
        return f"{first.name} and {second.name}", (first.path, second.path)

    def matched(
        self, subject: Sequence[Pair], result: PairPoseResult, load: LoadFeatures
    ) -> MatchedPoints:
        first, second = _pair_of(subject, result)
        features = load(first.path), load(second.path)
        return match_pair(first, second, *features, self.matcher)


def _pair_of(subject: Sequence[Pair], result: PairPoseResult) -> Pair:
    return next(pair for pair in subject if pair[1].name == result.image2)


def open_benchmark(
    config: PairPosesConfig,
    *,
    gt: Path | None = None,
    kapture_root: Path | None = None,
    camera_origin: CameraOrigin = "auto",
    pairs_file: Path | None = None,
) -> PosedPairs:
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
) -> PosedPairs:
    """The benchmark on images that have been read, see choose_pairs."""
    chosen = choose_pairs(images.images, config, wanted)
    blocks: dict[str, dict[str, Pair]] = {}
    for first, second in chosen.pairs:
        blocks.setdefault(first.name, {})[second.name] = first, second
    return PosedPairs(
        items=tuple(_item(list(block.values())) for block in blocks.values()),
        root=images.root,
        matcher=build_matcher(config.matcher),
        worst_pairs=config.worst_pairs,
        failed=chosen.failed,
        warnings=(*images.warnings, *chosen.warnings),
        config=config,
        chosen=chosen,
    )


def _item(block: Sequence[Pair]) -> Item[Sequence[Pair]]:
    images = [block[0][0], *(second for _, second in block)]
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
