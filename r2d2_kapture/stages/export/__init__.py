"""Export: features of a kapture dataset in the formats of other tools."""

from r2d2_kapture.stages.export.stage import run

__all__ = ["run"]
