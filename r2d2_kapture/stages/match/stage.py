"""Matching: local features of image pairs in, matches out."""

from __future__ import annotations

import time
from collections.abc import Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch

from r2d2_kapture.config.extract import EngineConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.core.runtime import resolve_runtime
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.kapture.feature_provenance import (
    feature_provenance,
    feature_states,
    refuse_replaced_images,
)
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.kapture.match_store import (
    MatchWriter,
    matches_folder,
    open_match_writer,
)
from r2d2_kapture.io.kapture.overlaps import hidden_features
from r2d2_kapture.io.kapture.pairs import ImagePair, read_pairs, sorted_pair
from r2d2_kapture.io.outputs.ledger import write_report
from r2d2_kapture.io.outputs.manifest import Manifest, package_versions
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.matching.matcher import (
    Matcher,
    MatchInput,
    build_matcher,
    matcher_record,
)
from r2d2_kapture.stages.background_io import (
    WriteBehind,
    one_core_a_thread,
    read_ahead,
)
from r2d2_kapture.stages.match.cache import LoadingCache
from r2d2_kapture.stages.match.inputs import InputReader
from r2d2_kapture.types import Failure, PairMatches, Report, counted, some_names

REPORT_NAME = "match_report.json"
READERS = 2
NAMES = {"mutual_nearest": "mutual nearest neighbours"}
"""Names of matchers in manifests, where they differ from the registered ones."""
Names = tuple[str, str]
Inputs = tuple[MatchInput, MatchInput]


@dataclass
class Tally:
    """Counts of a run in progress."""

    done: int = 0
    matches: int = 0
    without_matches: int = 0
    failed: list[Failure] = field(default_factory=list)

    def add(self, matches: PairMatches) -> None:
        """Count a pair."""
        self.done += 1
        self.matches += len(matches)
        self.without_matches += not len(matches)

    def warnings(self) -> tuple[str, ...]:
        """The warning on a run without any match, which is not a failure."""
        if not self.done or self.without_matches < self.done:
            return ()
        return (
            f"none of {self.done} pairs has a match; check that they overlap, or relax "
            "the thresholds (--ratio, --min-similarity, or others of the matcher)",
        )


