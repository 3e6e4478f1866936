"""From images to a map and localized queries: every stage in one folder."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.pipeline import PipelineConfig
from r2d2_kapture.config.rotations import read_rotations
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.stores import Store
from r2d2_kapture.errors import DatasetError, StoppedRunError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.kapture.camera_sizes import unlike_sensors
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.feature_table import open_feature_table
from r2d2_kapture.io.outputs.atomic import write_text_atomic
from r2d2_kapture.io.outputs.image_changes import refuse_shared_names
from r2d2_kapture.io.outputs.ledger import write_report
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.models.files import Weights
from r2d2_kapture.stages import extract
from r2d2_kapture.stages.cluster import Executor, here
from r2d2_kapture.stages.given_model import take_model
from r2d2_kapture.stages.localize import POSES_NAME, POSITIONS_NAME
from r2d2_kapture.stages.photographs import MAPPING, Photographs, is_plain
from r2d2_kapture.stages.pipeline_checks import (
    as_possible,
    check_folders,
    check_methods,
    check_model,
    refuse_other_features,
    refuse_other_map,
    refuse_other_refinement,
)
from r2d2_kapture.stages.pipeline_layout import Layout
from r2d2_kapture.stages.pipeline_leftovers import (
    remove_older_poses,
    remove_other_refinement,
)
from r2d2_kapture.stages.pipeline_steps import Sources, Steps
from r2d2_kapture.stages.run_record import run_record, with_earlier_work
from r2d2_kapture.types import Failure, Report

REPORT_NAME = "pipeline_report.json"


def run(
    config: PipelineConfig,
    *,
    mapping: Path | None = None,
    images: Path | None = None,
    model_in: Path | None = None,
    queries: Mapping[str, Path],
    output: Path,
    weights: Weights | None = None,
    features: Sequence[Path] = (),
    keypoints_type: str | None = None,
    descriptors_type: str | None = None,
    global_features_type: str | None = None,
    exclude: Sequence[str] = (),
    masks: Path | None = None,
    rotations: str = "off",
    store: Store = "files",
    earlier: Sequence[Report] = (),
    options: RunOptions = RunOptions(),
    execute: Executor = here,
    announce: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Build a map and localize queries in it; run again to resume.

    Args:
        config: settings of the stages.
        mapping: kapture dataset of the map's images, instead of --images; its poses are
            kept; without poses, they are estimated.
        images: folder of the map's photographs, searched recursively and not changed;
            cameras come from EXIF and --camera-mode.
        model_in: COLMAP model of photographs in --images, of COLMAP 3 or 4, binary or
            text; its poses and cameras are kept, and its images matched and its points
            triangulated again; work/model has it with the localized queries.
        queries: kapture datasets to localize, by the name of their outputs; may be
            empty. Those with poses are evaluated. A folder of photographs may replace
            any dataset, see Photographs.
        output: folder of all outputs.
        weights: of the extractor; None if it needs none, or features exist.
        features: folders of local or global features in addition to those in the
            datasets, such as local_features/r2d2_500 and global_features/AP-GeM-LM18.
        keypoints_type: of existing features, by default the only one; of those that
            --model extracts, by default its name.
        descriptors_type, global_features_type: of existing features; by default the
            only one.
        exclude: patterns of what to leave out of folders of photographs; with
            --model-in, of the images of the model, not of queries.
        masks: folder of masks of the images of all datasets, see MaskFolder; used by
            extraction only.
        rotations: quarter turns in which extraction sees images: ``off``, ``exif``,
            ``auto`` (EXIF's first, else the one in which an image matches others), or
            degrees clockwise; keypoints stay in stored pixels.
        store: layout of features and matches that are made: ``files`` per image and
            pair; ``tar`` archives as kapture has them; ``shards`` archives with an
            index each, for millions of images, which kapture's own tools cannot read,
            see docs/formats.md.
        earlier: reports of what was done for the inputs before, to be listed as stages.
        options: how the stages run. With ``force`` each stage replaces its outputs of
            other settings or inputs, and keeps the others: outputs that depend on a
            change are made again.
        execute: runs the stages that make slices.
        announce: called with the report of each stage as it ends.

    Raises:
        R2D2KaptureError: a stage cannot continue.
    """
    started = time.monotonic()
    layout = Layout(output=output)
    given = [path for path in (images, mapping, *queries.values()) if path is not None]
    check_model(config, model_in=model_in, images=images, mapping=mapping)
    check_folders(output, [*given, *features])
    photographs = Photographs(
        config=config.photographs,
        output=layout.datasets,
        of_queries=model_in is not None,
        exclude=exclude if model_in is None else (),
        masks=masks,
        replace=options.replaces,
    )
    reports = [*earlier]

    def note(report: Report) -> None:
        reports.append(report)
        announce(report)
        if report.failed and not report.outputs:
            raise StoppedRunError(
                f"{report.stage}: stopped at '{report.failed[0].name}', which failed "
                "(--strict): the stages after it were not run; run the same command "
                "again to resume, or without --strict to go on without it"
            )

    with ExitStack() as held:
        makes_datasets = images is not None or any(is_plain(path) for path in given)
        if makes_datasets:
            held.enter_context(exclusive(output))
        model = None
        if model_in is not None and images is not None:
            mapping = layout.datasets / MAPPING
            model = take_model(
                model_in, images, mapping, exclude=exclude, options=options
            )
            pairing = model.pairing(config.mapping_pairs)
            config = dataclasses.replace(config, mapping_pairs=pairing)
            images = None
            note(model.report)
        inputs = photographs.take(images=images, mapping=mapping, queries=queries)
        for report in inputs.reports:
            note(report)
        of_map = open_dataset(inputs.mapping) if model is None else model.dataset
        if len(of_map.image_names) == 1:
            raise DatasetError(
                f"{images or mapping}: found 1 usable photograph, expected 2 or more "
                "that overlap: a map is made of pairs"
            )
        count = inputs.photographs if model is None else len(of_map.image_names)
        config = _with_limit(config, count)
        of_queries = {name: open_dataset(path) for name, path in inputs.queries.items()}
        datasets = [of_map, *of_queries.values()]
        refuse_shared_names([dataset.image_paths for dataset in datasets])
        for dataset in datasets:
            # before hours of work; single images are checked by the stages
            unlike_sensors(dataset)
        # a model's own features are not those that it is mapped with
        roots = [one.root for one in datasets if model is None or one is not of_map]
        config, not_refined = as_possible(
            config,
            layout,
            of_map,
            [*features, *roots],
            keypoints_type,
            anew=options.replaces,
        )
        check_methods(
            config,
            of_map,
            of_queries.values(),
            [*features, *roots],
            model_in=model_in,
        )
        require(
            masks is None or config.extract is not None,
            f"--masks {masks}: found existing features, so that nothing is extracted; "
            "give a --model to extract, or omit the masks",
        )
        require(
            read_rotations(rotations).is_off or config.extract is not None,
            f"--rotations {rotations}: found existing features, so that nothing is "
            "extracted; give a --model to extract, or omit the rotations",
        )
        if not makes_datasets:
            held.enter_context(exclusive(output))
        if options.replaces:
            options = dataclasses.replace(options, force=False, replace=True)
            remove_other_refinement(layout, config)
        else:
            refuse_other_map(layout, of_map)
            refuse_other_refinement(layout, config)
        sources = Sources(
            roots=(*features, *roots),
            keypoints_type=keypoints_type,
            descriptors_type=descriptors_type,
            global_features_type=global_features_type,
        )
        extractor = None
        if config.extract is not None:
            extractor = build_extractor(config.extract, weights)
            sources = dataclasses.replace(
                sources,
                roots=(layout.features, *sources.roots),
                keypoints_type=keypoints_type or extractor.label,
                descriptors_type=keypoints_type or extractor.label,
            )
            if not options.replaces:
                refuse_other_features(layout, keypoints_type or extractor.label)
            compares = read_rotations(rotations).by_matching
            run_extract = here if compares else execute  # each image with others
            for dataset in datasets:
                note(
                    run_extract(
                        extract.run,
                        extractor,
                        kapture_root=dataset,
                        output=layout.features,
                        keypoints_type=sources.keypoints_type,
                        masks=masks,
                        rotations=rotations,
                        store=store,
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
        steps = Steps(
            config=config,
            mapping=of_map,
            sources=sources,
            layout=layout,
            options=options,
            execute=execute,
            store=store,
            model_in=model_in,
        )
        for report in steps.build_map():
            note(report)
        removed = remove_older_poses(layout, queries) if options.replaces else ()
        for name, query in of_queries.items():
            for report in steps.localize(name, query):
                note(report)
        if queries:
            join_submissions([layout.localized(name) for name in queries], layout)
            if model is not None:
                note(steps.register(of_queries))
        whole = summarize(reports, layout, queries, time.monotonic() - started)
        whole = dataclasses.replace(
            whole, warnings=(*not_refined, *whole.warnings, *removed)
        )
        record = run_record(
            config,
            mapping=of_map,
            queries=of_queries,
            features=features,
            keypoints_type=sources.keypoints_type,
            extractor=extractor,
            model_in=model_in,
            rotations=rotations,
        )
        path = output / REPORT_NAME
        stages = with_earlier_work([item.to_json() for item in reports], path)
        return write_report(path, whole, record | {"stages": stages})


def _with_limit(config: PipelineConfig, photographs: int) -> PipelineConfig:
    """The settings for a map of this number of photographs, 0 for a dataset."""
    pairing = config.photographs.pairing
    return dataclasses.replace(
        config,
        mapping_pairs=pairing(config.mapping_pairs, photographs),
        query_pairs=pairing(config.query_pairs, photographs),
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
    outputs += [layout.localized(name) / POSITIONS_NAME for name in queries]
    outputs += [layout.evaluated(name) for name in queries]
    outputs += [layout.model, layout.submission]
    return Report(
        stage="pipeline",
        unit="stage",
        stages=tuple(reports),
        done=sum(bool(report.done) for report in reports),
        skipped=sum(not report.done for report in reports),
        failed=tuple(failed.values()),
        # a map that is made again says the same again
        warnings=tuple(
            dict.fromkeys(
                f"{one.stage}: {text}" for one in reports for text in one.warnings
            )
        ),
        seconds=seconds,
        outputs=tuple(path for path in outputs if path.exists()),
    )
