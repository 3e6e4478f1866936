r"""Refinement on a kapture dataset of photographs with known poses.

    python benchmarks/refine_gallery.py --mapping virtual_gallery/mapping \
        --query virtual_gallery/query --output gallery

Maps images by their poses and localizes queries, with refinement off and on. Then each
frame of the mapping images in turn (the images of one timestamp: all cameras of a rig)
is left out of the map and its images are localized one by one; ``--leave-out image``
leaves the other images of the frame in the map. Features and matches are made once.
Positions are in thousandths of the dataset's unit: millimetres of metres. Run again, it
continues.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from refinement import (
    OFF_ON,
    bar,
    extract_all,
    localize,
    map_figures,
    pose_errors,
    pose_figures,
    positions,
    table,
    true_poses,
    write_part,
)

from r2d2_kapture.cli.common import EXIT_OK, run_command, show
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.evaluation.poses import PoseError
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.io.kapture.dataset import open_dataset
from r2d2_kapture.io.kapture.tables import image_records
from r2d2_kapture.models.checkpoints import load_checkpoint


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(refine_gallery, arguments)


def refine_gallery(arguments: list[str]) -> int:
    """Measure both, print a table and the bars of each."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--mapping", type=Path, required=True)
    parser.add_argument("--query", type=Path)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="fast_r2d2_v6")
    parser.add_argument("--leave-out", choices=("frame", "image"), default="frame")
    options = parser.parse_args(arguments)
    extractor = build_extractor(ExtractConfig(), load_checkpoint(options.model))
    extract_all(extractor, [options.mapping], options.output)
    if options.query is not None:
        extract_all(extractor, [options.query], options.output)
        compare_maps(options.mapping, options.query, options.output, extractor.label)
    leave_out(options.mapping, options.output, extractor.label, options.leave_out)
    return EXIT_OK


def compare_maps(mapping: Path, query: Path, output: Path, label: str) -> None:
    """The map of all mapping images, and the queries."""
    truth = true_poses(query)
    figures = []
    for refine in OFF_ON:
        folder = output / "all" / refine
        found = localize(
            mapping, query, folder, shared=output, label=label, refine=refine
        )
        errors = pose_errors(truth, found.queries)
        figures.append(map_figures(found) | pose_figures(errors) | positions(errors))
    off, on = figures
    show("\n".join(table(off, on)))
    error, points = "reprojection error, px", "points"
    show(bar("reprojection error, on / off", on[error] / off[error], at_most=0.75))
    show(bar("points, off / on", off[points] / on[points], at_most=1.0))


def leave_out(mapping: Path, output: Path, label: str, unit: str) -> None:
    """Localize each frame, or each image, in the map of all others."""
    truth = true_poses(mapping)
    groups: dict[str, list[str]] = {}
    for timestamp, _, name in image_records(open_dataset(mapping).data).values():
        key = f"{timestamp}" if unit == "frame" else f"{len(groups)}"
        groups.setdefault(key, []).append(name)
    errors: dict[str, list[PoseError]] = {refine: [] for refine in OFF_ON}
    for key, held in groups.items():
        folder = output / f"without_{unit}" / key
        others = write_part(mapping, folder / "mapping", truth.keys() - held)
        queries = write_part(mapping, folder / "query", held)
        for refine in OFF_ON:
            show(f"without {', '.join(held)}, refinement {refine}")
            found = localize(
                others,
                queries,
                folder / refine,
                shared=output,
                label=label,
                refine=refine,
            )
            held_truth = {name: truth[name] for name in held}
            errors[refine] += pose_errors(held_truth, found.queries)
    off, on = (pose_figures(errors[refine]) for refine in OFF_ON)
    by_image = (positions(errors[refine]) for refine in OFF_ON)
    show(f"each {unit} localized in the map of the others")
    show("\n".join(table(*(a | b for a, b in zip((off, on), by_image)))))
    median = "median position, mm"
    show(bar("median position error, on / off", on[median] / off[median], at_most=0.8))


if __name__ == "__main__":
    raise SystemExit(main())
