"""Evaluation of local features on pairs of images with known cameras and poses."""

from __future__ import annotations

import itertools
import math
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

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
from r2d2_kapture.evaluation.posed_images import (
    PosedImage,
    camera_images,
    pairs_with_baseline,
)
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.kapture.camera_sizes import unlike_cameras
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.matching.matcher import Matcher, build_matcher
from r2d2_kapture.pictures.figures import save
from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.stages.background_io import WriteBehind
from r2d2_kapture.stages.benchmark.feature_sources import (
    FeatureSource,
    LoadFeatures,
    require_some,
)
from r2d2_kapture.stages.benchmark.results_folder import (
    FEATURES,
    RESULTS,
    claim_folder,
    file_stems,
    fingerprint_of,
    with_protocol,
)
from r2d2_kapture.stages.benchmark.worst_pictures import Picture, update_pictures
from r2d2_kapture.types import Failure, LocalFeatures, Report, some_names

REPORT_NAME = "pair_poses_report.json"
RESULTS_SUFFIX = ".poses.json"
"""Suffix of result files; tables end in .json alone."""

CORRECT_PIXELS = EPIPOLAR_THRESHOLDS[-1]

Pair = tuple[PosedImage, PosedImage]


@dataclass(frozen=True, kw_only=True, eq=False)
class ChosenPairs:
    """Pairs to evaluate.

    Attributes:
        pairs: of cameras at different places; at least one.
        at_one_place: pairs left out because their cameras are at the same place.
        not_drawn: pairs left out at random, because there were too many.
        failed: images left out because their file and camera differ in size.
        warnings: requested pairs that are left out.
    """

    pairs: tuple[Pair, ...]
    at_one_place: int = 0
    not_drawn: int = 0
    failed: tuple[Failure, ...] = ()
    warnings: tuple[str, ...] = ()


def choose_pairs(
    images: Sequence[PosedImage],
    config: PairPosesConfig,
    wanted: Sequence[tuple[str, str]] | None = None,
) -> ChosenPairs:
    """Choose pairs of cameras at different places.

    Args:
        images: with poses.
        config: max_pairs and seed of the sampling.
        wanted: pairs of names, which are not sampled and keep their order; None takes
            all pairs.

    Raises:
        DatasetError: no pair is left, a wanted image has no pose, or no image file has
            the size of its camera.
    """
    unlike = unlike_cameras(camera_images(images), "known cameras")
    if wanted is not None:
        _check_known(images, wanted)
        wanted = [pair for pair in wanted if unlike.keys().isdisjoint(pair)]
    images = [image for image in images if image.name not in unlike]
    usable = pairs_with_baseline(images)
    count = math.comb(len(images), 2)
    if wanted is not None:
        usable, count = _wanted_pairs(images, usable, wanted), len(wanted)
    if not usable:
        raise DatasetError(
            f"found no pair of cameras at different places among {len(images)} images "
            "with poses"
        )
    chosen = usable
    if wanted is None and 0 < config.max_pairs < len(usable):
        rng = np.random.default_rng(config.seed)
        drawn = rng.choice(len(usable), size=config.max_pairs, replace=False)
        chosen = [usable[i] for i in np.sort(drawn)]
    return ChosenPairs(
        pairs=tuple(chosen),
        at_one_place=count - len(usable),
        not_drawn=len(usable) - len(chosen),
        failed=tuple(unlike.values()),
        warnings=_without_baseline(wanted or (), usable),
    )


def _without_baseline(
    wanted: Sequence[tuple[str, str]], usable: Sequence[Pair]
) -> tuple[str, ...]:
    """The warning on listed pairs without epipolar geometry."""
    apart = {(a.name, b.name) for a, b in usable}
    left_out = [", ".join(pair) for pair in wanted if pair not in apart]
    if not left_out:
        return ()
    return (
        f"{len(left_out)} of {len(wanted)} listed pairs are left out, since their "
        "cameras are at the same place and have no epipolar geometry: "
        f"{some_names(left_out)}",
    )


def _check_known(
    images: Sequence[PosedImage], wanted: Sequence[tuple[str, str]]
) -> None:
    """Refuse pairs of images without a pose."""
    unknown = {name for pair in wanted for name in pair}
    unknown -= {image.name for image in images}
    if unknown:
        raise DatasetError(
            f"pairs: image '{min(unknown)}' is not among the {len(images)} with a "
            "known pose; correct the list"
        )


def _wanted_pairs(
    images: Sequence[PosedImage],
    usable: Sequence[Pair],
    wanted: Sequence[tuple[str, str]],
) -> list[Pair]:
    by_name = {image.name: image for image in images}
    apart = {frozenset((a.name, b.name)) for a, b in usable}
    return [(by_name[a], by_name[b]) for a, b in wanted if frozenset((a, b)) in apart]


