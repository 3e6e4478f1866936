"""kapture_r2d2_megadepth: preparation of MegaDepth for training."""

from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.megadepth import MegadepthConfig

main = StageCommand(
    name="kapture_r2d2_megadepth",
    stage="r2d2_kapture.stages.megadepth",
    example="kapture_r2d2_megadepth --depth-root MegaDepth_v1 --sfm-root "
    "MegaDepth_v1_SfM --output megadepth",
    settings={"preparation": MegadepthConfig},
    item="model",
    force="redo finished models",
    workers="processes; each prepares one model at a time and needs up to a few GB",
    count=2,
)

if __name__ == "__main__":
    raise SystemExit(main())
