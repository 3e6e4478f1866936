"""RobotCar Seasons: a map of each location; queries of the rig by night, rain and snow.

    python -m r2d2_kapture.pipelines.robotcar_seasons --dataset robotcar --output work

writes the poses of all queries to ``work/submission.txt``, in the format of
visuallocalization.net. With robotcar_v2_train.txt in the dataset it is version 2, whose
training images join the map, else version 1. It takes all other flags of
kapture_r2d2_pipeline.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.known_benchmarks import benchmark_recipe, run_benchmark
from r2d2_kapture.config.benchmarks import Benchmark

BENCHMARK = Benchmark(
    title="RobotCar Seasons",
    scene="points3D.*",
    places=("", "3D-models/individual/colmap_reconstructions/*"),
    layout="images, intrinsics, extrinsics, and in 3D-models/individual the folders "
    "colmap_reconstructions/001_aligned and queries_per_location",
)


def robotcar_seasons(flags: Namespace) -> int:
    """Map each location of RobotCar Seasons and localize the queries of the rig."""
    from r2d2_kapture.io.benchmarks.robotcar import read_robotcar

    return run_benchmark(flags, BENCHMARK, read_robotcar)


main = benchmark_recipe("robotcar_seasons", robotcar_seasons)

if __name__ == "__main__":
    raise SystemExit(main())
