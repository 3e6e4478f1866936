"""kapture_r2d2_localize: camera poses of queries in a map."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.localize import LocalizeConfig

main = StageCommand(
    name="kapture_r2d2_localize",
    stage="r2d2_kapture.stages.localize",
    example="kapture_r2d2_localize --map MAP --query query --pairs pairs_query.txt "
    "--features mapping query --matches MATCHES --output LOCALIZED",
    settings={"localization": LocalizeConfig},
    item="query",
)

if __name__ == "__main__":
    raise SystemExit(main())
