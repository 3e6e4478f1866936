"""kapture_r2d2_export: features of a kapture dataset for other tools."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.origins import OriginConfig

main = StageCommand(
    name="kapture_r2d2_export",
    stage="r2d2_kapture.stages.export",
    example="kapture_r2d2_export --kapture-root mapping --to colmap-db --output "
    "colmap.db",
    settings={"pixel origins": OriginConfig},
    groups={"outputs": ["to", "camera_mode", "text"]},
    force="redo the export, or replace a file of others",
)

if __name__ == "__main__":
    raise SystemExit(main())
