"""kapture_r2d2_pair_poses: matches and relative poses of images of known pose."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from jsonargparse import Namespace

from r2d2_kapture.cli.common import (
    EXIT_OK,
    add_settings,
    finish,
    make_parser,
    run_command,
    settings_from,
    show,
)
from r2d2_kapture.cli.evaluation_flags import (
    add_evaluation_flags,
    extracted_sources,
    reads_files,
    refuse_extraction,
    save_all_settings,
    stored_source,
    with_results,
)
from r2d2_kapture.cli.extraction_flags import parse_extraction, run_options
from r2d2_kapture.cli.parser import CommandParser
from r2d2_kapture.cli.stage_flags import add_origin_flags
from r2d2_kapture.config.pair_poses import PairPosesConfig
from r2d2_kapture.errors import ConfigError
from r2d2_kapture.types import some_names

if TYPE_CHECKING:
    from r2d2_kapture.evaluation.posed_images import PosedImage
    from r2d2_kapture.io.kapture.dataset import Dataset
    from r2d2_kapture.stages.benchmark.feature_sources import FeatureSource


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the command."""
    return run_command(_command, arguments)


def _command(arguments: list[str]) -> int:
    parser = _parser()
    namespace = parse_extraction(parser, arguments)
    if namespace is None:
        return EXIT_OK
    config, options = settings_from(namespace, PairPosesConfig), run_options(namespace)
    without_images = namespace.gt is None and namespace.kapture_root is None
    if without_images and not namespace.results:
        raise ConfigError(
            "found neither --gt or --kapture-root (images to evaluate) nor --results "
            "(files to show); give one of them"
        )
    if not without_images and namespace.output is None:
        raise ConfigError("--output: missing, expected a folder for the results")
    if namespace.gt is not None and namespace.kapture_root is not None:
        raise ConfigError("--gt and --kapture-root: expected one of them")
    from r2d2_kapture.io.kapture.pairs import read_pairs
    from r2d2_kapture.stages.benchmark import pair_poses, pair_poses_tables

    if namespace.results:
        # report errors in them before the work
        pair_poses_tables.read_results(namespace.results)
    if without_images:
        _show(namespace, namespace.results)
        return EXIT_OK
    images, root, uncertain = _images(namespace)
    wanted = None
    if namespace.pairs_file is not None:
        known = {image.name for image in images}
        wanted = [pair.names for pair in read_pairs(namespace.pairs_file, known)]
    stored = _stored(namespace, root)
    extracted = [] if stored else extracted_sources(parser, arguments, namespace)
    report = pair_poses.run(
        config,
        image_root=root,
        chosen=pair_poses.choose_pairs(images, config, wanted),
        sources=stored or [source for source, _ in extracted],
        output=namespace.output,
        options=options,
        warnings=uncertain,
    )
    save_all_settings(extracted, namespace.output)
    if report.outputs:
        _show(namespace, with_results(report.outputs, namespace.results))
    else:
        pair_poses_tables.remove_tables(namespace.output)
    return finish(report)


def _parser() -> CommandParser:
    parser = make_parser(
        "kapture_r2d2_pair_poses",
        "Evaluate local features on pairs of images with known cameras and poses: "
        "distance of matches to the true epipolar line, and relative poses estimated "
        "from them. Run it again to resume.",
        "kapture_r2d2_pair_poses --gt lund_door/gt.json --model r2d2_v2 --output DIR",
    )
    parser.group("inputs").add_argument(
        "--gt",
        type=Path | None,
        metavar="FILE",
        help="JSON file of images with name, K, dist, R, t; names are relative to it",
    )
    parser.group("inputs").add_argument(
        "--kapture-root",
        type=Path | None,
        metavar="DIR",
        help="kapture dataset with poses, instead",
    )
    parser.group("outputs").add_argument(
        "--output",
        type=Path | None,
        metavar="DIR",
        help="folder of results, tables and pictures",
    )
    parser.group("inputs").add_argument(
        "--results",
        nargs="+",
        type=Path,
        metavar="FILE",
        default=[],
        help="results of other runs (.poses.json), shown for comparison; without --gt "
        "and --kapture-root only these are shown",
    )
    parser.group("inputs").add_argument(
        "--pairs-file",
        type=Path | None,
        metavar="FILE",
        help="pairs to evaluate, 'name, name, score' (kapture) or 'name name' (hloc, "
        "COLMAP); by default every pair of cameras at different places",
    )
    parser.group("inputs").add_argument(
        "--keypoints-type",
        type=str | None,
        metavar="NAME",
        help="evaluate these features of the kapture dataset instead of extracting "
        "features",
    )
    parser.group("inputs").add_argument(
        "--descriptors-type",
        type=str | None,
        metavar="NAME",
        help="type of their descriptors",
    )
    add_origin_flags(parser, "camera_origin")
    add_settings(parser, PairPosesConfig, group="evaluation")
    add_evaluation_flags(parser, "pair")
    return parser


