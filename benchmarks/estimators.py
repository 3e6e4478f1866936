r"""Estimators of absolute and relative poses, compared on the same correspondences.

    python benchmarks/estimators.py --data ../shared/data --output estimators

Features, matches and maps of each scene are made once and kept in the output. Queries
are localized in a map of other images with their known poses: the first row, what the
package does, is the median position error in units of the scene, the others geometric
means of position errors by those of the first. Of pairs of images with known poses the
first row is the AUC at 5 degrees, the others are differences to it. Both with half of
the 95 % interval of a bootstrap over queries or pairs; ``all`` is the mean of the
scenes; ms are of one processor. Rows of PoseLib need ``pip install poselib``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pycolmap
from estimator_candidates import ABSOLUTE, RELATIVE, WITH_POSELIB
from measure import machine
from scene_correspondences import (
    SCENES,
    Pair,
    Query,
    correspondences,
    open_scene,
)

from r2d2_kapture.cli.common import EXIT_OK, run_command, show
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.models.checkpoints import load_checkpoint

Array = npt.NDArray[np.float64]
Sample = TypeVar("Sample", Query, Pair)
DEGREES = 5.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point."""
    return run_command(estimators, arguments)


def estimators(arguments: list[str]) -> int:
    """Keep the correspondences of every scene, print the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--model", default="fast_r2d2_v6")
    parser.add_argument("--scenes", nargs="+", default=SCENES, choices=SCENES)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--pairs", type=int, default=60, help="at most, of a scene")
    options = parser.parse_args(arguments)
    show(machine())
    extractor = build_extractor(ExtractConfig(), load_checkpoint(options.model))
    queries, pairs = {}, {}
    for name in options.scenes:
        folder = options.output / name
        splits = open_scene(name, options.data, folder)
        queries[name], found = correspondences(splits, extractor, folder)
        pairs[name] = found[:: -(-len(found) // options.pairs)]
    seeds = range(options.seeds)
    show_table("queries", ABSOLUTE, queries, seeds, position_log, True)
    show_table("pairs", RELATIVE, pairs, seeds, pose_score)
    return EXIT_OK


def position_log(query: Query, found: pycolmap.Rigid3d | None) -> float:
    """Logarithm of the distance between the centres."""
    if found is None:
        return float("inf")
    centers = (one.inverse().translation for one in (found, query.cam_from_world))
    return float(np.log(np.linalg.norm(np.subtract(*centers))))


def pose_score(pair: Pair, found: pycolmap.Rigid3d | None) -> float:
    """Share of 0 to DEGREES above the larger angle; its mean over pairs is the AUC."""
    if found is None:
        return 0.0
    true = pair.cam2_from_cam1
    turn = (found.rotation * true.rotation.inverse()).angle()
    across = np.linalg.norm(np.cross(found.translation, true.translation))
    along = abs(found.translation @ true.translation)
    error = np.degrees(max(turn, np.arctan2(across, along)))
    return max(0.0, 1 - float(error) / DEGREES)


def show_table(
    title: str,
    candidates: Mapping[str, Callable[[Sample, int], pycolmap.Rigid3d | None]],
    scenes: Mapping[str, Sequence[Sample]],
    seeds: Sequence[int],
    score: Callable[[Sample, pycolmap.Rigid3d | None], float],
    exponential: bool = False,
) -> None:
    """Print a table in Markdown, a row an estimator as soon as it is measured."""
    head = [title, "all", *(f"{n} ({len(each)})" for n, each in scenes.items()), "ms"]
    show("\n| " + " | ".join(head) + " |\n" + "|---" * len(head) + "|")
    first: list[Array] = []
    for label, estimate in candidates.items():
        if "PoseLib" in label and not WITH_POSELIB:
            continue
        scores: list[Array] = []
        started = time.process_time()
        for samples in scenes.values():
            found = [[estimate(sample, seed) for sample in samples] for seed in seeds]
            rows = [[score(*each) for each in zip(samples, row)] for row in found]
            scores.append(np.array(rows).mean(axis=0))
        seconds = (time.process_time() - started) / len(seeds)
        cost = 1000 * seconds / sum(map(len, scenes.values()))
        row = [label, *cells_of(scores, first, exponential), f"{cost:.0f}"]
        show("| " + " | ".join(row) + " |")
        first = first or scores


def cells_of(
    scores: Sequence[Array], first: Sequence[Array], exponential: bool
) -> list[str]:
    """Figures of all scenes and of each, compared with the first row after it."""
    if first:
        moved = [new - old for new, old in zip(scores, first)]
        return [cell(part, exponential) for part in (moved, *zip(moved))]
    if exponential:
        return ["1", *(f"{np.exp(np.median(each)):.2g}" for each in scores)]
    means = [float(each.mean()) for each in scores]
    return [f"{mean:.3f}" for mean in (np.mean(means), *means)]


def cell(scenes: Sequence[Array], exponential: bool) -> str:
    """Mean over scenes of their means, with half of its 95 % interval."""
    rng = np.random.default_rng(0)
    drawn = [
        each[rng.integers(0, len(each), (1000, len(each)))].mean(axis=1)
        for each in scenes
    ]
    low, high = np.percentile(np.mean(drawn, axis=0), [2.5, 97.5])
    middle = float(np.mean([each.mean() for each in scenes]))
    if exponential:
        low, middle, high = np.exp([low, middle, high])
    return f"{middle:{'' if exponential else '+'}.3f} ± {(high - low) / 2:.3f}"


if __name__ == "__main__":
    raise SystemExit(main())
