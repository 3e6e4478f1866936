"""From images to a map and localized queries: every stage in one folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.pairs import PairsConfig
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import DatasetError, OutputError
from r2d2_kapture.io.kapture.camera_sizes import unlike_sensors
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import (
    find_feature_folders,
    open_feature_table,
)
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.outputs.atomic import write_json_atomic, write_text_atomic
from r2d2_kapture.io.outputs.image_changes import refuse_shared_names
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.models.checkpoints import Checkpoint
from r2d2_kapture.stages import evaluate, extract, localize, map, match, pairs, verify
from r2d2_kapture.stages.localize import POSES_NAME
from r2d2_kapture.stages.photographs import Photographs, is_plain
from r2d2_kapture.stages.run_record import run_record, with_earlier_work
from r2d2_kapture.types import Failure, Report

REPORT_NAME = "pipeline_report.json"


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Paths below the output folder of a pipeline."""

    output: Path

    @property
    def datasets(self) -> Path:
        """Folders of photographs as kapture datasets."""
        return self.output / "datasets"

    @property
    def features(self) -> Path:
        """Keypoints, descriptors and global features made by the pipeline."""
        return self.output / "features"

    @property
    def retrieval(self) -> Path:
        """Global features aggregated from local features."""
        return self.output / "retrieval"

    @property
    def matches(self) -> Path:
        """Matches of all pairs."""
        return self.output / "matches"

    @property
    def verified(self) -> Path:
        """Verified matches between mapping images."""
        return self.output / "verified"

    @property
    def database(self) -> Path:
        """COLMAP's database of the mapping images."""
        return self.output / "database.db"

    @property
    def map(self) -> Path:
        """The map: COLMAP model, kapture dataset, PLY, numbers."""
        return self.output / "map"

    def pairs(self, name: str) -> Path:
        """Pairs of mapping images, or of a query dataset with mapping images."""
        return self.output / "pairs" / f"{name}.txt"

    def localized(self, query: str) -> Path:
        """Poses of a query dataset."""
        return self.output / "localized" / query

    def evaluated(self, query: str) -> Path:
        """Errors of those poses."""
        return self.output / "evaluation" / query

    @property
    def submission(self) -> Path:
        """Poses of all query datasets, in the format of visuallocalization.net."""
        return self.output / "submission.txt"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The features of all images.

    Attributes:
        roots: folders that are searched.
        keypoints_type, descriptors_type, global_features_type: in use; None is the only
            existing one.
        images: that may be paired; None takes all.
    """

    roots: tuple[Path, ...]
    keypoints_type: str | None
    descriptors_type: str | None
    global_features_type: str | None
    images: frozenset[str] | None = None


def run(
    config: PipelineConfig,
    *,
    mapping: Path | None = None,
    images: Path | None = None,
    queries: Mapping[str, Path],
    output: Path,
    checkpoint: Checkpoint | None = None,
    features: Sequence[Path] = (),
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    global_features_type: str | None = None,
    exclude: Sequence[str] = (),
    masks: Path | None = None,
    options: RunOptions = RunOptions(),
    announce: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Build a map and localize queries in it; run again to resume.

    Args:
        config: settings of the stages.
        mapping: kapture dataset of the map's images, with or without poses, or
        images: folder of photographs to make a map from. Read only, as all inputs.
        queries: kapture datasets to localize, by the name of their outputs; may be
            empty. Those with poses are evaluated. A folder of photographs may replace
            any dataset, see Photographs.
        output: folder of all outputs, see Layout.
        checkpoint: extracts local features; None uses existing features.
        features: folders of local or global features in addition to the datasets' own.
        keypoints_type: of existing features, None takes the only one; of those
            extracted, None takes the checkpoint's name.
        descriptors_type, global_features_type: of existing features.
        exclude: patterns of what to leave out of folders of photographs.
        masks: folder of masks of the images of all datasets, see MaskFolder; used by
            extraction only.
        options: how the stages run. With ``force`` each stage replaces its outputs of
            other settings or inputs, and keeps the others: outputs that depend on a
            change are made again.
        announce: called with the report of each stage as it ends.

    Raises:
        R2D2KaptureError: a stage cannot continue.
    """
    started = time.monotonic()
    layout = Layout(output=output)
    given = [path for path in (images, mapping, *queries.values()) if path is not None]
    check_folders(output, [*given, *features])
    photographs = Photographs(
        config=config.photographs,
        output=layout.datasets,
        exclude=exclude,
        masks=masks,
        replace=options.replaces,
    )
    reports: list[Report] = []

    def note(report: Report) -> None:
        reports.append(report)
        announce(report)

    with ExitStack() as held:
        if images is not None or any(is_plain(path) for path in given):
            held.enter_context(exclusive(output))
        inputs = photographs.take(images=images, mapping=mapping, queries=queries)
        for report in inputs.reports:
            note(report)
        if inputs.photographs == 1:
            raise DatasetError(
                f"{images or mapping}: found 1 usable photograph, expected 2 or more "
                "that overlap: a map is made of pairs"
            )
        config = _with_limit(config, inputs.photographs)
        mapping, queries = inputs.mapping, inputs.queries
        roots = [mapping, *queries.values()]
        check_names(roots)
        for root in roots:
            # before hours of work; single images are checked by the stages
            unlike_sensors(open_dataset(root))
        check_methods(config, queries, [*features, *roots])
        require(
            masks is None or checkpoint is not None,
            f"--masks {masks}: found existing features, so that nothing is extracted; "
            "give a --model to extract, or omit the masks",
        )
        if not inputs.reports:
            held.enter_context(exclusive(output))
        if options.replaces:
            options = dataclasses.replace(options, force=False, replace=True)
        else:
            refuse_other_map(layout, mapping)
        sources = Sources(
            roots=(*features, *roots),
            keypoints_type=keypoints_type,
            descriptors_type=descriptors_type,
            global_features_type=global_features_type,
        )
        if checkpoint is not None:
            sources = dataclasses.replace(
                sources,
                roots=(layout.features, *sources.roots),
                keypoints_type=keypoints_type or checkpoint.name,
                descriptors_type=keypoints_type or checkpoint.name,
            )
            for root in roots:
                note(
                    extract.run(
                        config.extract,
                        kapture_root=root,
                        checkpoint=checkpoint,
                        output=layout.features,
                        keypoints_type=sources.keypoints_type,
                        masks=masks,
                        options=options,
                    )
                )
            if any(report.failed for report in reports):
                # images fail once, not with each of their pairs
                table = open_feature_table(
                    sources.roots, "keypoints", sources.keypoints_type
                )
                names = frozenset(table.image_names)
                sources = dataclasses.replace(sources, images=names)
        for report in build_map(config, mapping, sources, layout, options):
            note(report)
        for name, query in queries.items():
            steps = localize_query(
                config, name, mapping, query, sources, layout, options
            )
            for report in steps:
                note(report)
        if len(queries) > 1:
            join_submissions([layout.localized(name) for name in queries], layout)
        whole = summarize(reports, layout, queries, time.monotonic() - started)
        record = run_record(
            config,
            mapping=mapping,
            queries=queries,
            features=features,
            keypoints_type=sources.keypoints_type,
            checkpoint=checkpoint,
        )
        path = output / REPORT_NAME
        stages = with_earlier_work([item.to_json() for item in reports], path)
        write_json_atomic(path, whole.to_json() | record | {"stages": stages})
    return whole


