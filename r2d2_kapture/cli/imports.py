"""kapture_r2d2_import: reconstructions of COLMAP as kapture datasets."""

from r2d2_kapture.cli.stage_command import StageCommand

main = StageCommand(
    name="kapture_r2d2_import",
    stage="r2d2_kapture.stages.imports",
    example="kapture_r2d2_import --model sparse/0 --images photos --output dataset",
    force="redo the import, also of another source",
)

if __name__ == "__main__":
    raise SystemExit(main())
