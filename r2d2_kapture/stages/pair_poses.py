"""Evaluation of local features on pairs of images with known cameras and poses."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, FeatureFormatError, ImageError
from r2d2_kapture.evaluation.pair_poses import (
    EPIPOLAR_THRESHOLDS,
    PairPoseResult,
    evaluate_pair_pose,
    match_pair,
)
from r2d2_kapture.evaluation.pair_results import (
    PairPoseRun,
    load_block,
    save_block,
    save_run,
)
from r2d2_kapture.evaluation.posed_images import PosedImage, pairs_with_baseline
from r2d2_kapture.io.atomic import write_json_atomic
from r2d2_kapture.io.images import read_rgb
from r2d2_kapture.io.lock import exclusive
from r2d2_kapture.pictures.homography import draw_matches
from r2d2_kapture.stages.feature_sources import FeatureSource, LoadFeatures
from r2d2_kapture.stages.flow import WriteBehind
from r2d2_kapture.stages.results_folder import (
    RESULTS,
    claim_folder,
    file_stems,
    fingerprint_of,
    with_protocol,
)
from r2d2_kapture.types import Failure, LocalFeatures, Report

REPORT_NAME = "pair_poses_report.json"
FEATURES = "features"
CORRECT_PIXELS = EPIPOLAR_THRESHOLDS[-1]

Pair = tuple[PosedImage, PosedImage]


def choose_pairs(
    images: Sequence[PosedImage],
    config: PairPosesConfig,
    wanted: Sequence[tuple[str, str]] | None = None,
) -> list[Pair]:
    """Choose pairs of cameras at different places.

    Args:
        images: with poses.
        config: its max_pairs and seed draw from too many.
        wanted: names of pairs; None takes all. Their order in a pair is kept.

    Raises:
        DatasetError: no pair is left, or a wanted image has no pose.
    """
    by_name = {image.name: image for image in images}
    unknown = {name for pair in wanted or () for name in pair} - by_name.keys()
    if unknown:
        raise DatasetError(
            f"pairs: image '{min(unknown)}' is not among the {len(by_name)} with a "
            "known pose; correct the list"
        )
    usable = pairs_with_baseline(images)
    if wanted is not None:
        apart = {frozenset((a.name, b.name)) for a, b in usable}
        usable = [
            (by_name[a], by_name[b]) for a, b in wanted if frozenset((a, b)) in apart
        ]
    if not usable:
        raise DatasetError(
            f"found no pair of cameras at different places among {len(images)} images "
            "with poses"
        )
    if not 0 < config.max_pairs < len(usable):
        return usable
    rng = np.random.default_rng(config.seed)
    chosen = rng.choice(len(usable), size=config.max_pairs, replace=False)
    return [usable[i] for i in np.sort(chosen)]


def run(
    config: PairPosesConfig,
    *,
    image_root: Path,
    pairs: Sequence[Pair],
    sources: Sequence[FeatureSource],
    output: Path,
    options: RunOptions = RunOptions(),
) -> Report:
    """Evaluate features on pairs of posed images, resuming what is there.

    Writes for each source ``LABEL.json``, its results, and a folder ``LABEL`` with its
    manifest, the features that were extracted, the finished pairs of each first image,
    and pictures of the worst pairs. The numbers are the same for any number of workers.

    Args:
        config: what is measured.
        image_root: folder that the names of images are relative to.
        pairs: images to match; at least one pair.
        sources: features to evaluate, one after another.
        output: folder of the results.
        options: how to run.

    Raises:
        ConfigError: two sources have one label, or a device is not there.
        OutputError: results of other settings are there, or cannot be written.
    """
    started = time.monotonic()
    stems = file_stems([source.label for source in sources])
    outcomes = []
    with exclusive(output):
        for source, stem in zip(sources, stems):
            folder = output / stem
            outcome = _evaluate(config, source, image_root, pairs, folder, options)
            outcomes.append(outcome)
            if options.strict and outcome.failed:
                break
        report = Report(
            stage="pair_poses",
            done=sum(outcome.done for outcome in outcomes),
            skipped=sum(outcome.skipped for outcome in outcomes),
            failed=tuple(failure for outcome in outcomes for failure in outcome.failed),
            seconds=time.monotonic() - started,
            outputs=tuple(path for outcome in outcomes for path in outcome.outputs),
            details={"pairs": len(pairs)},
        )
        write_json_atomic(output / REPORT_NAME, report.to_json())
    return report


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What became of one source: pairs done and skipped, failures, files of results."""

    done: int
    skipped: int
    failed: tuple[Failure, ...]
    outputs: tuple[Path, ...]


def _evaluate(
    config: PairPosesConfig,
    source: FeatureSource,
    image_root: Path,
    pairs: Sequence[Pair],
    folder: Path,
    options: RunOptions,
) -> Outcome:
    """Evaluate one source of features on all pairs, and write its results."""
    manifest = with_protocol(
        source.manifest,
        {
            "matcher": "mutual nearest neighbours",
            "essential_matrix_ransac_error": config.ransac_error,
            "seed": config.seed,
        },
    )
    claim_folder(folder, manifest, force=options.force)
    images = {image.name: image.path for pair in pairs for image in pair}
    load = source.prepare(list(images.values()), image_root, folder / FEATURES, options)
    blocks = _Blocks(config, source, load, folder / RESULTS)
    _evaluate_blocks(blocks, pairs, options)
    names = [(first.name, second.name) for first, second in pairs]
    found = [blocks.results[pair] for pair in names if pair in blocks.results]
    done = len(found) - blocks.resumed
    failed = [blocks.failed[name] for name in sorted(blocks.failed)]
    outputs = []
    if found:
        outputs.append(folder.with_name(f"{folder.name}.json"))
        results = PairPoseRun(
            label=source.label, manifest=manifest.to_json(), pairs=tuple(found)
        )
        save_run(outputs[0], results)
        worst = _worst(config, found, folder, redo=done > 0)
        failed += _draw(worst, source.label, pairs, load)
    return Outcome(
        done=done,
        skipped=blocks.resumed,
        failed=tuple(failed),
        outputs=tuple(outputs),
    )


