"""kapture_r2d2_match: matches of image pairs."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.match import MatchConfig

main = StageCommand(
    name="kapture_r2d2_match",
    stage="r2d2_kapture.stages.match",
    example="kapture_r2d2_match --features mapping query --pairs pairs.txt "
    "--output work",
    settings={"matching": MatchConfig},
    item="pair",
)

if __name__ == "__main__":
    raise SystemExit(main())