def run(
    config: PairPosesConfig,
    *,
    image_root: Path,
    chosen: ChosenPairs,
    sources: Sequence[FeatureSource],
    output: Path,
    options: RunOptions = RunOptions(),
    warnings: tuple[str, ...] = (),
) -> Report:
    """Evaluate features on pairs of posed images, resuming an earlier run.

    Writes for each source ``LABEL.poses.json``, its results, and a folder ``LABEL``
    with its manifest, the features that were extracted, the finished pairs of each
    first image, and pictures of the worst pairs. The numbers are the same for any
    number of workers.

    Args:
        config: what is measured.
        image_root: folder that the names of images are relative to.
        chosen: images to match.
        sources: features to evaluate, one after another.
        output: folder of the results.
        options: how to run.
        warnings: on the images, for the report.

    Raises:
        FeatureFormatError: a source has no features of any image.
        ConfigError: two sources share a label, or a device is not available.
        OutputError: there are results of other settings, or results cannot be written.
    """
    started = time.monotonic()
    stems = file_stems([source.label for source in sources])
    pairs = chosen.pairs
    images = {image.path for pair in pairs for image in pair}
    for source in sources:
        require_some(source, sorted(images))
    matcher = build_matcher(config.matcher)
    manifests = [_manifest(config, matcher, source) for source in sources]
    outcomes = []
    with exclusive(output):
        for source, manifest, stem in zip(sources, manifests, stems):
            folder = output / stem
            outcome = _evaluate(
                config, matcher, source, manifest, image_root, pairs, folder, options
            )
            outcomes.append(outcome)
            if options.strict and outcome.failed:
                break
        report = Report(
            stage="pair_poses",
            unit="pair",
            done=sum(outcome.done for outcome in outcomes),
            skipped=sum(outcome.skipped for outcome in outcomes),
            failed=(
                *chosen.failed,
                *(failure for outcome in outcomes for failure in outcome.failed),
            ),
            seconds=time.monotonic() - started,
            outputs=tuple(path for outcome in outcomes for path in outcome.outputs),
            details={
                "pairs": len(pairs),
                "at_one_place": chosen.at_one_place,
                "not_drawn": chosen.not_drawn,
            },
            warnings=(
                *warnings,
                *chosen.warnings,
                *(text for source in sources for text in source.warnings),
            ),
        )
        write_json_atomic(output / REPORT_NAME, report.to_json())
    return report


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """The outcome of one source: pairs done and skipped, failures, result files."""

    done: int
    skipped: int
    failed: tuple[Failure, ...]
    outputs: tuple[Path, ...]


def _manifest(
    config: PairPosesConfig, matcher: Matcher, source: FeatureSource
) -> Manifest:
    """The manifest of the results of one source of features."""
    return with_protocol(
        source.manifest,
        matcher,
        {
            "essential_matrix_ransac_error": config.ransac_error,
            "seed": config.seed,
        },
    )


def _evaluate(
    config: PairPosesConfig,
    matcher: Matcher,
    source: FeatureSource,
    manifest: Manifest,
    image_root: Path,
    pairs: Sequence[Pair],
    folder: Path,
    options: RunOptions,
) -> Outcome:
    """Evaluate one source of features on all pairs, and write its results."""
    claim_folder(folder, manifest, force=options.force)
    blocks = _Blocks(config, matcher, source, pairs, folder / RESULTS)
    images = {image.name: image.path for pair in pairs for image in pair}
    load = source.prepare(list(images.values()), image_root, folder / FEATURES, options)
    blocks.evaluate(load, options)
    failed = [blocks.failed[name] for name in sorted(blocks.failed)]
    failed += update_pictures(folder, blocks.pictures(config.worst_pairs, load))
    found = blocks.found
    path = folder.with_name(folder.name + RESULTS_SUFFIX)
    if found:
        results = PairPoseRun(
            label=source.label, manifest=manifest.to_json(), pairs=tuple(found)
        )
        save_run(path, results)
    else:
        path.unlink(missing_ok=True)
    return Outcome(
        done=len(found) - blocks.resumed,
        skipped=blocks.resumed,
        failed=tuple(failed),
        outputs=(path,) if found else (),
    )