def _images(namespace: Namespace) -> tuple[list[PosedImage], Path, tuple[str, ...]]:
    """The posed images, the folder that their names are relative to, and warnings."""
    from r2d2_kapture.evaluation.posed_images import (
        ground_truth_origin,
        read_ground_truth,
        read_posed_dataset,
    )
    from r2d2_kapture.io.kapture.dataset import open_dataset
    from r2d2_kapture.io.kapture.pixel_origins import find_camera_origin

    if namespace.gt is not None:
        found = ground_truth_origin(namespace.gt, namespace.camera_origin)
        images = read_ground_truth(namespace.gt, found.origin)
        return images, namespace.gt.parent, found.warnings
    dataset = open_dataset(namespace.kapture_root)
    found = find_camera_origin(dataset, namespace.camera_origin)
    images = read_posed_dataset(namespace.kapture_root, found.origin)
    folder = namespace.kapture_root / "sensors" / "records_data"
    posed = {image.name for image in images}
    return images, folder, (*found.warnings, *_without_pose(dataset, posed))


def _without_pose(dataset: Dataset, posed: Collection[str]) -> tuple[str, ...]:
    """The warning on images that cannot be evaluated."""
    names = [name for name in sorted(dataset.image_names) if name not in posed]
    if not names:
        return ()
    return (
        f"{len(names)} images of {dataset.root} have no pose and are left out: "
        f"{some_names(names)}",
    )


def _stored(namespace: Namespace, root: Path) -> list[FeatureSource]:
    """Existing features; empty if they are to be extracted."""
    if namespace.keypoints_type is None:
        return [stored_source(namespace, root)] if reads_files(namespace) else []
    if reads_files(namespace) or namespace.kapture_root is None:
        raise ConfigError(
            "--keypoints-type: expected with --kapture-root, and no other features"
        )
    refuse_extraction(namespace, "--keypoints-type")
    from r2d2_kapture.io.kapture.dataset import open_dataset
    from r2d2_kapture.io.kapture.local_features import open_local_features
    from r2d2_kapture.io.kapture.pixel_origins import (
        find_camera_origin,
        place_keypoints,
    )
    from r2d2_kapture.stages.benchmark.feature_sources import features_in_kapture

    tables = open_local_features(
        [namespace.kapture_root], namespace.keypoints_type, namespace.descriptors_type
    )
    dataset = open_dataset(namespace.kapture_root)
    keypoints, notes = place_keypoints(
        tables.keypoints,
        namespace.keypoint_origin,
        dataset,
        find_camera_origin(dataset, namespace.camera_origin),
    )
    tables = dataclasses.replace(tables, keypoints=keypoints)
    return [features_in_kapture(tables, root, namespace.label, notes)]


def _show(namespace: Namespace, results: Sequence[Path]) -> None:
    """Print the table, and write tables if requested."""
    from r2d2_kapture.stages.benchmark import pair_poses_tables

    runs = pair_poses_tables.read_results(results)
    if namespace.output is not None:
        pair_poses_tables.write_tables(namespace.output, runs)
    show(pair_poses_tables.summary_table(runs))


if __name__ == "__main__":
    raise SystemExit(main())