def _with_limit(config: PipelineConfig, photographs: int) -> PipelineConfig:
    """The settings for a map of this number of photographs, 0 for a dataset."""
    pairing = config.photographs.pairing
    return dataclasses.replace(
        config,
        mapping_pairs=pairing(config.mapping_pairs, photographs),
        query_pairs=pairing(config.query_pairs, photographs),
    )


def check_names(roots: Sequence[Path]) -> None:
    """Refuse datasets with the same name for two images: features are stored by name.

    Raises:
        DatasetError: naming the image and both datasets.
    """
    refuse_shared_names([open_dataset(root).image_paths for root in roots])


def check_folders(output: Path, inputs: Sequence[Path]) -> None:
    """Refuse, before anything is made, inputs that are missing, or written into.

    Raises:
        DatasetError: an input is not there.
        OutputError: the output is one of the inputs, or inside of one.
    """
    for folder in inputs:
        if not folder.exists():
            raise DatasetError(
                f"{folder}: found no such folder, expected a folder of photographs, a "
                "kapture dataset or features"
            )
        if output.resolve().is_relative_to(folder.resolve()):
            raise OutputError(
                f"{output}: is inside of the input {folder}; choose another output"
            )


def check_methods(
    config: PipelineConfig, queries: Mapping[str, Path], roots: Sequence[Path]
) -> None:
    """Refuse pair methods whose inputs a pipeline lacks, before any work.

    Raises:
        ConfigError: naming the setting.
    """
    sections = {"mapping_pairs": config.mapping_pairs}
    if queries:
        sections["query_pairs"] = config.query_pairs
    for section, which in sections.items():
        setting = f"--{section}.method {which.method}"
        require(
            which.method not in ("covisibility", "merge"),
            f"{setting}: needs a map or lists that a pipeline does not have; choose "
            "another, or run kapture_r2d2_pairs separately",
        )
        require(
            which.method != "global"
            or any(find_feature_folders(root, "global_features") for root in roots),
            f"{setting}: found no global features in the datasets; give their folder "
            f"with --features, or choose --{section}.method local",
        )


