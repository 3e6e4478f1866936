"""7-Scenes: a map of the training sequences of each scene, with points from depth maps.

    python -m r2d2_kapture.pipelines.seven_scenes --dataset 7scenes --output work

localizes the test sequences and prints median errors and recall at 5 cm and 5 degrees.
``--map.points-from triangulation`` needs no depth maps. It takes all other flags of
kapture_r2d2_pipeline.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.known_benchmarks import benchmark_recipe, run_benchmark
from r2d2_kapture.config.benchmarks import Benchmark

BENCHMARK = Benchmark(
    title="7-Scenes",
    scene="TrainSplit.txt",
    places=("", "*"),
    layout="scenes such as chess, each with TrainSplit.txt, TestSplit.txt and "
    "seq-01/frame-000000.color.png, .depth.png and .pose.txt",
    submitted=False,
)


def seven_scenes(flags: Namespace) -> int:
    """Map the training sequences of 7-Scenes and localize the test sequences."""
    from r2d2_kapture.io.benchmarks.rgbd import read_seven_scenes

    return run_benchmark(flags, BENCHMARK, read_seven_scenes)


main = benchmark_recipe("seven_scenes", seven_scenes)

if __name__ == "__main__":
    raise SystemExit(main())
