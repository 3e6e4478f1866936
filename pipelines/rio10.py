"""RIO10: a map of the first scan of each scene; later scans, after changes, localized.

    python -m r2d2_kapture.pipelines.rio10 --dataset rio10 --output work

evaluates the validation scans and writes the poses of all to ``work/submission.txt``,
in RIO10's format. It takes all other flags of kapture_r2d2_pipeline.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.known_benchmarks import benchmark_recipe, run_benchmark
from r2d2_kapture.config.benchmarks import Benchmark

BENCHMARK = Benchmark(
    title="RIO10",
    scene="seq??_01",
    places=("", "*", "*/*"),
    layout="folders such as seq01, each with seq01_01, seq01_02 and further scans of "
    "frame-000000.color.jpg, .rendered.depth.png and .pose.txt",
)


def rio10(flags: Namespace) -> int:
    """Map the first scan of each scene of RIO10 and localize the later ones."""
    from r2d2_kapture.io.benchmarks.rgbd import read_rio10

    return run_benchmark(flags, BENCHMARK, read_rio10)


main = benchmark_recipe("rio10", rio10)

if __name__ == "__main__":
    raise SystemExit(main())
