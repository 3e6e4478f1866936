"""kapture_r2d2_pair_poses: matches and relative poses of images of known pose."""

from r2d2_kapture.cli.benchmark import BenchmarkCommand
from r2d2_kapture.config.pair_poses import PairPosesConfig

main = BenchmarkCommand(
    name="pair_poses",
    example="kapture_r2d2_pair_poses --gt lund_door/gt.json --model r2d2_v3 --output "
    "DIR",
    settings=PairPosesConfig,
    unit="pair",
    inputs=("gt", "kapture_root"),
    evaluated="images to evaluate",
)

if __name__ == "__main__":
    raise SystemExit(main())
