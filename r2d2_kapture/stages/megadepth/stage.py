"""Prepares MegaDepth for training: undistorted SfM models and their overlaps."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from r2d2_kapture.config.megadepth import MegadepthConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.errors import OutputError, R2D2KaptureError
from r2d2_kapture.io.outputs.ledger import write_report
from r2d2_kapture.io.outputs.lock import exclusive
from r2d2_kapture.io.progress import Progress
from r2d2_kapture.stages.megadepth.layout import (
    DEPTH_FOLDER,
    SCENE_INFO_FOLDER,
    SFM_FOLDER,
    SceneModel,
    find_models,
    find_root,
)
from r2d2_kapture.stages.megadepth.scene import prepare, summary_of
from r2d2_kapture.stages.megadepth.scene_info import read_scene_list
from r2d2_kapture.stages.megadepth.workers import run_apart
from r2d2_kapture.types import Failure, Report

REPORT_NAME = "megadepth_report.json"


def run(
    config: MegadepthConfig,
    *,
    depth_root: Path,
    sfm_root: Path,
    output: Path,
    scenes: Path | None = None,
    options: RunOptions = RunOptions(),
) -> Report:
    """Prepare MegaDepth for training: undistort its models, compute overlaps of images.

    Download both parts by hand from www.cs.cornell.edu/projects/megadepth and unpack
    them: MegaDepth v1 (depth maps) and MegaDepth v1 SfM models. Scenes are prepared in
    parallel; an interrupted run resumes when the command is run again. Train on the
    output: kapture_r2d2_train --megadepth OUTPUT --train-scenes FILE.

    Args:
        config: settings.
        depth_root: depth maps: .../phoenix/S6/zl548/MegaDepth_v1, or the folder that it
            was unpacked into.
        sfm_root: SfM models: .../MegaDepth_v1_SfM, or the folder that it was unpacked
            into.
        output: folder for Undistorted_SfM/<scene>, scene_info/<scene>.<model>.npz, and
            scene_info/<scene>.<model>.json, which lists images left out with the
            reasons.
        scenes: text file of the scenes to prepare, one name per line, # for comments;
            by default all scenes with depth maps.
        options: how to run; workers are processes.

    Returns:
        A report that counts models, also written as JSON in ``output``.

    Raises:
        DatasetError: a root folder is missing.
        OutputError: the output is in use, cannot be written, or was made with other
            settings.
    """
    started = time.monotonic()
    depth_root = find_root(depth_root, DEPTH_FOLDER, "--depth-root", "depth maps")
    sfm_root = find_root(sfm_root, SFM_FOLDER, "--sfm-root", "SfM models")
    names = None if scenes is None else read_scene_list(scenes)
    models, missing = find_models(depth_root, sfm_root, output, names)
    with exclusive(output):
        todo = [
            model
            for model in models
            if options.force or summary_of(model, config) is None
        ]
        failed = _prepare_all(config, todo, options)
        broken = {failure.name for failure in failed}
        finished = [
            summary_of(model, config) for model in models if model.name not in broken
        ]
        summaries = [summary for summary in finished if summary is not None]
        report = Report(
            stage="megadepth",
            unit="model",
            done=len(todo) - len(failed),
            skipped=len(models) - len(todo),
            failed=(*missing, *failed),
            seconds=time.monotonic() - started,
            outputs=(output,),
            details={
                "images": sum(summary.usable for summary in summaries),
                "images_left_out": sum(summary.left_out for summary in summaries),
                "reasons": f"{output / SCENE_INFO_FOLDER}/*.json",
            },
        )
        return write_report(output / REPORT_NAME, report)


def _prepare_all(
    config: MegadepthConfig, models: Sequence[SceneModel], options: RunOptions
) -> list[Failure]:
    """Prepare models; a failure does not stop the others, unless strict."""
    threads = max(options.workers // max(len(models), 1), 1)
    jobs = [(model, config, options.force, threads) for model in models]
    reasons: dict[int, str] = {}
    with closing(run_apart(prepare, jobs, options.workers)) as results:
        bar = Progress("megadepth", "model", len(models), shown=options.progress)
        for number, result in bar.over(results):
            if isinstance(result, R2D2KaptureError):
                # an output in the way is for the user to decide, as is a full disk
                if options.strict or isinstance(result, OutputError):
                    raise result
                reasons[number] = str(result)
    return [
        Failure(name=models[number].name, reason=reasons[number])
        for number in sorted(reasons)
    ]
