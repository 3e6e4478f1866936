"""kapture_r2d2_verify: matches to a COLMAP database, geometrically verified."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.verify import VerifyConfig

main = StageCommand(
    name="kapture_r2d2_verify",
    stage="r2d2_kapture.stages.verify",
    example="kapture_r2d2_verify --mapping mapping --features mapping --matches work "
    "--pairs pairs.txt --database map.db --output verified",
    settings={"verification": VerifyConfig},
    groups={"outputs": ["database"]},
    item="pair",
)

if __name__ == "__main__":
    raise SystemExit(main())