def refuse_other_map(layout: Layout, mapping: Path) -> None:
    """Refuse an output with a map of entirely different images.

    Raises:
        OutputError: the earlier pairs share no image with the dataset.
    """
    pairs_file = layout.pairs("mapping")
    if not pairs_file.is_file():
        return
    paired = {name for pair in read_pairs(pairs_file) for name in pair.names}
    if paired and paired.isdisjoint(open_dataset(mapping).image_names):
        raise OutputError(
            f"{layout.output}: found a map of other images than those of {mapping}; "
            "choose another output, or --force to replace it"
        )


def build_map(
    config: PipelineConfig,
    mapping: Path,
    sources: Sources,
    layout: Layout,
    options: RunOptions,
) -> Iterator[Report]:
    """Pairs of mapping images, their matches, the geometry of those, and the map."""
    pairs_file = layout.pairs("mapping")
    yield from match_images(
        config.mapping_pairs,
        config.match,
        mapping,
        None,
        pairs_file,
        sources,
        layout,
        options,
    )
    yield verify.run(
        config.verify,
        mapping=mapping,
        features=sources.roots,
        matches=[layout.matches],
        pairs=pairs_file,
        database=layout.database,
        output=layout.verified,
        keypoints_type=sources.keypoints_type,
        options=options,
    )
    yield map.run(
        config.map,
        mapping=mapping,
        database=layout.database,
        output=layout.map,
        features=sources.roots,
        keypoints_type=sources.keypoints_type,
        options=options,
    )


def localize_query(
    config: PipelineConfig,
    name: str,
    mapping: Path,
    query: Path,
    sources: Sources,
    layout: Layout,
    options: RunOptions,
) -> Iterator[Report]:
    """Pairs of queries with mapping images, their matches, poses, and their errors."""
    pairs_file = layout.pairs(name)
    yield from match_images(
        config.query_pairs,
        config.match,
        mapping,
        query,
        pairs_file,
        sources,
        layout,
        options,
    )
    yield localize.run(
        config.localize,
        map_path=layout.map,
        query=query,
        pairs=pairs_file,
        features=sources.roots,
        matches=[layout.matches],
        output=layout.localized(name),
        keypoints_type=sources.keypoints_type,
        options=options,
    )
    if open_dataset(query).data.trajectories:
        yield evaluate.run(
            config.evaluate,
            ground_truth=query,
            estimated={name: layout.localized(name)},
            output=layout.evaluated(name),
            map_path=layout.map,
            replace=True,
            options=options,
        )


def match_images(
    which: PairsConfig,
    how: MatchConfig,
    mapping: Path,
    query: Path | None,
    pairs_file: Path,
    sources: Sources,
    layout: Layout,
    options: RunOptions,
) -> Iterator[Report]:
    """Pairs of mapping images, or of queries with them, and their matches."""
    yield pairs.run(
        which,
        mapping=mapping,
        query=query,
        output=pairs_file,
        features=sources.roots,
        only=sources.images,
        keypoints_type=sources.keypoints_type,
        descriptors_type=sources.descriptors_type,
        global_features_type=sources.global_features_type,
        global_features_output=layout.retrieval,
        options=options,
    )
    yield match.run(
        how,
        features=sources.roots,
        pairs=pairs_file,
        output=layout.matches,
        keypoints_type=sources.keypoints_type,
        descriptors_type=sources.descriptors_type,
        options=options,
    )


def join_submissions(localized: Sequence[Path], layout: Layout) -> None:
    """Write the poses of all query datasets to one file."""
    texts = [(folder / POSES_NAME).read_text("utf-8") for folder in localized]
    write_text_atomic(layout.submission, "".join(texts))


def summarize(
    reports: Sequence[Report],
    layout: Layout,
    queries: Mapping[str, Path],
    seconds: float,
) -> Report:
    """One report of all stages: first failures, and the outputs."""
    failed: dict[str, Failure] = {}
    for report in reports:
        for item in report.failed:
            named = dataclasses.replace(item, name=f"{report.stage}: {item.name}")
            failed.setdefault(item.name, named)
    outputs = [layout.map, *(layout.localized(name) for name in queries)]
    outputs += [layout.evaluated(name) for name in queries]
    outputs.append(layout.submission)
    return Report(
        stage="pipeline",
        unit="stage",
        stages=tuple(reports),
        done=sum(bool(report.done) for report in reports),
        skipped=sum(not report.done for report in reports),
        failed=tuple(failed.values()),
        warnings=tuple(
            f"{report.stage}: {text}" for report in reports for text in report.warnings
        ),
        seconds=seconds,
        outputs=tuple(path for path in outputs if path.exists()),
    )
