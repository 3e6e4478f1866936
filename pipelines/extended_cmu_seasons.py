r"""Extended CMU Seasons: a map of the database of each slice; queries of all seasons.

    python -m r2d2_kapture.pipelines.extended_cmu_seasons --dataset cmu --output work \
        --scenes slice2 slice3

evaluates the half of the queries whose poses are public, and writes the poses of all to
``work/submission.txt``, in the format of visuallocalization.net. It takes all other
flags of kapture_r2d2_pipeline.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.known_benchmarks import benchmark_recipe, run_benchmark
from r2d2_kapture.config.benchmarks import Benchmark

BENCHMARK = Benchmark(
    title="Extended CMU Seasons",
    scene="ground-truth-database-images-slice*.txt",
    places=("", "slice*"),
    layout="intrinsics.txt, and slices such as slice2, each with database, query, "
    "camera-poses, test-images-slice2.txt and ground-truth-database-images-slice2.txt",
)


def extended_cmu_seasons(flags: Namespace) -> int:
    """Map the database of each slice of Extended CMU Seasons and localize queries."""
    from r2d2_kapture.io.benchmarks.outdoor import read_extended_cmu

    return run_benchmark(flags, BENCHMARK, read_extended_cmu)


main = benchmark_recipe("extended_cmu_seasons", extended_cmu_seasons)

if __name__ == "__main__":
    raise SystemExit(main())
