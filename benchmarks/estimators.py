r"""Estimators of absolute and relative poses, compared on the same correspondences.

    python benchmarks/estimators.py --data ../shared/data --output estimators

Features, matches and maps of each scene are made once and kept in the output (see
scene_correspondences.py); then each row takes seconds. Of images with known poses

- queries: each is localized in a map of others; the ratio is the geometric mean of its
  position error by that of the first row, with the 95 % interval of a bootstrap over
  queries;
- pairs: the relative pose of each by the true cameras; the difference is that of the
  AUC at 5 degrees to the first row, with the interval of a bootstrap over pairs;
- verification: which matches the two-view geometry of a pair keeps.

Rows of PoseLib need ``pip install poselib`` and are left out without it.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
from estimator_candidates import (
    ABSOLUTE,
    RELATIVE,
    VERIFICATION,
    Query,
    degrees_between,
    open_pair,
    pycolmap_absolute,
    with_poselib,
)
from measure import machine
from refine_rooms import write_room
from scene_correspondences import (
    PairSample,
    QuerySample,
    Scene,
    kapture_scene,
    keep_samples,
    multiview_scene,
    read_samples,
)

from r2d2_kapture.cli.common import EXIT_OK, run_command, show
from r2d2_kapture.config.extract import ExtractConfig
from r2d2_kapture.evaluation.curves import area_under_curve
from r2d2_kapture.extractors.registry import build_extractor
from r2d2_kapture.models.checkpoints import load_checkpoint
from r2d2_kapture.synthetic.room import textured_room

Array = npt.NDArray[np.float64]
Candidate = TypeVar("Candidate")

SCENES = ("lund_door", "imc_reichstag", "tum_fr2_desk", "gallery", "room")
TABLES = ("queries", "pairs", "verification")
FOLDS = {"tum_fr2_desk": 4}
"""Of neighbouring frames of a video several are left out at once."""
BOOTSTRAPS = 1000
RIGHT, WRONG = 2.0, 6.0
"""Pixels from the true epipolar line of a right and of a wrong match."""


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
    parser.add_argument("--tables", nargs="+", default=TABLES, choices=TABLES)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--pairs", type=int, default=60, help="greatest number of pairs of a scene"
    )
    options = parser.parse_args(arguments)
    show(machine())
    if not with_poselib():
        show("PoseLib is not installed (pip install poselib): its rows are left out")
    extractor = build_extractor(ExtractConfig(), load_checkpoint(options.model))
    seeds = range(options.seeds)
    for name in options.scenes:
        folder = options.output / name
        keep_samples(open_scene(name, options.data, folder), extractor, folder)
        pairs = read_samples(folder / "pairs", PairSample)
        pairs = pairs[:: -(-len(pairs) // options.pairs)]
        if "queries" in options.tables:
            show_rows(query_rows(name, folder, seeds))
        if "pairs" in options.tables:
            show_rows(pair_rows(name, pairs, seeds))
        if "verification" in options.tables:
            show_rows(verification_rows(name, pairs, seeds))
    return EXIT_OK


def open_scene(name: str, data: Path, output: Path) -> Scene:
    """One of SCENES."""
    if name == "gallery":
        return kapture_scene(name, data / "virtual_gallery" / "mapping")
    if name == "room":
        write_room(output, textured_room(0), 0, (12, 20), (1600, 1200))
        return kapture_scene(name, output / "mapping", output / "query")
    return multiview_scene(data / "multiview" / name, FOLDS.get(name))


def show_rows(rows: Iterator[Sequence[str]]) -> None:
    """Print a table in Markdown as its rows come, after a blank line."""
    head = next(rows)
    show("\n" + "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]))
    for row in rows:
        show("| " + " | ".join(row) + " |")


def bootstrap(values: Array) -> tuple[float, float]:
    """95 % interval of the mean."""
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(values), (BOOTSTRAPS, len(values)))
    low, high = np.percentile(values[drawn].mean(axis=1), [2.5, 97.5])
    return float(low), float(high)


def query_rows(name: str, folder: Path, seeds: Sequence[int]) -> Iterator[list[str]]:
    """A row an estimator of absolute poses."""
    samples = read_samples(folder / "queries", QuerySample)
    yield [
        f"{name}, {len(samples)} queries",
        *("median position", "median deg", "ratio of positions", "seeds", "ms"),
    ]
    queries = [
        Query(sample=sample, seed=seed, cam_from_world=pose, inliers=inliers)
        for seed in seeds
        for sample in samples
        for pose, inliers in [pycolmap_absolute(sample, seed)]
    ]
    first: Array | None = None
    for label, estimate in chosen(ABSOLUTE).items():
        started = time.process_time()
        poses = [estimate(query) for query in queries]
        cost = 1000 * (time.process_time() - started) / len(queries)
        errors = np.array([absolute_errors(p, q) for p, q in zip(poses, queries)])
        positions, degrees = errors.T.reshape(2, len(seeds), len(samples))
        first = positions if first is None else first
        ratios = np.log(positions / first).mean(axis=0)
        low, high = np.exp(bootstrap(ratios))
        yield [
            label,
            f"{np.median(positions):.3g}",
            f"{np.median(degrees):.4f}",
            f"{np.exp(ratios.mean()):.3f} ({low:.3f} to {high:.3f})",
            f"{np.median(positions, axis=1).std():.2g}",
            f"{cost:.0f}" if "PoseLib" in label or "pycolmap, 4" in label else "",
        ]


def absolute_errors(pose: Array, query: Query) -> tuple[float, float]:
    """Distance of the centres, and degrees between the rotations."""
    true = query.sample.cam_from_world
    apart = pose[:, :3].T @ pose[:, 3] - true[:, :3].T @ true[:, 3]
    return float(np.linalg.norm(apart)), degrees_between(pose, true)


def chosen(candidates: Mapping[str, Candidate]) -> dict[str, Candidate]:
    """Those that what is installed can run."""
    return {k: v for k, v in candidates.items() if "PoseLib" not in k or with_poselib()}


def pair_rows(
    name: str, samples: Sequence[PairSample], seeds: Sequence[int]
) -> Iterator[list[str]]:
    """A row an estimator of relative poses."""
    pairs = [open_pair(sample) for sample in samples]
    yield [
        f"{name}, {len(pairs)} pairs",
        *("AUC@5", "AUC@10", "AUC@20", "median deg", "AUC@5 - first", "seeds", "ms"),
    ]
    first: Array | None = None
    for label, estimate in chosen(RELATIVE).items():
        started = time.process_time()
        found = [[estimate(pair, seed) for pair in pairs] for seed in seeds]
        cost = 1000 * (time.process_time() - started) / len(pairs) / len(seeds)
        errors = np.array(
            [[pair.error(pose) for pair, pose in zip(pairs, row)] for row in found]
        )
        areas = area_under_curve(errors.ravel(), (5.0, 10.0, 20.0))
        scores = np.maximum(0, 1 - errors / 5)
        first = scores if first is None else first
        difference = (scores - first).mean(axis=0)
        low, high = bootstrap(difference)
        yield [
            label,
            *(f"{area:.3f}" for area in areas),
            f"{np.median(errors):.3f}",
            f"{difference.mean():+.3f} ({low:+.3f} to {high:+.3f})",
            f"{scores.mean(axis=1).std():.4f}",
            f"{cost:.0f}",
        ]


def verification_rows(
    name: str, samples: Sequence[PairSample], seeds: Sequence[int]
) -> Iterator[list[str]]:
    """A row a way to choose matches."""
    pairs = [open_pair(sample) for sample in samples]
    yield [
        f"{name}, {len(pairs)} pairs",
        *("matches a pair", f"of these within {RIGHT:g} px"),
        *(f"beyond {WRONG:g} px", f"kept of all within {RIGHT:g} px", "ms"),
    ]
    for label, keep in chosen(VERIFICATION).items():
        counts: dict[str, int] = defaultdict(int)
        started = time.process_time()
        kept = [(pair, keep(pair, seed)) for seed in seeds for pair in pairs]
        cost = 1000 * (time.process_time() - started) / len(kept)
        for pair, mask in kept:
            true = pair.distances(pair.cam2_from_cam1)
            counts["kept"] += int(mask.sum())
            counts["right"] += int((true[mask] <= RIGHT).sum())
            counts["wrong"] += int((true[mask] > WRONG).sum())
            counts["all right"] += int((true <= RIGHT).sum())
        yield [
            label,
            f"{counts['kept'] / len(kept):.0f}",
            f"{counts['right'] / max(counts['kept'], 1):.3f}",
            f"{counts['wrong'] / max(counts['kept'], 1):.4f}",
            f"{counts['right'] / max(counts['all right'], 1):.3f}",
            f"{cost:.0f}",
        ]


if __name__ == "__main__":
    raise SystemExit(main())
