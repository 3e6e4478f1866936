"""Speed of kapture_r2d2_match against a straightforward matcher in torch.

    python benchmarks/match_speed.py

Both match the same pairs in float32 and one process, in turn, several times. The
straightforward way reads the descriptors of a pair from disk, makes the whole matrix of
similarities and takes its arg-max along rows and along columns. Ours is the stage as
the command runs it: it also writes the matches. Descriptors are drawn in clusters on
one side of the sphere, and images show the same points with noise, so that
similarities spread as those of R2D2 do: 0.7 on average, 0.93 for the best.

Then one pair on one core, by processor time, which other programs do not lengthen: the
product that torch makes of the whole matrix, our matching, and the ratio of both, with
all instructions of this processor and with AVX2 only.

What bfloat16 and int8 could win is timed too: their products alone. A path through them
would have to score those rows again whose two best similarities lie within their error,
whose share is printed.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from measure import machine

from r2d2_kapture.config.match import MatchConfig
from r2d2_kapture.config.run import RunOptions
from r2d2_kapture.core.allocator import keep_heap
from r2d2_kapture.io.kapture.feature_store import FeatureType, open_feature_writer
from r2d2_kapture.io.kapture.match_store import open_matches
from r2d2_kapture.io.kapture.pairs import ImagePair, read_pairs, write_pairs
from r2d2_kapture.io.outputs.manifest import Manifest
from r2d2_kapture.matching.mutual_nn import match_mutual_nearest
from r2d2_kapture.stages.background_io import one_core_a_thread
from r2d2_kapture.stages.match import stage as match
from r2d2_kapture.types import FloatArray, LocalFeatures

NAME = "bench"
AVX2 = {
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
}
"""Environment that keeps torch from using later instructions."""
DIM = 128
CLUSTERS = 500
CLUSTER_SPREAD, POINT_SPREAD, VIEW_NOISE = 0.5, 0.3, 0.2
"""Distances of clusters to their mean, of points to clusters, of views to points."""

Matches = dict[tuple[str, str], np.ndarray]


def main() -> None:
    """Write descriptors, run both ways in turn, print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keypoints", type=int, default=5000)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=torch.get_num_threads())
    parser.add_argument("--sizes", type=int, nargs="+", default=[2000, 5000, 20000])
    parser.add_argument("--kernels", action="store_true", help="one pair only")
    options = parser.parse_args()
    keep_heap()
    if options.kernels:
        return print_kernels(options.sizes)
    print(machine())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_dataset(folder, options.keypoints, options.pairs)
        seconds: dict[str, list[float]] = {"straightforward": [], "ours": []}
        for _ in range(options.repeats):
            expected, taken = timed(lambda: straightforward(folder))
            seconds["straightforward"].append(taken)
            found, taken = timed(lambda: ours(folder, options.workers))
            seconds["ours"].append(taken)
        same = all(np.array_equal(found[pair], expected[pair]) for pair in expected)
    print_table(seconds, options.pairs)
    print(
        f"matches: {sum(map(len, found.values()))}, "
        f"{'identical' if same else 'NOT IDENTICAL'}"
    )
    print_kernels(options.sizes)
    subprocess.run(
        [sys.executable, __file__, "--kernels", "--sizes", *map(str, options.sizes)],
        env=os.environ | AVX2,
        check=True,
    )


