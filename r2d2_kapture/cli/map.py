"""kapture_r2d2_map: a map, with poses if they are unknown, from a database."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.map import MapConfig

main = StageCommand(
    name="kapture_r2d2_map",
    stage="r2d2_kapture.stages.map",
    example="kapture_r2d2_map --mapping mapping --database map.db --output map",
    settings={"mapping": MapConfig},
)

if __name__ == "__main__":
    raise SystemExit(main())
