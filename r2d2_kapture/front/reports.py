"""Pages that show what other verbs made, as kapture_r2d2_report writes them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from r2d2_kapture.front.arguments import PathLike, as_paths
from r2d2_kapture.stages import report
from r2d2_kapture.types import Report


def report_pipeline(
    pipeline: PathLike, *, output: PathLike | None = None, title: str | None = None
) -> Report:
    """Write the page of a pipeline's folder; run_pipeline does it at its end.

    Args:
        pipeline: the folder.
        output: the HTML file; by default report.html in the folder.
        title: of the page; by default the folder's name.

    Raises:
        DatasetError: no such folder, or a broken file in it.
        OutputError: the page cannot be written.
    """
    return report.run(pipeline=Path(pipeline), output=as_paths(output), title=title)


def report_map(
    map: PathLike,
    *,
    images: PathLike | None = None,
    output: PathLike | None = None,
    title: str | None = None,
) -> Report:
    """Write the page of a map alone: of build_map, or any COLMAP model.

    Args:
        map: the folder.
        images: folder of its images; without it the page shows no photographs.
        output: the HTML file; by default report.html in the folder.
        title: of the page; by default the folder's name.

    Raises:
        DatasetError: no map, or a broken one.
        OutputError: the page cannot be written.
    """
    return report.run(
        map=Path(map), images=as_paths(images), output=as_paths(output), title=title
    )


def report_results(
    output: PathLike,
    *,
    hpatches: PathLike | None = None,
    pair_poses: PathLike | None = None,
    training: Sequence[PathLike] = (),
    title: str | None = None,
) -> Report:
    """Write the page of benchmark results and training curves.

    Args:
        output: the HTML file.
        hpatches: output folder of evaluate_sequences.
        pair_poses: output folder of evaluate_pairs.
        training: output folders of kapture_r2d2_train.
        title: of the page.

    Raises:
        DatasetError: a folder without results.
        OutputError: the page cannot be written.
    """
    return report.run(
        output=Path(output),
        hpatches=as_paths(hpatches),
        pair_poses=as_paths(pair_poses),
        training=as_paths(training),
        title=title,
    )