def write_dataset(folder: Path, keypoints: int, pair_count: int) -> None:
    """Descriptors of as many images as the pairs need, all with each other."""
    images = next(n for n in itertools.count(2) if n * (n - 1) // 2 >= pair_count)
    names = [f"image {i:03d}.jpg" for i in range(images)]
    views = draw_views(keypoints)
    feature_type = FeatureType(
        root=folder,
        keypoints_type=NAME,
        descriptors_type=NAME,
        descriptor_dim=DIM,
    )
    manifest = Manifest(model={"name": NAME}, settings={}, versions={})
    with open_feature_writer(feature_type, manifest, RunOptions(force=True)) as writer:
        for name in names:
            writer.write(name, features(next(views)))
    every = (ImagePair(image1=a, image2=b) for a, b in itertools.combinations(names, 2))
    write_pairs(folder / "pairs.txt", itertools.islice(every, pair_count))


def draw_views(keypoints: int) -> Iterator[FloatArray]:
    """Descriptors of images that show some of the same points, with noise."""
    rng = np.random.default_rng(0)
    mean = unit(rng.normal(size=(1, DIM)))
    centres = near(np.repeat(mean, CLUSTERS, axis=0), CLUSTER_SPREAD, rng)
    clusters = rng.integers(CLUSTERS, size=3 * keypoints)
    points = near(centres[clusters], POINT_SPREAD, rng)
    while True:
        seen = rng.choice(len(points), keypoints, replace=False)
        yield near(points[seen], VIEW_NOISE, rng).astype(np.float32)


def near(rows: np.ndarray, distance: float, rng: np.random.Generator) -> np.ndarray:
    """Unit rows about so far from others."""
    return unit(rows + distance * unit(rng.normal(size=rows.shape)))


def unit(rows: np.ndarray) -> np.ndarray:
    """Rows scaled to length 1."""
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def features(descriptors: FloatArray) -> LocalFeatures:
    """Descriptors with dummy keypoints."""
    count = len(descriptors)
    return LocalFeatures(
        keypoints=np.zeros((count, 2), np.float32),
        scales=np.ones(count, np.float32),
        scores=np.zeros(count, np.float32),
        descriptors=descriptors,
        image_size=(640, 480),
    )


def timed(function: Callable[[], Matches]) -> tuple[Matches, float]:
    """What a function returns, and the seconds it took."""
    started = time.perf_counter()
    result = function()
    return result, time.perf_counter() - started


def read_rows(folder: Path, image: str) -> torch.Tensor:
    """Descriptors of an image, from disk."""
    path = folder / "reconstruction" / "descriptors" / NAME / f"{image}.desc"
    return torch.from_numpy(np.fromfile(path, np.float32).reshape(-1, DIM))


def straightforward(folder: Path) -> Matches:
    """The whole matrix and two arg-maxes, on all cores; nothing is written."""
    found = {}
    for pair in read_pairs(folder / "pairs.txt"):
        first, second = (read_rows(folder, image) for image in pair.names)
        similarity = first @ second.T
        forward, backward = similarity.argmax(1), similarity.argmax(0)
        rows = (backward[forward] == torch.arange(len(first))).nonzero()[:, 0]
        found[pair.names] = torch.stack([rows, forward[rows]], 1).numpy()
    return found


def ours(folder: Path, workers: int) -> Matches:
    """The stage, then its matches read back."""
    match.run(
        MatchConfig(gpu=-1),
        features=[folder],
        pairs=folder / "pairs.txt",
        output=folder,
        options=RunOptions(workers=workers, force=True, progress=False),
    )
    table = open_matches([folder], NAME)
    found = {}
    for pair in table.pairs:
        matches = table.read(*pair)
        found[pair] = np.zeros((0, 2)) if matches is None else matches.indices
    return found


def print_kernels(sizes: Sequence[int]) -> None:
    """A row for each number of keypoints, then what lower precision could win."""
    capability = torch.backends.cpu.get_cpu_capability()
    print(f"one pair, ms of one core ({capability}):")
    print("keypoints   product   matching   ratio   with --ratio 0.9")
    with one_core_a_thread():
        for count in sizes:
            first, second = map(torch.from_numpy, islice(draw_views(count), 2))
            whole = fastest(functools.partial(product_of_parts, first, second))
            ours = fastest(lambda: match_mutual_nearest(first, second))
            tested = fastest(lambda: match_mutual_nearest(first, second, ratio=0.9))
            print(
                f"{count:9d} {whole:9.1f} {ours:10.1f} {ours / whole:7.2f} "
                f"{tested:9.1f}"
            )
        first, second = map(torch.from_numpy, islice(draw_views(5000), 2))
        for name, (one, other) in lower_precisions(first, second).items():
            multiply = torch._int_mm if one.dtype == torch.int8 else torch.mm
            taken = fastest(
                lambda: [multiply(b, other.T) for b in one.tensor_split(24)]
            )
            print(
                f"5000 in {name}: product {taken:.1f} ms, rows undecided "
                f"{undecided_rows(first, second, one, other):.0%}"
            )


def product_of_parts(first: torch.Tensor, second: torch.Tensor) -> None:
    """The whole matrix by torch, into memory that is there; large ones in parts."""
    rows = min(len(first), 5000)
    part = torch.empty(rows, len(second))
    for block in first.tensor_split(-(-len(first) // rows)):
        torch.mm(block, second.T, out=part[: len(block)])


def fastest(function: Callable[[], object], repeats: int = 5) -> float:
    """Milliseconds of processor time of the fastest of some calls."""
    times = []
    for _ in range(repeats):
        started = time.thread_time()
        function()
        times.append(time.thread_time() - started)
    return 1000 * min(times)


def lower_precisions(
    first: torch.Tensor, second: torch.Tensor
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Both in bfloat16, and in int8 as multiples of 1/127 of a row's largest value."""
    return {
        "bfloat16": (first.bfloat16(), second.bfloat16()),
        "int8": (
            (first / steps(first)).round().to(torch.int8),
            (second / steps(second)).round().to(torch.int8),
        ),
    }


def steps(rows: torch.Tensor) -> torch.Tensor:
    """(N, 1) units of int8 rows."""
    return rows.abs().amax(1, keepdim=True) / 127


def undecided_rows(
    first: torch.Tensor, second: torch.Tensor, one: torch.Tensor, other: torch.Tensor
) -> float:
    """Share of rows whose two best similarities may be in the wrong order.

    With unit rows a and b, rounded to a' and b', |ab - a'b'| is at most |a - a'| +
    |b - b'|; storing a product below 1 in bfloat16 adds 2 ** -9. Two products may both
    be off.
    """
    error = 2**-9 if one.dtype == torch.bfloat16 else 0.0
    for rows, rounded in ((first, one), (second, other)):
        values = rounded.float() * (steps(rows) if one.dtype == torch.int8 else 1)
        error += float((rows - values).norm(dim=1).max())
    best = (first @ second.T).topk(2, dim=1).values
    return float((best[:, 0] - best[:, 1] < 2 * error).float().mean())


def print_table(seconds: dict[str, list[float]], pairs: int) -> None:
    """Medians, their spread, and the ratio."""
    baseline = statistics.median(seconds["straightforward"])
    for name, taken in seconds.items():
        median = statistics.median(taken)
        print(
            f"{name:16s} {median:6.2f} s ({min(taken):.2f}-{max(taken):.2f}), "
            f"{1000 * median / pairs:6.1f} ms a pair, ratio {baseline / median:.2f}"
        )


if __name__ == "__main__":
    main()
