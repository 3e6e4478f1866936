"""kapture_r2d2_pairs: lists of image pairs to match."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.pairs import PairsConfig

main = StageCommand(
    name="kapture_r2d2_pairs",
    stage="r2d2_kapture.stages.pairs",
    example="kapture_r2d2_pairs --mapping mapping --query query --features AP-GeM-LM18 "
    "--method global --top-k 5 --output pairs_query.txt",
    settings={"choice of pairs": PairsConfig},
    item="image",
)

if __name__ == "__main__":
    raise SystemExit(main())
