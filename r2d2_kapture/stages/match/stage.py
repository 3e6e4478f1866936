"""Matching: local features of image pairs in, matches out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from r2d2_kapture.config.extract import EngineConfig
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import WHOLE
from r2d2_kapture.config.stores import Store
from r2d2_kapture.core.runtime import resolve_runtime
from r2d2_kapture.errors import FeatureFormatError
from r2d2_kapture.io.kapture.feature_provenance import (
    feature_provenance,
    feature_states,
    recorded_files,
    refuse_replaced_images,
)
from r2d2_kapture.io.kapture.followed_features import STATES_NAME
from r2d2_kapture.io.kapture.local_features import (
    LocalFeatureTables,
    open_local_features,
)
from r2d2_kapture.io.kapture.match_store import (
    ARCHIVE_NAME,
    CONTENTS,
    MatchWriter,
    is_in_other_layout,
    match_files,
    matches_folder,
    open_match_writer,
)
from r2d2_kapture.io.kapture.overlaps import hidden_features
from r2d2_kapture.io.kapture.pairs import ImagePair, read_pairs, sorted_pair
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import is_made_with
from r2d2_kapture.io.outputs.manifest import FILE_NAME, Manifest, package_versions
from r2d2_kapture.io.outputs.moving import leave
from r2d2_kapture.io.outputs.slice_reports import OwnWork
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.io.stores.reading import file_count
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
from r2d2_kapture.stages.match.wanted import (
    Names,
    empty_warning,
    in_caching_order,
    nothing_matched,
    require_usable,
    unmatched,
)
from r2d2_kapture.types import Failure, PairMatches, Report, counted

REPORT_NAME = "match_report.json"
READERS = 2
NAMES = {"mutual_nearest": "mutual nearest neighbours"}
"""Names of matchers in manifests, where they differ from the registered ones."""
OF_ITS_OWN = OwnWork(
    sums=("matches", "pairs_without_matches", "images_read"),
    averages={"matches_per_pair": "matches"},
    noun="match",
)
Inputs = tuple[MatchInput, MatchInput]
BuildMatcher = Callable[[Any, torch.device], Matcher]


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
    store: Store = "files",
    slice: str = WHOLE,
    build: BuildMatcher = build_matcher,
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
        store: ``files`` writes one file per pair; ``tar`` one archive, matches.tar;
            ``shards`` archives of up to 10,000 pairs with an index each, for millions
            of pairs, which kapture's own tools cannot read, see docs/formats.md.
        slice: ``i/n`` does part i of n of the pairs, for runs that share the output;
            ``all`` puts the parts together, see docs/cluster.md.
        build: makes the matcher on a device; one that keeps it serves further slices.
        options: how to run; ``workers`` pairs are matched in parallel, each on one
            core. Matches do not depend on it.

    Raises:
        DatasetError, OutputError, ConfigError: see the functions called.
        FeatureFormatError: no pair can be matched, or descriptors require another
            metric than L2 or cosine.
    """
    device = resolve_runtime(EngineConfig(engine="torch", gpu=config.gpu)).device
    tables = open_local_features(features, keypoints_type, descriptors_type)
    listed = read_pairs(pairs, tables.keypoints)
    return run_matcher(
        build(config.matcher, device),
        tables=tables,
        pairs=listed,
        output=output,
        device=device,
        cache_gb=config.cache_gb,
        warnings=() if listed else (f"{pairs}: found no pair to match",),
        store=store,
        slice=slice,
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
    store: Store = "files",
    slice: str = WHOLE,
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
        store: layout of the matches.
        slice: of the pairs.
        options: how to run.

    Raises:
        DatasetError, OutputError, FeatureFormatError: as ``run``.
    """
    started = time.monotonic()
    keypoints_type = tables.keypoints.type_name
    folder = matches_folder(output, keypoints_type)
    sliced = Sliced.read(slice, folder, CONTENTS, unit="pair")
    options = sliced.options(options)
    manifest = make_manifest(matcher, tables)
    names = [sorted_pair(*pair.names) for pair in pairs]
    finished = Finished.of(
        folder / FINISHED_NAME,
        [manifest.model, manifest.settings, store, names],
        input_files(tables, {image: None for pair in names for image in pair}),
    )
    if not (options.force or sliced.is_part or sliced.is_waiting):
        made = match_files(output, keypoints_type, names)
        if report := finished.report(started, items=made):
            return report
    every = in_caching_order(names)
    wanted = sliced.part.of(every)
    require_usable(tables, every)
    images = sorted({image for pair in wanted for image in pair})
    refuse_replaced_images(tables.keypoints, images)
    cache: LoadingCache[str, MatchInput] = LoadingCache(
        InputReader(tables, device, with_keypoints=matcher.needs_keypoints),
        lambda features: features.nbytes,
        int(cache_gb * 1e9),
    )
    states = feature_states(tables, images)

    def missing() -> Sequence[Names]:
        """The pairs wanted that the whole output has not."""
        if not is_made_with(folder, CONTENTS, manifest, options):
            return wanted
        is_in_other_layout(folder, manifest, options, store)
        return unmatched(output, keypoints_type, wanted, states, options)

    with ExitStack() as stack:
        layout = "" if store == "files" else f" {store}"
        run = stack.enter_context(
            sliced.open(
                manifest,
                every,
                options,
                lambda pair: f"{pair} {[states[image] for image in pair]}{layout}",
                lambda: len(missing()),
            )
        )
        writer = stack.enter_context(
            open_match_writer(
                sliced.root(output), keypoints_type, manifest, options, store
            )
        )
        writer.follow(states)
        run.gather(output, {STATES_NAME: leave})
        left = wanted
        if sliced.is_part:
            left = missing()
            run.is_empty = not left
        todo = [pair for pair in left if options.force or not writer.is_complete(*pair)]
        tally = match_pairs(matcher, todo, cache, writer, options, len(wanted))
        if tally.failed and len(tally.failed) == len(every):
            raise FeatureFormatError(nothing_matched(wanted, tally.failed[0].reason))
        report = Report(
            stage="match",
            unit="pair",
            summary=counted(tally.matches, "match") if tally.done else "",
            done=tally.done,
            skipped=len(wanted) - len(todo),
            failed=tuple(tally.failed),
            seconds=time.monotonic() - started,
            outputs=(folder,),
            warnings=(
                *warnings,
                *hidden_features(tables.keypoints),
                *empty_warning(tables, wanted),
            ),
            details={
                "keypoints_type": keypoints_type,
                "descriptors_type": tables.descriptors.type_name,
                "matches": tally.matches,
                "matches_per_pair": round(tally.matches / max(tally.done, 1)),
                "pairs_without_matches": tally.without_matches,
                "images_read": cache.loads,
                **file_count(store, {ARCHIVE_NAME: writer.folder}),
                "device": str(device),
            },
        )
        again = OF_ITS_OWN.without(report)
        report = dataclasses.replace(
            report, warnings=(*report.warnings, *tally.warnings())
        )
        report = run.finish(report, folder / REPORT_NAME, OF_ITS_OWN)
    is_known = not tally.done and finished.is_another()  # both are in the output
    if not (sliced.is_part or report.failed or is_known):  # failures are tried again
        whole = (folder / name for name in (REPORT_NAME, FILE_NAME, STATES_NAME))
        made = match_files(output, keypoints_type, names)
        finished.note(again, whole, made)
    return report


def input_files(
    tables: LocalFeatureTables, images: Collection[str]
) -> Iterator[Path | str]:
    """The files of features, and the images that they were made of."""
    yield from tables.keypoints.files(images)
    if tables.extracted is not None:
        yield from tables.extracted.files(images)
    yield from tables.descriptors.files(images)
    yield from recorded_files(tables.keypoints)


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
                also=options.on_progress,
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
