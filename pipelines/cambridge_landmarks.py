"""Cambridge Landmarks: a map of the training sequences of each landmark.

    python -m r2d2_kapture.pipelines.cambridge_landmarks --dataset D --output work

localizes the test sequences and prints median errors. Cameras come from the models of
VisualSFM next to the images. It takes all other flags of kapture_r2d2_pipeline.
"""

from __future__ import annotations

from jsonargparse import Namespace

from r2d2_kapture.cli.known_benchmarks import benchmark_recipe, run_benchmark
from r2d2_kapture.config.benchmarks import Benchmark

BENCHMARK = Benchmark(
    title="Cambridge Landmarks",
    scene="dataset_train.txt",
    places=("", "*"),
    layout="scenes such as ShopFacade, each with dataset_train.txt, dataset_test.txt, "
    "reconstruction.nvm and seq1/frame00001.png",
    submitted=False,
)


def cambridge_landmarks(flags: Namespace) -> int:
    """Map the training sequences of Cambridge Landmarks and localize the test ones."""
    from r2d2_kapture.io.benchmarks.outdoor import read_cambridge

    return run_benchmark(flags, BENCHMARK, read_cambridge)


main = benchmark_recipe("cambridge_landmarks", cambridge_landmarks)

if __name__ == "__main__":
    raise SystemExit(main())