class _Blocks:
    """Pairs grouped by their first image, evaluated by several threads.

    Attributes:
        results: by the names of the pair.
        failed: by the name of the image or pair.
        resumed: number of pairs with existing results.
    """

    def __init__(
        self,
        config: PairPosesConfig,
        matcher: Matcher,
        source: FeatureSource,
        pairs: Sequence[Pair],
        folder: Path,
    ) -> None:
        self._config = config
        self._matcher = matcher
        self._source = source
        self._pairs = {(pair[0].name, pair[1].name): pair for pair in pairs}
        self._folder = folder
        self._lock = threading.Lock()
        self._blocks: dict[str, list[Pair]] = {}
        for pair in self._pairs.values():
            self._blocks.setdefault(pair[0].name, []).append(pair)
        # before anything is read, so that later changes are evaluated again
        self._fingerprints = {
            name: self._fingerprint(block) for name, block in self._blocks.items()
        }
        self.results: dict[tuple[str, str], PairPoseResult] = {}
        self.failed: dict[str, Failure] = {}
        self.resumed = 0

    @property
    def found(self) -> list[PairPoseResult]:
        """Results in the order of the pairs."""
        return [self.results[names] for names in self._pairs if names in self.results]

    def evaluate(self, load: LoadFeatures, options: RunOptions) -> None:
        """Evaluate all pairs without results, in as many threads as workers."""
        bar = Progress("pair_poses", "pair", len(self._pairs), shown=options.progress)
        with bar, ExitStack() as stack:
            # one thread each, which evaluates its blocks in order
            lanes = [
                stack.enter_context(WriteBehind(backlog=1))
                for _ in range(options.workers)
            ]
            for name, lane in zip(self._blocks, itertools.cycle(lanes)):
                if options.strict and self.failed:
                    break
                lane(self._evaluate, name, load, bar)

    def pictures(self, count: int, load: LoadFeatures) -> list[Picture]:
        """Pictures of the pairs with the lowest share of correct matches."""
        ranked = sorted(
            self.results.values(), key=lambda r: (r.epipolar[-1], r.image1, r.image2)
        )
        return [
            _picture(
                self._source.label,
                self._pairs[result.image1, result.image2],
                self._fingerprints[result.image1],
                load,
                self._matcher,
            )
            for result in ranked[:count]
        ]

    def _evaluate(self, name: str, load: LoadFeatures, bar: Progress) -> None:
        block, fingerprint = self._blocks[name], self._fingerprints[name]
        path = self._folder / f"{name}.json"
        results = load_block(path, fingerprint)
        resumed = results is not None
        if results is None:
            results = self._evaluate_block(block, load)
            if len(results) == len(block):
                save_block(path, results, fingerprint)
        with self._lock:
            self.results |= {(item.image1, item.image2): item for item in results}
            self.resumed += len(results) if resumed else 0
            bar.update(len(block))

    def _evaluate_block(
        self, block: Sequence[Pair], load: LoadFeatures
    ) -> list[PairPoseResult]:
        first = block[0][0]
        features1 = self._features(first, load)
        results = []
        for _, second in block if features1 is not None else ():
            features2 = self._features(second, load)
            if features1 is None or features2 is None:
                continue
            try:
                result = evaluate_pair_pose(
                    first,
                    second,
                    features1,
                    features2,
                    matcher=self._matcher,
                    ransac_error=self._config.ransac_error,
                    seed=self._config.seed,
                )
            except FeatureFormatError as error:
                self._fail(f"{first.name}, {second.name}", error)
                continue
            results.append(result)
        return results

    def _features(self, image: PosedImage, load: LoadFeatures) -> LocalFeatures | None:
        try:
            return load(image.path)
        except (FeatureFormatError, ImageError) as error:
            self._fail(image.name, error)
            return None

    def _fail(self, name: str, error: Exception) -> None:
        with self._lock:
            self.failed[name] = Failure(name=name, reason=str(error))

    def _fingerprint(self, block: Sequence[Pair]) -> str:
        """Digest of the inputs of the pairs."""
        images = [block[0][0], *(second for _, second in block)]
        files = [p for i in images for p in (i.path, *self._source.files(i.path))]
        truth = [
            f"{i.name} {i.camera.model_name} {i.camera.params.tolist()} "
            f"{i.cam_from_world.matrix().tolist()}"
            for i in images
        ]
        return fingerprint_of(files, "".join(truth).encode("utf-8", "surrogateescape"))


def _picture(
    label: str, pair: Pair, state: str, load: LoadFeatures, matcher: Matcher
) -> Picture:
    """Draw the matches of a pair; correct ones lie within CORRECT_PIXELS of their
    line."""
    first, second = pair
    title = f"{label}: {first.name} and {second.name}"

    def draw(path: Path) -> None:
        image1, image2 = read_rgb(first.path), read_rgb(second.path)
        features = load(first.path), load(second.path)
        matched = match_pair(first, second, *features, matcher)
        figure = draw_matches(
            image1,
            image2,
            matched.points1,
            matched.points2,
            matched.errors <= CORRECT_PIXELS,
            title=title,
            words="matches correct",
        )
        save(figure, path)

    return Picture(title=title, state=state, draw=draw)
