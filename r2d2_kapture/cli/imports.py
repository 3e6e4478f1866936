"""kapture_r2d2_import: reconstructions and videos as kapture datasets."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.video import VideoConfig

main = StageCommand(
    name="kapture_r2d2_import",
    stage="r2d2_kapture.stages.imports",
    example="kapture_r2d2_import --model sparse/0 --images photos --output dataset",
    settings={"video": VideoConfig},
    force="redo the import, also of another source",
)

if __name__ == "__main__":
    raise SystemExit(main())
