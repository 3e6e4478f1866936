"""InLoc: a map of scanned cutouts, whose points are the scans'; photographs of a phone.

    python -m r2d2_kapture.pipelines.inloc --dataset inloc --output work

writes the poses of the photographs to ``work/submission.txt``, in the format of
visuallocalization.net. Nothing is triangulated. It takes all other flags of
kapture_r2d2_pipeline.
"""

from __future__ import annotations

from functools import partial

from jsonargparse import Namespace

from r2d2_kapture.cli.known_benchmarks import benchmark_recipe, run_benchmark
from r2d2_kapture.config.benchmarks import Benchmark

BENCHMARK = Benchmark(
    title="InLoc",
    scene="database/cutouts",
    places=("",),
    layout="database/cutouts/DUC1/000/DUC_cutout_000_0_0.jpg and .jpg.mat, "
    "database/alignments/DUC1/transformations/DUC_trans_000.txt, and query/iphone7",
)


def inloc(flags: Namespace) -> int:
    """Map the cutouts of InLoc by their scans and localize the photographs."""
    from r2d2_kapture.io.benchmarks.inloc import read_inloc

    cameras = flags.output / "cameras.json"
    return run_benchmark(flags, BENCHMARK, partial(read_inloc, cameras=cameras))


main = benchmark_recipe("inloc", inloc)

if __name__ == "__main__":
    raise SystemExit(main())
