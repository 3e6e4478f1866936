"""kapture_r2d2_export_model: networks for ONNX Runtime, OpenVINO and LibTorch."""

from __future__ import annotations

import json
from collections.abc import Sequence

from r2d2_kapture.cli.extraction_flags import (
    add_preset_flag,
    resolve_extraction_preset,
)
from r2d2_kapture.cli.stage_command import StageCommand
from r2d2_kapture.config.extract import EngineConfig, R2D2Config
from r2d2_kapture.config.presets import EXTRACTION, read_preset
from r2d2_kapture.config.settings import names_of


def presets_of_extraction(arguments: Sequence[str]) -> list[str]:
    """Put the presets of extraction first, without how they are computed.

    Raises:
        ConfigError: there is no such preset or file.
    """
    return [*map(_without_computation, resolve_extraction_preset(arguments))]


def _without_computation(word: str) -> str:
    """Of ``--config`` the settings themselves, if some are of the computation."""
    flag, _, text = word.partition("=")
    if flag != "--config":
        return word
    given = text.startswith("{")
    values = json.loads(text) if given else read_preset(text, EXTRACTION, flag)
    kept = {k: v for k, v in values.items() if k not in names_of(EngineConfig)}
    return word if kept == values else f"{flag}={json.dumps(kept)}"


main = StageCommand(
    name="kapture_r2d2_export_model",
    stage="r2d2_kapture.stages.export_model",
    example="kapture_r2d2_export_model --to onnx --form extractor --size 640x480 "
    "--top-k 1000 --output r2d2_640x480.onnx",
    settings={"scales and keypoints of the extractor": R2D2Config},
    groups={"outputs": ["to", "form", "size", "pixels", "int8", "half"]},
    presets=presets_of_extraction,
    flags=add_preset_flag,
    force="redo the export, or replace a file of others",
)

if __name__ == "__main__":
    raise SystemExit(main())