def _evaluate_blocks(
    blocks: _Blocks, pairs: Sequence[Pair], options: RunOptions
) -> None:
    """Evaluate all pairs in as many threads as there are workers."""
    by_first: dict[str, list[Pair]] = {}
    for pair in pairs:
        by_first.setdefault(pair[0].name, []).append(pair)
    bar = tqdm(
        total=len(pairs),
        desc="pair_poses",
        unit="pair",
        disable=None if options.progress is None else not options.progress,
    )
    with bar, ExitStack() as stack:
        # one thread each, which does the blocks it is given in order
        lanes = [
            stack.enter_context(WriteBehind(backlog=1)) for _ in range(options.workers)
        ]
        for block, lane in zip(by_first.values(), itertools.cycle(lanes)):
            if options.strict and blocks.failed:
                break
            lane(blocks.evaluate, block, bar)


class _Blocks:
    """Evaluates the pairs of one first image after another, in several threads.

    Attributes:
        results: by names of the pair.
        failed: by what failed, an image or a pair.
        resumed: pairs that were there.
    """

    def __init__(
        self,
        config: PairPosesConfig,
        source: FeatureSource,
        load: LoadFeatures,
        folder: Path,
    ) -> None:
        self._config = config
        self._source = source
        self._load = load
        self._folder = folder
        self._lock = threading.Lock()
        self.results: dict[tuple[str, str], PairPoseResult] = {}
        self.failed: dict[str, Failure] = {}
        self.resumed = 0

    def evaluate(self, block: Sequence[Pair], bar: tqdm[None]) -> None:
        """Evaluate the pairs of one first image, unless they are there."""
        path = self._folder / f"{block[0][0].name}.json"
        fingerprint = self._fingerprint(block)
        results = load_block(path, fingerprint)
        resumed = results is not None
        if results is None:
            results = self._evaluate(block)
            if len(results) == len(block):
                save_block(path, results, fingerprint)
        with self._lock:
            self.results |= {(item.image1, item.image2): item for item in results}
            self.resumed += len(results) if resumed else 0
            bar.update(len(block))

    def _evaluate(self, block: Sequence[Pair]) -> list[PairPoseResult]:
        first = block[0][0]
        features1 = self._features(first)
        results = []
        for _, second in block if features1 is not None else ():
            features2 = self._features(second)
            if features1 is None or features2 is None:
                continue
            try:
                result = evaluate_pair_pose(
                    first,
                    second,
                    features1,
                    features2,
                    ransac_error=self._config.ransac_error,
                    seed=self._config.seed,
                )
            except FeatureFormatError as error:
                self._fail(f"{first.name}, {second.name}", error)
                continue
            results.append(result)
        return results

    def _features(self, image: PosedImage) -> LocalFeatures | None:
        try:
            return self._load(image.path)
        except (FeatureFormatError, ImageError) as error:
            self._fail(image.name, error)
            return None

    def _fail(self, name: str, error: Exception) -> None:
        with self._lock:
            self.failed[name] = Failure(name=name, reason=str(error))

    def _fingerprint(self, block: Sequence[Pair]) -> str:
        """Changes with what the pairs are evaluated from."""
        images = [block[0][0], *(second for _, second in block)]
        files = [p for i in images for p in (i.path, *self._source.files(i.path))]
        truth = [
            f"{i.name} {i.camera.model_name} {i.camera.params.tolist()} "
            f"{i.cam_from_world.matrix().tolist()}"
            for i in images
        ]
        return fingerprint_of(files, "".join(truth).encode("utf-8", "surrogateescape"))


def _worst(
    config: PairPosesConfig,
    results: Sequence[PairPoseResult],
    folder: Path,
    *,
    redo: bool,
) -> dict[Path, PairPoseResult]:
    """Pictures to draw, of the pairs with the lowest share of correct matches."""
    ranked = sorted(results, key=lambda r: (r.epipolar[-1], r.image1, r.image2))
    pictures = {
        folder / f"worst_{rank}.png": result
        for rank, result in enumerate(ranked[: config.worst_pairs], start=1)
    }
    return {p: result for p, result in pictures.items() if redo or not p.exists()}


def _draw(
    pictures: Mapping[Path, PairPoseResult],
    label: str,
    pairs: Sequence[Pair],
    load: LoadFeatures,
) -> list[Failure]:
    """Draw the matches of pairs, correct within CORRECT_PIXELS of their line.

    Returns:
        Which pictures could not be drawn, and why.
    """
    by_names = {(first.name, second.name): (first, second) for first, second in pairs}
    failed = []
    for path, result in pictures.items():
        first, second = by_names[result.image1, result.image2]
        try:
            image1, image2 = read_rgb(first.path), read_rgb(second.path)
            matched = match_pair(first, second, load(first.path), load(second.path))
        except (FeatureFormatError, ImageError) as error:
            failed.append(Failure(name=str(path), reason=str(error)))
            continue
        draw_matches(
            image1,
            image2,
            matched.points1,
            matched.points2,
            matched.errors <= CORRECT_PIXELS,
            path,
            title=f"{label}: {first.name} and {second.name}",
        )
    return failed
