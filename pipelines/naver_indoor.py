r"""Gangnam Station and Hyundai Department Store: maps of floors, by NAVER LABS.

    python -m r2d2_kapture.pipelines.naver_indoor --dataset datasets --output work \
        --scenes GangnamStation_B1

evaluates the validation images and writes the poses of all to ``work/submission.txt``,
in the format of visuallocalization.net. Datasets are kapture's, as
kapture_download_dataset installs them. It takes all other flags of
kapture_r2d2_pipeline.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.known_benchmarks import benchmark_recipe, run_benchmark
from r2d2_kapture.config.benchmarks import Benchmark

BENCHMARK = Benchmark(
    title="Gangnam and Hyundai",
    scene="mapping/sensors/sensors.txt",
    places=("", "release", "*", "*/release", "*/*/release"),
    layout="floors such as GangnamStation/B1/release, each with the kapture datasets "
    "mapping, validation and test",
)


def naver_indoor(flags: Namespace) -> int:
    """Map floors of Gangnam Station and Hyundai Department Store, localize queries."""
    return run_benchmark(flags, BENCHMARK)


main = benchmark_recipe("naver_indoor", naver_indoor)

if __name__ == "__main__":
    raise SystemExit(main())
