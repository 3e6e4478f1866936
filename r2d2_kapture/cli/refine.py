"""kapture_r2d2_refine: keypoints moved to sub-pixel places, along verified matches."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.refine import RefineConfig

main = StageCommand(
    name="kapture_r2d2_refine",
    stage="r2d2_kapture.stages.refine",
    example="kapture_r2d2_refine --mapping mapping --features mapping "
    "--database map.db --output refined",
    settings={"refinement": RefineConfig},
    item="photograph",
)

if __name__ == "__main__":
    raise SystemExit(main())