def run(
    config: MatchConfig,
    *,
    features: Sequence[Path],
    pairs: Path,
    output: Path,
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Match local features of image pairs into kapture matches with scores.

    They are matched by mutual nearest neighbours or another --matcher. Run it again to
    resume; pairs of images whose features have changed since are matched again.

    Args:
        config: settings of matching.
        features: kapture datasets, or folders of local features by kapture_r2d2_extract
            such as local_features/r2d2_500; for each image, the first that has its
            features is used.
        pairs: list of pairs by kapture_r2d2_pairs, 'name, name, score' (kapture) or
            'name name' (hloc, COLMAP).
        output: folder for ``reconstruction/matches/<keypoints type>``.
        keypoints_type, descriptors_type: by default the only existing one.
        options: how to run; ``workers`` pairs are matched in parallel, each on one
            core. Matches do not depend on it.

    Raises:
        DatasetError, OutputError, ConfigError: see the functions called.
        FeatureFormatError: no pair can be matched, or descriptors require another
            metric than L2 or cosine.
    """
    device = resolve_runtime(EngineConfig(gpu=config.gpu)).device
    tables = open_local_features(features, keypoints_type, descriptors_type)
    listed = read_pairs(pairs, tables.keypoints)
    return run_matcher(
        build_matcher(config.matcher, device),
        tables=tables,
        pairs=listed,
        output=output,
        device=device,
        cache_gb=config.cache_gb,
        warnings=() if listed else (f"{pairs}: found no pair to match",),
        options=options,
    )


def run_matcher(
    matcher: Matcher,
    *,
    tables: LocalFeatureTables,
    pairs: Sequence[ImagePair],
    output: Path,
    device: torch.device,
    cache_gb: float = MatchConfig.cache_gb,
    warnings: tuple[str, ...] = (),
    options: RunOptions = RunOptions(),
) -> Report:
    """Match pairs by a matcher; see ``run``.

    Args:
        matcher: of two images.
        tables: their features.
        pairs: to match.
        output: folder for ``reconstruction/matches/<keypoints type>``.
        device: of the matcher.
        cache_gb: gigabytes of features cached in memory for later pairs.
        warnings: of the pairs, for the report.
        options: how to run.

    Raises:
        DatasetError, OutputError, FeatureFormatError: as ``run``.
    """
    started = time.monotonic()
    wanted = in_caching_order(pairs)
    require_usable(tables, wanted)
    images = sorted({image for pair in wanted for image in pair})
    refuse_replaced_images(tables.keypoints, images)
    manifest = make_manifest(matcher, tables)
    keypoints_type = tables.keypoints.type_name
    cache: LoadingCache[str, MatchInput] = LoadingCache(
        InputReader(tables, device, with_keypoints=matcher.needs_keypoints),
        lambda features: features.nbytes,
        int(cache_gb * 1e9),
    )
    with open_match_writer(output, keypoints_type, manifest, options) as writer:
        writer.follow(feature_states(tables, images))
        todo = [
            pair for pair in wanted if options.force or not writer.is_complete(*pair)
        ]
        tally = match_pairs(matcher, todo, cache, writer, options, len(wanted))
        if tally.failed and len(tally.failed) == len(wanted):
            raise FeatureFormatError(nothing_matched(wanted, tally.failed[0].reason))
        report = Report(
            stage="match",
            unit="pair",
            summary=counted(tally.matches, "match") if tally.done else "",
            done=tally.done,
            skipped=len(wanted) - len(todo),
            failed=tuple(tally.failed),
            seconds=time.monotonic() - started,
            outputs=(matches_folder(output, keypoints_type),),
            warnings=(
                *warnings,
                *hidden_features(tables.keypoints),
                *empty_warning(tables, wanted),
                *tally.warnings(),
            ),
            details={
                "keypoints_type": keypoints_type,
                "descriptors_type": tables.descriptors.type_name,
                "matches": tally.matches,
                "matches_per_pair": round(tally.matches / max(tally.done, 1)),
                "pairs_without_matches": tally.without_matches,
                "images_read": cache.loads,
                "device": str(device),
            },
        )
        return write_report(writer.folder / REPORT_NAME, report)


def empty_warning(
    tables: LocalFeatureTables, pairs: Sequence[Names]
) -> tuple[str, ...]:
    """The warning on images without any keypoint.

    Pairs with missing or broken features fail separately.
    """
    paired = sorted({image for pair in pairs for image in pair})
    empty = set()
    for image in paired:
        with suppress(FeatureFormatError):
            if tables.keypoints.count(image) == 0:
                empty.add(image)
    if not empty:
        return ()
    count = sum(not empty.isdisjoint(pair) for pair in pairs)
    return (
        f"{len(empty)} of {len(paired)} images have no keypoints: "
        f"{some_names(sorted(empty))}; their {count} pairs have no matches",
    )


def in_caching_order(pairs: Sequence[ImagePair]) -> list[Names]:
    """Sort pairs so that images recur soon.

    Pairs follow the Z-order curve (Morton, 1966) through the matrix of images sorted by
    name: a cache of any number of images serves a square of that side.
    """
    names = {sorted_pair(*pair.names) for pair in pairs}
    images = sorted({image for pair in names for image in pair})
    # the binary digits of an index, interleaved with zeros
    spread = {image: int(f"{index:b}", base=4) for index, image in enumerate(images)}
    return sorted(names, key=lambda pair: 2 * spread[pair[0]] + spread[pair[1]])


def make_manifest(matcher: Matcher, tables: LocalFeatureTables) -> Manifest:
    """The manifest of matches: the matcher and the provenance of the features."""
    name = matcher.settings.matcher
    return Manifest(
        model={"name": NAMES.get(name, name)},
        settings={
            **matcher_record(matcher),
            "keypoints_type": tables.keypoints.type_name,
            "descriptors_type": tables.descriptors.type_name,
            "keypoints SHA-256": feature_provenance(tables.keypoints),
            "descriptors SHA-256": feature_provenance(tables.descriptors),
        },
        versions=package_versions(),
    )


def require_usable(tables: LocalFeatureTables, pairs: Sequence[Names]) -> None:
    """Refuse a list without any pair that can be matched, before matching.

    Only the sizes of files are read.

    Raises:
        FeatureFormatError: every pair has an image whose features are missing, or whose
            keypoints and descriptors differ in number.
    """
    reasons: dict[str, str | None] = {}
    for pair in pairs:
        for image in pair:
            if image not in reasons:
                reasons[image] = unusable(tables, image)
        if not any(reasons[image] for image in pair):
            return
    found = next((reason for reason in reasons.values() if reason), None)
    if found is not None:
        raise FeatureFormatError(nothing_matched(pairs, found))


def unusable(tables: LocalFeatureTables, image: str) -> str | None:
    """Why the features of an image cannot be matched, judging by file sizes."""
    try:
        tables.check_counts(image)
    except FeatureFormatError as error:
        return str(error)
    return None


def nothing_matched(pairs: Sequence[Names], reason: str) -> str:
    """The one-line error if no pair can be matched."""
    return f"none of {len(pairs)} pairs can be matched; first: {reason}"


def match_pairs(
    matcher: Matcher,
    pairs: Sequence[Names],
    inputs: LoadingCache[str, MatchInput],
    writer: MatchWriter,
    options: RunOptions,
    total: int,
) -> Tally:
    """Read, match and write pairs, all steps in parallel.

    Args:
        matcher: of two images.
        pairs: sorted names, in order.
        inputs: of the matcher by image.
        writer: stores the matches.
        options: how to run.
        total: pairs of the progress bar, those already done included.
    """

    def load(pair: Names) -> Inputs:
        return inputs(pair[0]), inputs(pair[1])

    def match(item: tuple[Names, Future[Inputs]]) -> PairMatches:
        first, second = item[1].result()
        return matcher(first, second)

    tally = Tally()
    with ExitStack() as stack:
        bar = stack.enter_context(
            Progress(
                "match",
                "pair",
                total,
                done=total - len(pairs),
                shown=options.progress,
            )
        )
        stack.enter_context(one_core_a_thread())
        write_behind = stack.enter_context(WriteBehind())
        loading = stack.enter_context(closing(read_ahead(pairs, load, READERS)))
        matching = stack.enter_context(
            closing(read_ahead(loading, match, options.workers))
        )
        for (pair, _), future in matching:
            bar.update()
            try:
                matches = future.result()
            except FeatureFormatError as error:
                failure = Failure(name=", ".join(pair), reason=str(error))
                tally.failed.append(failure)
                if options.strict:
                    break
                continue
            write_behind(writer.write, *pair, matches)
            tally.add(matches)
    return tally
