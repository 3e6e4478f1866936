"""Evaluation of local features on homography sequences, sequence by sequence."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from r2d2_kapture.config.hpatches import HomographyConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import (
    DatasetError,
    FeatureFormatError,
    ImageError,
)
from r2d2_kapture.evaluation.homography import (
    THRESHOLDS,
    MatchedPair,
    evaluate_sequence,
)
from r2d2_kapture.evaluation.results import (
    HomographyResults,
    load_sequence,
    save_results,
    save_sequence,
)
from r2d2_kapture.evaluation.sequences import (
    HomographySequence,
    find_sequences,
    read_sequence,
)
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.outputs.atomic import write_json_atomic
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.matching.matcher import build_matcher
from r2d2_kapture.pictures.figures import save
from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.stages.background_io import WriteBehind
from r2d2_kapture.stages.benchmark.feature_sources import (
    FeatureSource,
    LoadFeatures,
    require_some,
)
from r2d2_kapture.stages.benchmark.results_folder import (
    RESULTS,
    claim_folder,
    file_stems,
    fingerprint_of,
    with_protocol,
)
from r2d2_kapture.stages.benchmark.worst_pictures import Picture, update_pictures
from r2d2_kapture.types import Failure, Report, some_names

REPORT_NAME = "hpatches_report.json"
CORRECT_PIXELS = 3.0
"""Error in pixels up to which a match is drawn as correct, and by which pairs are
ranked."""


@dataclass
class Tally:
    """Counts of a run in progress."""

    done: int = 0
    skipped: int = 0
    pairs: int = 0
    failed: list[Failure] = field(default_factory=list)
    outputs: list[Path] = field(default_factory=list)


def run(
    config: HomographyConfig,
    *,
    root: Path,
    output: Path,
    sources: Sequence[FeatureSource],
    options: RunOptions = RunOptions(),
) -> Report:
    """Evaluate features on every sequence below ``root``, resuming an earlier run.

    Writes for each source ``LABEL.npz``, its results, and a folder ``LABEL`` with one
    file per sequence, its manifest and pictures of the worst pairs. The network runs on
    one image after another, in parallel with ``options.workers`` threads that measure a
    sequence each: the numbers are the same for any number of them.

    Args:
        config: what is measured.
        root: holds folders in the layout of HPatches, at any depth.
        output: folder of the results.
        sources: features to evaluate, one after another.
        options: how to run.

    Raises:
        DatasetError: there is no sequence.
        FeatureFormatError: a source has no features of any image.
        ConfigError: two sources share a label, or a device is not available.
        OutputError: there are results of other settings, or results cannot be written.
    """
    started = time.monotonic()
    everything = find_sequences(root, leave_out=())
    folders = everything if config.all_sequences else find_sequences(root)
    stems = file_stems([source.label for source in sources])
    tally = Tally()
    sequences = _read_sequences(folders, tally)
    for source in sources:
        require_some(source, [i for sequence in sequences for i in sequence.images])
    if options.strict and tally.failed:
        sequences = []
    bar = Progress(
        "hpatches",
        "sequence",
        len(sources) * len(sequences),
        shown=options.progress,
    )
    evaluations = [
        _Evaluation(config, source, output / stem, options, bar)
        for source, stem in zip(sources, stems)
    ]
    with exclusive(output), bar:
        for evaluation, stem in zip(evaluations, stems):
            evaluation.run(sequences)
            evaluation.finish(sequences, output / f"{stem}.npz", tally)
            if options.strict and tally.failed:
                break
        report = Report(
            stage="hpatches",
            unit="sequence",
            done=tally.done,
            skipped=tally.skipped,
            failed=tuple(tally.failed),
            seconds=time.monotonic() - started,
            outputs=tuple(tally.outputs),
            details={
                "sequences": len(folders),
                "left_out": sorted(everything.keys() - folders.keys()),
                "pairs": tally.pairs,
            },
            warnings=(
                *_shorter(sequences),
                *(text for source in sources for text in source.warnings),
            ),
        )
        write_json_atomic(output / REPORT_NAME, report.to_json())
    return report


def _read_sequences(folders: dict[str, Path], tally: Tally) -> list[HomographySequence]:
    """Read complete sequences; report the others."""
    sequences = []
    for name, folder in folders.items():
        try:
            sequences.append(read_sequence(folder, name))
        except DatasetError as error:
            tally.failed.append(Failure(name=name, reason=str(error)))
    return sequences


def _shorter(sequences: Sequence[HomographySequence]) -> tuple[str, ...]:
    """The warning on sequences with fewer images than others."""
    most = max((len(sequence.images) for sequence in sequences), default=0)
    names = [one.name for one in sequences if len(one.images) < most]
    if not names:
        return ()
    return (
        f"{len(names)} of {len(sequences)} sequences have fewer than {most} images: "
        f"{some_names(names)}; they contribute fewer pairs to the means",
    )


class _Stop(Exception):
    """Ends a strict run that has a failure."""


class _Evaluation:
    """One source of features on all sequences."""

    def __init__(
        self,
        config: HomographyConfig,
        source: FeatureSource,
        folder: Path,
        options: RunOptions,
        bar: Progress,
    ) -> None:
        self._config = config
        self._source = source
        self._folder = folder
        self._options = options
        self._bar = bar
        self._lock = threading.Lock()
        self._matcher = build_matcher(config.matcher)
        self._fingerprints: dict[str, str] = {}
        self._pairs: dict[str, list[MatchedPair]] = {}
        self._failed: list[Failure] = []
        self._resumed = 0
        self.manifest = with_protocol(
            source.manifest,
            self._matcher,
            {
                "thresholds": list(THRESHOLDS),
                "homography_ransac_error": config.ransac_error,
                "seed": config.seed,
            },
        )

    def run(self, sequences: Sequence[HomographySequence]) -> None:
        """Evaluate the sequences without results."""
        claim_folder(self._folder, self.manifest, force=self._options.force)
        # before anything is read, so that later changes are evaluated again
        self._fingerprints = {s.name: self._fingerprint(s) for s in sequences}
        for sequence in sequences:
            pairs = load_sequence(
                self._path(sequence), self._fingerprints[sequence.name]
            )
            if pairs is not None:
                self._pairs[sequence.name] = pairs
        self._resumed = len(self._pairs)
        self._bar.update(self._resumed)
        todo = [s for s in sequences if s.name not in self._pairs]
        if todo:
            self._evaluate(todo)

    def _evaluate(self, sequences: Sequence[HomographySequence]) -> None:
        with ExitStack() as stack:
            # one thread each, which evaluates its sequences in order
            lanes = [
                stack.enter_context(WriteBehind(backlog=1))
                for _ in range(self._options.workers)
            ]
            turns = itertools.cycle(lanes)

            def evaluate(sequence: HomographySequence, load: LoadFeatures) -> None:
                if self._options.strict and self._failed:
                    raise _Stop
                next(turns)(self._measure, sequence, load)

            with suppress(_Stop):
                unread = self._source.feed(sequences, evaluate, self._options)
                for failure in unread:
                    self._fail(failure)

    def finish(
        self, sequences: Sequence[HomographySequence], path: Path, tally: Tally
    ) -> None:
        """Write the results of all sequences, and the pictures of the worst pairs.

        Without any result, the files of an earlier run are removed.
        """
        found = [pair for s in sequences for pair in self._pairs.get(s.name, [])]
        tally.done += len(self._pairs) - self._resumed
        tally.skipped += self._resumed
        tally.pairs += len(found)
        tally.failed += sorted(self._failed, key=lambda failure: failure.name)
        tally.failed += self._draw_worst(found, {s.name: s for s in sequences})
        if not found:
            path.unlink(missing_ok=True)
            return
        results = HomographyResults(
            label=self._source.label,
            manifest=self.manifest.to_text(),
            thresholds=THRESHOLDS,
            pairs=tuple(found),
        )
        save_results(path, results)
        tally.outputs.append(path)

    def _measure(self, sequence: HomographySequence, load: LoadFeatures) -> None:
        try:
            pairs = evaluate_sequence(
                sequence,
                load,
                THRESHOLDS,
                matcher=self._matcher,
                ransac_error=self._config.ransac_error,
                seed=self._config.seed,
            )
        except (FeatureFormatError, ImageError) as error:
            self._fail(Failure(name=sequence.name, reason=str(error)))
            return
        fingerprint = self._fingerprints[sequence.name]
        save_sequence(self._path(sequence), pairs, fingerprint)
        with self._lock:
            self._pairs[sequence.name] = pairs
            self._bar.update()

    def _fail(self, failure: Failure) -> None:
        with self._lock:
            self._failed.append(failure)
            self._bar.update()

    def _path(self, sequence: HomographySequence) -> Path:
        return self._folder / RESULTS / f"{sequence.name}.npz"

    def _fingerprint(self, sequence: HomographySequence) -> str:
        """Digest of the inputs of a sequence."""
        files = [
            path
            for image in sequence.images
            for path in (image, *self._source.files(image))
        ]
        truth = b"".join(matrix.tobytes() for matrix in sequence.homographies)
        return fingerprint_of(files, truth)

    def _draw_worst(
        self, pairs: Sequence[MatchedPair], sequences: dict[str, HomographySequence]
    ) -> list[Failure]:
        """Draw the pairs of lowest accuracy; return those that cannot be drawn."""
        column = THRESHOLDS.index(CORRECT_PIXELS)
        ranked = sorted(pairs, key=lambda p: (p.mma[column], p.sequence, p.image))
        return update_pictures(
            self._folder,
            [
                self._picture(pair, sequences[pair.sequence])
                for pair in ranked[: self._config.worst_pairs]
            ],
        )

    def _picture(self, pair: MatchedPair, sequence: HomographySequence) -> Picture:
        title = f"{self._source.label}: {pair.sequence}, 1 and {pair.image}"

        def draw(path: Path) -> None:
            figure = draw_matches(
                read_rgb(sequence.images[0]),
                read_rgb(sequence.images[pair.image - 1]),
                pair.points1,
                pair.points2,
                pair.errors <= CORRECT_PIXELS,
                title=title,
                words="matches correct",
            )
            save(figure, path)

        return Picture(title=title, state=self._fingerprints[pair.sequence], draw=draw)
