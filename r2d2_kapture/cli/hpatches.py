"""kapture_r2d2_hpatches: matching accuracy on homography sequences."""

from r2d2_kapture.cli.benchmark import BenchmarkCommand
from r2d2_kapture.config.hpatches import HomographyConfig

main = BenchmarkCommand(
    name="hpatches",
    example="kapture_r2d2_hpatches --root hpatches-sequences-release --model r2d2_v3 "
    "--output DIR",
    settings=HomographyConfig,
    unit="sequence",
    inputs=("root",),
    evaluated="a folder of sequences to evaluate",
)

if __name__ == "__main__":
    raise SystemExit(main())
