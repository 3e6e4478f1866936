"""Runs a benchmark on several sources of features, resuming item by item."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Generic

from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import FeatureFormatError, ImageError
from r2d2_kapture.io.images.decoding import read_rgb
from r2d2_kapture.io.outputs.ledger import open_ledger, write_report
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.pictures.figures import save
from r2d2_kapture.pictures.matches import draw_matches
from r2d2_kapture.stages.background_io import WriteBehind
from r2d2_kapture.stages.benchmark.benchmark import (
    CORRECT_PIXELS,
    Benchmark,
    Item,
    LoadFeatures,
    Result,
    Subject,
)
from r2d2_kapture.stages.benchmark.feature_sources import (
    ExtractedFeatures,
    FeatureSource,
    require_some,
)
from r2d2_kapture.stages.benchmark.results_folder import (
    CONTENTS,
    FEATURES,
    RESULTS,
    file_stems,
    fingerprint_of,
    remove_temporaries,
    with_protocol,
)
from r2d2_kapture.stages.benchmark.worst_pictures import Picture, update_pictures
from r2d2_kapture.types import Failure, LocalFeatures, Report


def run(
    benchmark: Benchmark[Subject, Result],
    *,
    sources: Sequence[FeatureSource],
    output: Path,
    options: RunOptions = RunOptions(),
    results: Sequence[Path] = (),
    plot: Path | None = None,
) -> Report:
    """Measure sources of features on every item, resuming an earlier run.

    Writes for each source a file of results named by its label, and a folder of that
    name with one file per item, its manifest, features that are kept, and pictures of
    the worst pairs; and tables of all results. The network runs on one image after
    another, in parallel with ``options.workers`` threads that measure an item each: the
    numbers are the same for any number of them.

    Args:
        benchmark: what is measured.
        sources: features to evaluate, one after another.
        output: folder of results, tables and pictures.
        options: how to run.
        results: files of other runs, for HPatches also published caches, shown for
            comparison; without anything to evaluate only these are shown.
        plot: file of a picture of the curves (.png, .pdf, .svg); for HPatches mma.png
            in the output by default.

    Raises:
        FeatureFormatError: a source has no features of any image.
        ConfigError: two sources share a label, or a device is not available.
        OutputError: there are results of other settings, or results cannot be written.
    """
    started = time.monotonic()
    presentation = benchmark.presentation
    stems = file_stems([source.label for source in sources])
    images = sorted({image for item in benchmark.items for image in item.images})
    for source in sources:
        require_some(source, images)
    runs = [
        _SourceRun(benchmark, source, output / stem, options)
        for source, stem in zip(sources, stems)
    ]
    with exclusive(output):
        for number, one in enumerate(runs, start=1):
            one.run()
            if options.strict and one.failed:
                del runs[number:]
        report = Report(
            stage=presentation.name,
            unit=benchmark.unit,
            done=sum(one.finished - one.skipped for one in runs),
            skipped=sum(one.skipped for one in runs),
            failed=(
                *benchmark.failed,
                *(failure for one in runs for failure in one.failures),
            ),
            seconds=time.monotonic() - started,
            outputs=tuple(one.path for one in runs if one.found),
            details=benchmark.details(sum(len(one.found) for one in runs)),
            warnings=(
                *benchmark.warnings,
                *(text for source in sources for text in source.warnings),
            ),
        )
        write_report(output / f"{presentation.name}_report.json", report)
        if report.outputs:
            shown = presentation.read_all(with_others(report.outputs, results))
            presentation.write(shown, output, plot)
        else:
            presentation.remove(output)
    return report


def with_others(outputs: Sequence[Path], compared: Sequence[Path]) -> list[Path]:
    """Results of this run and of others, without duplicates."""
    ours = {path.resolve() for path in outputs}
    return [*outputs, *(path for path in compared if path.resolve() not in ours)]


class _Stop(Exception):
    """Ends a strict run that has a failure."""


class _SourceRun(Generic[Subject, Result]):
    """One source of features on all items.

    Attributes:
        path: of the file of results.
        skipped: units with results of an earlier run.
        failed: by the name of what failed.
        undrawn: pictures that could not be drawn.
    """

    def __init__(
        self,
        benchmark: Benchmark[Subject, Result],
        source: FeatureSource,
        folder: Path,
        options: RunOptions,
    ) -> None:
        self._benchmark = benchmark
        self._source = source
        self._folder = folder
        self._options = options
        self._manifest = with_protocol(
            source.manifest, benchmark.matcher, benchmark.protocol
        )
        stop = options.strict and benchmark.failed
        self._items = () if stop else benchmark.items
        self._lock = threading.Lock()
        self._fingerprints: dict[str, str] = {}
        self._results: dict[str, list[Result]] = {}
        self.path = folder.with_name(folder.name + benchmark.presentation.suffix)
        self.skipped = 0
        self.failed: dict[str, Failure] = {}
        self.undrawn: list[Failure] = []

    @property
    def found(self) -> list[tuple[Item[Subject], Result]]:
        """Results with their items, in the order of these."""
        return [
            (item, result)
            for item in self._items
            for result in self._results.get(item.name, ())
        ]

    @property
    def finished(self) -> int:
        """Units with results; an item of one unit may have several results."""
        return sum(
            min(item.size, len(self._results.get(item.name, ())))
            for item in self._items
        )

    @property
    def failures(self) -> list[Failure]:
        """What failed by name, then pictures that could not be drawn."""
        return [self.failed[name] for name in sorted(self.failed)] + self.undrawn

    def run(self) -> None:
        """Measure the items without results, and write results and pictures.

        Without any result, the file of an earlier run is removed.
        """
        force = self._options.force
        with open_ledger(
            self._folder, CONTENTS, self._manifest, self._options, anew=force
        ):
            remove_temporaries(self._folder)
            self._resume()
            load = self._measure_all()
            self.undrawn = self._draw_worst(load)
        if self.found:
            results = [result for _, result in self.found]
            label = self._source.label
            self._benchmark.save_run(self.path, label, self._manifest, results)
        else:
            self.path.unlink(missing_ok=True)

    def _resume(self) -> None:
        """Read the results of an earlier run."""
        # before anything is read, so that later changes are measured again
        self._fingerprints = {
            item.name: self._fingerprint(item) for item in self._items
        }
        for item in self._items:
            stored = self._benchmark.load_item(
                self._item_path(item), self._fingerprints[item.name]
            )
            if stored is not None:
                self._results[item.name] = stored
        self.skipped = self.finished

    def _measure_all(self) -> LoadFeatures:
        """Measure items without results; return a function that loads kept features."""
        benchmark, options = self._benchmark, self._options
        items = [item for item in self._items if item.name not in self._results]
        load: LoadFeatures = _not_kept
        source = self._source
        streamed = None
        if isinstance(source, ExtractedFeatures) and not benchmark.keeps_features:
            streamed = source
        else:
            images = dict.fromkeys(p for item in self._items for p in item.images)
            load = source.prepare(
                list(images), benchmark.root, self._folder / FEATURES, options
            )
        total = sum(item.size for item in self._items)
        name = f"{benchmark.presentation.name} {source.label}"
        bar = Progress(name, benchmark.unit, total, shown=options.progress)
        with bar, ExitStack() as stack:
            bar.update(total - sum(item.size for item in items))
            # one thread each, which measures its items in order
            lanes = [
                stack.enter_context(WriteBehind(backlog=1))
                for _ in range(options.workers)
            ]
            turns = itertools.cycle(lanes)

            def measure(item: Item[Subject], load: LoadFeatures) -> None:
                if options.strict and self.failed:
                    raise _Stop
                next(turns)(self._measure, item, load, bar)

            with suppress(_Stop):
                if streamed is None:
                    for item in items:
                        measure(item, load)
                elif items:
                    for failure in streamed.feed(items, measure, options):
                        self._fail([failure])
                        bar.update()
        return load

    def _measure(self, item: Item[Subject], load: LoadFeatures, bar: Progress) -> None:
        try:
            results, failed = self._benchmark.measure(item.subject, load)
        except (FeatureFormatError, ImageError) as error:
            results, failed = [], [Failure(name=item.name, reason=str(error))]
        if not failed:
            fingerprint = self._fingerprints[item.name]
            self._benchmark.save_item(self._item_path(item), results, fingerprint)
        self._fail(failed)
        with self._lock:
            self._results[item.name] = results
            bar.update(item.size)

    def _fail(self, failures: Sequence[Failure]) -> None:
        with self._lock:
            self.failed |= {failure.name: failure for failure in failures}

    def _item_path(self, item: Item[Subject]) -> Path:
        name = f"{item.name}{self._benchmark.item_suffix}"
        return self._folder / RESULTS / name

    def _fingerprint(self, item: Item[Subject]) -> str:
        """Digest of the inputs of an item."""
        files = [
            path
            for image in item.images
            for path in (image, *self._source.files(image))
        ]
        return fingerprint_of(files, item.truth)

    def _draw_worst(self, load: LoadFeatures) -> list[Failure]:
        """Draw the worst pairs; return those that cannot be drawn."""
        ranked = sorted(self.found, key=lambda pair: self._benchmark.rank(pair[1]))
        worst = ranked[: self._benchmark.worst_pairs]
        return update_pictures(
            self._folder, [self._picture(*pair, load) for pair in worst]
        )

    def _picture(
        self, item: Item[Subject], result: Result, load: LoadFeatures
    ) -> Picture:
        names, images = self._benchmark.shown(item.subject, result)
        title = f"{self._source.label}: {names}"

        def draw(path: Path) -> None:
            image1, image2 = map(read_rgb, images)
            matched = self._benchmark.matched(item.subject, result, load)
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

        return Picture(title=title, state=self._fingerprints[item.name], draw=draw)


def _not_kept(image: Path) -> LocalFeatures:
    raise FeatureFormatError(f"{image}: its features are not kept")
