"""kapture_r2d2_export_model: networks for ONNX Runtime, OpenVINO and LibTorch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from r2d2_kapture.cli.common import resolve_presets
from r2d2_kapture.cli.repeated_flags import take_flag
from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.extract import EngineConfig, R2D2Config
from r2d2_kapture.config.presets import EXTRACTION, read_preset
from r2d2_kapture.config.settings import names_of


def presets_of_extraction(arguments: Sequence[str]) -> list[str]:
    """Put the presets of extraction first, without how they are computed.

    Raises:
        ConfigError: there is no such preset or file.
    """
    found = resolve_presets(arguments, EXTRACTION)
    count = len(take_flag(arguments, "--config")[0])
    return [*map(_without_computation, found[:count]), *found[count:]]


def _without_computation(config: str) -> str:
    """``--config`` with the settings themselves, if some are of the computation."""
    values = read_preset(config.partition("=")[2], EXTRACTION, "--config")
    kept = {k: v for k, v in values.items() if k not in names_of(EngineConfig)}
    return config if kept == values else f"--config={json.dumps(kept)}"


main = StageCommand(
    name="kapture_r2d2_export_model",
    stage="r2d2_kapture.stages.export_model",
    example="kapture_r2d2_export_model --to onnx --form extractor --size 640x480 "
    "--top-k 1000 --output r2d2_640x480.onnx",
    settings={"scales and keypoints of the extractor": R2D2Config},
    groups={"outputs": ["to", "form", "size", "pixels", "int8", "half"]},
    presets=presets_of_extraction,
    force="redo the export, or replace a file of others",
)

if __name__ == "__main__":
    raise SystemExit(main())
