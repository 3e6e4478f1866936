"""Localization: matches of queries with map images in, camera poses out."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

from r2d2_kapture.config.checks import require
from r2d2_kapture.config.localize import LocalizeConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.config.slices import WHOLE
from r2d2_kapture.errors import (
    DatasetError,
)
from r2d2_kapture.io.colmap.log import quiet_pycolmap
from r2d2_kapture.io.colmap.sparse_map import (
    check_keypoints_type,
    map_files,
    read_sparse_map,
    recorded_keypoints_type,
)
from r2d2_kapture.io.georeference import read_georeference
from r2d2_kapture.io.kapture.camera_sizes import unlike_sensors
from r2d2_kapture.io.kapture.dataset import Dataset, DatasetOrPath, open_dataset
from r2d2_kapture.io.kapture.feature_provenance import (
    refuse_other_images,
    refuse_stale_matches,
)
from r2d2_kapture.io.kapture.feature_table import FeatureTable, open_feature_table
from r2d2_kapture.io.kapture.gnss import usable_gnss
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.io.kapture.pairs import read_pairs
from r2d2_kapture.io.kapture.pixel_origins import (
    find_camera_origin,
    place_keypoints,
)
from r2d2_kapture.io.map_patches import patches_path
from r2d2_kapture.io.map_unit import read_map_unit
from r2d2_kapture.io.outputs.finished import FINISHED_NAME, Finished
from r2d2_kapture.io.outputs.ledger import is_made_with, open_ledger
from r2d2_kapture.io.outputs.manifest import FILE_NAME
from r2d2_kapture.io.outputs.slices import Sliced
from r2d2_kapture.stages.localize.cameras import QueryFrame, query_frames
from r2d2_kapture.stages.localize.last_pose import Helpers
from r2d2_kapture.stages.localize.localizer import (
    Localizer,
    localize_frames,
)
from r2d2_kapture.stages.localize.matches import (
    Retrieval,
    refuse_moved_keypoints,
    retrieve,
)
from r2d2_kapture.stages.localize.missing_inputs import QueryInputs, complete
from r2d2_kapture.stages.localize.output import (
    CONTENTS,
    REPORT_NAME,
    localized_manifest,
    refuse_inputs,
)
from r2d2_kapture.stages.localize.point_search import (
    described_features,
    is_searched,
    open_search,
)
from r2d2_kapture.stages.localize.positions import (
    Places,
    positions_files,
    write_positions,
)
from r2d2_kapture.stages.localize.registered import register
from r2d2_kapture.stages.localize.registration import open_registrar
from r2d2_kapture.stages.localize.report import localization_report
from r2d2_kapture.stages.localize.results import (
    POSES_NAME,
    QUERIES_FOLDER,
    result_path,
    write_localized,
)
from r2d2_kapture.types import Report


def run(
    config: LocalizeConfig,
    *,
    map_path: Path,
    query: DatasetOrPath,
    pairs: Path | None = None,
    features: Sequence[Path] = (),
    matches: Sequence[Path] = (),
    output: Path,
    model_output: Path | None = None,
    keypoints_type: str | None = None,
    slice: str = WHOLE,
    options: RunOptions = RunOptions(),
) -> Report:
    """Estimate the camera poses of query images in a map, from matches with its images.

    Run it again to resume.

    Args:
        config: how poses are estimated and written.
        map_path: output of kapture_r2d2_map, another COLMAP model, or a kapture dataset
            with points3d and observations.
        query: kapture dataset of the queries, whose poses are not used; or, without
            --matches, a folder of photographs.
        pairs: list of pairs of query and map image by kapture_r2d2_pairs, 'name, name,
            score' (kapture) or 'name name' (hloc); by default, without --matches, all
            pairs with a map of up to 20 images, else 20 a query by --method local.
        features: kapture datasets or folders of local features by kapture_r2d2_extract,
            of the queries, and of the map images if available; by default the query
            dataset. To match, also those next to the map, or of the database.db that a
            COLMAP model was made of; of SIFT, those of the queries are extracted.
        matches: output of kapture_r2d2_match, or kapture datasets with matches; by
            default they are made, in <output>_matches.
        output: folder for a kapture dataset of the poses, ``poses.txt``, one JSON file
            per query in ``queries``, ``report.json``, and of a map on Earth
            ``positions.csv``: latitude, longitude, altitude.
        model_output: folder for a COLMAP model of the map and the localized queries;
            none by default.
        keypoints_type: of features and matches; by default the only existing one.
        slice: ``i/n`` does part i of n of the queries, for runs that share the output;
            ``all`` puts the parts together, see docs/cluster.md.
        options: how to run; ``workers`` frames are localized in parallel, without rigs.
            Poses do not depend on it.

    Returns:
        A report that counts query images.

    Raises:
        DatasetError: the dataset, map, features, matches or pairs cannot be used, no
            pair has a query, or the map was made with other keypoints.
        OutputError: the folder has poses of other settings or of another dataset, or
            other files; or it cannot be written.
        ReconstructionError: the map has no points.
    """
    require(
        pairs is not None or not matches,
        "--matches: found no --pairs, expected the list of pairs that were matched",
    )
    sliced = Sliced.read(slice, output, CONTENTS, unit="query")
    require(
        slice == WHOLE or bool(matches),
        f"{options.sharing(slice)}: found no "
        f"{'--matches' if pairs else '--pairs and --matches'}, expected pairs of the "
        "queries and their matches; make them with kapture_r2d2_pairs and "
        "kapture_r2d2_match",
    )
    if pairs is not None and matches:
        dataset = open_dataset(query)
        inputs = QueryInputs(
            query=dataset,
            pairs=pairs,
            features=tuple(features or [dataset.root]),
            matches=tuple(matches),
            keypoints_type=keypoints_type,
        )
    else:
        inputs = complete(
            map_path=map_path,
            query=query,
            features=features,
            keypoints_type=keypoints_type,
            pairs_file=pairs,
            place=output.with_name(f"{output.name}_matches"),
            options=options,
        )
    report = localize_queries(config, map_path, inputs, sliced, options)
    if model_output is None or sliced.is_part:
        return report
    registered = register(
        config,
        map_path=map_path,
        localized={output: inputs},
        output=model_output,
        options=options,
    )
    return dataclasses.replace(
        report,
        warnings=(*report.warnings, *registered.warnings),
        outputs=(*report.outputs, *registered.outputs),
    )


def localize_queries(
    config: LocalizeConfig,
    map_path: Path,
    inputs: QueryInputs,
    sliced: Sliced,
    options: RunOptions,
) -> Report:
    """Estimate the poses of queries whose inputs are complete; see ``run``."""
    started = time.monotonic()
    options, output = sliced.options(options), sliced.output
    dataset = inputs.query
    counted_from = find_camera_origin(dataset, config.camera_origin)
    origin = counted_from.origin
    every: list[QueryFrame] = []
    if sliced.is_part:
        every = query_frames(dataset, origin, config)
        mine = tuple(
            image.name for frame in sliced.part.of(every) for image in frame.images
        )
        dataset = dataclasses.replace(dataset, image_names=mine, left_out=())
    keypoints = open_feature_table(inputs.features, "keypoints", inputs.keypoints_type)
    table = open_matches(inputs.matches, keypoints.type_name)
    retrieval = _retrieval(inputs.pairs, dataset, keypoints, whole=not sliced.is_part)
    refined = config.refine == "auto" and patches_path(map_path).is_file()
    described = (
        described_features(inputs.features, keypoints.type_name)
        if is_searched(config, refined=refined)
        else None
    )
    descriptors = described and described.descriptors
    finished = Finished.of(
        output / FINISHED_NAME,
        [dataclasses.asdict(config), dataclasses.asdict(retrieval)],
        (
            *dataset.files,
            *map_files(map_path),
            *keypoints.files(sorted(retrieval.images)),
            *table.files(retrieval.pairs),
            *(descriptors.files(descriptors.image_names) if descriptors else ()),
        ),
    )
    if not (options.force or sliced.is_part or sliced.is_waiting):
        if report := finished.report(started):
            return report
    every = every or query_frames(dataset, origin, config)
    frames = sliced.part.of(every)
    keypoints, warnings = place_keypoints(
        keypoints, config.keypoint_origin, dataset, counted_from
    )
    refuse_other_images(keypoints, dataset)
    check_keypoints_type(map_path, keypoints.type_name)
    gnss, no_positions = usable_gnss(dataset)
    sparse_map = read_sparse_map(map_path, keypoints.type_name)
    localizer = Localizer(
        config=config,
        origin=origin,
        keypoints=keypoints,
        matches=table,
        retrieval=retrieval,
        places=Places(
            georeference=read_georeference(map_path),
            gnss=gnss,
            unit=read_map_unit(map_path),
        ),
        unlike=unlike_sensors(dataset),
        sparse_map=sparse_map,
        helpers=Helpers(
            search=open_search(described, sparse_map),
            registrar=open_registrar(map_path, sparse_map) if refined else None,
        ),
        output=sliced.root(output),
        force=options.force,
        retries=not sliced.gathers,
    )
    refuse_stale_matches(table, keypoints, retrieval.images)
    map_type = recorded_keypoints_type(map_path)
    refuse_moved_keypoints(sparse_map, keypoints, retrieval.images, map_type)
    refuse_inputs(output, [dataset.root, map_path, *inputs.features, *inputs.matches])
    manifest = localized_manifest(config, keypoints.type_name, dataset, refined=refined)
    with ExitStack() as stack:
        run = stack.enter_context(
            sliced.open(
                manifest,
                every,
                options,
                lambda frame: f"{[image.name for image in frame.images]}",
            )
        )
        stack.enter_context(open_ledger(localizer.output, CONTENTS, manifest, options))
        run.gather(output)
        stack.enter_context(quiet_pycolmap())
        if sliced.is_part and is_made_with(output, CONTENTS, manifest, options):
            localizer = dataclasses.replace(localizer, whole=output)
        outcomes = list(localize_frames(localizer, frames, options))
        # queries that a strict run does not reach keep their poses
        outcomes += map(localizer.recall, frames[len(outcomes) :])
        results = [result for outcome in outcomes for result in outcome.results]
        if not sliced.is_part:
            write_localized(output, dataset, results, config.format, origin)
            write_positions(output, results)
        seconds = time.monotonic() - started
        report = localization_report(localizer, outcomes, dataset, seconds)
        known = {failure.name: failure for failure in inputs.failed}
        report = dataclasses.replace(
            report,
            failed=tuple(known.get(one.name, one) for one in report.failed),
            warnings=(
                *inputs.warnings,
                *counted_from.warnings,
                *warnings,
                *no_positions,
                *report.warnings,
            ),
        )
        run.is_empty = not (localizer.output / QUERIES_FOLDER).is_dir()
        report = run.finish(report, output / REPORT_NAME)
        if sliced.is_part or report.failed:  # these are tried again
            return report
        made = [output / name for name in (REPORT_NAME, POSES_NAME, FILE_NAME)]
        made += positions_files(output)
        made += sorted((output / "sensors").glob("*.*"))
        made += [result_path(output, name) for name in dataset.image_names]
        return finished.note(report, made)


def _retrieval(
    pairs: Path, dataset: Dataset, known: FeatureTable, *, whole: bool
) -> Retrieval:
    """The partners of queries, of which those of a slice may have none."""
    retrieval = retrieve(read_pairs(pairs, known), dataset.image_names)
    if not whole:
        return dataclasses.replace(retrieval, unknown=())
    if not any(retrieval.of_query.values()):
        raise DatasetError(
            f"{pairs}: found no pair with an image of {dataset.root}, expected lines "
            "of query, map image, score; create the list with kapture_r2d2_pairs"
        )
    return retrieval
